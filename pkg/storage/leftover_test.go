package storage_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thick"
)

// leftover leaves the snapshot that a clone of a thin volume was copied from.
func (h *host) leftover(t *testing.T, v storage.Volume) (name string) {
	t.Helper()
	h.FailNext(lvmtest.Verb("lvremove"), "Internal error.", 5)
	_, err := h.CreateVolume(t.Context(), copySpec(thickClass, storage.SourceVolume, v.ID))
	must(t, err)
	left := h.clones(t)
	if len(left) != 1 {
		t.Fatalf("left: %v", left)
	}
	return left[0]
}

// A leftover that somebody else has removed meanwhile is no reason to say that what a call removes is gone.
func TestSweepIsLate(t *testing.T) {
	h := newHost(t)
	ctx := t.Context()
	v := h.volume(t, "v")
	h.write(t, v, "v1")
	gone := func() {
		h.leftover(t, v)
		h.FailNext(lvmtest.Verb("lvremove"), `Failed to find logical volume "vg0/csi-c-x"`, 5)
	}
	r := storage.Handle{NodeHash: storage.NodeHash(node), LV: storage.VolumeLV("r")}.String()
	s, err := h.cut(ctx, "s", v)
	must(t, err)
	gone()
	must(t, h.DeleteSnapshot(ctx, s.ID))
	if slices.Contains(h.left(), lvName(t, s.ID)) {
		t.Error("a deleted snapshot is still there")
	}
	must(t, h.DeleteVolume(ctx, r))
	gone()
	h.unstage(t, v)
	if len(h.active([]string{lvName(t, v.ID)})) > 0 {
		t.Error("a deactivated volume is still active")
	}
	must(t, h.DeleteVolume(ctx, r))
	gone()
	must(t, h.DeleteVolume(ctx, v.ID))
	if slices.Contains(h.left(), lvName(t, v.ID)) {
		t.Error("a deleted volume is still there")
	}
}

// A leftover that somebody holds open is in nobody's way, and costs nobody LVM's attempts to remove it.
func TestLeftoverInUse(t *testing.T) {
	h := newHost(t)
	ctx := t.Context()
	v := h.volume(t, "v")
	h.write(t, v, "v1")
	name := h.leftover(t, v)
	must(t, lvm.NewClient(h.LVM, group).Activate(ctx, name))
	release := h.Open(group, name)
	h.ResetCommands()
	_, err := h.cut(ctx, "s", v)
	must(t, err)
	h.unstage(t, v)
	if got := h.content(t, v); got != "v1" {
		t.Errorf("it has %q", got)
	}
	if tried := slices.DeleteFunc(h.Commands(), func(c []string) bool { return c[0] != "lvremove" }); len(tried) > 0 {
		t.Errorf("tried: %q", tried)
	}
	release()
	h.unstage(t, v)
	if left := h.clones(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// One in a pool that can remove nothing, or does not answer, stays whole, and thick volumes go on beside it.
func TestLeftoverInAnIllPool(t *testing.T) {
	for name, ail := range map[string]func(h *host) (cure func()){
		"read-only": func(h *host) func() {
			h.SetPoolMode(group, pool, "ro", false)
			return func() { h.SetPoolMode(group, pool, "rw", false) }
		},
		"silent": func(h *host) func() { return h.SilencePool(group, pool) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHost(t)
				ctx := t.Context()
				v := h.volume(t, "v")
				h.write(t, v, "v1")
				left := h.leftover(t, v)
				cure := ail(h)
				h.ResetCommands()
				x, err := h.CreateVolume(ctx, thickSpec("x"))
				h.write(t, x, "of x")
				if tried := slices.DeleteFunc(h.Commands(), func(c []string) bool { return c[0] != "lvremove" }); err != nil || len(tried) > 0 {
					t.Errorf("%v; tried: %q", err, tried)
				}
				if !slices.Contains(h.left(), left) || h.content(t, x) != "of x" {
					t.Errorf("left: %v; x has %q", h.left(), h.content(t, x))
				}
				cure()
				synctest.Wait()
				must(t, h.Deactivate(ctx, x.ID))
				if left := h.clones(t); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			})
		})
	}
}

