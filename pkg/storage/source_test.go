package storage_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// A volume grows while its clone waits for its turn: the clone does not get what others left on the new extents.
func TestCloneOfWhatGrows(t *testing.T) {
	fake := lvmtest.New()
	fake.AddGroup(group, 100<<30)
	fake.AddPool(group, pool, 1<<30, 16*mib, 64<<10, true)
	e, err := openWith(t.Context(), t, fake, func(o *storage.Options) { o.Fill.Parallelism, o.Fill.Wait = 1, time.Millisecond }, group)
	must(t, err)
	h := &host{fake, e}
	ctx := t.Context()
	v := persist(t, func() (storage.Volume, error) { return h.CreateVolume(ctx, thickSpec("v")) })
	h.write(t, v, "v1")
	h.unstage(t, v)
	busy, release := make(chan struct{}, 1), make(chan struct{})
	h.OnFill(func(context.Context, string) error {
		busy <- struct{}{}
		<-release
		return nil
	})
	pending := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, storage.ErrPending) {
			t.Fatalf("%s: %v, want ErrPending", what, err)
		}
	}
	_, err = h.CreateVolume(ctx, thickSpec("other")) // which has the only slot
	pending("another volume", err)
	<-busy
	spec := copySpec(thickClass, storage.SourceVolume, v.ID)
	spec.RequiredBytes = 64 * mib
	_, err = h.CreateVolume(ctx, spec)
	pending("the clone", err)
	_, err = h.ExpandVolume(ctx, v.ID, 32*mib, 0)
	pending("the growth", err)
	if !h.HasOldBlocks(group, lvName(t, v.ID)) {
		t.Error("it has not grown by old blocks, and this test shows nothing")
	}
	h.OnFill(nil)
	close(release)
	r := persist(t, func() (storage.Volume, error) { return h.CreateVolume(ctx, spec) })
	if got := h.content(t, r); got != "v1" || h.HasOldBlocks(group, lvName(t, r.ID)) {
		t.Errorf("the clone has %q, and old blocks: %t", got, h.HasOldBlocks(group, lvName(t, r.ID)))
	}
	v = persist(t, func() (storage.Volume, error) { return h.ExpandVolume(ctx, v.ID, 32*mib, 0) })
	if got := h.content(t, v); got != "v1" || v.SizeBytes != 32*mib || h.HasOldBlocks(group, lvName(t, v.ID)) {
		t.Errorf("the source has %q in %d bytes, and old blocks: %t", got, v.SizeBytes, h.HasOldBlocks(group, lvName(t, v.ID)))
	}
}
