package storage_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// Where nobody could look, no answer may be final: it would say that nothing was left behind, and what is there would be leaked.
func TestNobodyCouldLook(t *testing.T) {
	for _, groups := range [][]string{{group}, {group, "vg1"}} {
		h := newHost(t, groups...)
		v := h.volume(t, "v")
		_, err := h.cut(t.Context(), "s", v)
		must(t, err)
		for _, question := range []string{"vgs", "lvs"} {
			fail := func() { h.FailNext(lvmtest.Verb(question), "Internal error.", 5) }
			fail()
			if _, err := h.cut(t.Context(), "s", v); !errors.Is(err, storage.ErrPending) {
				t.Errorf("%v, %s fails: CreateSnapshot of what is there: %v, want ErrPending", groups, question, err)
			}
			fail()
			_, err := h.CreateVolume(t.Context(), storage.VolumeSpec{Name: "v", RequiredBytes: 8 * mib, Access: storage.AccessBlock})
			if !errors.Is(err, storage.ErrPending) {
				t.Errorf("%v, %s fails: CreateVolume of what is there: %v, want ErrPending", groups, question, err)
			}
		}
		// The growth of a restore was interrupted, and fails again.
		s, err := h.cut(t.Context(), "s", v)
		must(t, err)
		h.CrashNext(lvmtest.Verb("lvextend"), false)
		_, _ = h.restore(t.Context(), s.ID, 64*mib)
		h.FailNext(lvmtest.Verb("lvextend"), "Internal error.", 5)
		if _, err := h.restore(t.Context(), s.ID, 64*mib); !errors.Is(err, storage.ErrPending) {
			t.Errorf("a volume that is there, and has not got its size: %v, want ErrPending", err)
		}
	}
}

// A command that never got the group's lock has done nothing: the caller is told to try again, in whatever it was.
func TestGroupNotLocked(t *testing.T) {
	const text = "Interrupted...; Giving up waiting for lock.; Can't get lock for vg0.; Cannot process volume group vg0"
	h := newHost(t)
	v := h.volume(t, "v")
	s, err := h.cut(t.Context(), "s", v)
	must(t, err)
	calls := map[string]func() error{
		"lvcreate": func() error { _, err := h.cut(t.Context(), "new", v); return err },
		"lvremove": func() error { return h.DeleteSnapshot(t.Context(), s.ID) },
		"lvchange": func() error { _, err := h.Activate(t.Context(), v.ID); return err },
	}
	before := h.left()
	for verb, call := range calls {
		h.FailNext(lvmtest.Verb(verb), text, 5)
		if err := call(); !errors.Is(err, storage.ErrBusy) || !strings.Contains(err.Error(), "try again") {
			t.Errorf("%s: %v, want ErrBusy", verb, err)
		}
	}
	if left := h.left(); !slices.Equal(left, before) {
		t.Errorf("left %v, before %v", left, before)
	}
	for verb, call := range calls {
		if err := call(); err != nil {
			t.Errorf("%s, again: %v", verb, err)
		}
	}
}
