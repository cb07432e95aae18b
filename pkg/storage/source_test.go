package storage_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
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

// slow makes all copies end half way, until they are let.
func (h *host) slow() (let func()) {
	h.OnFill(func(context.Context, string) error { return errors.New("the disk is slow") })
	return func() { h.OnFill(nil) }
}

// The source of a copy that is half done is deleted, and another takes its name: nothing is made of both.
func TestSourceOfAnotherTime(t *testing.T) {
	for _, kind := range []storage.SourceKind{storage.SourceSnapshot, storage.SourceVolume} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/restart %t", kind, restart), func(t *testing.T) {
				h := newHost(t)
				ctx := t.Context()
				v := h.volume(t, "v")
				h.write(t, v, "v1")
				s, err := h.cut(ctx, "s", v)
				must(t, err)
				source := map[storage.SourceKind]string{storage.SourceSnapshot: s.ID, storage.SourceVolume: v.ID}[kind]
				let := h.slow()
				spec := copySpec(thickClass, kind, source)
				if _, err := h.CreateVolume(ctx, spec); !errors.Is(err, storage.ErrPending) {
					t.Fatalf("half a copy: %v, want ErrPending", err)
				}
				must(t, h.DeleteSnapshot(ctx, s.ID))
				if kind == storage.SourceVolume {
					must(t, lvm.NewClient(h.LVM, group).Remove(ctx, h.clones(t)[0])) // as an administrator may
					h.unstage(t, v)
					must(t, h.DeleteVolume(ctx, v.ID))
					v = h.volume(t, "v")
				}
				h.write(t, v, "v2")
				_, err = h.cut(ctx, "s", v)
				must(t, err)
				let()
				if restart {
					h.reopen(t)
				}
				// What was begun is given up, and only then may another be made.
				if _, err := h.CreateVolume(ctx, spec); !errors.Is(err, storage.ErrNotFound) {
					t.Errorf("of a source that is gone: %v, want ErrNotFound", err)
				}
				r, err := h.CreateVolume(ctx, spec)
				must(t, err)
				if got := h.content(t, r); got != "v2" {
					t.Errorf("it has %q, want v2", got)
				}
			})
		}
	}
}

// clones are the snapshots in the first group that were cut for clones.
func (h *host) clones(t *testing.T) []string {
	t.Helper()
	return slices.DeleteFunc(h.Names(group), func(n string) bool { return !strings.HasPrefix(n, "csi-c-") })
}

// The clone of a volume into another group is deleted half way: nothing is left in the source's group, and one of its name that is
// made of another volume has nothing of the first's, even where a crash has left the first's snapshot.
func TestCloneOfItsName(t *testing.T) {
	for _, class := range []storage.Class{{VolumeGroup: "vg1"}, {Type: storage.TypeThick, VolumeGroup: "vg1"}} {
		for _, crash := range []bool{false, true} {
			t.Run(fmt.Sprintf("%q/crash %t", class.Type, crash), func(t *testing.T) {
				h := newHost(t, group, "vg1")
				ctx := t.Context()
				a, b := h.volume(t, "a"), h.volume(t, "b")
				h.write(t, a, "of a")
				h.write(t, b, "of b")
				let := h.slow()
				spec := copySpec(class, storage.SourceVolume, a.ID)
				if _, err := h.CreateVolume(ctx, spec); !errors.Is(err, storage.ErrPending) {
					t.Fatalf("half a copy: %v, want ErrPending", err)
				}
				if n := len(h.clones(t)); n != 1 {
					t.Fatalf("%d snapshots for the clone", n)
				}
				if crash { // as a driver that dies between the two removals
					h.FailNext(lvmtest.Nth(2, lvmtest.Verb("lvremove")), "Internal error.", 5)
				}
				must(t, h.DeleteVolume(ctx, storage.Handle{NodeHash: storage.NodeHash(node), LV: storage.VolumeLV("r")}.String()))
				if left := h.clones(t); len(left) > 0 != crash {
					t.Errorf("left in the source's group: %v", left)
				}
				h.recoveredOnly(t, nil)
				let()
				spec.Source.ID = b.ID
				r, err := h.CreateVolume(ctx, spec)
				must(t, err)
				if got := h.content(t, r); got != "of b" {
					t.Errorf("it has %q, want what b has", got)
				}
				if left := h.clones(t); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			})
		}
	}
}

