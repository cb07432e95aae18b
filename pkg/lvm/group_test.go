package lvm_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
)

func newGroup(t *testing.T) *lvm.Group {
	t.Helper()
	g, err := lvm.NewGroup("vg0", lvm.GroupOptions{Executor: lvmtest.New()})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGroupOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		var order []int
		results := make(chan error)
		for i := range 20 {
			go func() {
				results <- g.Do(t.Context(), fmt.Sprint("caller ", i), time.Minute, func(context.Context, *lvm.Client) error {
					time.Sleep(time.Second)
					order = append(order, i) // one at a time: the race detector would tell
					return nil
				})
			}()
			synctest.Wait()
			if got := g.Waiting(); got != i {
				t.Fatalf("%d are waiting, want %d", got, i)
			}
		}
		if busy, _ := g.Busy(); busy.Purpose != "caller 0" {
			t.Errorf("the turn is held by %q", busy.Purpose)
		}
		for range 20 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if !slices.IsSorted(order) || len(order) != 20 {
			t.Errorf("order %v", order)
		}
		if busy, is := g.Busy(); is || g.Waiting() != 0 {
			t.Errorf("at the end the turn is held by %q, %d wait", busy, g.Waiting())
		}
	})
}

// TestGroupContext: waiting ends with the caller's context, what has begun does not.
func TestGroupContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		type key struct{}
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "kept"))
		holder := make(chan error, 1)
		go func() {
			holder <- g.Do(ctx, "cut snapshot s1", time.Minute, func(run context.Context, _ *lvm.Client) error {
				if run.Value(key{}) != "kept" {
					t.Error("the context lost its values")
				}
				<-run.Done()
				return context.Cause(run)
			})
		}()
		synctest.Wait()
		cancel()
		time.Sleep(10 * time.Second)

		gone := errors.New("the caller is gone")
		waiting, cancelWaiting := context.WithTimeoutCause(t.Context(), 5*time.Second, gone)
		defer cancelWaiting()
		err := g.Do(waiting, "remove v1", time.Minute, func(context.Context, *lvm.Client) error {
			t.Error("two at a time")
			return nil
		})
		if !errors.Is(err, gone) {
			t.Errorf("error %v, want the context's cause", err)
		}
		for _, part := range []string{"remove v1", "vg0", "cut snapshot s1", "15s"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("the message %q does not say %q", err, part)
			}
		}
		start := time.Now()
		if err := <-holder; !errors.Is(err, context.DeadlineExceeded) { // the limit, not the caller
			t.Errorf("the holder ended with %v", err)
		}
		if waited := time.Since(start); waited != 45*time.Second {
			t.Errorf("the limit came after %s more, want 45s", waited)
		}
		if err := g.Do(t.Context(), "next", time.Minute, func(context.Context, *lvm.Client) error { return nil }); err != nil {
			t.Errorf("after a canceled waiter: %v", err)
		}
	})
}

func TestGroupBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		ctx, cancel := context.WithCancel(t.Context())
		release := make(chan struct{})
		results := make(chan error, 2000)
		done := errors.New("done")
		wait := func(context.Context, *lvm.Client) error { <-release; return done }
		go func() { results <- g.Do(ctx, "holder", time.Hour, wait) }()
		synctest.Wait()
		for range 1000 {
			go func() { results <- g.Do(ctx, "waiter", time.Hour, wait) }()
		}
		synctest.Wait()
		err := g.Do(ctx, "one too many", time.Hour, wait)
		if !errors.Is(err, lvm.ErrBusy) || !strings.Contains(err.Error(), "holder") {
			t.Errorf("error %v, want busy", err)
		}
		cancel()
		for range 1000 {
			if err := <-results; !errors.Is(err, context.Canceled) {
				t.Fatalf("waiter: %v", err)
			}
		}
		close(release)
		if err := <-results; !errors.Is(err, done) {
			t.Errorf("holder: %v", err)
		}
	})
}

func TestGroupObserves(t *testing.T) {
	var seen []lvm.CommandEvent
	g, err := lvm.NewGroup("vg0", lvm.GroupOptions{
		Executor: lvmtest.New(), Observe: func(e lvm.CommandEvent) { seen = append(seen, e) },
	})
	if err != nil {
		t.Fatal(err)
	}
	err = g.Do(t.Context(), "look", time.Minute, func(ctx context.Context, c *lvm.Client) error {
		_, err := c.LVs(ctx)
		return err
	})
	if !errors.Is(err, lvm.ErrGroupNotFound) || len(seen) != 1 || seen[0].Group != "vg0" || seen[0].Verb != "lvs" || !errors.Is(seen[0].Err, lvm.ErrGroupNotFound) {
		t.Errorf("seen %+v, error %v", seen, err)
	}
	if _, err := lvm.NewGroup("-x", lvm.GroupOptions{Executor: lvmtest.New()}); err == nil {
		t.Error("a group with a bad name")
	}
}

// TestGroupKeptByStuckCommand: a command that does not end keeps its group, and those who wait hear of it, for however
// long it takes; when it ends, the next one is served.
func TestGroupKeptByStuckCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := lvmtest.New()
		fake.AddGroup("vg0", 1<<30)
		g, err := lvm.NewGroup("vg0", lvm.GroupOptions{Executor: fake})
		if err != nil {
			t.Fatal(err)
		}
		look := func(ctx context.Context, c *lvm.Client) error {
			_, err := c.VG(ctx)
			return err
		}
		hang := fake.HangNext(lvmtest.Any)
		err = g.Do(t.Context(), "cut snapshot s1", time.Minute, look)
		if !errors.Is(err, hostexec.ErrStillRunning) || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the stuck one: %v", err)
		}
		for _, held := range []string{"1m5s", "1h1m10s"} {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			err = g.Do(ctx, "remove v1", time.Minute, func(context.Context, *lvm.Client) error {
				t.Error("beside a command that is stuck")
				return nil
			})
			cancel()
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the one that waits: %v", err)
			}
			for _, part := range []string{
				"remove v1", "cut snapshot s1 has held it for " + held, "its command vgs vg0 has been running for " + held,
			} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
			time.Sleep(time.Hour)
		}
		hang.Release()
		synctest.Wait()
		if busy, is := g.Busy(); is {
			t.Errorf("still busy: %s", busy)
		}
		if err := g.Do(t.Context(), "next", time.Minute, look); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// Who waited for a turn, and for how long, is told of those who got it and of those who gave up.
func TestGroupTellsOfWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waits []lvm.WaitEvent
		g, err := lvm.NewGroup("vg0", lvm.GroupOptions{Executor: lvmtest.New(), Waited: func(e lvm.WaitEvent) { waits = append(waits, e) }})
		if err != nil {
			t.Fatal(err)
		}
		ends := make(chan error)
		for range 2 {
			go func() {
				ends <- g.Do(t.Context(), "work", time.Minute, func(context.Context, *lvm.Client) error {
					time.Sleep(3 * time.Second)
					return nil
				})
			}()
			synctest.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := g.Do(ctx, "impatient", time.Minute, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		for range 2 {
			if err := <-ends; err != nil {
				t.Error(err)
			}
		}
		want := []lvm.WaitEvent{{Group: "vg0"}, {Group: "vg0", Duration: time.Second, Err: context.DeadlineExceeded}, {Group: "vg0", Duration: 3 * time.Second}}
		if !slices.Equal(waits, want) {
			t.Errorf("got %v, want %v", waits, want)
		}
	})
}
