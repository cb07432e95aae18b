package storage

import "sync/atomic"

// Stats is what the engine does by itself, for metrics.
type Stats struct {
	Fills                        []FillStats
	COWGrown, COWFailed, COWLost int64 // COW snapshots: how often they grew, could not, or were found lost
	Recoveries                   map[RecoveryKind]int64
}

// FillStats is one volume that is being zeroed or copied.
type FillStats struct {
	LV                    string
	DoneBytes, TotalBytes int64 // 0: not begun
}

type counters struct {
	cowGrown, cowFailed, cowLost atomic.Int64
	recoveries                   recoveries
}

// Stats are the numbers of now.
func (e *Engine) Stats() Stats {
	s := Stats{
		COWGrown: e.stats.cowGrown.Load(), COWFailed: e.stats.cowFailed.Load(), COWLost: e.stats.cowLost.Load(),
		Recoveries: e.stats.recoveries.all(),
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
