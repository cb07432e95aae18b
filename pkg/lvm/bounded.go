package lvm

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// ErrStuck: a disk does not answer.
var ErrStuck = errors.New("the disks do not answer")

// readLimit is how long a read of a few kilobytes may take. It leaves callers, who give up after 10 s and more, the time
// to look into other groups.
const readLimit = 3 * time.Second

// boundedReader does not wait for a disk for longer than readLimit: a read that hangs (a suspended device, a path that is
// gone) is left behind, and until it comes back, nobody else waits for that disk at all.
type boundedReader struct {
	MetadataReader
	group string
	turn  chan struct{} // holds one token: whoever has it reads

	mu    sync.Mutex
	since time.Time // of the read that is under way
}

func newBoundedReader(r MetadataReader, group string) *boundedReader {
	b := &boundedReader{MetadataReader: r, group: group, turn: make(chan struct{}, 1)}
	b.turn <- struct{}{}
	return b
}

// Metadata implements MetadataReader.
func (b *boundedReader) Metadata(group string) (Metadata, error) {
	select {
	case <-b.turn:
	default:
		if err := b.wait(); err != nil {
			return Metadata{}, err
		}
	}
	b.begin(time.Now())
	type answer struct {
		m   Metadata
		err error
	}
	done := make(chan answer, 1)
	go func() {
		m, err := b.MetadataReader.Metadata(group)
		b.begin(time.Time{})
		b.turn <- struct{}{}
		done <- answer{m, err}
	}()
	limit := time.NewTimer(readLimit)
	defer limit.Stop()
	select {
	case a := <-done:
		return a.m, a.err
	case <-limit.C:
		return Metadata{}, b.stuck()
	}
}

// wait takes the turn from a read that is under way, unless that is stuck.
func (b *boundedReader) wait() error {
	limit := time.NewTimer(readLimit - time.Since(b.began()))
	defer limit.Stop()
	select {
	case <-b.turn:
		return nil
	case <-limit.C:
		return b.stuck()
	}
}

func (b *boundedReader) begin(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.since = at
}

// began is when the read that is under way began, or now.
func (b *boundedReader) began() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.since.IsZero() {
		return time.Now()
	}
	return b.since
}

func (b *boundedReader) stuck() error {
	return fmt.Errorf("%w: reading the metadata of volume group %s has taken %s so far; see `dmsetup info` and the kernel log",
		ErrStuck, b.group, age(b.began()))
}
