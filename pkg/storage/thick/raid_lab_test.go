//go:build lab

package thick_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/backendtest"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// newRAIDMachine is an engine on a group of so many fragile disks.
func newRAIDMachine(t *testing.T, n int) (*machine, []labtest.FragileDisk) {
	disks := labtest.FragileDisks(t, n)
	group := labtest.FragileGroup(t, "fragile", disks...)
	env, err := lvm.WriteConfig(t.Context(), hostexec.Host{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	kernel := &dm.Control{}
	t.Cleanup(func() { _ = kernel.Close() })
	return &machine{openEngine(t, group.Name, kernel, env), group, kernel}, disks
}

var layouts = []storage.Layout{
	{RAIDType: "raid1", Mirrors: 1},
	{RAIDType: "raid5", Stripes: 2},
	{RAIDType: "raid10", Stripes: 2, StripeBytes: 128 << 10, Mirrors: 1},
}

func ofLayout(l storage.Layout) storage.Class {
	return storage.Class{Type: storage.TypeThick, Layout: l}
}

// RAID volumes are created, snapshotted, restored, expanded and deleted as others are, and show nobody what was on the disks before.
func TestRAID(t *testing.T) {
	m, _ := newRAIDMachine(t, 4)
	ctx := t.Context()
	for _, layout := range layouts {
		class := ofLayout(layout)
		before, err := m.Capacity(ctx, class)
		if err != nil {
			t.Fatal(err)
		}
		v := m.activate(t, m.create(t, layout.RAIDType, class, nil))
		if got := labtest.Run(t, "lvs", "--noheadings", "-o", "segtype", m.vg.Name+"/"+filepath.Base(v.DevicePath)); !strings.Contains(got, layout.RAIDType) {
			t.Errorf("%s: LVM says %s", layout.RAIDType, got)
		}
		if after, err := m.Capacity(ctx, class); err != nil || before.AvailableBytes-after.AvailableBytes < v.SizeBytes {
			t.Errorf("%s: capacity %+v, then %+v, %v", layout.RAIDType, before, after, err)
		}
		expectZeroes(t, v, 0, v.SizeBytes)
		overwrite(t, v, "secret")
		backendtest.WriteDevice(t, v, "v1")
		s := m.cut(t, layout.RAIDType, v, storage.COWSize{})
		backendtest.WriteDevice(t, v, "v2")
		r := m.create(t, layout.RAIDType+" restored", class, &storage.Source{Kind: storage.SourceSnapshot, ID: s.ID})
		m.expect(t, r, "v1")
		if _, err := m.ExpandVolume(ctx, v.ID, 64*mib, 0); !errors.Is(err, storage.ErrInUse) {
			t.Errorf("%s: an active origin was expanded: %v", layout.RAIDType, err)
		}
		if err := m.DeleteSnapshot(ctx, s.ID); err != nil {
			t.Fatal(err)
		}
		if err := m.Deactivate(ctx, v.ID); err != nil {
			t.Fatal(err)
		}
		grown, err := m.ExpandVolume(ctx, v.ID, 64*mib, 0)
		if err != nil || grown.SizeBytes != 64*mib {
			t.Fatalf("%s: %+v, %v", layout.RAIDType, grown, err)
		}
		expectZeroes(t, m.activate(t, grown), 32*mib, 64*mib)
		m.expect(t, v, "v2")
		for _, v := range []storage.Volume{v, r} {
			if err := m.DeleteVolume(ctx, v.ID); err != nil {
				t.Fatal(err)
			}
		}
		if left := labtest.Run(t, "lvs", "-a", "--noheadings", "-o", "lv_name", m.vg.Name); strings.TrimSpace(left) != "" {
			t.Errorf("%s: left behind: %s", layout.RAIDType, left)
		}
	}
}

// overwrite fills a volume with a text.
func overwrite(t *testing.T, v storage.Volume, text string) {
	t.Helper()
	f, err := os.OpenFile(v.DevicePath, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(bytes.Repeat([]byte(text), int(v.SizeBytes)/len(text)))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func expectZeroes(t *testing.T, v storage.Volume, from, to int64) {
	t.Helper()
	f, err := os.Open(v.DevicePath)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block, zeroes := make([]byte, mib), make([]byte, mib)
	for at := from; at < to; at += mib {
		if _, err := f.ReadAt(block, at); err != nil || !bytes.Equal(block, zeroes) {
			t.Fatalf("%s at %d: %.20q, %v", v.Name, at, block, err)
		}
	}
}

func (m *machine) reasons(t *testing.T, v storage.Volume) []string {
	t.Helper()
	v, err := m.Volume(t.Context(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, c := range v.Conditions {
		out = append(out, string(c.Severity)+" "+c.Reason)
	}
	return out
}

// A disk fails below RAID volumes: their health says so, and their data stays readable and writable, also when they are activated anew.
// Once the disk is back, all is well again.
func TestRAIDDegraded(t *testing.T) {
	m, disks := newRAIDMachine(t, 4)
	ctx := t.Context()
	var volumes []storage.Volume
	for _, layout := range layouts {
		v := m.activate(t, m.create(t, layout.RAIDType, ofLayout(layout), nil))
		backendtest.WriteDevice(t, v, "v1")
		volumes = append(volumes, v)
		m.synchronized(t, v)
		if got := m.reasons(t, v); len(got) > 0 {
			t.Errorf("%s: %v", v.Name, got)
		}
	}
	disks[0].Fail()
	for _, v := range volumes {
		backendtest.WriteDevice(t, v, "v2")
		if got := m.reasons(t, v); !slices.Contains(got, "Degraded RAIDDegraded") {
			t.Errorf("%s: %v", v.Name, got)
		}
		m.expect(t, v, "v2") // and deactivates it
		if got := m.reasons(t, v); !slices.Contains(got, "Degraded DiskMissing") {
			t.Errorf("%s, inactive: %v", v.Name, got)
		}
		v = m.activate(t, v)
		backendtest.WriteDevice(t, v, "v3")
		if got := m.reasons(t, v); !slices.Contains(got, "Degraded RAIDDegraded") || !slices.Contains(got, "Degraded DiskMissing") {
			t.Errorf("%s, activated without the disk: %v", v.Name, got)
		}
		_, err := m.CreateSnapshot(ctx, storage.SnapshotSpec{Name: "of " + v.Name, SourceID: v.ID})
		if !errors.Is(err, storage.ErrDamaged) || !strings.Contains(err.Error(), "while PVs are missing") {
			t.Errorf("%s: a snapshot in a group that LVM does not change: %v", v.Name, err)
		}
	}

	disks[0].Heal()
	for _, v := range volumes {
		labtest.Run(t, "lvchange", "--refresh", m.vg.Name+"/"+filepath.Base(v.DevicePath))
		m.synchronized(t, v)
		if got := m.reasons(t, v); len(got) > 0 {
			t.Errorf("%s, healed: %v", v.Name, got)
		}
		m.expect(t, v, "v3")
		if err := m.DeleteVolume(ctx, v.ID); err != nil {
			t.Error(err)
		}
	}
}

// synchronized waits until a RAID volume has nothing to do.
func (m *machine) synchronized(t *testing.T, v storage.Volume) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		st, err := m.kernel.RAIDStatus(t.Context(), m.vg.Name, filepath.Base(v.DevicePath))
		if err != nil {
			t.Fatal(err)
		}
		if st.Action == "idle" && st.SyncedBytes == st.TotalBytes && st.Failed == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not synchronize: %+v", v.Name, st)
		}
	}
}
