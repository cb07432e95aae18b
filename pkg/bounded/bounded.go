// Package bounded asks what may not answer: a disk, or a device of the kernel's, which no context ends.
package bounded

import (
	"fmt"
	"sync"
	"time"
)

// Question is asked again and again, one at a time, and nobody waits for one for longer than its limit. One that has no answer by
// then is left behind, and until it has, nobody else waits for it at all, so that one goroutine hangs and not one for each who asks.
// Everybody gets the answer to a question that began after it was asked for: an older one may not know what was done since. All who
// come while one is being asked share the answer to the next, so that they cost two, however many they are.
type Question[T any] struct {
	limit time.Duration

	mu      sync.Mutex
	running *round[T] // is being asked
	next    *round[T] // is asked then, if anybody still waits for it
}

// round is one time that the question is asked.
type round[T any] struct {
	ask     func() (T, error) // of the first who waits for it
	waiting int
	since   time.Time
	done    chan struct{}
	value   T // once done
	err     error
}

// New makes a question.
func New[T any](limit time.Duration) *Question[T] { return &Question[T]{limit: limit} }

// UnansweredError is for a question without an answer within its limit.
type UnansweredError struct{ Since time.Time }

// Error says for how long.
func (e *UnansweredError) Error() string { return fmt.Sprintf("no answer for %s", e.Age()) }

// Age is for how long there has been no answer.
func (e *UnansweredError) Age() time.Duration { return time.Since(e.Since).Round(time.Millisecond) }

// Ask returns what ask does, or what that of somebody else does who came just before, or an UnansweredError.
func (q *Question[T]) Ask(ask func() (T, error)) (T, error) {
	r := q.join(ask)
	for {
		running := q.current()
		if running == nil {
			running = r // done meanwhile
		}
		limit := time.NewTimer(q.limit - time.Since(running.since))
		select {
		case <-r.done:
			limit.Stop()
			return r.value, r.err
		case <-limit.C:
		}
		if q.leave(r, running) {
			var none T
			return none, &UnansweredError{running.since}
		}
	}
}

// Unanswered says whether what is being asked has been for longer than that, without asking.
func (q *Question[T]) Unanswered(limit time.Duration) bool {
	running := q.current()
	return running != nil && time.Since(running.since) > limit
}

// join makes the caller one of those who wait for the next round, which begins at once if none is running.
func (q *Question[T]) join(ask func() (T, error)) *round[T] {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.next == nil {
		q.next = &round[T]{ask: ask, done: make(chan struct{})}
	}
	r := q.next
	r.waiting++
	if q.running == nil {
		q.begin()
	}
	return r
}

// begin asks the next round, with the lock held.
func (q *Question[T]) begin() {
	r := q.next
	q.running, q.next = r, nil
	if r == nil {
		return
	}
	r.since = time.Now()
	go func() {
		r.value, r.err = r.ask()
		q.mu.Lock()
		defer q.mu.Unlock()
		close(r.done)
		q.begin()
	}()
}

func (q *Question[T]) current() *round[T] {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.running
}

// leave says whether to give up on r, because what was running is still running.
func (q *Question[T]) leave(r, running *round[T]) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	select {
	case <-r.done: // at the last moment
		return false
	default:
	}
	if q.running != running {
		return false
	}
	if r.waiting--; r.waiting == 0 && q.next == r {
		q.next = nil
	}
	return true
}
