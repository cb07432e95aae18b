package storage

import (
	"sync/atomic"
	"time"
)

// Stats is what the engine does by itself, for metrics.
type Stats struct {
	Fills                        []FillStats
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
}

// Stats are the numbers of now.
func (e *Engine) Stats() Stats {
	s := Stats{
		COWGrown: e.stats.cowGrown.Load(), COWFailed: e.stats.cowFailed.Load(), COWLost: e.stats.cowLost.Load(),
		Recoveries: e.stats.recoveries.all(), Notices: e.stats.notices.all(),
	}
	for _, g := range e.groups {
		s.Groups = append(s.Groups, e.groupStats(g))
	}
	e.fills.mu.Lock()
	defer e.fills.mu.Unlock()
	for _, f := range e.fills.running {
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
