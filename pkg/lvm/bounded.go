package lvm

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/bounded"
)

// ErrStuck: a disk does not answer.
var ErrStuck = errors.New("the disks do not answer")

// readLimit is how long a read of a few kilobytes may take. It leaves callers, who give up after 10 s and more, the time
// to look into other groups.
const readLimit = 3 * time.Second

// boundedReader does not wait for a disk for longer than readLimit: a read that hangs (a suspended device, a path that is
// gone) is left behind.
type boundedReader struct {
	MetadataReader
	question *bounded.Question[Metadata]

	changes atomic.Uint64 // of the group, by this driver: begun, and ended
	memory  atomic.Pointer[memory]
}

func newBoundedReader(r MetadataReader) *boundedReader {
	return &boundedReader{MetadataReader: r, question: bounded.New[Metadata](readLimit)}
}

// PhysicalVolumes implements DiskLister, if the reader does.
func (b *boundedReader) PhysicalVolumes() []string {
	if l, ok := b.MetadataReader.(DiskLister); ok {
		return l.PhysicalVolumes()
	}
	return nil
}

// Metadata implements MetadataReader.
func (b *boundedReader) Metadata(group string) (Metadata, error) {
	changes := b.changes.Load()
	m, err := b.question.Ask(func() (Metadata, error) { return b.MetadataReader.Metadata(group) })
	if err == nil {
		b.memory.Store(&memory{m, changes})
	}
	var silence *bounded.UnansweredError
	if errors.As(err, &silence) {
		err = fmt.Errorf("%w: reading the metadata of volume group %s has taken %s so far; see `dmsetup info` and the kernel log",
			ErrStuck, group, silence.Age())
	}
	return m, err
}
