package storage_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func TestSeveralGroups(t *testing.T) {
	h := newHost(t, "vg-a", "vg-b")
	ctx := t.Context()
	inB, err := h.CreateVolume(ctx, storage.VolumeSpec{
		Name: "b", RequiredBytes: 8 * mib, Access: storage.AccessBlock, Class: storage.Class{VolumeGroup: "vg-b"},
	})
	must(t, err)
	inA := h.volume(t, "a")
	if inA.Class.VolumeGroup != "vg-a" || inB.Class.VolumeGroup != "vg-b" {
		t.Fatalf("groups %s and %s", inA.Class.VolumeGroup, inB.Class.VolumeGroup)
	}
	h.write(t, inB, "v1")
	s, err := h.cut(ctx, "s", inB)
	must(t, err)
	r, err := h.restore(ctx, s.ID, 0) // a class that names no group follows the data
	must(t, err)
	if r.Class.VolumeGroup != "vg-b" || h.content(t, r) != "v1" {
		t.Errorf("restored to %+v", r)
	}
	r2, err := h.CreateVolume(ctx, storage.VolumeSpec{
		Name: "r2", Access: storage.AccessBlock, Class: storage.Class{VolumeGroup: "vg-a"},
		Source: &storage.Source{Kind: storage.SourceSnapshot, ID: s.ID},
	})
	must(t, err) // blocks are copied there
	if r2.Class.VolumeGroup != "vg-a" || h.content(t, r2) != "v1" {
		t.Errorf("restored to %+v", r2)
	}
	// One name is one volume, in whichever group.
	_, err = h.CreateVolume(ctx, storage.VolumeSpec{
		Name: "b", RequiredBytes: 8 * mib, Access: storage.AccessBlock, Class: storage.Class{VolumeGroup: "vg-a"},
	})
	if !errors.Is(err, storage.ErrConflict) {
		t.Errorf("same name in another group: %v", err)
	}
	if again := h.volume(t, "b"); again.ID != inB.ID {
		t.Errorf("retry without a class: %+v", again)
	}
	list, err := h.Volumes(ctx)
	must(t, err)
	if len(list) != 4 || !slices.IsSortedFunc(list, func(a, b storage.Volume) int { return strings.Compare(a.ID, b.ID) }) {
		t.Errorf("%d volumes: %+v", len(list), list)
	}
	must(t, h.DeleteVolume(ctx, inB.ID))
	if again, err := h.cut(ctx, "s", inB); err != nil || again.ID != s.ID {
		t.Errorf("retry after the source was deleted: %+v, %v", again, err)
	}
	must(t, h.DeleteSnapshot(ctx, s.ID))
	must(t, h.DeleteVolume(ctx, r.ID))
	if names := h.Names("vg-b"); !slices.Equal(names, []string{pool}) {
		t.Errorf("left in vg-b: %v", names)
	}
}

// A group whose disk is gone takes nothing of the other groups with it, and nothing in it is thought deleted.
func TestGroupThatIsGone(t *testing.T) {
	h := newHost(t, "vg-a", "vg-b")
	inA := h.volume(t, "a")
	inB, err := h.CreateVolume(t.Context(), storage.VolumeSpec{
		Name: "b", RequiredBytes: mib, Access: storage.AccessBlock, Class: storage.Class{VolumeGroup: "vg-b"},
	})
	must(t, err)
	h.RemoveGroup("vg-a")
	_, err = h.Activate(t.Context(), inB.ID)
	must(t, err)
	must(t, h.Deactivate(t.Context(), inB.ID))
	must(t, h.DeleteVolume(t.Context(), inB.ID))
	if err := h.DeleteVolume(t.Context(), inA.ID); !errors.Is(err, storage.ErrDamaged) || !strings.Contains(err.Error(), "vg-a") {
		t.Errorf("deletion in the group that is gone: %v, want an error that names it", err)
	}
}

// One group that hangs does not keep the others.
func TestGroupsAreIndependent(t *testing.T) {
	h := newHost(t, "vg-a", "vg-b")
	hang := h.HangNext(lvmtest.Verb("lvcreate"))
	defer hang.Release()
	done := make(chan error, 1)
	go func() {
		_, err := h.CreateVolume(t.Context(), storage.VolumeSpec{Name: "a", RequiredBytes: mib, Access: storage.AccessBlock})
		done <- err
	}()
	<-hang.Begun()
	if c, err := h.Capacity(t.Context(), storage.Class{VolumeGroup: "vg-b"}); err != nil || c.AvailableBytes == 0 {
		t.Errorf("capacity of the other group: %+v, %v", c, err)
	}
	hang.Release()
	must(t, <-done)
}

// LVM was killed while it made a copy in another group than the source's: what is left of it is not taken for the volume, nor its
// group for the source's.
func TestCopyInterruptedInAnotherGroup(t *testing.T) {
	h := newHost(t, group, "vg1")
	v := h.volume(t, "v")
	h.write(t, v, "v1")
	spec := storage.VolumeSpec{
		Name: "copy", Access: storage.AccessBlock, Class: storage.Class{VolumeGroup: "vg1"},
		Source: &storage.Source{Kind: storage.SourceVolume, ID: v.ID},
	}
	h.PhantomNext(lvmtest.Verb("lvcreate"))
	h.FailNext(lvmtest.Verb("lvremove"), "no recovery in the same turn", 5)
	for range 2 {
		if _, err := h.CreateVolume(t.Context(), spec); !errors.Is(err, storage.ErrPending) {
			t.Fatalf("%v, want ErrPending", err)
		}
	}
	r, err := h.CreateVolume(t.Context(), spec)
	must(t, err)
	if got := h.content(t, r); got != "v1" {
		t.Errorf("it has %q", got)
	}
}
