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

// restart opens an engine again, which has so much patience with groups that do not open.
func (h *host) restart(t *testing.T, patience time.Duration, groups ...string) error {
	t.Helper()
	h.Close()
	e, err := openWith(t.Context(), t, h.LVM, func(o *storage.Options) { o.OpenPatience = patience }, groups...)
	h.Engine = e
	return err
}

func inB(name string) storage.VolumeSpec {
	return storage.VolumeSpec{Name: name, RequiredBytes: 8 * mib, Access: storage.AccessBlock, Class: storage.Class{VolumeGroup: "vg-b"}}
}

// A group whose disk is gone when the driver starts does not keep the others from being served, nor they what is left to be done in it
// from being done when it is back: a copy into it goes on from the moment of its clone, which is in a group that was well.
func TestStartWithoutAGroup(t *testing.T) {
	h := newHost(t, "vg-a", "vg-b")
	ctx := t.Context()
	inA := h.volume(t, "a")
	h.write(t, inA, "v1")
	other, err := h.CreateVolume(ctx, inB("b"))
	must(t, err)
	h.write(t, other, "in b")
	h.OnFill(func(context.Context, string) error { return errors.New("disk error") })
	spec := inB("r")
	spec.Source = &storage.Source{Kind: storage.SourceVolume, ID: inA.ID}
	if _, err := h.CreateVolume(ctx, spec); !errors.Is(err, storage.ErrPending) {
		t.Fatal(err)
	}
	h.OnFill(nil)
	must(t, h.Write("vg-a", lvName(t, inA.ID), "v2"))
	back := h.RemoveGroup("vg-b")

	must(t, h.restart(t, time.Minute, "vg-b", "vg-a"))
	if got := h.content(t, inA); got != "v2" {
		t.Errorf("in the group that is there: %q", got)
	}
	_, err = h.Activate(ctx, other.ID)
	if err == nil || errors.Is(err, storage.ErrNotFound) || !strings.Contains(err.Error(), "vg-b") {
		t.Errorf("in the group that is not there: %v", err)
	}
	if err := h.DeleteVolume(ctx, other.ID); !errors.Is(err, storage.ErrDamaged) {
		t.Errorf("deletion in the group that is not there: %v", err)
	}
	must(t, h.Deactivate(ctx, inA.ID)) // another turn: what the copy needs is not swept
	back()
	h.run(t)
	copied := storage.Handle{NodeHash: storage.NodeHash(node), LV: storage.VolumeLV("r")}.String()
	eventually(t, "the copy", func() bool { _, err := h.Volume(ctx, copied); return err == nil })
	r, err := h.Volume(ctx, copied)
	must(t, err)
	if got := h.content(t, r); got != "v1" || h.content(t, other) != "in b" {
		t.Errorf("the copy has %q", got)
	}
	eventually(t, "the end of the clone", func() bool {
		return !slices.ContainsFunc(h.Names("vg-a"), func(n string) bool { return strings.HasPrefix(n, "csi-c-") })
	})
}

// A group whose LVM hangs neither.
func TestStartWithAGroupThatHangs(t *testing.T) {
	h := newHost(t, "vg-a", "vg-b")
	inA := h.volume(t, "a")
	h.write(t, inA, "v1")
	hang := h.HangNext(lvmtest.Verb("lvs", "vg-b"))
	defer hang.Release()
	must(t, h.restart(t, 50*time.Millisecond, "vg-b", "vg-a"))
	<-hang.Begun()
	if got := h.content(t, inA); got != "v1" {
		t.Errorf("in the group that does not hang: %q", got)
	}
	if _, err := h.CreateVolume(t.Context(), inB("b")); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("in the group that hangs: %v", err)
	}
	hang.Release()
	persist(t, func() (storage.Volume, error) {
		v, err := h.CreateVolume(t.Context(), inB("b"))
		if errors.Is(err, storage.ErrBusy) {
			err = storage.ErrPending // until the start is over
		}
		return v, err
	})
}

// With nothing to serve there is no engine, and what is missing is said.
func TestStartWithoutAnyGroup(t *testing.T) {
	h := newHost(t, "vg-a", "vg-b")
	h.RemoveGroup("vg-a")
	h.RemoveGroup("vg-b")
	err := h.restart(t, time.Minute, "vg-a", "vg-b")
	if !errors.Is(err, storage.ErrInvalid) || !strings.Contains(err.Error(), "vgcreate vg-a") || !strings.Contains(err.Error(), "vgcreate vg-b") {
		t.Errorf("%v", err)
	}
}
