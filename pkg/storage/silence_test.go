package storage_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// ready says of each snapshot, by its name, whether it can be restored.
func (h *host) ready(t *testing.T) map[string]bool {
	t.Helper()
	list, err := h.Snapshots(t.Context(), storage.SnapshotQuery{})
	must(t, err)
	out := map[string]bool{}
	for _, s := range list {
		out[s.Name] = s.Ready
	}
	return out
}

// saysSilent checks an error for who is silent, and for how long.
func saysSilent(t *testing.T, what string, err error, age string) {
	t.Helper()
	if !errors.Is(err, storage.ErrBusy) || !strings.Contains(err.Error(), "thin pool vg0/pool has not answered for "+age) ||
		!strings.Contains(err.Error(), "vg0-pool_tdata") {
		t.Errorf("%s: %v, want ErrBusy and %s", what, err, age)
	}
}

// A pool that does not answer takes nobody with it who can do without it, and of what is in it nothing is claimed that is not known.
func TestPoolDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, group, "vg1")
		ctx := t.Context()
		v := h.volume(t, "v")
		s, err := h.cut(ctx, "s", v)
		must(t, err)
		active := h.volume(t, "active")
		h.write(t, active, "v1")
		answer := h.SilencePool(group, pool)
		defer func() { answer() }()
		h.ResetCommands()
		began := time.Now()
		if got := h.ready(t); !got["s"] || time.Since(began) != 3*time.Second {
			t.Errorf("%v after %s", got, time.Since(began))
		}
		began = time.Now()
		for range 100 {
			h.ready(t)
		}
		list, err := h.Volumes(ctx)
		must(t, err)
		if len(list) != 2 || len(list[0].Conditions) != 1 || list[0].Conditions[0].Reason != storage.PoolNotAnswering {
			t.Errorf("volumes: %+v", list)
		}
		_, err = h.Capacity(ctx, storage.Class{})
		saysSilent(t, "Capacity", err, "3s")
		_, err = h.cut(ctx, "new", v)
		saysSilent(t, "CreateSnapshot", err, "3s")
		_, err = h.restore(ctx, s.ID, 8*mib)
		saysSilent(t, "restore", err, "3s")
		saysSilent(t, "DeleteSnapshot", h.DeleteSnapshot(ctx, s.ID), "3s")
		_, err = h.Activate(ctx, v.ID)
		saysSilent(t, "Activate", err, "3s")
		saysSilent(t, "Deactivate", h.Deactivate(ctx, active.ID), "3s")
		_, err = h.ExpandVolume(ctx, v.ID, 16*mib, 0)
		saysSilent(t, "ExpandVolume", err, "3s")
		if again, err := h.cut(ctx, "s", v); err != nil || !again.Ready {
			t.Errorf("the retry of what is there: %+v, %v", again, err)
		}
		if changes := h.changes(); len(changes) > 0 || time.Since(began) > 0 {
			t.Errorf("%v, after %s", changes, time.Since(began))
		}
		_, err = h.CreateVolume(ctx, thickSpec("thick"))
		must(t, err)
		other := storage.VolumeSpec{Name: "other", RequiredBytes: 8 * mib, Access: storage.AccessBlock, Class: storage.Class{VolumeGroup: "vg1"}}
		if _, err := h.CreateVolume(ctx, other); err != nil || time.Since(began) > 0 {
			t.Errorf("in another group: %v after %s", err, time.Since(began))
		}
		answer()
		answer = func() {}
		synctest.Wait()
		_, err = h.cut(ctx, "new", v)
		must(t, err)
		must(t, h.DeleteSnapshot(ctx, s.ID))
		if got := h.ready(t); len(got) != 1 || !got["new"] {
			t.Errorf("in the end: %v", got)
		}
	})
}

// What was made while the pool fell silent may not be there for good: it is not ready, and neither removed nor made again.
func TestPoolFallsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		ctx := t.Context()
		v := h.volume(t, "v")
		_, err := h.cut(ctx, "before", v)
		must(t, err)
		var answer func()
		defer func() { answer() }()
		h.OnCommand(func(args []string) {
			if answer == nil && slices.Contains(args, "--snapshot") {
				answer = h.SilencePool(group, pool)
			}
		})
		if _, err := h.cut(ctx, "s", v); !errors.Is(err, storage.ErrPending) || !strings.Contains(err.Error(), "has not answered for 3s") {
			t.Errorf("the pool fell silent: %v, want ErrPending", err)
		}
		h.OnCommand(nil)
		if got := h.ready(t); !got["before"] || got["s"] || len(got) != 2 {
			t.Errorf("ready: %v", got)
		}
		_, err = h.cut(ctx, "s", v)
		saysSilent(t, "the retry", err, "3s")
		if n := len(slices.DeleteFunc(h.Commands(), func(c []string) bool { return !lvmtest.Changes(c) })); n != 3 {
			t.Errorf("%d changes: %v", n, h.changes())
		}
		// Another driver knows nothing of it, and begins to serve all the same.
		h.Close()
		e, err := open(t, h.LVM, group)
		must(t, err)
		h.Engine = e
		if got := h.ready(t); got["before"] || got["s"] {
			t.Errorf("ready, though nobody can know it: %v", got)
		}
		_, err = h.cut(ctx, "before", v)
		saysSilent(t, "after a restart", err, "")
		answer()
		answer = func() {}
		synctest.Wait()
		s, err := h.cut(ctx, "s", v)
		if got := h.ready(t); err != nil || !s.Ready || !got["s"] || !got["before"] {
			t.Errorf("it answers again: %+v, %v, ready: %v", s, err, got)
		}
	})
}
