package storage_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// While blocks are copied, others are served, and nobody sees half a copy.
func TestFillIsBesideTheOthers(t *testing.T) {
	h := newHost(t)
	ctx := t.Context()
	v := h.thick(t)
	h.write(t, v, "v1")
	s, err := h.cut(ctx, "s", v)
	must(t, err)
	h.unstage(t, v)
	release, entered := make(chan struct{}), make(chan struct{}, 1)
	h.OnFill(func(ctx context.Context, _ string) error {
		entered <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	spec := copySpec(storage.Class{}, storage.SourceSnapshot, s.ID)
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	_, err = h.CreateVolume(short, spec)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("abandoned: %v", err)
	}
	<-entered
	if _, err = h.CreateVolume(ctx, spec); !errors.Is(err, storage.ErrPending) || !strings.Contains(err.Error(), "50%") {
		t.Errorf("retry: %v, want ErrPending with the percentage", err)
	}
	r := storage.Handle{NodeHash: storage.NodeHash(node), LV: storage.VolumeLV("r")}.String()
	_, volumeErr := h.Volume(ctx, r)
	_, activateErr := h.Activate(ctx, r)
	list, err := h.Volumes(ctx)
	must(t, err)
	if health, err := h.Health(ctx, r); err != nil || len(health.Conditions) != 1 || health.Conditions[0].Reason != "ContentIncomplete" ||
		!strings.Contains(health.Conditions[0].Message, "50%") || !strings.Contains(volumeErr.Error(), "50%") {
		t.Errorf("health of half a copy: %+v, %v; %v", health, err, volumeErr)
	}
	if !errors.Is(volumeErr, storage.ErrNotFound) || !errors.Is(activateErr, storage.ErrNotFound) || len(list) != 1 {
		t.Errorf("half a copy is served: %v, %v, %+v", volumeErr, activateErr, list)
	}
	if _, err := h.CreateSnapshot(ctx, storage.SnapshotSpec{Name: "x", SourceID: r}); !errors.Is(err, storage.ErrPending) {
		t.Errorf("snapshot of half a copy: %v", err)
	}
	_, err = h.cut(ctx, "s2", v)
	must(t, err)
	if err := h.DeleteSnapshot(ctx, s.ID); !errors.Is(err, storage.ErrInUse) {
		t.Errorf("deletion of what is being copied: %v", err)
	}
	// The pod of the source comes and goes: its device stays, because its snapshot is being read.
	_, err = h.Activate(ctx, v.ID)
	must(t, err)
	h.unstage(t, v)
	if len(h.active([]string{lvName(t, v.ID)})) == 0 {
		t.Error("the source was taken away")
	}
	must(t, h.DeleteVolume(ctx, r))
	h.OnFill(nil)
	if len(h.active([]string{lvName(t, v.ID), storage.VolumeLV("r")})) > 0 {
		t.Error("still active after the last reader")
	}
	must(t, h.DeleteSnapshot(ctx, s.ID))
	if n := len(h.left()); n != 2 {
		t.Errorf("left: %v", h.left())
	}
}

// finished waits for a volume to exist.
func (h *host) finished(t *testing.T, name string) storage.Volume {
	t.Helper()
	var out storage.Volume
	eventually(t, "the end of a copy", func() bool {
		list, err := h.Volumes(t.Context())
		must(t, err)
		for _, v := range list {
			if v.Name == name {
				out = v
			}
		}
		return out.ID != ""
	})
	return out
}

// What is on stable storage is not copied again, unless it is of another moment.
func TestFillGoesOn(t *testing.T) {
	for name, lose := range map[string]bool{"it goes on": false, "the snapshot of a clone is lost": true} {
		for _, class := range []storage.Class{{Type: storage.TypeThin}, thickClass} {
			for _, kind := range []storage.SourceKind{storage.SourceSnapshot, storage.SourceVolume} {
				t.Run(fmt.Sprintf("%s/%s/%s", name, class.Type, kind), func(t *testing.T) { fillGoesOn(t, class, kind, lose) })
			}
		}
	}
}

func fillGoesOn(t *testing.T, class storage.Class, kind storage.SourceKind, lose bool) {
	h := newHost(t)
	ctx := t.Context()
	v := h.thick(t)
	h.write(t, v, "v1")
	id := v.ID
	if kind == storage.SourceSnapshot {
		s, err := h.cut(ctx, "s", v)
		must(t, err)
		id = s.ID
	}
	spec := copySpec(class, kind, id)
	entered := make(chan struct{}, 1)
	interrupt := func(context.Context, string) error {
		entered <- struct{}{}
		return errors.New("the disk is slow")
	}
	h.OnFill(interrupt)
	// Twice: the second attempt may be of another moment, and is not to be taken for the first's.
	for range 2 {
		_, err := h.CreateVolume(ctx, spec)
		<-entered
		if !errors.Is(err, storage.ErrPending) {
			t.Fatal(err)
		}
		lvs, err := lvm.NewClient(h.LVM, group).LVs(ctx)
		must(t, err)
		for _, lv := range lvs {
			if tags := strings.Join(lv.Tags, " "); lv.Name == storage.VolumeLV("r") && !strings.Contains(tags, fmt.Sprint("lvmsnap.fill=copy:", 4*mib)) {
				t.Errorf("nobody knows how far it is: %s", tags)
			}
		}
		h.write(t, v, "later")
		if lose && kind == storage.SourceVolume {
			for _, name := range h.left() {
				if strings.HasPrefix(name, "csi-c-") {
					must(t, lvm.NewClient(h.LVM, group).Remove(ctx, name))
				}
			}
		}
	}
	h.OnFill(nil)
	r, err := h.CreateVolume(ctx, spec)
	must(t, err)
	want := "v1"
	if lose && kind == storage.SourceVolume {
		want = "later"
	}
	if got := h.content(t, r); got != want {
		t.Errorf("it has %q, want %q", got, want)
	}
	if left := strings.Join(h.left(), " "); strings.Contains(left, "csi-c-") {
		t.Errorf("left: %s", left)
	}
}

// The driver is killed in the middle of a copy; the next one finishes it without being asked.
func TestFillIsResumed(t *testing.T) {
	h := newHost(t)
	ctx := t.Context()
	v := h.thick(t)
	h.write(t, v, "v1")
	entered := make(chan struct{}, 1)
	h.OnFill(func(ctx context.Context, _ string) error {
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	go func() { _, _ = h.CreateVolume(ctx, copySpec(storage.Class{}, storage.SourceVolume, v.ID)) }()
	<-entered
	h.Close()
	h.OnFill(nil)
	must(t, h.Write(group, lvName(t, v.ID), "v2"))
	h.reopen(t)
	r := h.finished(t, "r")
	if got := h.content(t, r); got != "v1" { // the moment of the first attempt
		t.Errorf("it has %q", got)
	}
}
