//go:build lab

// Package bench measures the driver beside LVM's own commands, in one run and in turns: what the machine does
// meanwhile hits both. Ratios travel between machines, milliseconds do not.
//
// It grows one volume group, and at each size measures every operation through gRPC and by exec. Every sample is a
// line of Go's benchmark format; test/bench/report makes tables and plots of them, and benchstat reads them too.
package bench

import (
	"flag"
	"testing"
	"time"
)

var (
	samplesFile = flag.String("samples", "", "append the samples to this `file`")
	quick       = flag.Bool("quick", false, "measure little: whether it works, not how fast it is")
)

// plan is how much is measured.
type plan struct {
	sizes []int  // snapshots in the group
	loads []load // from light to heavy
	// patience is for how long one measurement goes on when it has its fewest rounds; mostRounds ends it anyway.
	patience   time.Duration
	mostRounds int
	starts     int
	cuts       int // below a writer, at the first and the last size
}

// load is a number of callers at once. Many programs at once take long on a small machine, so that the heavier
// load has fewer rounds; each of them has a latency for every caller.
type load struct{ callers, fewestRounds int }

var (
	full = plan{
		sizes: []int{20, 100, 500, 1000}, loads: []load{{1, 5}, {8, 1}, {32, 1}},
		patience: time.Second, mostRounds: 8, starts: 3, cuts: 5,
	}
	short = plan{
		sizes: []int{20, 100}, loads: []load{{1, 2}, {8, 1}},
		patience: 0, mostRounds: 2, starts: 1, cuts: 1,
	}
)

// BenchmarkDriver runs everything once, whatever -benchtime is.
func BenchmarkDriver(b *testing.B) {
	p := full
	if *quick {
		p = short
	}
	l := newLab(b)
	began := time.Now()
	for i, size := range p.sizes {
		l.growTo(size)
		l.measureStart(p.starts)
		for _, c := range l.cycles() {
			for _, load := range p.loads {
				l.measure(c, load, p)
			}
			l.measureMemory()
		}
		if i == 0 || i == len(p.sizes)-1 {
			for _, fs := range []string{"ext4", "xfs"} {
				l.measurePause(fs, p.cuts)
			}
		}
		b.Logf("%d snapshots: done after %s", size, time.Since(began).Round(time.Second))
	}
	b.ReportMetric(0, "ns/op") // the sum of all that means nothing
}
