package storage_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

var snapshotCreation = lvmtest.Verb("lvcreate", "--snapshot")

func TestCreateSnapshotIsOneCommand(t *testing.T) {
	h := newHost(t)
	v := h.volume(t, "v")
	h.ResetCommands()
	_, err := h.cut(t.Context(), "s", v)
	must(t, err)
	if got := h.changes(); len(got) != 1 || !strings.HasPrefix(got[0], "lvcreate --snapshot") {
		t.Errorf("commands: %q", got)
	}
	if all := h.CommandLines(); len(all) != 3 { // without a reader of disks, vgs and lvs are asked first
		t.Errorf("questions and commands: %q", all)
	}
}

// LVM was killed between its own commit and the pool's.
func TestPhantomSnapshot(t *testing.T) {
	for _, tt := range []struct {
		name  string
		after func(*testing.T, *host, storage.Volume)
	}{
		{"retried at once", func(*testing.T, *host, storage.Volume) {}},
		{"another snapshot first", func(t *testing.T, h *host, v storage.Volume) {
			_, err := h.cut(t.Context(), "other", v)
			must(t, err)
		}},
		{"a restart first", func(t *testing.T, h *host, _ storage.Volume) {
			e, err := open(t, h.LVM, group)
			must(t, err)
			h.Engine = e
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			v := h.volume(t, "v")
			h.write(t, v, "v1")
			h.PhantomNext(snapshotCreation)
			h.FailNext(lvmtest.Verb("lvremove"), "no recovery in the same turn", 5)
			if _, err := h.cut(t.Context(), "s", v); !errors.Is(err, storage.ErrPending) {
				t.Fatalf("interrupted: %v, want ErrPending", err)
			}
			list, err := h.Snapshots(t.Context(), storage.SnapshotQuery{})
			must(t, err)
			for _, s := range list {
				if s.Ready {
					t.Errorf("the phantom is listed as ready")
				}
			}
			h.write(t, v, "v2")
			tt.after(t, h, v)
			before := time.Now()
			s, err := h.cut(t.Context(), "s", v)
			must(t, err)
			if s.CreatedAt.Before(before) {
				t.Errorf("created at %s, but it was cut after %s", s.CreatedAt, before)
			}
			r, err := h.restore(t.Context(), s.ID, 0)
			must(t, err)
			if got := h.content(t, r); got != "v2" {
				t.Errorf("it has %q, want the content of its own moment, v2", got)
			}
		})
	}
}

// LVM, or its shell, went away in the middle.
func TestOutcomeUnknown(t *testing.T) {
	for _, carriedOut := range []bool{true, false} {
		t.Run(fmt.Sprint("carried out ", carriedOut), func(t *testing.T) {
			h := newHost(t)
			v := h.volume(t, "v")
			h.write(t, v, "v1")
			before := time.Now()
			h.CrashNext(snapshotCreation, carriedOut)
			if _, err := h.cut(t.Context(), "s", v); !errors.Is(err, storage.ErrPending) {
				t.Fatalf("crashed: %v, want ErrPending: any other code is final", err)
			}
			after := time.Now()
			h.write(t, v, "v2")
			s, err := h.cut(t.Context(), "s", v)
			must(t, err)
			want := map[bool]string{true: "v1", false: "v2"}[carriedOut]
			if first := s.CreatedAt.After(before) && s.CreatedAt.Before(after); first != carriedOut {
				t.Errorf("created at %s, first try from %s to %s", s.CreatedAt, before, after)
			}
			r, err := h.restore(t.Context(), s.ID, 0)
			must(t, err)
			if got := h.content(t, r); got != want {
				t.Errorf("it has %q, want %q", got, want)
			}
			must(t, h.DeleteSnapshot(t.Context(), s.ID))
			h.CrashNext(lvmtest.Verb("lvremove"), carriedOut)
			if err := h.DeleteVolume(t.Context(), v.ID); !errors.Is(err, storage.ErrPending) {
				t.Errorf("deletion that crashed: %v", err)
			}
			must(t, h.DeleteVolume(t.Context(), v.ID))
		})
	}
}

