package keylock

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

type keyType struct{}

func TestDoReturnsWhatFnReturned(t *testing.T) {
	var s Set
	boom := errors.New("boom")
	got, err := Do(t.Context(), &s, "k", time.Minute, func(context.Context) (int, error) { return 7, boom })
	if got != 7 || !errors.Is(err, boom) {
		t.Fatalf("Do = %d, %v", got, err)
	}
	// The key is free at once, not a moment later: many rounds would meet a late unlock.
	for range 1000 {
		if _, err := Do(t.Context(), &s, "k", time.Minute, func(context.Context) (int, error) { return 0, nil }); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDoHeldKey(t *testing.T) {
	var s Set
	unlock, _ := s.TryLock("k")
	_, err := Do(t.Context(), &s, "k", time.Minute, func(context.Context) (int, error) {
		t.Error("fn ran under a held key")
		return 0, nil
	})
	if !errors.Is(err, ErrHeld) || !strings.Contains(err.Error(), "k") {
		t.Fatalf("Do on a held key = %v", err)
	}
	if _, err := Do(t.Context(), &s, "other", time.Minute, func(context.Context) (int, error) { return 0, nil }); err != nil {
		t.Fatalf("Do on another key = %v", err)
	}
	unlock()
}

func TestDoEndedContextStartsNothing(t *testing.T) {
	var s Set
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Do(ctx, &s, "k", time.Minute, func(context.Context) (int, error) {
		t.Error("fn ran for a caller that had gone")
		return 0, nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestDoGoesOnWithoutItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Set
		ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), keyType{}, "v"), time.Second)
		defer cancel()
		var finished atomic.Bool
		work := func(ctx context.Context) (int, error) {
			time.Sleep(10 * time.Second)
			if ctx.Err() != nil {
				t.Error("fn's context ended with its caller's")
			}
			if ctx.Value(keyType{}) != "v" {
				t.Error("fn's context lost its values")
			}
			finished.Store(true)
			return 1, nil
		}
		if _, err := Do(ctx, &s, "k", time.Minute, work); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Do = %v, want the context's error", err)
		}
		if finished.Load() {
			t.Fatal("Do waited for fn beyond its context")
		}
		if _, err := Do(t.Context(), &s, "k", time.Minute, work); !errors.Is(err, ErrHeld) {
			t.Fatalf("a retry while fn goes on = %v, want ErrHeld", err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if !finished.Load() {
			t.Fatal("fn did not go on")
		}
		again := context.WithValue(t.Context(), keyType{}, "v")
		if got, err := Do(again, &s, "k", time.Minute, work); got != 1 || err != nil {
			t.Fatalf("Do after fn ended = %d, %v", got, err)
		}
	})
}

func TestDoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Set
		start := time.Now()
		_, err := Do(t.Context(), &s, "k", time.Minute, func(ctx context.Context) (int, error) {
			<-ctx.Done()
			return 0, ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Minute {
			t.Fatalf("%v after %s", err, time.Since(start))
		}
	})
}

func TestDoKeepsTheKeyOfAStuckFn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Set
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		stuck := make(chan struct{})
		_, _ = Do(ctx, &s, "k", time.Minute, func(context.Context) (int, error) { <-stuck; return 0, nil })
		time.Sleep(time.Hour)
		if _, ok := s.TryLock("k"); ok {
			t.Fatal("the key of a stuck operation was given away")
		}
		close(stuck)
		synctest.Wait()
		if _, ok := s.TryLock("k"); !ok {
			t.Fatal("the key was kept after the operation ended")
		}
	})
}

func TestDoPanic(t *testing.T) {
	var s Set
	func() {
		defer func() {
			if r, _ := recover().(string); !strings.Contains(r, "oops") || !strings.Contains(r, "do_test.go") {
				t.Errorf("recovered %q, want the panic and the place of it", r)
			}
		}()
		_, _ = Do(t.Context(), &s, "k", time.Minute, func(context.Context) (int, error) { panic("oops") })
	}()
	if _, err := Do(t.Context(), &s, "k", time.Minute, func(context.Context) (int, error) { runtime.Goexit(); return 0, nil }); err == nil {
		t.Error("fn that ended its goroutine is a success")
	}
	if _, ok := s.TryLock("k"); !ok {
		t.Error("a panic left the key held")
	}
}

func TestDoPanicWithoutCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s Set
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _ = Do(ctx, &s, "k", time.Minute, func(context.Context) (int, error) { time.Sleep(time.Minute); panic("oops") })
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, ok := s.TryLock("k"); !ok {
			t.Error("a panic left the key held")
		}
	})
}

// Whatever happens, one at a time.
func TestDoExcludes(t *testing.T) {
	var (
		s       Set
		running atomic.Int32
		ran     atomic.Int32
		wg      sync.WaitGroup
	)
	for range 32 {
		wg.Go(func() {
			for range 50 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				_, _ = Do(ctx, &s, "k", time.Minute, func(context.Context) (int, error) {
					if running.Add(1) != 1 {
						t.Error("two at a time")
					}
					time.Sleep(100 * time.Microsecond)
					ran.Add(1)
					running.Add(-1)
					return 0, nil
				})
				cancel()
			}
		})
	}
	wg.Wait()
	// On a busy machine all of them may have run out of time; the last one has enough of it.
	for {
		_, err := Do(t.Context(), &s, "k", time.Minute, func(context.Context) (int, error) { ran.Add(1); return 0, nil })
		if !errors.Is(err, ErrHeld) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if ran.Load() == 0 {
		t.Error("none ran")
	}
}
