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
	"slices"
	"strings"
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

// places are indices of entries behind which the power can be cut.
type places struct {
	what string
	at   []int
}

// cutPlaces are the places from first on, by what is special about them. The log has writes where the flush ended that made
// them durable: before that flush there is the most to lose, and behind a record of a client all that others had not flushed.
func cutPlaces(entries []entry, first int) []places {
	var anywhere, reported, full []int
	flushed, most := 0, 0
	windows := map[int]int{}
	for i, e := range entries {
		if e.flags&flagFlush != 0 {
			if i > first {
				windows[i] = i - flushed
				most = max(most, i-flushed)
			}
			flushed = i + 1
		}
		if i < first {
			continue
		}
		anywhere = append(anywhere, i+1)
		if strings.Contains(e.mark, ":") {
			reported = append(reported, i+1)
		}
	}
	for i, size := range windows {
		if size >= most/4 {
			full = append(full, i)
		}
	}
	slices.Sort(full)
	out := []places{{"where the most is to be lost", full}, {"behind a record", reported}, {"anywhere", anywhere}}
	return slices.DeleteFunc(out, func(p places) bool { return len(p.at) == 0 })
}

// losses counts writes that nobody had flushed.
type losses struct{ lost, kept int }

// metadataEnd is where LVM's metadata area ends, in sectors, and the extents begin: vgcreate's default.
const metadataEnd = 2048

// cut is what a disk with a volatile cache holds after the power was cut behind so many entries: all that a flush has made
// durable, and of the rest what the disk happened to write, in no order; but LVM's metadata area in LVM's. LVM writes a text and then the
// header that points to it without a flush between them, so that a disk that swaps them loses the group whoever uses LVM
// (seen: -seed=102594, behind write 13601; docs/reliability.md, Not promised).
func cut(log *os.File, entries []entry, disk *os.File, rng *rand.Rand) (losses, error) {
	flushed := 0
	for i, e := range entries {
		if e.flags&flagFlush != 0 {
			flushed = i + 1
		}
	}
	var l losses
	share := []int{0, 10, 50, 90}[rng.IntN(4)] // a disk that writes nothing by itself, some of it, or most
	metadataLost := false
	for i, e := range entries {
		if e.flags&flagMark != 0 || e.sectors == 0 {
			continue
		}
		if i >= flushed && !e.durable() {
			metadata := e.sector < metadataEnd
			if rng.IntN(100) >= share || metadata && metadataLost {
				metadataLost = metadataLost || metadata
				l.lost++
				continue
			}
			l.kept++
		}
		if err := e.apply(log, disk); err != nil {
			return l, err
		}
	}
	return l, nil
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
