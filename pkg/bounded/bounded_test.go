package bounded_test

import (
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/bounded"
)

const limit = 3 * time.Second

// However many ask what has no answer, one goroutine hangs, and nobody waits for longer than the limit.
func TestNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := bounded.New[int](limit)
		stuck, asked := make(chan struct{}), 0
		ask := func() (int, error) {
			asked++ // one at a time: the race detector would tell
			<-stuck
			return asked, t.Context().Err()
		}
		began, before := time.Now(), runtime.NumGoroutine()
		var all sync.WaitGroup
		for range 10_000 {
			all.Go(func() {
				_, err := q.Ask(ask)
				var silence *bounded.UnansweredError
				if !errors.As(err, &silence) || !silence.Since.Equal(began) || time.Since(began) != limit {
					t.Errorf("%v after %s", err, time.Since(began))
				}
			})
		}
		all.Wait()
		time.Sleep(time.Minute)
		_, err := q.Ask(ask)
		if time.Since(began) != limit+time.Minute || err == nil || err.Error() != "no answer for 1m3s" {
			t.Errorf("later: %v after %s", err, time.Since(began))
		}
		synctest.Wait()
		if n := runtime.NumGoroutine() - before; n > 10 || asked != 1 { // the runtime has some of its own
			t.Errorf("%d goroutines and %d questions hang", n, asked)
		}
		close(stuck)
		synctest.Wait()
		if got, err := q.Ask(ask); got != 2 || err != nil {
			t.Errorf("when it answers again: %d, %v", got, err)
		}
	})
}

// Slow is not stuck, and nobody gets an answer that was on its way before the question.
func TestSlowAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := bounded.New[time.Time](limit)
		ask := func() (time.Time, error) {
			asked := time.Now()
			time.Sleep(time.Second)
			return asked, nil
		}
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				began := time.Now()
				if at, err := q.Ask(ask); err != nil || at.Before(began) {
					t.Errorf("asked at %s, answered as of %s, %v", began, at, err)
				}
			})
			time.Sleep(300 * time.Millisecond)
		}
		all.Wait()
		failed := errors.New("no such device")
		if _, err := q.Ask(func() (time.Time, error) { return time.Time{}, failed }); !errors.Is(err, failed) {
			t.Errorf("an error is an answer: %v", err)
		}
	})
}

// However many ask what is slow, and not stuck, none of them is told that there is no answer, and they share two.
func TestManyAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := bounded.New[int](limit)
		asked := 0
		ask := func() (int, error) {
			asked++
			time.Sleep(limit - time.Second)
			return asked, t.Context().Err()
		}
		var all sync.WaitGroup
		for n := range 300 {
			all.Go(func() {
				if n > 0 {
					time.Sleep(time.Millisecond) // the first is being asked
				}
				if got, err := q.Ask(ask); err != nil || got != min(n+1, 2) {
					t.Errorf("caller %d: %d, %v", n, got, err)
				}
			})
		}
		all.Wait()
		if asked != 2 {
			t.Errorf("it was asked %d times", asked)
		}
	})
}
