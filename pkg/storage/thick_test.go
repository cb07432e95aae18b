package storage_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

var thickClass = storage.Class{Type: storage.TypeThick}

func thickSpec(name string) storage.VolumeSpec {
	return storage.VolumeSpec{Name: name, RequiredBytes: 8 * mib, Access: storage.AccessBlock, Class: thickClass}
}

// copySpec is of a volume "r".
func copySpec(class storage.Class, kind storage.SourceKind, id string) storage.VolumeSpec {
	return storage.VolumeSpec{Name: "r", Access: storage.AccessBlock, Class: class, Source: &storage.Source{Kind: kind, ID: id}}
}

// thick makes the volume "v".
func (h *host) thick(t *testing.T) storage.Volume {
	t.Helper()
	v, err := h.CreateVolume(t.Context(), thickSpec("v"))
	must(t, err)
	return v
}

// inactive volumes are what their kubelet has unstaged.
func (h *host) unstage(t *testing.T, v storage.Volume) {
	t.Helper()
	must(t, h.Deactivate(t.Context(), v.ID))
}

func (h *host) reopen(t *testing.T) {
	t.Helper()
	h.Close()
	e, err := open(t, h.LVM, group)
	must(t, err)
	h.Engine = e
}

// persist calls until it is no longer pending, as the sidecars do.
func persist[T any](t *testing.T, call func() (T, error)) T {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		out, err := call()
		if err == nil {
			return out
		}
		if !errors.Is(err, storage.ErrPending) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// left are the driver's LVs.
func (h *host) left() []string {
	return slices.DeleteFunc(h.Names(group), func(n string) bool { return !strings.HasPrefix(n, "csi-") })
}

// Whichever command LVM dies in, before it or after it, and whether the driver dies with it: the retry has the right
// content, and nothing is left behind.
func TestThickCrashes(t *testing.T) {
	setups := map[string]func(*testing.T, *host) (spec storage.VolumeSpec, content string){
		"create": func(*testing.T, *host) (storage.VolumeSpec, string) { return thickSpec("r"), "" },
		"restore": func(t *testing.T, h *host) (storage.VolumeSpec, string) {
			v := h.thick(t)
			h.write(t, v, "v1")
			s, err := h.cut(t.Context(), "s", v)
			must(t, err)
			h.write(t, v, "v2")
			h.unstage(t, v)
			return copySpec(storage.Class{}, storage.SourceSnapshot, s.ID), "v1"
		},
		"clone": func(t *testing.T, h *host) (storage.VolumeSpec, string) {
			v := h.thick(t)
			h.write(t, v, "v1")
			h.unstage(t, v)
			return copySpec(storage.Class{}, storage.SourceVolume, v.ID), "v1"
		},
		"clone of an active volume": func(t *testing.T, h *host) (storage.VolumeSpec, string) {
			v := h.thick(t)
			h.write(t, v, "v1")
			return copySpec(storage.Class{}, storage.SourceVolume, v.ID), "v1"
		},
		"thick snapshot to thin": func(t *testing.T, h *host) (storage.VolumeSpec, string) {
			v := h.thick(t)
			h.write(t, v, "v1")
			s, err := h.cut(t.Context(), "s", v)
			must(t, err)
			return copySpec(storage.Class{Type: storage.TypeThin}, storage.SourceSnapshot, s.ID), "v1"
		},
		"thin snapshot to thick": func(t *testing.T, h *host) (storage.VolumeSpec, string) {
			v := h.volume(t, "v")
			h.write(t, v, "v1")
			s, err := h.cut(t.Context(), "s", v)
			must(t, err)
			return copySpec(thickClass, storage.SourceSnapshot, s.ID), "v1"
		},
		"thin volume to thick": func(t *testing.T, h *host) (storage.VolumeSpec, string) {
			v := h.volume(t, "v")
			h.write(t, v, "v1")
			return copySpec(thickClass, storage.SourceVolume, v.ID), "v1"
		},
	}
	kinds := map[string]func(h *host, nth int){
		"before":   func(h *host, n int) { h.CrashNext(lvmtest.Nth(n, lvmtest.Changes), false) },
		"after":    func(h *host, n int) { h.CrashNext(lvmtest.Nth(n, lvmtest.Changes), true) },
		"half way": func(h *host, n int) { h.PhantomNext(lvmtest.Nth(n, lvmtest.Verb("lvcreate", "--snapshot"))) },
		"fails":    func(h *host, n int) { h.FailNext(lvmtest.Nth(n, lvmtest.Changes), "Internal error.", 5) },
	}
	for name, setup := range setups {
		for kind, crash := range kinds {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/restart %t", name, kind, restart), func(t *testing.T) {
					for nth, done := 1, false; !done; nth++ {
						done = crashOnce(t, setup, func(h *host) { crash(h, nth) }, restart)
						if nth > 20 {
							t.Fatal("it never ends")
						}
					}
				})
			}
		}
	}
}

