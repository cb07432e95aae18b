package lvm_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
)

// slowReader answers after a time, or when it is let go.
type slowReader struct {
	takes time.Duration
	stuck chan struct{}
	reads int
}

func (r *slowReader) Metadata(string) (lvm.Metadata, error) {
	r.reads++ // one at a time: the race detector would tell
	if r.stuck != nil {
		<-r.stuck
	}
	time.Sleep(r.takes)
	return lvm.Metadata{Sequence: uint64(r.reads)}, nil
}

func (*slowReader) Locate(context.Context, *lvm.Client) error { return errors.New("nowhere") }

// TestStuckDisk: whoever looks into a group whose disk does not answer is told so, soon, without a command that would
// hang as well; the group is as it was when the disk answers again.
func TestStuckDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := lvmtest.New()
		fake.AddGroup("vg0", 1<<30)
		r := &slowReader{stuck: make(chan struct{})}
		g, err := lvm.NewGroup("vg0", lvm.GroupOptions{Executor: fake, Reader: r})
		if err != nil {
			t.Fatal(err)
		}
		look := func(want error, takes time.Duration) {
			t.Helper()
			began := time.Now()
			if _, err := g.View(t.Context(), time.Minute); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
			if took := time.Since(began); took != takes {
				t.Errorf("it took %s, want %s", took, takes)
			}
		}
		look(lvm.ErrStuck, 3*time.Second)
		for range 1000 {
			look(lvm.ErrStuck, 0)
		}
		synctest.Wait()
		if n := len(fake.Commands()); n != 0 || r.reads != 1 {
			t.Errorf("%d commands and %d reads of a disk that does not answer", n, r.reads)
		}
		close(r.stuck)
		synctest.Wait()
		r.stuck = nil
		look(nil, 0)

		// Slow is not stuck: each waits for its own read, which began after it was asked for.
		r.takes = time.Second
		done := make(chan error)
		for range 2 {
			go func() {
				_, err := g.View(t.Context(), time.Minute)
				done <- err
			}()
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if r.reads != 4 {
			t.Errorf("%d reads, want 4", r.reads)
		}
	})
}
