package storage_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// A clone of a thick volume needs room for a snapshot beside itself. Without it the answer is final and has the numbers, and
// nothing is left that would take the room from those who make some.
func TestCloneWithoutRoomForItsSnapshot(t *testing.T) {
	const gib = 1024 * mib
	h := newHost(t)
	ctx := t.Context()
	thick := func(name string, size int64) storage.Volume {
		v, err := h.CreateVolume(ctx, storage.VolumeSpec{Name: name, RequiredBytes: size, Access: storage.AccessBlock, Class: thickClass})
		must(t, err)
		return v
	}
	v := thick("v", 30*gib)
	h.write(t, v, "v1")
	ballast := thick("ballast", 20*gib)
	before := h.left()
	spec := copySpec(storage.Class{}, storage.SourceVolume, v.ID)
	for range 2 {
		_, err := h.CreateVolume(ctx, spec)
		if !errors.Is(err, storage.ErrNoSpace) || errors.Is(err, storage.ErrPending) {
			t.Fatalf("no room: %v, want ErrNoSpace", err)
		}
		for _, part := range []string{"the COW of a snapshot of 30 GiB", "GiB free", "beside the 30 GiB of the clone itself"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q is not in %v", part, err)
			}
		}
		if left := h.left(); !slices.Equal(left, before) {
			t.Errorf("left %v, before %v", left, before)
		}
	}
	must(t, h.DeleteVolume(ctx, ballast.ID))
	h.write(t, v, "v2")
	r := persist(t, func() (storage.Volume, error) { return h.CreateVolume(ctx, spec) })
	if got := h.content(t, r); got != "v2" {
		t.Errorf("it has %q", got)
	}
	if left := strings.Join(h.left(), " "); strings.Contains(left, "csi-c-") {
		t.Errorf("left: %s", left)
	}
}
