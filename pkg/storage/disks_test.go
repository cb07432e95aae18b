package storage_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// newHostOnDisks has groups that are read from their disks, each of which can be made not to answer.
func newHostOnDisks(t *testing.T, names ...string) (*host, map[string]*failing) {
	t.Helper()
	h, readers := newHost(t, names...), map[string]*failing{}
	h.Close()
	var groups []*lvm.Group
	for _, name := range names {
		readers[name] = &failing{MetadataReader: onDisks{h.LVM}}
		g, err := lvm.NewGroup(name, lvm.GroupOptions{Executor: h.LVM, Reader: readers[name]})
		must(t, err)
		groups = append(groups, g)
	}
	var err error
	h.Engine, err = openWith(t.Context(), t, h.LVM, func(o *storage.Options) { o.Groups = groups }, names...)
	must(t, err)
	return h, readers
}

// The disks of one group do not answer: what it held, and nobody can have changed, is listed; another group goes on, since a name that
// was not there is not there; nothing is begun in the group that hangs.
func TestDisksDoNotAnswer(t *testing.T) {
	h, readers := newHostOnDisks(t, group, "vg1")
	ctx := t.Context()
	v := h.volume(t, "v")
	_, err := h.cut(ctx, "s", v)
	must(t, err)
	inOther := storage.VolumeSpec{Name: "w", RequiredBytes: 8 * mib, Access: storage.AccessBlock, Class: storage.Class{VolumeGroup: "vg1"}}
	w, err := h.CreateVolume(ctx, inOther)
	must(t, err)
	h.ready(t) // somebody looks

	readers[group].err = fmt.Errorf("%w: it hangs", lvm.ErrStuck)
	h.ResetCommands()
	if got := h.ready(t); len(got) != 1 || !got["s"] {
		t.Errorf("listed: %v", got)
	}
	list, err := h.Volumes(ctx)
	must(t, err)
	for _, vol := range list {
		if ill := slices.ContainsFunc(vol.Conditions, func(c storage.Condition) bool {
			return c.Reason == storage.DisksNotAnswering && strings.Contains(c.Message, "it hangs")
		}); ill != (vol.Name == "v") {
			t.Errorf("%s: %+v", vol.Name, vol.Conditions)
		}
	}
	if len(list) != 2 {
		t.Errorf("volumes: %+v", list)
	}
	for what, call := range map[string]func() error{
		"CreateSnapshot": func() error { _, err := h.cut(ctx, "s2", v); return err },
		"DeleteSnapshot": func() error { return h.DeleteVolume(ctx, v.ID) },
		"its name, in the other group": func() error {
			spec := inOther
			spec.Name = "v"
			_, err := h.CreateVolume(ctx, spec)
			return err
		},
		"Capacity": func() error { _, err := h.Capacity(ctx, storage.Class{}); return err },
	} {
		if err := call(); !errors.Is(err, storage.ErrBusy) && !errors.Is(err, storage.ErrPending) || !strings.Contains(err.Error(), "it hangs") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if changes := h.changes(); len(changes) > 0 {
		t.Errorf("changes: %v", changes)
	}

	s, err := h.cut(ctx, "of w", w)
	must(t, err)
	inOther.Name, inOther.Source = "restored", &storage.Source{Kind: storage.SourceSnapshot, ID: s.ID}
	restored, err := h.CreateVolume(ctx, inOther)
	must(t, err)
	must(t, h.DeleteVolume(ctx, restored.ID))
	must(t, h.DeleteSnapshot(ctx, s.ID))
	must(t, h.DeleteSnapshot(ctx, s.ID))

	readers[group].err = nil
	must(t, h.DeleteVolume(ctx, v.ID))
}

// Of what a command of ours may have changed since it was read nothing is claimed.
func TestDisksFallSilentAfterAChange(t *testing.T) {
	h, readers := newHostOnDisks(t, group, "vg1")
	v := h.volume(t, "v")
	readers[group].err = lvm.ErrStuck // nobody has looked since
	if _, err := h.Snapshots(t.Context(), storage.SnapshotQuery{}); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("listed: %v", err)
	}
	if err := h.DeleteVolume(t.Context(), v.ID); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("deleted: %v", err)
	}
	spec := storage.VolumeSpec{Name: "w", RequiredBytes: 8 * mib, Access: storage.AccessBlock, Class: storage.Class{VolumeGroup: "vg1"}}
	if _, err := h.CreateVolume(t.Context(), spec); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("created in the other group: %v", err)
	}
	readers[group].err = nil
	_, err := h.CreateVolume(t.Context(), spec)
	must(t, err)
}
