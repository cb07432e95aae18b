package storage_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// counts are the recoveries so far, without those that did not occur.
func (h *host) counts() map[storage.RecoveryKind]int64 {
	out := h.Stats().Recoveries
	maps.DeleteFunc(out, func(_ storage.RecoveryKind, n int64) bool { return n == 0 })
	return out
}

func (h *host) recoveredOnly(t *testing.T, want map[storage.RecoveryKind]int64) {
	t.Helper()
	if got := h.counts(); !maps.Equal(got, want) {
		t.Errorf("recoveries %v, want %v", got, want)
	}
}

// adminRuns runs an administrator's command.
func (h *host) adminRuns(t *testing.T, line string) {
	t.Helper()
	if out, err := h.LVM.Run(t.Context(), strings.Fields(line)...); err != nil || out.ExitCode != 0 {
		t.Fatalf("%s: %v, %+v", line, err, out)
	}
}

// A pool that made a snapshot and did not count it: the snapshot is the one of its moment, whatever was written since, and the
// pool works. The writer goes on before anybody calls again.
func TestJam(t *testing.T) {
	for _, restart := range []bool{false, true} {
		h := newHost(t)
		v := h.volume(t, "v")
		h.write(t, v, "v1")
		h.OnCommand(func(args []string) {
			if snapshotCreation(args) {
				h.SetSuspended(group, lvName(t, v.ID), true) // as LVM does, and does not get to resuming it
			}
		})
		before := time.Now()
		h.JamNext(snapshotCreation)
		if _, err := h.cut(t.Context(), "s", v); !errors.Is(err, storage.ErrPending) {
			t.Fatalf("interrupted: %v, want ErrPending", err)
		}
		after := time.Now()
		h.OnCommand(nil)
		h.recoveredOnly(t, map[storage.RecoveryKind]int64{storage.RecoveredSuspended: 1, storage.RecoveredJam: 1})
		if info, err := h.Info(t.Context(), group, lvName(t, v.ID)); err != nil || info.Suspended {
			t.Errorf("the origin: %+v, %v", info, err)
		}
		h.write(t, v, "v2")
		if restart {
			h.reopen(t)
		}
		s, err := h.cut(t.Context(), "s", v)
		must(t, err)
		if s.CreatedAt.Before(before) || s.CreatedAt.After(after) {
			t.Errorf("created at %s, not between %s and %s", s.CreatedAt, before, after)
		}
		_, err = h.cut(t.Context(), "other", v)
		must(t, err)
		r, err := h.restore(t.Context(), s.ID, 0)
		must(t, err)
		if got := h.content(t, r); got != "v1" {
			t.Errorf("it has %q, want v1", got)
		}
	}
}

// The driver died with its LVM command: the next one's start puts it right, once.
func TestRecoveryAtStart(t *testing.T) {
	h := newHost(t)
	v := h.volume(t, "v")
	h.write(t, v, "v1")
	h.FailNext(lvmtest.Verb("lvremove"), "no recovery by this driver", 5)
	h.PhantomNext(snapshotCreation)
	_, _ = h.cut(t.Context(), "s", v)
	h.SetSuspended(group, lvName(t, v.ID), true)
	h.reopen(t)
	h.recoveredOnly(t, map[storage.RecoveryKind]int64{storage.RecoveredSuspended: 1, storage.RecoveredPhantom: 1})
	if names := h.Names(group); len(names) != 2 {
		t.Errorf("left: %v", names)
	}
	h.reopen(t)
	h.recoveredOnly(t, nil)
}

// A recovery that is interrupted itself is finished by the next call.
func TestInterruptedRecovery(t *testing.T) {
	for _, carriedOut := range []bool{false, true} {
		h := newHost(t)
		v := h.volume(t, "v")
		h.write(t, v, "v1")
		h.CrashNext(lvmtest.Verb("lvremove"), carriedOut)
		h.PhantomNext(snapshotCreation)
		_, _ = h.cut(t.Context(), "s", v)
		h.write(t, v, "v2")
		s, err := h.cut(t.Context(), "s", v)
		must(t, err)
		r, err := h.restore(t.Context(), s.ID, 0)
		must(t, err)
		if got := h.content(t, r); got != "v2" {
			t.Errorf("it has %q, want v2", got)
		}
	}
}

