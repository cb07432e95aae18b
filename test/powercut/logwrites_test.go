//go:build powercut

package powercut_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
)

// The log of dm-log-writes: Documentation/admin-guide/device-mapper/log-writes.rst, drivers/md/dm-log-writes.c.
const (
	logMagic     = 0x6a736677736872
	flagFlush    = 1 << 0
	flagFUA      = 1 << 1
	flagDiscard  = 1 << 2
	flagMark     = 1 << 3
	entryBytes   = 32
	sectorBytes  = 512
	superSectors = 1
)

// entry is one write, or mark. The kernel logs writes when a flush that comes after them has ended, before that flush, and
// those with FUA when they have.
type entry struct {
	sector, sectors uint64
	flags           uint64
	at              int64 // of the data in the log
	mark            string
}

func (e entry) durable() bool { return e.flags&(flagFlush|flagFUA) != 0 }

// readLog reads the entries of a log, as far as it goes.
func readLog(log *os.File) ([]entry, error) {
	head := make([]byte, sectorBytes)
	if _, err := log.ReadAt(head, 0); err != nil {
		return nil, err
	}
	if magic := binary.LittleEndian.Uint64(head); magic != logMagic {
		return nil, fmt.Errorf("the log begins with %x", magic)
	}
	n := binary.LittleEndian.Uint64(head[16:])
	if size := binary.LittleEndian.Uint32(head[24:]); size != sectorBytes {
		return nil, fmt.Errorf("the log has sectors of %d bytes", size)
	}
	var out []entry
	at := int64(superSectors * sectorBytes)
	for range n {
		if _, err := log.ReadAt(head, at); err != nil {
			return nil, err
		}
		e := entry{
			sector: binary.LittleEndian.Uint64(head), sectors: binary.LittleEndian.Uint64(head[8:]),
			flags: binary.LittleEndian.Uint64(head[16:]), at: at + sectorBytes,
		}
		if e.flags&flagMark != 0 {
			length := binary.LittleEndian.Uint64(head[24:])
			e.mark = string(bytes.TrimRight(head[entryBytes:min(entryBytes+length, sectorBytes)], "\x00"))
		}
		at = e.at
		if e.flags&flagDiscard == 0 {
			at += int64(e.sectors) * sectorBytes
		}
		out = append(out, e)
	}
	return out, nil
}

// cut is what a disk with a volatile cache holds after the power was cut behind so many entries: all that a flush has made
// durable, and of the rest what the disk happened to write.
func cut(log *os.File, entries []entry, disk *os.File, rng *rand.Rand) (lost, kept int, err error) {
	flushed := 0
	for i, e := range entries {
		if e.flags&flagFlush != 0 {
			flushed = i + 1
		}
	}
	share := []int{0, 50, 100}[rng.IntN(3)] // a disk that writes nothing by itself, some of it, or all
	for i, e := range entries {
		if e.flags&flagMark != 0 || e.sectors == 0 {
			continue
		}
		if i >= flushed && !e.durable() {
			if rng.IntN(100) >= share {
				lost++
				continue
			}
			kept++
		}
		if err := e.apply(log, disk); err != nil {
			return lost, kept, err
		}
	}
	return lost, kept, nil
}

func (e entry) apply(log, disk *os.File) error {
	var from io.Reader = io.NewSectionReader(log, e.at, int64(e.sectors)*sectorBytes)
	if e.flags&flagDiscard != 0 {
		from = io.LimitReader(zeroes{}, int64(e.sectors)*sectorBytes)
	}
	_, err := io.Copy(io.NewOffsetWriter(disk, int64(e.sector)*sectorBytes), from)
	return errors.Join(err)
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