// Of what exists no answer is final, though its pool has failed: who believes that nothing was left would leave it for ever.
func TestRetryWhilePoolFailed(t *testing.T) {
	h := newHost(t)
	ctx := t.Context()
	v := h.volume(t, "v")
	h.write(t, v, "v1")
	s, err := h.cut(ctx, "s", v)
	must(t, err)
	h.SetPoolMode(group, pool, "Fail", false)
	_, cutErr := h.cut(ctx, "s", v)
	_, createErr := h.CreateVolume(ctx, storage.VolumeSpec{Name: "v", RequiredBytes: 8 * mib, Access: storage.AccessBlock})
	for what, err := range map[string]error{"CreateSnapshot": cutErr, "CreateVolume": createErr} {
		if !errors.Is(err, storage.ErrBusy) {
			t.Errorf("%s: %v, want ErrBusy", what, err)
		}
	}
	h.SetPoolMode(group, pool, "rw", false)
	again, err := h.cut(ctx, "s", v)
	must(t, err)
	r, err := h.restore(ctx, again.ID, 0)
	must(t, err)
	if got := h.content(t, r); again.ID != s.ID || !again.CreatedAt.Equal(s.CreatedAt) || got != "v1" {
		t.Errorf("%+v, with %q", again, got)
	}
}

// recut answers for a COW snapshot that is lost, and before it does, it has that replaced.
type recut struct {
	*lvmtest.LVM
	calls atomic.Int32
	lost  func()
}

func (k *recut) SnapshotStatus(ctx context.Context, g, s string) (dm.SnapshotStatus, error) {
	st, err := k.LVM.SnapshotStatus(ctx, g, s)
	if k.calls.Add(1) == 2 && k.lost != nil { // the first is for the watch's look at the group
		k.lost()
	}
	return st, err
}

// Between the watch's look at a snapshot that is lost and its turn, somebody deletes it and cuts another of its name: that is not
// lost.
func TestLostSnapshotIsReplaced(t *testing.T) {
	k := &recut{LVM: lvmtest.New()}
	k.AddGroup(group, 100<<30)
	e, err := openWith(t.Context(), t, k.LVM, func(o *storage.Options) {
		o.Kernel = k
		o.Backends = map[storage.Type]storage.Backend{storage.TypeThick: thick.New(k)}
	}, group)
	must(t, err)
	h := &host{k.LVM, e}
	v := h.thick(t)
	h.write(t, v, "v1")
	spec := storage.SnapshotSpec{Name: "s", SourceID: v.ID, COW: storage.COWSize{Bytes: 4 * mib}}
	s, err := h.CreateSnapshot(t.Context(), spec)
	must(t, err)
	h.SetCOWUsage(group, lvName(t, s.ID), 8*mib)
	h.write(t, v, "v2")
	replaced := make(chan int32, 1)
	k.lost = func() {
		must(t, h.DeleteSnapshot(t.Context(), s.ID))
		_, err := h.CreateSnapshot(t.Context(), spec)
		must(t, err)
		replaced <- k.calls.Load()
	}
	k.calls.Store(0)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	then := <-replaced
	eventually(t, "two more looks", func() bool { return k.calls.Load() > then+20 })
	cancel()
	must(t, <-ended)
	found, err := h.Snapshot(t.Context(), s.ID)
	must(t, err)
	r, err := h.restore(t.Context(), s.ID, 0)
	must(t, err)
	if got := h.content(t, r); !found.Ready || got != "v2" || h.Stats().COWLost != 0 {
		t.Errorf("%+v, restored as %q; %d lost", found, got, h.Stats().COWLost)
	}
}
