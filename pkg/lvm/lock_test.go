package lvm_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// One holder at a time, though each removes the file when it gives the lock up.
func TestFileLocks(t *testing.T) {
	locks := lvm.FileLocks{Dir: t.TempDir()}
	var all sync.WaitGroup
	var inside atomic.Int64
	for range 8 {
		all.Go(func() {
			for range 20 {
				release, err := locks.Acquire(t.Context(), "vg0")
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two have the lock")
				}
				inside.Add(-1)
				release()
			}
		})
	}
	all.Wait()
	if left, err := os.ReadDir(locks.Dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestFileLocksAreNotWaitedForLong(t *testing.T) {
	locks := lvm.FileLocks{Dir: t.TempDir(), Patience: 20 * time.Millisecond}
	release, err := locks.Acquire(t.Context(), "vg0")
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if _, err := locks.Acquire(t.Context(), "vg0"); !errors.Is(err, lvm.ErrLocked) {
		t.Errorf("a lock that somebody has: %v", err)
	}
	if other, err := locks.Acquire(t.Context(), "vg1"); err != nil {
		t.Errorf("another group's: %v", err)
	} else {
		other()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	locks.Patience = time.Minute
	if _, err := locks.Acquire(ctx, "vg0"); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller that is gone: %v", err)
	}
	if _, err := locks.Acquire(t.Context(), "../vg0"); err == nil || errors.Is(err, lvm.ErrLocked) {
		t.Errorf("not a name: %v", err)
	}
}