// A clone into another group goes on with its snapshot after a restart, which holds the moment that was copied from.
func TestCloneInAnotherGroupIsResumed(t *testing.T) {
	h := newHost(t, group, "vg1")
	ctx := t.Context()
	v := h.volume(t, "v")
	h.write(t, v, "v1")
	let := h.slow()
	spec := copySpec(storage.Class{VolumeGroup: "vg1"}, storage.SourceVolume, v.ID)
	if _, err := h.CreateVolume(ctx, spec); !errors.Is(err, storage.ErrPending) {
		t.Fatalf("half a copy: %v, want ErrPending", err)
	}
	h.write(t, v, "v2")
	let()
	h.Close()
	e, err := open(t, h.LVM, group, "vg1")
	must(t, err)
	h.Engine = e
	r := persist(t, func() (storage.Volume, error) { return h.CreateVolume(ctx, spec) })
	if got := h.content(t, r); got != "v1" {
		t.Errorf("it has %q, want v1, the moment of its first attempt", got)
	}
	if left := h.clones(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// The clock was set back between the source and its copy, and an older driver has begun copies without the UUIDs of their sources.
func TestClockAndOlderRecords(t *testing.T) {
	for _, older := range []bool{false, true} {
		fake := lvmtest.New()
		fake.AddGroup(group, 100<<30)
		fake.AddPool(group, pool, 1<<30, 16*mib, 64<<10, true)
		var ahead atomic.Int64
		ahead.Store(int64(time.Hour))
		e, err := openWith(t.Context(), t, fake, func(o *storage.Options) {
			o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		}, group)
		must(t, err)
		h := &host{fake, e}
		ctx := t.Context()
		v := h.volume(t, "v")
		h.write(t, v, "v1")
		s, err := h.cut(ctx, "s", v)
		must(t, err)
		ahead.Store(0)
		for source, kind := range map[string]storage.SourceKind{s.ID: storage.SourceSnapshot, v.ID: storage.SourceVolume} {
			let := h.slow()
			_, err := h.CreateVolume(ctx, copySpec(thickClass, kind, source))
			if !errors.Is(err, storage.ErrPending) {
				t.Fatalf("half a copy: %v, want ErrPending", err)
			}
			if older {
				h.dropTags(t, "lvmsnap.from=", "lvmsnap.for=")
			}
			let()
			r, err := h.CreateVolume(ctx, copySpec(thickClass, kind, source))
			must(t, err)
			if got := h.content(t, r); got != "v1" {
				t.Errorf("of the %s: it has %q", kind, got)
			}
			if n := h.dropTags(t, "lvmsnap.from="); n > 0 {
				t.Error("the UUID of the source is still there")
			}
			h.unstage(t, r)
			must(t, h.DeleteVolume(ctx, r.ID))
		}
	}
}

// dropTags takes away all tags with one of the prefixes.
func (h *host) dropTags(t *testing.T, prefixes ...string) (dropped int) {
	t.Helper()
	c := lvm.NewClient(h.LVM, group)
	lvs, err := c.LVs(t.Context())
	must(t, err)
	for _, lv := range lvs {
		for _, tag := range lv.Tags {
			if slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(tag, p) }) {
				must(t, c.ChangeTags(t.Context(), lv.Name, []string{tag}, nil))
				dropped++
			}
		}
	}
	return dropped
}

// LVM died while it made a clone's snapshot, and what it left cannot be removed yet: nothing is copied from it.
func TestHalfMadeSnapshotOfClone(t *testing.T) {
	h := newHost(t)
	ctx := t.Context()
	v := h.thick(t)
	h.write(t, v, "v1")
	h.unstage(t, v)
	refuse := func() {
		for range 3 { // in more than one turn
			h.FailNext(func(args []string) bool {
				return args[0] == "lvchange" && strings.Contains(args[len(args)-1], "csi-c-")
			}, "Internal error.", 5)
		}
	}
	h.PhantomNext(snapshotCreation)
	for range 3 {
		refuse()
		if _, err := h.CreateVolume(ctx, copySpec(storage.Class{}, storage.SourceVolume, v.ID)); !errors.Is(err, storage.ErrPending) {
			t.Fatalf("%v, want ErrPending", err)
		}
	}
	h.ClearFaults()
	r, err := h.CreateVolume(ctx, copySpec(storage.Class{}, storage.SourceVolume, v.ID))
	must(t, err)
	if got := h.content(t, r); got != "v1" || h.HasOldBlocks(group, lvName(t, r.ID)) {
		t.Errorf("it has %q", got)
	}
	if left := h.clones(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// flusher makes the end of a turn fail, once.
type flusher struct{ fail atomic.Bool }

func (f *flusher) Metadata(string) (lvm.Metadata, error) {
	return lvm.Metadata{}, errors.New("ask LVM")
}
func (f *flusher) Locate(context.Context, *lvm.Client) error { return errors.New("ask LVM") }
func (f *flusher) Flush(context.Context, *lvm.Client) error {
	if f.fail.CompareAndSwap(true, false) {
		return errors.New("input/output error")
	}
	return nil
}

// The turn in which a source was opened ends badly: it is closed all the same, and can be deleted.
func TestSourceIsGivenBack(t *testing.T) {
	fake, fl := lvmtest.New(), &flusher{}
	fake.AddGroup(group, 100<<30)
	fake.AddPool(group, pool, 1<<30, 16*mib, 64<<10, true)
	e, err := openWith(t.Context(), t, fake, func(o *storage.Options) {
		g, err := lvm.NewGroup(group, lvm.GroupOptions{Executor: fake, Reader: fl})
		must(t, err)
		o.Groups = []*lvm.Group{g}
	}, group)
	must(t, err)
	h := &host{fake, e}
	ctx := t.Context()
	v := h.volume(t, "v")
	h.write(t, v, "v1")
	s, err := h.cut(ctx, "s", v)
	must(t, err)
	h.OnCommand(func(args []string) {
		if args[0] == "lvchange" && slices.Contains(args, "--activate") && strings.HasSuffix(args[len(args)-1], lvName(t, s.ID)) {
			fl.fail.Store(true)
		}
	})
	if _, err := h.CreateVolume(ctx, copySpec(thickClass, storage.SourceSnapshot, s.ID)); !errors.Is(err, storage.ErrPending) {
		t.Errorf("the flush failed: %v, want ErrPending", err)
	}
	h.OnCommand(nil)
	if len(h.active([]string{lvName(t, s.ID)})) > 0 {
		t.Error("it is still active")
	}
	r, err := h.CreateVolume(ctx, copySpec(thickClass, storage.SourceSnapshot, s.ID))
	must(t, err)
	if got := h.content(t, r); got != "v1" {
		t.Errorf("it has %q", got)
	}
	must(t, h.DeleteSnapshot(ctx, s.ID))
}
