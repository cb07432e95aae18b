package storage_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func eventually(t *testing.T, what string, fn func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !fn(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// cowBytes is the size of a snapshot's COW.
func (h *host) cowBytes(t *testing.T, s storage.Snapshot) int64 {
	t.Helper()
	st, err := h.SnapshotStatus(t.Context(), group, lvName(t, s.ID))
	must(t, err)
	return st.TotalBytes
}

func TestCOWGrows(t *testing.T) {
	h := newHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	spec := thickSpec("v")
	spec.RequiredBytes = 100 * mib
	v, err := h.CreateVolume(ctx, spec)
	must(t, err)
	h.write(t, v, "v1")
	full, err := h.cut(ctx, "full", v)
	must(t, err)
	s, err := h.CreateSnapshot(ctx, storage.SnapshotSpec{Name: "s", SourceID: v.ID, COW: storage.COWSize{Percent: 20}})
	must(t, err)
	if got := h.cowBytes(t, s); got != 20*mib {
		t.Errorf("20%% of 100 MiB are %d", got)
	}
	if got := h.cowBytes(t, full); got != 104*mib {
		t.Errorf("the whole of 100 MiB is %d", got)
	}
	ended := make(chan error, 1)
	go func() { ended <- h.Engine.Run(ctx) }()
	for used := int64(15); used < 100; used += 3 {
		before := h.cowBytes(t, s)
		h.SetCOWUsage(group, lvName(t, s.ID), used*mib)
		if float64(used*mib) > 0.75*float64(before) {
			eventually(t, "growth", func() bool { return h.cowBytes(t, s) > before })
		}
		if found, err := h.Snapshot(ctx, s.ID); err != nil || !found.Ready {
			t.Fatalf("with %d MiB in %d: %+v, %v", used, before, found, err)
		}
		if h.cowBytes(t, s) == 104*mib {
			break // it cannot overflow any more
		}
	}
	if got := h.cowBytes(t, full); got != 104*mib || h.Stats().COWGrown == 0 {
		t.Errorf("full COW %d, stats %+v", got, h.Stats())
	}
	cancel()
	must(t, <-ended)
}

// What cannot grow is lost when it is full, and everybody can know.
func TestCOWThatCannotGrow(t *testing.T) {
	h := newHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	v := h.thick(t)
	h.write(t, v, "v1")
	s, err := h.CreateSnapshot(ctx, storage.SnapshotSpec{Name: "s", SourceID: v.ID, COW: storage.COWSize{Bytes: 4 * mib}})
	must(t, err)
	ended := make(chan error, 1)
	go func() { ended <- h.Engine.Run(ctx) }()
	h.FailNext(lvmtest.Verb("lvextend"), "Insufficient free space: 1 extents needed, but only 0 available", 5)
	h.OnCommand(func(args []string) {
		if args[0] == "lvextend" {
			h.SetCOWUsage(group, lvName(t, s.ID), 8*mib)
		}
	})
	h.SetCOWUsage(group, lvName(t, s.ID), 3*mib+512<<10)
	eventually(t, "loss", func() bool { return h.Stats().COWLost == 1 })
	cancel()
	must(t, <-ended)
	found, err := h.Snapshot(t.Context(), s.ID)
	must(t, err)
	if found.Ready || len(found.Conditions) == 0 || h.Stats().COWFailed != 1 {
		t.Errorf("%+v, %+v", found, h.Stats())
	}
}

// Nobody saw the overflow: the node went down with it.
func TestCOWIsProbedAtStart(t *testing.T) {
	h := newHost(t)
	v := h.thick(t)
	h.write(t, v, "v1")
	small, err := h.CreateSnapshot(t.Context(), storage.SnapshotSpec{Name: "small", SourceID: v.ID, COW: storage.COWSize{Bytes: 4 * mib}})
	must(t, err)
	h.SetCOWUsage(group, lvName(t, small.ID), 8*mib)
	h.Reboot()
	h.ResetCommands()
	h.reopen(t)
	if found, err := h.Snapshot(t.Context(), small.ID); err != nil || found.Ready {
		t.Errorf("%+v, %v", found, err)
	}
	if len(h.active([]string{lvName(t, v.ID)})) > 0 {
		t.Error("the origin stayed active")
	}
	h.ResetCommands()
	h.reopen(t)
	if got := h.changes(); slices.ContainsFunc(got, func(c string) bool { return strings.Contains(c, "--activate") }) {
		t.Errorf("asked again: %q", got)
	}
}
