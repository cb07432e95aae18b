// Package bounded asks what may not answer: a disk, or a device of the kernel's, which no context ends.
package bounded

import (
	"fmt"
	"sync"
	"time"
)

// Question is asked again and again, by one at a time, who waits no longer than its limit. One that has no answer by then is left
// behind, and until it has, nobody else waits for it at all, so that one goroutine hangs and not one for each who asks.
// Everybody gets the answer to a question that began after it was asked for: an older one may not know what was done since.
type Question[T any] struct {
	limit time.Duration
	turn  chan struct{} // holds one token: whoever has it asks

	mu    sync.Mutex
	since time.Time // of what is being asked
}

// New makes a question.
func New[T any](limit time.Duration) *Question[T] {
	q := &Question[T]{limit: limit, turn: make(chan struct{}, 1)}
	q.turn <- struct{}{}
	return q
}

// UnansweredError is for a question without an answer within its limit.
type UnansweredError struct{ Since time.Time }

// Error says for how long.
func (e *UnansweredError) Error() string { return fmt.Sprintf("no answer for %s", e.Age()) }

// Age is for how long there has been no answer.
func (e *UnansweredError) Age() time.Duration { return time.Since(e.Since).Round(time.Millisecond) }

// Ask returns what ask does, or an UnansweredError.
func (q *Question[T]) Ask(ask func() (T, error)) (T, error) {
	var none T
	select {
	case <-q.turn:
	default:
		if err := q.wait(); err != nil {
			return none, err
		}
	}
	q.begin(time.Now())
	type answer struct {
		value T
		err   error
	}
	done := make(chan answer, 1)
	go func() {
		value, err := ask()
		q.begin(time.Time{})
		q.turn <- struct{}{}
		done <- answer{value, err}
	}()
	limit := time.NewTimer(q.limit)
	defer limit.Stop()
	select {
	case a := <-done:
		return a.value, a.err
	case <-limit.C:
	}
	select {
	case a := <-done: // at the last moment
		return a.value, a.err
	default:
		return none, &UnansweredError{q.began()}
	}
}

// wait takes the turn from who is asking, unless that has no answer.
func (q *Question[T]) wait() error {
	limit := time.NewTimer(q.limit - time.Since(q.began()))
	defer limit.Stop()
	select {
	case <-q.turn:
		return nil
	case <-limit.C:
		return &UnansweredError{q.began()}
	}
}

func (q *Question[T]) begin(at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.since = at
}

// began is when what is being asked was, or now.
func (q *Question[T]) began() time.Time {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.since.IsZero() {
		return time.Now()
	}
	return q.since
}
