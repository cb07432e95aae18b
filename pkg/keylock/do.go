package keylock

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"k8s.io/klog/v2"
)

// ErrHeld is returned by Do for a key that someone else holds.
var ErrHeld = errors.New("another operation works on it")

// outcome is what fn left. The zero outcome's done is false: fn neither returned nor panicked (runtime.Goexit).
type outcome[T any] struct {
	value    T
	err      error
	done     bool
	panicked any
	stack    []byte
}

// Do runs fn under the key, in a goroutine that outlives ctx: fn's own context keeps ctx's values, is never
// canceled with it, and ends after limit. Do returns
//   - what fn returned, if it returned before ctx ended;
//   - ErrHeld at once, without running fn, when the key is held;
//   - ctx's error, when ctx ends first. Then fn goes on, and the key stays held until fn has ended, however
//     long that takes: limit only asks fn to end, and a command that is stuck in the kernel cannot obey.
//
// The key is free again by the time Do returns what fn returned, so that the caller can go on at once.
//
// A panic of fn is passed on to the caller that waits, where the server's recovery finds it, and is logged
// when nobody waits any more: one request's bug must not end the others.
func Do[T any](ctx context.Context, s *Set, key string, limit time.Duration, fn func(ctx context.Context) (T, error)) (T, error) {
	var zero T
	// Nothing is begun for a caller that has gone: its retry would meet work that nobody asked for.
	if err := ctx.Err(); err != nil {
		return zero, err
	}
	unlock, ok := s.TryLock(key)
	if !ok {
		return zero, fmt.Errorf("%s: %w", key, ErrHeld)
	}
	ended := make(chan outcome[T])
	abandoned := make(chan struct{})
	go run(context.WithoutCancel(ctx), limit, fn, unlock, ended, abandoned)
	select {
	case o := <-ended:
		return o.unwrap()
	case <-ctx.Done():
		close(abandoned)
		return zero, fmt.Errorf("%s: the operation goes on without its caller: %w", key, ctx.Err())
	}
}

func run[T any](
	ctx context.Context, limit time.Duration, fn func(ctx context.Context) (T, error),
	unlock func(), ended chan<- outcome[T], abandoned <-chan struct{},
) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	var o outcome[T]
	defer func() {
		if !o.done {
			if o.panicked = recover(); o.panicked != nil {
				o.stack = debug.Stack()
			}
		}
		cancel()
		unlock()
		select {
		case ended <- o:
		case <-abandoned:
			if o.panicked != nil {
				klog.FromContext(ctx).Error(nil, "Panic in an operation whose caller had gone", "panic", o.panicked, "stack", string(o.stack))
			}
		}
	}()
	o.value, o.err = fn(ctx)
	o.done = true
}

func (o outcome[T]) unwrap() (T, error) {
	switch {
	case o.done:
		return o.value, o.err
	case o.panicked != nil:
		panic(fmt.Sprintf("%v\n\n%s", o.panicked, o.stack))
	default:
		return o.value, errors.New("the operation ended its goroutine")
	}
}
