package storage_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// mounted makes the thick volume "v" with a file system.
func (h *host) mounted(t *testing.T) storage.Volume {
	t.Helper()
	spec := thickSpec("v")
	spec.Access, spec.FSType = storage.AccessMount, "ext4"
	v := persist(t, func() (storage.Volume, error) { return h.CreateVolume(t.Context(), spec) })
	h.write(t, v, "v1")
	return v
}

// What a thick file system grew by has others' old blocks. Nothing that is made of it becomes a block device, through however many
// copies; what was cut before may, and so may what could not grow.
func TestOldBlocksUnderAFileSystem(t *testing.T) {
	h := newHost(t)
	ctx := t.Context()
	v := h.mounted(t)
	h.FailNext(lvmtest.Verb("lvextend"), "Insufficient free space: 14 extents needed, but only 0 available", 5)
	if _, err := h.ExpandVolume(ctx, v.ID, 64*mib, 0); !errors.Is(err, storage.ErrNoSpace) {
		t.Fatalf("expansion: %v", err)
	}
	s, err := h.cut(ctx, "before", v)
	must(t, err)
	h.unstage(t, v)
	for range 2 { // the second finds the first's tag
		v, err = h.ExpandVolume(ctx, v.ID, v.SizeBytes+8*mib, 0)
		must(t, err)
	}
	r, err := h.restore(ctx, s.ID, 0)
	if err != nil || r.Access != storage.AccessBlock || h.content(t, r) != "v1" {
		t.Errorf("restore of what was cut before: %+v, %v", r, err)
	}
	h.unstage(t, r)
	must(t, h.DeleteVolume(ctx, r.ID))
	must(t, h.DeleteSnapshot(ctx, s.ID))

	sources := []*storage.Source{{Kind: storage.SourceVolume, ID: v.ID}}
	for _, class := range []storage.Class{thickClass, {Type: storage.TypeThin}, {Type: storage.TypeThin}} { // the last shares blocks
		name := string(rune('a' + len(sources)))
		copied := persist(t, func() (storage.Volume, error) {
			return h.CreateVolume(ctx, storage.VolumeSpec{Name: name, Access: storage.AccessMount, Class: class, Source: sources[len(sources)-1]})
		})
		if got := h.content(t, copied); got != "v1" || copied.FSType != "ext4" {
			t.Errorf("copy as a file system: %q, %+v", got, copied)
		}
		s, err := h.cut(ctx, name, copied)
		must(t, err)
		sources = append(sources, &storage.Source{Kind: storage.SourceVolume, ID: copied.ID}, &storage.Source{Kind: storage.SourceSnapshot, ID: s.ID})
	}
	h.ResetCommands()
	for _, source := range sources {
		for _, class := range []storage.Class{{}, thickClass, {Type: storage.TypeThin}} {
			_, err := h.CreateVolume(ctx, copySpec(class, source.Kind, source.ID))
			if !errors.Is(err, storage.ErrInvalid) || !strings.Contains(err.Error(), "volumeMode Filesystem") {
				t.Errorf("%s %s as a block volume in %+v: %v", source.Kind, source.ID, class, err)
			}
		}
	}
	if got := h.changes(); len(got) > 0 {
		t.Errorf("commands: %q", got)
	}
}

// A clone as a block volume was allowed, and before its copy began the source grew.
func TestOldBlocksComeBeforeTheCopy(t *testing.T) {
	h := newHost(t)
	h.Close()
	e, err := openWith(t.Context(), t, h.LVM, func(o *storage.Options) { o.Fill.Parallelism, o.Fill.Wait = 1, time.Millisecond }, group)
	must(t, err)
	h.Engine = e
	ctx := t.Context()
	v := h.mounted(t)
	h.unstage(t, v)
	release := make(chan struct{})
	h.OnFill(func(context.Context, string) error { <-release; return nil })
	if _, err := h.CreateVolume(ctx, thickSpec("other")); !errors.Is(err, storage.ErrPending) { // it has the only slot
		t.Fatal(err)
	}
	spec := copySpec(thickClass, storage.SourceVolume, v.ID)
	spec.RequiredBytes = 64 * mib
	if _, err := h.CreateVolume(ctx, spec); !errors.Is(err, storage.ErrPending) {
		t.Fatal(err)
	}
	_, err = h.ExpandVolume(ctx, v.ID, 32*mib, 0)
	must(t, err)
	close(release)
	h.OnFill(nil)
	eventually(t, "the end of the clone", func() bool {
		_, err = h.CreateVolume(ctx, spec)
		return !errors.Is(err, storage.ErrPending) && !errors.Is(err, storage.ErrDamaged) // which takes away what was made
	})
	if !errors.Is(err, storage.ErrInvalid) {
		t.Errorf("%v, want a refusal", err)
	}
	if list, err := h.Volumes(ctx); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
}