// crashOnce says whether the call succeeded in spite of it.
func crashOnce(
	t *testing.T, setup func(*testing.T, *host) (storage.VolumeSpec, string), crash func(*host), restart bool,
) (done bool) {
	t.Helper()
	h := newHost(t)
	spec, want := setup(t, h)
	before := h.left()
	active := h.active(before)
	crash(h)
	_, err := h.CreateVolume(t.Context(), spec)
	h.ClearFaults()
	if restart {
		h.reopen(t)
	}
	for _, name := range h.left() {
		if name == storage.VolumeLV(spec.Name) && err == nil && h.Content(group, name) != want {
			t.Errorf("reported with %q", h.Content(group, name))
		}
	}
	var v storage.Volume
	for range 3 { // a failure that is final is the sidecars' reason to begin again
		var again error
		if v, again = h.CreateVolume(t.Context(), spec); again == nil {
			break
		} else if !errors.Is(again, storage.ErrPending) {
			t.Logf("final: %v", again)
		}
	}
	if v.ID == "" {
		v = persist(t, func() (storage.Volume, error) { return h.CreateVolume(t.Context(), spec) })
	}
	if got := h.content(t, v); got != want {
		t.Errorf("it has %q, want %q", got, want)
	}
	h.reopen(t) // which sweeps
	if got := slices.DeleteFunc(h.left(), func(n string) bool { return slices.Contains(before, n) }); len(got) != 1 {
		t.Errorf("left behind: %v", got)
	}
	if err == nil && !slices.Equal(h.active(before), active) {
		t.Errorf("active now: %v, before: %v", h.active(before), active)
	}
	return err == nil
}

func (h *host) active(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool {
		_, err := h.Info(context.Background(), group, n)
		return err != nil
	})
}