// A client that gives up never interrupts LVM; its retry waits for the first attempt.
func TestHang(t *testing.T) {
	h := newHost(t)
	v, other := h.volume(t, "v"), h.volume(t, "other")
	h.ResetCommands()
	hang := h.HangNext(snapshotCreation)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		<-hang.Begun()
		cancel()
	}()
	if _, err := h.cut(ctx, "s", v); !errors.Is(err, context.Canceled) {
		t.Fatalf("hanging: %v", err)
	}
	if _, err := h.cut(t.Context(), "s", v); !errors.Is(err, storage.ErrPending) {
		t.Errorf("retry: %v, want ErrPending", err)
	}
	if err := h.DeleteSnapshot(t.Context(), storage.Handle{NodeHash: storage.NodeHash(node), LV: storage.SnapshotLV("s")}.String()); !errors.Is(err, storage.ErrPending) {
		t.Errorf("deletion meanwhile: %v, want ErrPending", err)
	}
	// Another object in the group has to wait, and says for what.
	ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := h.cut(ctx, "s2", other)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("other object: %v", err)
	}
	must(t, h.Ready(t.Context())) // not for long enough yet
	hang.Release()
	var s storage.Snapshot
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		if s, err = h.cut(t.Context(), "s", v); err == nil {
			break
		}
		if !errors.Is(err, storage.ErrPending) || time.Now().After(deadline) {
			t.Fatalf("after the hang: %v", err)
		}
	}
	creations := slices.DeleteFunc(h.changes(), func(c string) bool { return !strings.Contains(c, storage.SnapshotLV("s")) })
	if !s.Ready || len(creations) != 1 {
		t.Errorf("%+v by %q, want one command", s, creations)
	}
}

// What a failure leaves is undone; while it is not, the error is not final.
func TestFailureLeavesNothing(t *testing.T) {
	tests := []struct {
		name  string
		fault func(*host)
		want  error // nil: final, and of no particular kind
		left  int
	}{
		{"creation fails", func(h *host) { h.FailNext(snapshotCreation, "Internal error.", 5) }, nil, 0},
		{"no space in LVM's opinion", func(h *host) {
			h.FailNext(snapshotCreation, "Cannot create new thin volume, free space in thin pool vg0/pool reached threshold.", 5)
		}, storage.ErrNoSpace, 0},
		{"growth fails", func(h *host) { h.FailNext(lvmtest.Verb("lvextend"), "Internal error.", 5) }, nil, 0},
		{"growth fails, and the undo", func(h *host) {
			h.FailNext(lvmtest.Verb("lvextend"), "Internal error.", 5)
			h.FailNext(lvmtest.Verb("lvremove"), "Internal error.", 5)
		}, storage.ErrPending, 1},
		{"growth with unknown outcome", func(h *host) { h.CrashNext(lvmtest.Verb("lvextend"), false) }, storage.ErrPending, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			v := h.volume(t, "v")
			h.write(t, v, "v1")
			s, err := h.cut(t.Context(), "s", v)
			must(t, err)
			before := len(h.Names(group))
			tt.fault(h)
			_, err = h.restore(t.Context(), s.ID, 64*mib)
			if err == nil || !errors.Is(err, tt.want) && tt.want != nil || errors.Is(err, storage.ErrPending) != (tt.left > 0) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			if left := len(h.Names(group)) - before; left != tt.left {
				t.Errorf("%d LVs left behind, want %d", left, tt.left)
			}
			r, err := h.restore(t.Context(), s.ID, 64*mib)
			must(t, err)
			if got := h.content(t, r); got != "v1" || r.SizeBytes != 64*mib {
				t.Errorf("retry: %q in %d bytes", got, r.SizeBytes)
			}
		})
	}
}

func TestPoolConditions(t *testing.T) {
	tests := []struct {
		name   string
		set    func(*host)
		err    error
		reason string
	}{
		{"data full", func(h *host) { h.SetPoolUsage(group, pool, 1<<30, 10) }, storage.ErrNoSpace, "PoolOutOfDataSpace"},
		{"data reserve", func(h *host) { h.SetPoolUsage(group, pool, (1<<30)*96/100, 10) }, storage.ErrNoSpace, "PoolDataLow"},
		{"metadata reserve", func(h *host) { h.SetPoolUsage(group, pool, 0, 91) }, storage.ErrNoSpace, "PoolMetadataLow"},
		{"read-only", func(h *host) { h.SetPoolMode(group, pool, "ro", false) }, storage.ErrDamaged, "PoolReadOnly"},
		{"failed", func(h *host) { h.SetPoolMode(group, pool, "Fail", false) }, storage.ErrDamaged, "PoolFailed"},
		{"needs check", func(h *host) { h.SetPoolMode(group, pool, "rw", true) }, storage.ErrDamaged, "PoolNeedsCheck"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			v := h.volume(t, "v")
			tt.set(h)
			h.ResetCommands()
			_, err := h.cut(t.Context(), "s", v)
			if !errors.Is(err, tt.err) || !strings.Contains(err.Error(), group+"/"+pool) {
				t.Errorf("%v, want %v and the pool's name", err, tt.err)
			}
			if got := h.changes(); len(got) > 0 {
				t.Errorf("LVM was asked to %q", got)
			}
			found, err := h.Volume(t.Context(), v.ID)
			must(t, err)
			has := func(c storage.Condition) bool { return c.Reason == tt.reason }
			if !slices.ContainsFunc(found.Conditions, has) {
				t.Errorf("conditions %+v, want %s", found.Conditions, tt.reason)
			}
			if c, err := h.Capacity(t.Context(), storage.Class{}); err != nil || c.AvailableBytes != 0 || c.MaximumBytes != 0 {
				t.Errorf("capacity %+v, %v", c, err)
			}
		})
	}
}

