package lvm_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

func TestPresence(t *testing.T) {
	locks := lvm.FileLocks{Dir: filepath.Join(t.TempDir(), "lvm"), Patience: 200 * time.Millisecond}
	runs := func(want bool) {
		t.Helper()
		if got, err := locks.DriverRuns("vg"); err != nil || got != want {
			t.Errorf("a driver runs: %t, %v, want %t", got, err, want)
		}
	}
	runs(false)
	if entries, err := os.ReadDir(locks.Dir); err == nil {
		t.Errorf("a look made %v", entries)
	}
	one, err := locks.Announce(t.Context(), "vg")
	succeeds(t, err)
	two, err := locks.Announce(t.Context(), "vg") // the next version of it
	succeeds(t, err)
	runs(true)
	one()
	runs(true)
	if _, err := locks.Alone(t.Context(), "vg"); !errors.Is(err, lvm.ErrDriverRuns) {
		t.Errorf("alone beside a driver: %v", err)
	}
	if release, err := locks.Alone(t.Context(), "other"); err != nil {
		t.Errorf("another group: %v", err)
	} else {
		release()
	}
	two()
	runs(false)
	alone, err := locks.Alone(t.Context(), "vg")
	succeeds(t, err)
	if _, err := locks.Announce(t.Context(), "vg"); !errors.Is(err, lvm.ErrLocked) {
		t.Errorf("a driver that starts meanwhile: %v", err)
	}
	alone()
	for _, name := range []string{"", "../vg", "-x"} {
		if _, err := locks.Announce(t.Context(), name); err == nil {
			t.Errorf("%q was announced", name)
		}
	}
}

// snapshots is a pool with one metadata snapshot.
type snapshots struct {
	root, next uint64
	reserve    error
	faster     func() // somebody comes between the look and the reservation
}

func (s *snapshots) MetadataSnapshot(context.Context, string, string) (uint64, error) {
	return s.root, nil
}

func (s *snapshots) ReserveMetadataSnapshot(context.Context, string, string) error {
	if s.faster != nil {
		s.faster()
	}
	if s.root != 0 {
		return unix.EBUSY
	}
	if s.reserve != nil {
		return s.reserve
	}
	s.next++
	s.root = s.next
	return nil
}

func (s *snapshots) ReleaseMetadataSnapshot(context.Context, string, string) error {
	s.root = 0
	return nil
}

func TestWithMetadataSnapshot(t *testing.T) {
	locks := lvm.FileLocks{Dir: t.TempDir(), Patience: 50 * time.Millisecond}
	kernel := &snapshots{next: 40}
	with := func(fn func(context.Context) error) error {
		return locks.WithMetadataSnapshot(t.Context(), kernel, "vg", "pool", fn)
	}
	file := filepath.Join(locks.Dir, "lvmsnap=vg=pool")
	seen := false
	succeeds(t, with(func(context.Context) error {
		seen = kernel.root == 41
		if err := with(func(context.Context) error { return nil }); !errors.Is(err, lvm.ErrMetadataSnapshotHeld) {
			t.Errorf("a second one at once: %v", err)
		}
		return nil
	}))
	if !seen || kernel.root != 0 {
		t.Errorf("had it: %t, left: %d", seen, kernel.root)
	}
	failed := errors.New("thin_ls failed")
	if err := with(func(context.Context) error { return failed }); !errors.Is(err, failed) || kernel.root != 0 {
		t.Errorf("%v, left %d", err, kernel.root)
	}
	if kernel.reserve = failed; !errors.Is(with(nil), failed) {
		t.Error("the kernel refused, and that was no error")
	}
	kernel.reserve = nil

	kernel.faster = func() { kernel.root = 98 }
	if err := with(nil); !errors.Is(err, lvm.ErrMetadataSnapshotHeld) || kernel.root != 98 {
		t.Errorf("one that came between: %v, root %d", err, kernel.root)
	}
	kernel.faster = nil
	if err := with(nil); !errors.Is(err, lvm.ErrMetadataSnapshotHeld) || kernel.root != 98 {
		t.Errorf("and is still there: %v, root %d", err, kernel.root)
	}

	kernel.root = 99
	if err := with(nil); !errors.Is(err, lvm.ErrMetadataSnapshotHeld) || kernel.root != 99 {
		t.Errorf("somebody else's: %v, root %d", err, kernel.root)
	}
	for _, mark := range []string{"reserving", "reserved 99"} {
		succeeds(t, os.WriteFile(file, []byte(mark), 0o600))
		kernel.root = 99
		if err := with(func(context.Context) error { return nil }); err != nil || kernel.root != 0 {
			t.Errorf("of one who was killed (%s): %v, root %d", mark, err, kernel.root)
		}
	}
	succeeds(t, os.WriteFile(file, []byte("reserved 98"), 0o600))
	kernel.root = 99
	if err := with(nil); !errors.Is(err, lvm.ErrMetadataSnapshotHeld) {
		t.Errorf("somebody else's, after ours: %v", err)
	}
}

func succeeds(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
