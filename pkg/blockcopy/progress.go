package blockcopy

import (
	"fmt"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
)

// Progress is what a checkpoint reports.
type Progress struct {
	// DurableBytes is the offset below which everything is on stable storage.
	DurableBytes int64
	TotalBytes   int64
	// ZeroBytes did not have to be written in this run: the destination had them, or made them by itself.
	ZeroBytes int64
	// BytesPerSecond is the average of this run, zeroes included.
	BytesPerSecond float64
	// Remaining is the time left at that rate; 0 when done or not known yet.
	Remaining time.Duration
}

// String is the progress for a line of the log.
func (p Progress) String() string {
	return fmt.Sprintf("%s of %s, %s zeroes not written, %s/s, %s left", size(p.DurableBytes), size(p.TotalBytes),
		size(p.ZeroBytes), size(int64(p.BytesPerSecond)), p.Remaining.Round(time.Second))
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

func (j *job) progressAt(durable int64) Progress {
	p := Progress{DurableBytes: durable, TotalBytes: j.totalBytes, ZeroBytes: j.zeroBytes.Load()}
	if done, elapsed := durable-j.opts.OffsetBytes, time.Since(j.started).Seconds(); done > 0 && elapsed > 0 {
		p.BytesPerSecond = float64(done) / elapsed
		p.Remaining = time.Duration(float64(p.TotalBytes-durable) / p.BytesPerSecond * float64(time.Second))
	}
	return p
}

// frontier hands out the steps in order and knows up to where all are finished, though they finish in any order.
type frontier struct {
	mu    sync.Mutex
	taken int64
	done  int64           // everything below is finished
	ahead map[int64]int64 // what is finished beyond that: from, to. At most one for each worker
}

func newFrontier(offset int64) frontier {
	return frontier{taken: offset, done: offset, ahead: map[int64]int64{}}
}

// take gives the next step to the caller; n is 0 when there is none.
func (f *frontier) take(next func(int64) int64) (offset, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	offset = f.taken
	f.taken = next(offset)
	return offset, f.taken - offset
}

func (f *frontier) finish(offset, n int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ahead[offset] = offset + n
	for to, ok := f.ahead[f.done]; ok; to, ok = f.ahead[f.done] {
		delete(f.ahead, f.done)
		f.done = to
	}
}

func (f *frontier) reached() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.done
}