// The origin of COW snapshots goes with the last of them, and its name is free at once.
func TestSetAside(t *testing.T) {
	for _, crash := range []bool{false, true} {
		h := newHost(t)
		ctx := t.Context()
		v := h.thick(t)
		h.write(t, v, "v1")
		s1, err := h.cut(ctx, "s1", v)
		must(t, err)
		h.write(t, v, "v2")
		s2, err := h.cut(ctx, "s2", v)
		must(t, err)
		if crash {
			h.CrashNext(lvmtest.Verb("lvrename"), true)
			if err := h.DeleteVolume(ctx, v.ID); !errors.Is(err, storage.ErrPending) {
				t.Fatalf("crashed: %v", err)
			}
		}
		must(t, h.DeleteVolume(ctx, v.ID))
		must(t, h.DeleteVolume(ctx, v.ID))
		if list, err := h.Volumes(ctx); err != nil || len(list) != 0 {
			t.Errorf("listed: %+v, %v", list, err)
		}
		again := h.thick(t)
		if got := h.content(t, again); got != "" {
			t.Errorf("the new volume has %q", got)
		}
		must(t, h.DeleteVolume(ctx, again.ID))
		h.reopen(t)
		for want, s := range map[string]storage.Snapshot{"v1": s1, "v2": s2} {
			r, err := h.restore(ctx, s.ID, 0)
			must(t, err)
			if got := h.content(t, r); got != want {
				t.Errorf("%s has %q, want %q", s.Name, got, want)
			}
			must(t, h.DeleteVolume(ctx, r.ID))
		}
		must(t, h.DeleteSnapshot(ctx, s1.ID))
		if n := len(h.left()); n != 2 {
			t.Errorf("left: %v", h.left())
		}
		if crash {
			h.CrashNext(lvmtest.Nth(2, lvmtest.Verb("lvremove")), false)
			_ = h.DeleteSnapshot(ctx, s2.ID)
			h.reopen(t)
		}
		must(t, h.DeleteSnapshot(ctx, s2.ID))
		if left := h.left(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
}

func TestHalfMadeCOWSnapshot(t *testing.T) {
	for _, active := range []bool{false, true} {
		for _, restart := range []bool{false, true} {
			h := newHost(t)
			v := h.thick(t)
			h.write(t, v, "v1")
			if !active {
				h.unstage(t, v)
			}
			h.PhantomNext(snapshotCreation)
			h.FailNext(lvmtest.Verb("lvchange", "--activate"), "no recovery in the same turn", 5)
			if _, err := h.cut(t.Context(), "s", v); !errors.Is(err, storage.ErrPending) {
				t.Fatalf("interrupted: %v, want ErrPending", err)
			}
			if active {
				h.SetSuspended(group, lvName(t, v.ID), true)
			}
			list, err := h.Snapshots(t.Context(), storage.SnapshotQuery{})
			must(t, err)
			if len(list) != 1 || list[0].Ready {
				t.Errorf("listed: %+v", list)
			}
			if restart {
				h.reopen(t)
			}
			s, err := h.cut(t.Context(), "s", v)
			must(t, err)
			if found, err := h.Snapshot(t.Context(), s.ID); err != nil || !found.Ready {
				t.Errorf("%+v, %v", found, err)
			}
			r, err := h.restore(t.Context(), s.ID, 0)
			must(t, err)
			if got := h.content(t, r); got != "v1" {
				t.Errorf("it has %q", got)
			}
			if info, err := h.Info(t.Context(), group, lvName(t, v.ID)); err == nil && info.Suspended {
				t.Error("the origin is still suspended")
			}
		}
	}
}

// Of a snapshot whose removal died only the COW is left: that is nobody's data, and nothing is made of it.
func TestSplitOffCOW(t *testing.T) {
	h := newHost(t)
	ctx := t.Context()
	v := h.thick(t)
	h.write(t, v, "v1")
	s, err := h.cut(ctx, "s", v)
	must(t, err)
	h.SplitOff(group, lvName(t, s.ID))
	if found, err := h.Snapshot(ctx, s.ID); err != nil || found.Ready {
		t.Errorf("%+v, %v", found, err)
	}
	if again, err := h.cut(ctx, "s", v); !errors.Is(err, storage.ErrDamaged) {
		t.Errorf("cut again: %+v, %v; want ErrDamaged", again, err)
	}
	if r, err := h.restore(ctx, s.ID, 0); !errors.Is(err, storage.ErrDamaged) {
		t.Errorf("restored: %+v, %v; want ErrDamaged", r, err)
	}
	must(t, h.DeleteSnapshot(ctx, s.ID))
	_, err = h.cut(ctx, "s", v)
	must(t, err)
}

// A lost snapshot is never ready, whether it is active or not.
func TestInvalidSnapshot(t *testing.T) {
	h := newHost(t)
	ctx := t.Context()
	v := h.thick(t)
	h.write(t, v, "v1")
	s, err := h.CreateSnapshot(ctx, storage.SnapshotSpec{Name: "s", SourceID: v.ID, COW: storage.COWSize{Percent: 20}})
	must(t, err)
	h.SetCOWUsage(group, lvName(t, s.ID), 8*mib)
	lost := func(when string) {
		t.Helper()
		found, err := h.Snapshot(ctx, s.ID)
		must(t, err)
		if found.Ready || len(found.Conditions) != 1 || found.Conditions[0].Reason != "SnapshotInvalid" {
			t.Errorf("%s: %+v", when, found)
		}
		if origin, err := h.Volume(ctx, v.ID); err != nil || len(origin.Conditions) != 1 || origin.Conditions[0].Severity != storage.SeverityDegraded {
			t.Errorf("%s: its origin: %+v, %v", when, origin, err)
		}
		if _, err := h.restore(ctx, s.ID, 0); !errors.Is(err, storage.ErrDamaged) {
			t.Errorf("%s: restore: %v", when, err)
		}
		if _, err := h.CreateSnapshot(ctx, storage.SnapshotSpec{Name: "s", SourceID: v.ID}); !errors.Is(err, storage.ErrDamaged) {
			t.Errorf("%s: again: %v", when, err)
		}
	}
	lost("active")
	h.unstage(t, v)
	lost("inactive")
	h.reopen(t)
	lost("after a restart")
	must(t, h.DeleteSnapshot(ctx, s.ID))

	// What is found out only by reading it.
	s, err = h.CreateSnapshot(ctx, storage.SnapshotSpec{Name: "s", SourceID: v.ID, COW: storage.COWSize{Bytes: 4 * mib}})
	must(t, err)
	h.SetCOWUsage(group, lvName(t, s.ID), 8*mib)
	if _, err := h.restore(ctx, s.ID, 0); !errors.Is(err, storage.ErrDamaged) {
		t.Errorf("restore: %v", err)
	}
	lost("after it was read")
	if n := len(h.left()); n != 2 {
		t.Errorf("left: %v", h.left())
	}
}

// A block volume never shows what others left on the extents that it gets.
func TestGrowThickBlockVolume(t *testing.T) {
	h := newHost(t)
	ctx := t.Context()
	v := h.thick(t)
	h.write(t, v, "v1")
	for nth := 1; ; nth++ {
		size := 8*mib + int64(nth)*4*mib
		h.CrashNext(lvmtest.Nth(nth, lvmtest.Changes), nth%2 == 0)
		_, err := h.ExpandVolume(ctx, v.ID, size, 0)
		h.ClearFaults()
		got := persist(t, func() (storage.Volume, error) { return h.ExpandVolume(ctx, v.ID, size, 0) })
		if got.SizeBytes != size || got.RequestedBytes != size || len(h.left()) != 1 || len(h.active(h.left())) != 1 {
			t.Errorf("online, %d: %+v, left %v", nth, got, h.left())
		}
		if err == nil {
			break
		}
	}
	extended := slices.DeleteFunc(h.changes(), func(c string) bool { return !strings.HasPrefix(c, "lvextend") })
	if len(extended) < 5 || slices.ContainsFunc(extended, func(c string) bool { return !strings.Contains(c, " /dev/fake:") }) {
		t.Errorf("an active volume was extended onto what was not overwritten: %q", extended)
	}
	kept := "lvremove --yes --config devices/issue_discards=0 " + group + "/csi-z-"
	if !slices.ContainsFunc(h.changes(), func(c string) bool { return strings.HasPrefix(c, kept) }) {
		t.Errorf("what was overwritten for the volume may have been discarded: %q", h.changes())
	}
	h.unstage(t, v)
	for nth := 1; ; nth++ {
		size := int64(nth+10) * 16 * mib
		h.CrashNext(lvmtest.Nth(nth, lvmtest.Changes), nth%2 == 0)
		_, err := h.ExpandVolume(ctx, v.ID, size, 0)
		h.ClearFaults()
		h.reopen(t)
		got := persist(t, func() (storage.Volume, error) { return h.ExpandVolume(ctx, v.ID, size, 0) })
		if got.SizeBytes != size || got.RequestedBytes != size {
			t.Errorf("%+v", got)
		}
		if text := h.content(t, v); text != "v1" {
			t.Errorf("it has %q", text)
		}
		h.unstage(t, v)
		if err == nil {
			break
		}
	}
}

// With COW snapshots an active volume does not grow, and is not tried to: deactivated meanwhile it would, onto old blocks.
func TestGrowThickBlockVolumeWithSnapshots(t *testing.T) {
	h := newHost(t)
	v := h.thick(t)
	h.write(t, v, "v1")
	s, err := h.cut(t.Context(), "s", v)
	must(t, err)
	h.ResetCommands()
	_, err = h.ExpandVolume(t.Context(), v.ID, 64*mib, 0)
	if !errors.Is(err, storage.ErrInUse) || !strings.Contains(err.Error(), "COW snapshots") || len(h.changes()) > 0 {
		t.Errorf("%v; commands: %q", err, h.changes())
	}
	must(t, h.DeleteSnapshot(t.Context(), s.ID))
	got := persist(t, func() (storage.Volume, error) { return h.ExpandVolume(t.Context(), v.ID, 64*mib, 0) })
	if got.SizeBytes != 64*mib || h.content(t, v) != "v1" {
		t.Errorf("without them: %+v", got)
	}
}