// A pool that shows old blocks would let one tenant read another's.
func TestPoolWithoutZeroing(t *testing.T) {
	fake := lvmtest.New()
	fake.AddGroup(group, 100<<30)
	fake.AddPool(group, pool, 1<<30, 16*mib, 64<<10, false)
	e, err := open(t, fake, group)
	must(t, err)
	_, err = e.CreateVolume(t.Context(), storage.VolumeSpec{Name: "v", RequiredBytes: mib, Access: storage.AccessBlock})
	if !errors.Is(err, storage.ErrDamaged) || !strings.Contains(err.Error(), "--zero y") {
		t.Errorf("%v, want ErrDamaged with the cure", err)
	}
}

func TestInactivePool(t *testing.T) {
	h := newHost(t)
	v := h.volume(t, "v")
	s, err := h.cut(t.Context(), "s", v)
	must(t, err)
	h.SetPoolActive(group, pool, false)
	found, err := h.Snapshot(t.Context(), s.ID)
	must(t, err)
	if found.Ready {
		t.Error("a snapshot in an inactive pool is ready")
	}
	pools, err := h.Pools(t.Context())
	must(t, err)
	if len(pools) != 1 || len(pools[0].Conditions) != 1 || pools[0].Conditions[0].Reason != "PoolInactive" {
		t.Errorf("pools %+v", pools)
	}
	// A creation activates it, as does a restart.
	_, err = h.cut(t.Context(), "s2", v)
	must(t, err)
	h.SetPoolActive(group, pool, false)
	e, err := open(t, h.LVM, group)
	must(t, err)
	if found, err := e.Snapshot(t.Context(), s.ID); err != nil || !found.Ready {
		t.Errorf("after a restart: %+v, %v", found, err)
	}
}

func TestStart(t *testing.T) {
	fake := lvmtest.New()
	fake.AddGroup(group, 10<<30)
	if _, err := open(t, fake); !errors.Is(err, storage.ErrInvalid) {
		t.Errorf("no group: %v", err)
	}
	if _, err := open(t, fake, "nosuch"); err == nil || !strings.Contains(err.Error(), "vgcreate nosuch") {
		t.Errorf("unknown group: %v", err)
	}
	e, err := open(t, fake, group)
	must(t, err)
	_, err = e.CreateVolume(t.Context(), storage.VolumeSpec{Name: "v", Access: storage.AccessBlock})
	if !errors.Is(err, storage.ErrInvalid) || !strings.Contains(err.Error(), "lvcreate --type thin-pool") {
		t.Errorf("no pool: %v", err)
	}
	fake.AddPool(group, "a", 1<<30, 16*mib, 64<<10, true)
	fake.AddPool(group, "b", 1<<30, 16*mib, 64<<10, true)
	_, err = e.CreateVolume(t.Context(), storage.VolumeSpec{Name: "v", RequiredBytes: mib, Access: storage.AccessBlock})
	if !errors.Is(err, storage.ErrInvalid) || !strings.Contains(err.Error(), "a, b") {
		t.Errorf("several pools: %v", err)
	}
	fake.RemoveGroup(group)
	if _, err := e.Volumes(t.Context()); !errors.Is(err, storage.ErrDamaged) {
		t.Errorf("the group has gone: %v", err)
	}
}

// The time of a snapshot is the moment of its cut, not of its request.
func TestCreatedAtIsTheCut(t *testing.T) {
	h := newHost(t)
	v, other := h.volume(t, "v"), h.volume(t, "other")
	hang := h.HangNext(snapshotCreation)
	first := make(chan error, 1)
	go func() { _, err := h.cut(t.Context(), "first", other); first <- err }()
	<-hang.Begun()
	second := make(chan storage.Snapshot, 1)
	go func() { s, _ := h.cut(t.Context(), "second", v); second <- s }()
	time.Sleep(20 * time.Millisecond)
	released := time.Now()
	hang.Release()
	must(t, <-first)
	if s := <-second; s.CreatedAt.Before(released) {
		t.Errorf("created at %s, but it was in the queue until %s", s.CreatedAt, released)
	}
}
