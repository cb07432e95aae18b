package storage_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

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
	var r storage.Volume
	for deadline := time.Now().Add(5 * time.Second); r.ID == "" && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		list, err := h.Volumes(ctx)
		must(t, err)
		for _, v := range list {
			if v.Name == "r" {
				r = v
			}
		}
	}
	if r.ID == "" {
		t.Fatal("it was not finished")
	}
	if got := h.content(t, r); got != "v1" && got != "v2" {
		t.Errorf("it has %q", got)
	}
}
