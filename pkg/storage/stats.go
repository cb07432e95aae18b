package storage

import (
	"context"
	"errors"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Stats is what the engine does by itself, for metrics.
type Stats struct {
	Fills                        []FillStats // those at work: at most as many as may be at a time
	FillsWaiting                 int         // for others to end
	FillsEnded                   map[FillEnd]int64
	FilledBytes                  map[string]int64 // by kind: on stable storage, with zeroes that had not to be written
	Groups                       []GroupStats
	COWGrown, COWFailed, COWLost int64 // COW snapshots: how often they grew, could not, or were found lost
	Recoveries                   map[RecoveryKind]int64
	Notices                      map[string]int64 // by reason
}

// FillStats is one volume that is being zeroed or copied.
type FillStats struct {
	LV                    string
	DoneBytes, TotalBytes int64 // 0: not begun
}

// FillEnd is how a job ended: what it did (zero, copy or grow) and what came of it.
type FillEnd struct{ Kind, Result string }

// What can come of filling a volume.
const (
	FillDone        = "ok"
	FillInterrupted = "interrupted" // it was deleted, or the driver ended
	FillFailed      = "error"
)

// FillKinds are what is done to volumes.
var FillKinds = []string{fillZero, fillCopy, fillGrow}

// GroupStats is how busy a volume group is.
type GroupStats struct {
	Name    string
	Waiting int           // calls that wait for their turn
	Held    time.Duration // for how long the operation at work has had its turn; 0: there is none
	Command time.Duration // for how long its command has been running; 0: there is none
	Stuck   bool          // longer than is good
}

type counters struct {
	cowGrown, cowFailed, cowLost atomic.Int64
	recoveries                   recoveries
	notices                      notices
	fills                        fillCounters
}

// fillCounters count what the jobs did.
type fillCounters struct {
	mu    sync.Mutex
	ends  map[FillEnd]int64
	bytes map[string]int64
}

func (c *fillCounters) progressed(kind string, bytes int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bytes == nil {
		c.bytes = map[string]int64{}
	}
	c.bytes[kind] += max(bytes, 0)
}

func (c *fillCounters) ended(kind string, err error) {
	end := FillEnd{kind, FillDone}
	switch {
	case errors.Is(err, context.Canceled):
		end.Result = FillInterrupted
	case err != nil:
		end.Result = FillFailed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ends == nil {
		c.ends = map[FillEnd]int64{}
	}
	c.ends[end]++
}

// all are the counts of all kinds, those of which there was none yet too.
func (c *fillCounters) all() (ends map[FillEnd]int64, bytes map[string]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ends, bytes = map[FillEnd]int64{}, map[string]int64{}
	for _, kind := range FillKinds {
		for _, result := range []string{FillDone, FillInterrupted, FillFailed} {
			ends[FillEnd{kind, result}] = 0
		}
		bytes[kind] = 0
	}
	maps.Copy(ends, c.ends)
	maps.Copy(bytes, c.bytes)
	return ends, bytes
}

// Stats are the numbers of now.
func (e *Engine) Stats() Stats {
	s := Stats{
		COWGrown: e.stats.cowGrown.Load(), COWFailed: e.stats.cowFailed.Load(), COWLost: e.stats.cowLost.Load(),
		Recoveries: e.stats.recoveries.all(), Notices: e.stats.notices.all(),
	}
	s.FillsEnded, s.FilledBytes = e.stats.fills.all()
	for _, g := range e.groups {
		s.Groups = append(s.Groups, e.groupStats(g))
	}
	e.fills.mu.Lock()
	defer e.fills.mu.Unlock()
	for _, f := range e.fills.running {
		if !f.working.Load() {
			s.FillsWaiting++
			continue
		}
		one := FillStats{LV: f.lv}
		if p := f.progress.Load(); p != nil {
			one.DoneBytes, one.TotalBytes = p.DurableBytes, p.TotalBytes
		}
		s.Fills = append(s.Fills, one)
	}
	return s
}

func (e *Engine) groupStats(g *group) GroupStats {
	s := GroupStats{Name: g.Name(), Waiting: g.Waiting()}
	if busy, ok := g.Busy(); ok {
		s.Held = e.now().Sub(busy.Since)
		s.Stuck = s.Held > e.stuck
		if busy.Command != "" {
			s.Command = e.now().Sub(busy.CommandSince)
		}
	}
	return s
}
