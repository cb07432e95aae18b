//go:build lab

package thick_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/blockcopy"
	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/backendtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thick"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// halting is pkg/blockcopy, whose copies end half way while it says so.
type halting struct{ half atomic.Bool }

func (*halting) Zero(ctx context.Context, device string, o blockcopy.Options) (blockcopy.Progress, error) {
	return blockcopy.Zero(ctx, device, o)
}

func (f *halting) Copy(ctx context.Context, r blockcopy.Request, o blockcopy.Options) (blockcopy.Progress, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if f.half.Load() {
		told := o.OnCheckpoint
		o.BlockBytes, o.Parallelism, o.CheckpointInterval = 64<<10, 1, 1
		o.OnCheckpoint = func(p blockcopy.Progress) {
			told(p)
			cancel(errors.New("the disk is slow"))
		}
	}
	return blockcopy.Copy(ctx, r, o)
}

// Nothing is made of two sources of one name, in whichever groups they and their copies are, and a leftover that somebody holds open
// is in nobody's way.
func TestSourceOfAnotherTime(t *testing.T) {
	var groups []*labtest.Group
	for range 2 {
		groups = append(groups, labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool", PoolSize: "256m"}))
	}
	env, err := lvm.WriteConfig(t.Context(), hostexec.Host{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	kernel, filler := &dm.Control{}, &halting{}
	t.Cleanup(func() { _ = kernel.Close() })
	e, err := storage.New(t.Context(), storage.Options{
		Driver: backendtest.Driver, NodeID: backendtest.NodeID, Kernel: kernel,
		Groups:   []*lvm.Group{backendtest.OpenGroup(t, groups[0].Name, env), backendtest.OpenGroup(t, groups[1].Name, env)},
		Fill:     storage.FillOptions{Filler: filler, Wait: time.Minute, Checkpoint: time.Nanosecond},
		Backends: map[storage.Type]storage.Backend{storage.TypeThin: thin.New(thin.Options{Kernel: kernel}), storage.TypeThick: thick.New(kernel)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	m, ctx := &machine{e, groups[0], kernel}, t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	half := func(spec storage.VolumeSpec) {
		t.Helper()
		filler.half.Store(true)
		defer filler.half.Store(false)
		if _, err := m.CreateVolume(ctx, spec); !errors.Is(err, storage.ErrPending) {
			t.Fatalf("half a copy: %v, want ErrPending", err)
		}
	}
	a, b := m.activate(t, m.create(t, "a", thinClass, nil)), m.activate(t, m.create(t, "b", thickClass, nil))
	overwrite(t, a, "everything of a")

	// A snapshot is deleted while it is being restored, and cut again of something else.
	backendtest.WriteDevice(t, a, "v1")
	s := m.cut(t, "s", a, storage.COWSize{})
	spec := storage.VolumeSpec{Name: "r", Access: storage.AccessBlock, Class: thickClass, Source: &storage.Source{Kind: storage.SourceSnapshot, ID: s.ID}}
	half(spec)
	must(m.DeleteSnapshot(ctx, s.ID))
	backendtest.WriteDevice(t, a, "v2")
	m.cut(t, "s", a, storage.COWSize{})
	if _, err := m.CreateVolume(ctx, spec); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("of a snapshot that is gone: %v, want ErrNotFound", err)
	}
	m.expect(t, m.create(t, "r", thickClass, spec.Source), "v2")
	if tags := labtest.Run(t, "lvs", "--noheadings", "-o", "lv_tags", groups[0].Name+"/"+storage.VolumeLV("r")); strings.Contains(tags, "lvmsnap.from=") {
		t.Errorf("a complete copy has the tags %s", tags)
	}

	// The clone of a volume into another group is deleted half way, and what it was copied from is open and cannot go with it.
	backendtest.WriteDevice(t, b, "of b")
	left := func() string {
		t.Helper()
		for _, name := range strings.Fields(labtest.Run(t, "lvs", "--noheadings", "-o", "lv_name", groups[0].Name)) {
			if strings.HasPrefix(name, "csi-c-") {
				return name
			}
		}
		return ""
	}
	spec = storage.VolumeSpec{
		Name: "n", Access: storage.AccessBlock, Class: storage.Class{Type: storage.TypeThick, VolumeGroup: groups[1].Name},
		Source: &storage.Source{Kind: storage.SourceVolume, ID: a.ID},
	}
	half(spec)
	name := left()
	labtest.Run(t, "lvchange", "--yes", "--activate", "y", "--ignoreactivationskip", groups[0].Name+"/"+name)
	release := backendtest.HoldDevice(t, storage.Volume{DevicePath: groups[0].Device(name)})
	must(m.DeleteVolume(ctx, storage.Handle{NodeHash: storage.NodeHash(backendtest.NodeID), LV: storage.VolumeLV("n")}.String()))
	began := time.Now()
	m.cut(t, "beside it", b, storage.COWSize{})
	m.expect(t, m.create(t, "beside it", thinClass, nil), "")
	t.Logf("three changes beside a leftover that is open took %s", time.Since(began).Round(time.Millisecond))
	if left() != name {
		t.Errorf("left: %q, want %q", left(), name)
	}
	release()
	spec.Source = &storage.Source{Kind: storage.SourceVolume, ID: b.ID}
	m.expect(t, m.create(t, "n", spec.Class, spec.Source), "of b")

	// The same with nothing in its way leaves nothing.
	spec.Name, spec.Source = "n2", &storage.Source{Kind: storage.SourceVolume, ID: a.ID}
	half(spec)
	must(m.DeleteVolume(ctx, storage.Handle{NodeHash: storage.NodeHash(backendtest.NodeID), LV: storage.VolumeLV("n2")}.String()))
	if name := left(); name != "" {
		t.Errorf("left: %s", name)
	}
}
