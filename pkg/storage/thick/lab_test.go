//go:build lab

package thick_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/backendtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thick"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const mib = int64(1) << 20

// The contract on real LVM, through the shell as in production.
func TestContractOnLVM(t *testing.T) {
	vg := labtest.VolumeGroup(t, labtest.Options{Disks: 2})
	env, err := lvm.WriteConfig(t.Context(), hostexec.Host{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	backendtest.Run(t, func(t *testing.T) *backendtest.Fixture {
		kernel := &dm.Control{}
		t.Cleanup(func() {
			_ = kernel.Close()
			labtest.Run(t, "lvremove", "--yes", vg.Name)
		})
		open := func(t *testing.T) *storage.Engine { return openEngine(t, vg.Name, kernel, env) }
		return &backendtest.Fixture{
			Engine: open(t), Reopen: open, Type: storage.TypeThick, Group: vg.Name,
			Admin: lvm.NewClient(lvm.Exec{Runner: hostexec.Host{}, Env: env}, vg.Name),
			Write: backendtest.WriteDevice, Read: backendtest.ReadDevice, Hold: backendtest.HoldDevice,
		}
	})
}

func openEngine(t *testing.T, vg string, kernel dm.Kernel, env []string) *storage.Engine {
	e, err := storage.New(t.Context(), storage.Options{
		Driver: backendtest.Driver, NodeID: backendtest.NodeID, Kernel: kernel,
		Groups: []*lvm.Group{backendtest.OpenGroup(t, vg, env)},
		Fill:   storage.FillOptions{Wait: time.Minute},
		Backends: map[storage.Type]storage.Backend{
			storage.TypeThin:  thin.New(thin.Options{Kernel: kernel}),
			storage.TypeThick: thick.New(kernel),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// machine is an engine on a group with a thin pool, with shorthands that fail the test.
type machine struct {
	*storage.Engine
	vg     *labtest.Group
	kernel *dm.Control
}

func newMachine(t *testing.T) *machine {
	vg := labtest.VolumeGroup(t, labtest.Options{Disks: 2, ThinPool: "pool", PoolSize: "512m"})
	env, err := lvm.WriteConfig(t.Context(), hostexec.Host{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	kernel := &dm.Control{}
	t.Cleanup(func() { _ = kernel.Close() })
	return &machine{openEngine(t, vg.Name, kernel, env), vg, kernel}
}

func (m *machine) create(t *testing.T, name string, class storage.Class, source *storage.Source) storage.Volume {
	t.Helper()
	spec := storage.VolumeSpec{Name: name, Access: storage.AccessBlock, Class: class, Source: source}
	if source == nil {
		spec.RequiredBytes = 32 * mib
	}
	v, err := m.CreateVolume(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (m *machine) activate(t *testing.T, v storage.Volume) storage.Volume {
	t.Helper()
	v, err := m.Activate(t.Context(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (m *machine) expect(t *testing.T, v storage.Volume, want string) {
	t.Helper()
	if got := backendtest.ReadDevice(t, m.activate(t, v)); got != want {
		t.Errorf("%s has %q, want %q", v.Name, got, want)
	}
	if err := m.Deactivate(t.Context(), v.ID); err != nil {
		t.Error(err)
	}
}

func (m *machine) cut(t *testing.T, name string, v storage.Volume, cow storage.COWSize) storage.Snapshot {
	t.Helper()
	s, err := m.CreateSnapshot(t.Context(), storage.SnapshotSpec{Name: name, SourceID: v.ID, COW: cow})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

var (
	thinClass  = storage.Class{Type: storage.TypeThin}
	thickClass = storage.Class{Type: storage.TypeThick}
)

// A snapshot of either type restores into either class, and so does a clone.
func TestCopiesBetweenTypes(t *testing.T) {
	m := newMachine(t)
	for from, class := range map[string]storage.Class{"thin": thinClass, "thick": thickClass} {
		v := m.create(t, from, class, nil)
		backendtest.WriteDevice(t, m.activate(t, v), "v1")
		s := m.cut(t, from, v, storage.COWSize{})
		backendtest.WriteDevice(t, m.activate(t, v), "v2")
		for to, class := range map[string]storage.Class{"thin": thinClass, "thick": thickClass} {
			r := m.create(t, from+" to "+to, class, &storage.Source{Kind: storage.SourceSnapshot, ID: s.ID})
			if r.Class.Type != class.Type {
				t.Errorf("restored as %+v", r.Class)
			}
			m.expect(t, r, "v1")
			m.expect(t, m.create(t, from+" cloned to "+to, class, &storage.Source{Kind: storage.SourceVolume, ID: v.ID}), "v2")
		}
		if err := m.Deactivate(t.Context(), v.ID); err != nil {
			t.Error(err)
		}
		if err := m.DeleteVolume(t.Context(), v.ID); err != nil {
			t.Error(err)
		}
		m.expect(t, m.create(t, from+" after all", storage.Class{}, &storage.Source{Kind: storage.SourceSnapshot, ID: s.ID}), "v1")
		if err := m.DeleteSnapshot(t.Context(), s.ID); err != nil {
			t.Error(err)
		}
	}
	if left := labtest.Run(t, "lvs", "--noheadings", "-o", "lv_name", m.vg.Name); strings.Contains(left, "csi-c-") || strings.Contains(left, "csi-d-") || strings.Contains(left, "csi-s-") {
		t.Errorf("left behind:\n%s", left)
	}
}

// Striped volumes are as large as they say, and are restored and cloned at the size that was asked for.
func TestStripes(t *testing.T) {
	m := newMachine(t)
	spec := storage.VolumeSpec{
		Name: "striped", RequiredBytes: 4 * mib, Access: storage.AccessBlock,
		Class: storage.Class{Type: storage.TypeThick, Layout: storage.Layout{Stripes: 2}},
	}
	v, err := m.CreateVolume(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	found, err := m.Volume(t.Context(), v.ID)
	if err != nil || found.SizeBytes != 8*mib || v.SizeBytes != 8*mib || found.RequestedBytes != 4*mib {
		t.Errorf("created %+v, found %+v, %v", v, found, err)
	}
	m.expect(t, v, "")
	backendtest.WriteDevice(t, m.activate(t, v), "v1")
	s := m.cut(t, "s", v, storage.COWSize{})
	if found, err := m.Snapshot(t.Context(), s.ID); err != nil || found.SizeBytes != 4*mib || s.SizeBytes != 4*mib {
		t.Errorf("cut %+v, found %+v, %v", s, found, err)
	}
	for kind, id := range map[storage.SourceKind]string{storage.SourceSnapshot: s.ID, storage.SourceVolume: v.ID} {
		spec.Name, spec.Source = string(kind), &storage.Source{Kind: kind, ID: id}
		r, err := m.CreateVolume(t.Context(), spec)
		if err != nil || r.SizeBytes != 8*mib || r.RequestedBytes != 4*mib {
			t.Fatalf("%s: %+v, %v", kind, r, err)
		}
		m.expect(t, r, "v1")
	}
}

// A COW that overflows loses its snapshot, and everybody is told, also once nothing in the kernel tells.
func TestOverflow(t *testing.T) {
	m := newMachine(t)
	v := m.create(t, "v", thickClass, nil)
	v = m.activate(t, v)
	s := m.cut(t, "s", v, storage.COWSize{Bytes: 4 * mib})
	f, err := os.OpenFile(filepath.Join("/dev", m.vg.Name, filepath.Base(v.DevicePath)), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, 16*mib)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	for _, when := range []string{"active", "inactive"} {
		found, err := m.Snapshot(t.Context(), s.ID)
		if err != nil || found.Ready || len(found.Conditions) == 0 {
			t.Errorf("%s: %+v, %v", when, found, err)
		}
		_, err = m.CreateVolume(t.Context(), storage.VolumeSpec{
			Name: "r", Access: storage.AccessBlock, Source: &storage.Source{Kind: storage.SourceSnapshot, ID: s.ID},
		})
		if !errors.Is(err, storage.ErrDamaged) {
			t.Errorf("%s: restore: %v", when, err)
		}
		if err := m.Deactivate(t.Context(), v.ID); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.DeleteSnapshot(t.Context(), s.ID); err != nil {
		t.Error(err)
	}
	if err := m.DeleteVolume(t.Context(), v.ID); err != nil {
		t.Error(err)
	}
}

var secret = bytes.Repeat([]byte("secret"), 1<<20/6+1)[:1<<20]

// dirty leaves a deleted tenant's blocks on free extents.
func (m *machine) dirty(t *testing.T, size int64) {
	t.Helper()
	v, err := m.CreateVolume(t.Context(), storage.VolumeSpec{Name: "dirty", RequiredBytes: size, Access: storage.AccessBlock, Class: thickClass})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(m.activate(t, v).DevicePath, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for at := int64(0); at < size; at += mib {
		if _, err := f.WriteAt(secret, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Sync(), f.Close(), m.Deactivate(t.Context(), v.ID), m.DeleteVolume(t.Context(), v.ID)); err != nil {
		t.Fatal(err)
	}
}

// A block volume that grows under its user never shows what others left on the extents that it gets.
func TestGrowOnline(t *testing.T) {
	m := newMachine(t)
	ctx := t.Context()
	m.dirty(t, 256*mib)
	v := m.activate(t, m.create(t, "v", thickClass, nil))
	release := backendtest.HoldDevice(t, v)
	backendtest.WriteDevice(t, v, "v1")
	for _, size := range []int64{64 * mib, 160 * mib} {
		grown, err := m.ExpandVolume(ctx, v.ID, size, 0)
		if err != nil || grown.SizeBytes != size || grown.RequestedBytes != size {
			t.Fatalf("%+v, %v", grown, err)
		}
	}
	f, err := os.Open(v.DevicePath)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block, zeroes := make([]byte, mib), make([]byte, mib)
	for at := mib; at < 160*mib; at += mib {
		if _, err := f.ReadAt(block, at); err != nil || !bytes.Equal(block, zeroes) {
			t.Fatalf("at %d: %.20q, %v", at, block, err)
		}
	}
	release()
	_ = f.Close()
	m.expect(t, v, "v1")
	if left := strings.Fields(labtest.Run(t, "lvs", "--noheadings", "-o", "lv_name", m.vg.Name)); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}

// A volume with a file system grows at once, onto what others left. Its snapshot becomes another such volume, and no block volume.
func TestGrowFileSystem(t *testing.T) {
	m := newMachine(t)
	ctx := t.Context()
	spec := storage.VolumeSpec{Name: "v", RequiredBytes: 8 * mib, Access: storage.AccessMount, FSType: "ext4", Class: thickClass}
	v, err := m.CreateVolume(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	m.dirty(t, 32*mib)
	v = m.activate(t, v)
	backendtest.WriteDevice(t, v, "v1")
	early := m.cut(t, "early", v, storage.COWSize{})
	r := m.create(t, "of early", thickClass, &storage.Source{Kind: storage.SourceSnapshot, ID: early.ID})
	m.expect(t, r, "v1")
	if err := errors.Join(m.DeleteVolume(ctx, r.ID), m.DeleteSnapshot(ctx, early.ID)); err != nil {
		t.Fatal(err)
	}
	if v, err = m.ExpandVolume(ctx, v.ID, 40*mib, 0); err != nil {
		t.Fatal(err)
	}
	device, err := os.ReadFile(v.DevicePath)
	if err != nil || !bytes.Contains(device[8*mib:], secret[:64<<10]) {
		t.Fatalf("nothing was left where it grew, and nothing is tested: %v", err)
	}
	s := m.cut(t, "s", v, storage.COWSize{})
	for _, class := range []storage.Class{thickClass, thinClass} {
		spec := storage.VolumeSpec{Name: "r", Access: storage.AccessBlock, Class: class, Source: &storage.Source{Kind: storage.SourceSnapshot, ID: s.ID}}
		if _, err := m.CreateVolume(ctx, spec); !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("as a block volume: %v", err)
		}
		spec.Access = storage.AccessMount
		r, err := m.CreateVolume(ctx, spec)
		if err != nil {
			t.Fatal(err)
		}
		m.expect(t, r, "v1")
		clone := storage.VolumeSpec{Name: "c", Access: storage.AccessBlock, Class: class, Source: &storage.Source{Kind: storage.SourceVolume, ID: r.ID}}
		if _, err := m.CreateVolume(ctx, clone); !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("a clone of the copy as a block volume: %v", err)
		}
		if err := m.DeleteVolume(ctx, r.ID); err != nil {
			t.Fatal(err)
		}
	}
}
