package blockcopy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// punchBytes are zeroed by one request: many, because the kernel splits it by itself, and few enough to be waited for
// when the context ends (in the kernels of many distributions not even SIGKILL ends it).
const punchBytes = 64 << 20

// job is one pass over a destination: dataBytes from the source, then zeroes up to totalBytes.
type job struct {
	src, dst              *device
	dataBytes, totalBytes int64
	skip                  bool // the destination reads zeroes already
	opts                  Options

	started   time.Time
	front     frontier
	zeroBytes atomic.Int64

	checkpointing sync.Mutex // what follows is its
	checkpointAt  time.Time
	progress      Progress
}

// run has each of a few workers take the next block, read it and write it. So reads overlap with writes, each device
// has several requests to choose from, and there is no queue between the two to be filled or drained.
func (j *job) run(ctx context.Context) (Progress, error) {
	j.progress = Progress{DurableBytes: j.opts.OffsetBytes, TotalBytes: j.totalBytes}
	if err := j.opts.check(j.totalBytes); err != nil {
		return j.progress, err
	}
	j.front = newFrontier(j.opts.OffsetBytes)
	j.started = time.Now()
	j.checkpointAt = j.started.Add(j.opts.CheckpointInterval)

	workers, ctx := errgroup.WithContext(ctx)
	for range j.opts.Parallelism {
		workers.Go(func() error { return j.work(ctx) })
	}
	if err := workers.Wait(); err != nil {
		return j.progress, err
	}
	return j.progress, j.checkpoint()
}

func (j *job) work(ctx context.Context) (err error) {
	// Pages of its own are aligned as O_DIRECT wants it, which Go's memory is not.
	buf, err := unix.Mmap(-1, 0, j.opts.BlockBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return fmt.Errorf("memory for a block of %d bytes: %w", j.opts.BlockBytes, err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(buf)) }()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		offset, n := j.front.take(j.next)
		if n == 0 {
			return nil
		}
		if offset < j.dataBytes {
			err = j.copyBlock(ctx, buf[:n], offset)
		} else {
			err = j.zeroStep(ctx, buf, offset, n)
		}
		if err != nil {
			return fmt.Errorf("in the block at byte %d: %w", offset, err)
		}
		j.front.finish(offset, n)
		if err := j.checkpointIfDue(); err != nil {
			return err
		}
	}
}

// next is the end of the step that begins at an offset. Steps end at multiples of their size wherever the first
// began, so that zeroes are found in whole chunks of a thin pool.
func (j *job) next(offset int64) int64 {
	step, end := int64(j.opts.BlockBytes), j.dataBytes
	if offset >= j.dataBytes {
		end = j.totalBytes
		if !j.dst.cannotPunch.Load() {
			step = punchBytes
		}
	}
	return min(offset-offset%step+step, end)
}

func (j *job) copyBlock(ctx context.Context, buf []byte, offset int64) error {
	// Zeroes are paid for, too: to see that they are, they have to be read.
	if err := j.pay(ctx, len(buf)); err != nil {
		return err
	}
	if _, err := j.src.ReadAt(buf, offset); err != nil {
		return err
	}
	grain := zeroRunBytes
	switch {
	case j.skip:
		grain = skipBytes
	case j.dst.cannotPunch.Load():
		grain = len(buf)
	}
	for len(buf) > 0 {
		n, zero := nextRun(buf, grain)
		if zero && (j.skip || j.dst.punch(offset, int64(n))) {
			j.zeroBytes.Add(int64(n))
		} else if _, err := j.dst.WriteAt(buf[:n], offset); err != nil {
			return err
		}
		buf, offset = buf[n:], offset+int64(n)
	}
	return nil
}

func (j *job) zeroStep(ctx context.Context, buf []byte, offset, n int64) error {
	if j.dst.punch(offset, n) {
		j.zeroBytes.Add(n)
		return nil
	}
	clear(buf)
	for n > 0 {
		part := buf[:min(n, int64(len(buf)))]
		if err := j.pay(ctx, len(part)); err != nil {
			return err
		}
		if _, err := j.dst.WriteAt(part, offset); err != nil {
			return err
		}
		offset, n = offset+int64(len(part)), n-int64(len(part))
	}
	return nil
}

// pay waits until the rate limit lets n bytes pass.
func (j *job) pay(ctx context.Context, n int) error {
	l := j.opts.Limiter
	if l == nil || l.Limit() == rate.Inf {
		return ctx.Err()
	}
	for n > 0 {
		part := max(1, min(n, l.Burst())) // WaitN refuses more than a burst
		if err := l.WaitN(ctx, part); err != nil {
			return err
		}
		n -= part
	}
	return nil
}

// checkpointIfDue makes the worker that comes by when it is time see to the checkpoint, while the others go on.
func (j *job) checkpointIfDue() error {
	if !j.checkpointing.TryLock() {
		return nil
	}
	defer j.checkpointing.Unlock()
	if time.Now().Before(j.checkpointAt) {
		return nil
	}
	return j.checkpointLocked()
}

func (j *job) checkpoint() error {
	j.checkpointing.Lock()
	defer j.checkpointing.Unlock()
	return j.checkpointLocked()
}

func (j *job) checkpointLocked() error {
	done := j.front.reached() // before the flush, which covers what has been completed by then
	if err := j.dst.Sync(); err != nil {
		return err
	}
	j.progress = j.progressAt(done)
	j.opts.OnCheckpoint(j.progress)
	j.checkpointAt = time.Now().Add(j.opts.CheckpointInterval)
	return nil
}
