// Package blockcopy moves the data of block devices: it copies one onto another and makes them read zeroes, past the
// page cache, in a pipeline of large requests, durably, and so that what was cut short is continued.
//
// It knows devices by path and nothing else: not LVM, not who asks, not where a checkpoint is kept.
package blockcopy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"
)

// Defaults of [Options]. Of 1, 4 and 8 MiB, and of 1, 2 and 4 at a time, see docs/adr/0011-block-copies.md; more than 4
// were not tried. The interval is what a crash may cost, and how seldom the disk has to flush its cache.
const (
	DefaultBlockBytes         = 4 << 20
	DefaultParallelism        = 4
	DefaultCheckpointInterval = 10 * time.Second
)

// sectorBytes is the unit of Linux' block layer. A device with larger logical blocks has a size that is a multiple of them.
const sectorBytes = 512

// Request says what is copied where. When the copy is done, the destination holds the first SizeBytes of the source,
// and zeroes behind them to its own end.
type Request struct {
	// Source must not change meanwhile: a snapshot, or a volume that nobody writes.
	Source string
	// Destination must not be in use, see [Copy].
	Destination string
	SizeBytes   int64
	// DestinationZeroed promises that the destination reads zeroes wherever this copy (or an earlier run of it) has
	// not written, so that zeroes are skipped and a thin volume stays thin. A new thin volume keeps the promise unless
	// its pool has zeroing off (lvmthin(7), --zero n): there a chunk that is written in part shows old data in the rest.
	DestinationZeroed bool
}

// Options are the same for Copy and Zero. The zero value is good.
type Options struct {
	// OffsetBytes is where to begin: the DurableBytes that the last run of the same request reported.
	OffsetBytes int64
	// BlockBytes is the size of a request, a multiple of 64 KiB.
	BlockBytes int
	// Parallelism is how many blocks are on their way at a time. Each has BlockBytes of memory.
	Parallelism int
	// Limiter holds the bytes a second down that are read, or written as zeroes; what a device zeroes by itself is
	// free. All that are given the same one share it. Its burst should be a block or more; less works in smaller steps.
	Limiter *rate.Limiter
	// OnCheckpoint is told from time to time, and at the end, what is durable. Calls never overlap.
	OnCheckpoint       func(Progress)
	CheckpointInterval time.Duration
}

// Copy copies a device. Nil means that all of it is on stable storage. After an error the destination holds a part;
// the returned Progress says how much of that is durable, and OffsetBytes continues from there. Beginning again is
// always right, too.
//
// The destination is opened exclusively (O_EXCL on a block device, open(2)), so that none is overwritten which is
// mounted, below another device, or the destination of another Copy. A program that has it open in the ordinary
// way is not seen.
//
// Copy never returns before its last request has: no late write meets what the caller does next with the device.
func Copy(ctx context.Context, req Request, opts Options) (Progress, error) {
	p, err := copyDevice(ctx, req, opts.withDefaults())
	if err != nil {
		return p, fmt.Errorf("copying %s to %s: %w", req.Source, req.Destination, explain(err))
	}
	return p, nil
}

// Zero makes all of a device read zeroes, with the promises of [Copy].
//
// It does not read back to verify: it asks only for operations of which the kernel promises that zeroes are read
// afterwards, and never for a discard, after which a device may return anything.
func Zero(ctx context.Context, device string, opts Options) (Progress, error) {
	p, err := zeroDevice(ctx, device, opts.withDefaults())
	if err != nil {
		return p, fmt.Errorf("zeroing %s: %w", device, explain(err))
	}
	return p, nil
}

func copyDevice(ctx context.Context, req Request, opts Options) (p Progress, err error) {
	p.DurableBytes = opts.OffsetBytes
	dst, err := openDestination(req.Destination)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	src, err := openSource(req.Source)
	if err != nil {
		return p, err
	}
	defer src.Close()
	switch {
	case src.same(dst):
		return p, errors.New("they are the same device")
	case req.SizeBytes <= 0 || req.SizeBytes%sectorBytes != 0:
		return p, fmt.Errorf("a size of %d bytes is no number of sectors", req.SizeBytes)
	case src.size < req.SizeBytes:
		return p, fmt.Errorf("the source has %d bytes, fewer than the %d to copy", src.size, req.SizeBytes)
	case dst.size < req.SizeBytes:
		return p, fmt.Errorf("the destination has %d bytes, fewer than the %d to copy", dst.size, req.SizeBytes)
	}
	j := &job{src: src, dst: dst, dataBytes: req.SizeBytes, totalBytes: dst.size, skip: req.DestinationZeroed, opts: opts}
	if j.skip { // what lies behind the data is zero, too
		j.totalBytes = req.SizeBytes
	}
	return j.run(ctx)
}

func zeroDevice(ctx context.Context, path string, opts Options) (p Progress, err error) {
	p.DurableBytes = opts.OffsetBytes
	dst, err := openDestination(path)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	return (&job{dst: dst, totalBytes: dst.size, opts: opts}).run(ctx)
}

func (o Options) withDefaults() Options {
	if o.BlockBytes == 0 {
		o.BlockBytes = DefaultBlockBytes
	}
	if o.Parallelism == 0 {
		o.Parallelism = DefaultParallelism
	}
	if o.CheckpointInterval == 0 {
		o.CheckpointInterval = DefaultCheckpointInterval
	}
	if o.OnCheckpoint == nil {
		o.OnCheckpoint = func(Progress) {}
	}
	return o
}

func (o Options) check(totalBytes int64) error {
	switch {
	case o.OffsetBytes < 0 || o.OffsetBytes > totalBytes || o.OffsetBytes%sectorBytes != 0:
		return fmt.Errorf("offset %d is no sector of %d bytes: begin at 0", o.OffsetBytes, totalBytes)
	case o.BlockBytes < 0 || o.BlockBytes%skipBytes != 0:
		return fmt.Errorf("a block size of %d bytes is no multiple of %d", o.BlockBytes, skipBytes)
	case o.Parallelism < 0:
		return fmt.Errorf("a parallelism of %d", o.Parallelism)
	}
	return nil
}
