package storage_test

import (
	"context"
	"errors"
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
	checkCondition(t, h, v, "SnapshotInvalid", "")
	found, err := h.Snapshot(t.Context(), s.ID)
	must(t, err)
	if found.Ready || len(found.Conditions) == 0 || h.Stats().COWFailed != 1 {
		t.Errorf("%+v, %+v", found, h.Stats())
	}
}

// checkCondition looks for the one condition of a volume; without a reason there is to be none.
func checkCondition(t *testing.T, h *host, v storage.Volume, reason string, words ...string) {
	t.Helper()
	found, err := h.Volume(t.Context(), v.ID)
	must(t, err)
	if reason == "" {
		if len(found.Conditions) > 0 {
			t.Errorf("conditions: %+v", found.Conditions)
		}
		return
	}
	if len(found.Conditions) != 1 || found.Conditions[0].Reason != reason {
		t.Fatalf("conditions %+v, want %s", found.Conditions, reason)
	}
	for _, word := range words {
		if !strings.Contains(found.Conditions[0].Message, word) {
			t.Errorf("%q does not say %q", found.Conditions[0].Message, word)
		}
	}
}

// As long as a COW has to grow and cannot, its volume's health says so.
func TestCOWTroubleIsInTheVolumesHealth(t *testing.T) {
	h := newHost(t)
	ctx, cancel := context.WithCancel(t.Context())
	v := h.thick(t)
	h.write(t, v, "v1")
	s, err := h.CreateSnapshot(ctx, storage.SnapshotSpec{Name: "s", SourceID: v.ID, COW: storage.COWSize{Bytes: 4 * mib}})
	must(t, err)
	checkCondition(t, h, v, "")
	ended := make(chan error, 1)
	h.FailNext(lvmtest.Verb("lvextend"), "Insufficient free space: 1 extents needed, but only 0 available", 5)
	h.SetCOWUsage(group, lvName(t, s.ID), 3*mib+512<<10)
	go func() { ended <- h.Engine.Run(ctx) }()
	eventually(t, "a failed growth", func() bool { return h.Stats().COWFailed == 1 })
	eventually(t, "a condition", func() bool {
		found, err := h.Volume(ctx, v.ID)
		return err == nil && len(found.Conditions) > 0
	})
	checkCondition(t, h, v, "COWCannotGrow", lvName(t, s.ID), "% full and cannot grow", "Insufficient free space")
	if found, err := h.Snapshot(ctx, s.ID); err != nil || !found.Ready {
		t.Errorf("%+v, %v", found, err)
	}
	must(t, h.DeleteSnapshot(ctx, s.ID))
	checkCondition(t, h, v, "")
	cancel()
	must(t, <-ended)
}

// A disk of a RAID volume fails below its user.
func TestRAIDConditions(t *testing.T) {
	h := newHost(t)
	spec := thickSpec("v")
	spec.Class.Layout = storage.Layout{RAIDType: "raid1", Mirrors: 1}
	v, err := h.CreateVolume(t.Context(), spec)
	must(t, err)
	h.write(t, v, "v1")
	checkCondition(t, h, v, "")
	_, err = h.cut(t.Context(), "s", v)
	must(t, err)
	h.FailImages(group, lvName(t, v.ID), 1)
	checkCondition(t, h, v, "RAIDDegraded", "1 of the 2 devices of "+group+"/"+lvName(t, v.ID))
	h.FailImages(group, lvName(t, v.ID), 0)
	checkCondition(t, h, v, "")
}

// A retry that asks for another layout is another volume.
func TestLayoutIsRecorded(t *testing.T) {
	h := newHost(t)
	raid := thickSpec("v")
	raid.Class.Layout = storage.Layout{RAIDType: "raid10", Stripes: 2, StripeBytes: 128 << 10, Mirrors: 1}
	v, err := h.CreateVolume(t.Context(), raid)
	must(t, err)
	again, err := h.CreateVolume(t.Context(), raid)
	must(t, err)
	if again.ID != v.ID {
		t.Errorf("%+v, then %+v", v, again)
	}
	for _, other := range []storage.Layout{{}, {Stripes: 2}, {RAIDType: "raid10", Stripes: 2, Mirrors: 1}, {RAIDType: "raid1", Mirrors: 1}} {
		spec := raid
		spec.Class.Layout = other
		if _, err := h.CreateVolume(t.Context(), spec); !errors.Is(err, storage.ErrConflict) || !strings.Contains(err.Error(), "raid10:2:131072:1") {
			t.Errorf("%+v: %v", other, err)
		}
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