// What is somebody else's is left alone, but for a jam, which stops everybody.
func TestForeignLeftovers(t *testing.T) {
	h := newHost(t)
	ctx := t.Context()
	v := h.volume(t, "v")
	h.AddForeignLV(group, lvmtest.ForeignLV{Name: "theirs", SizeBytes: 8 * mib, Pool: pool, Active: true})
	h.adminDies(t, h.JamNext, "lvcreate --snapshot --name jammed "+group+"/theirs")
	h.SetSuspended(group, "theirs", true)
	_, err := h.cut(ctx, "one", v)
	must(t, err)
	h.recoveredOnly(t, map[storage.RecoveryKind]int64{storage.RecoveredJam: 1})
	h.adminDies(t, h.PhantomNext, "lvcreate --snapshot --name phantom "+group+"/theirs")
	_, err = h.cut(ctx, "two", v)
	must(t, err)
	h.recoveredOnly(t, map[storage.RecoveryKind]int64{storage.RecoveredJam: 1, storage.RecoveredForeign: 1})
	for _, name := range []string{"theirs", "jammed", "phantom"} {
		if !slices.Contains(h.Names(group), name) {
			t.Errorf("%s is gone", name)
		}
	}
	if info, err := h.Info(ctx, group, "theirs"); err != nil || !info.Suspended {
		t.Errorf("somebody else's suspended volume: %+v, %v", info, err)
	}
}

func (h *host) adminDies(t *testing.T, next func(lvmtest.Match), line string) {
	t.Helper()
	next(lvmtest.Any)
	if _, err := h.LVM.Run(t.Context(), strings.Fields(line)...); err == nil {
		t.Fatalf("%s was not interrupted", line)
	}
}

// A suspended volume is resumed by whatever is to be done with it.
func TestSuspendedThinVolume(t *testing.T) {
	for name, call := range map[string]func(context.Context, *host, storage.Volume) error{
		"snapshot": func(ctx context.Context, h *host, v storage.Volume) error { _, err := h.cut(ctx, "s", v); return err },
		"expand": func(ctx context.Context, h *host, v storage.Volume) error {
			_, err := h.ExpandVolume(ctx, v.ID, 16*mib, 0)
			return err
		},
		"unstage": func(ctx context.Context, h *host, v storage.Volume) error { return h.Deactivate(ctx, v.ID) },
	} {
		h := newHost(t)
		v := h.volume(t, "v")
		h.write(t, v, "v1")
		h.SetSuspended(group, lvName(t, v.ID), true)
		if err := call(t.Context(), h, v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		h.recoveredOnly(t, map[storage.RecoveryKind]int64{storage.RecoveredSuspended: 1})
	}
}

// Without any call, too, what somebody's command left is put right soon.
func TestRecoveryByItself(t *testing.T) {
	h := newHost(t)
	v := h.volume(t, "v")
	h.write(t, v, "v1")
	lv := lvName(t, v.ID)
	h.adminDies(t, h.JamNext, "lvcreate --snapshot --name theirs "+group+"/"+lv)
	h.SetSuspended(group, lv, true)
	h.runUntil(t, "the volume is resumed", func() bool {
		info, err := h.Info(t.Context(), group, lv)
		return err == nil && !info.Suspended
	})
	h.adminRuns(t, "lvremove --yes "+group+"/theirs") // the pool works
}

// Likewise what an interrupted snapshot of a thick volume left: its volume, and whoever writes to it, waits for nobody's call.
func TestThickRecoveryByItself(t *testing.T) {
	h := newHost(t)
	v := h.thick(t)
	h.write(t, v, "v1")
	lv := lvName(t, v.ID)
	h.PhantomNext(snapshotCreation)
	h.FailNext(lvmtest.Verb("lvchange", "--activate"), "no recovery in the same turn", 5)
	if _, err := h.cut(t.Context(), "s", v); !errors.Is(err, storage.ErrPending) {
		t.Fatalf("interrupted: %v, want ErrPending", err)
	}
	h.SetSuspended(group, lv, true)
	h.runUntil(t, "the volume is resumed, and half a snapshot removed", func() bool {
		info, err := h.Info(t.Context(), group, lv)
		return err == nil && !info.Suspended && !slices.Contains(h.Names(group), storage.SnapshotLV("s"))
	})
	h.recoveredOnly(t, map[storage.RecoveryKind]int64{storage.RecoveredSuspended: 1, storage.RecoveredHalfMade: 1})
}

// runUntil runs the engine, without any call, until something has come about.
func (h *host) runUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Engine.Run(ctx) }()
	for deadline := time.Now().Add(10 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("not in time: %s", what)
			break
		}
	}
	cancel()
	must(t, <-ended)
}
