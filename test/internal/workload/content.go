package workload

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// A version of a volume is a stamp in each of its MiBs, at a place that is another one in each, so that nothing of a MiB or more can be
// missing, old or elsewhere without being seen. All the rest of a volume reads zeroes, always.
const stampBytes = 4096

// Flags make the driver write down every 100 ms how far a copy is, and take its time for one: else none would be continued here.
var Flags = []string{"--copy-checkpoint-interval=100ms", "--copy-rate-limit=16Mi"}

// Held is a version that a volume may show, and how large it was when that was written. 0: nothing was.
type Held struct {
	Version uint64
	Bytes   int64
}

// place is where in its MiB the stamp is. It stays, so that a version takes the place of the one before.
func (w *Worker) place(at int64) int64 {
	rng := rand.New(rand.NewPCG(w.Seed, uint64(at/mib))) //nolint:gosec // a test has to be repeatable
	return rng.Int64N(mib/stampBytes) * stampBytes
}

// stamp says in each of its lines what it is and where it belongs.
func stamp(version uint64, at int64) []byte {
	line := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, version), uint64(at))
	return bytes.Repeat(line, stampBytes/len(line))
}

// put writes a version durably.
func (w *Worker) put(device string, h Held) (err error) {
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() {
		if closed := f.Close(); err == nil {
			err = closed
		}
	}()
	for at := int64(0); at < h.Bytes; at += mib {
		place := at + w.place(at)
		if _, err := f.WriteAt(stamp(h.Version, place), place); err != nil {
			return err
		}
	}
	return f.Sync()
}

// holds reads all of a device, past the page cache, and compares it: each MiB has a stamp of one of the versions, or none where
// one of them ended, and nothing else.
func (w *Worker) holds(device string, want []Held) error {
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(want, func(h Held) bool { return h.Bytes > size }); i >= 0 || size%mib != 0 {
		return fmt.Errorf("%s has %d bytes, and is to hold one of %v", device, size, want)
	}
	const step = 4 * mib
	buf, err := unix.Mmap(-1, 0, int(step), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE) // aligned
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(buf) }()
	for at := int64(0); at < size; at += step {
		part := buf[:min(step, size-at)]
		if _, err := f.ReadAt(part, at); err != nil {
			return err
		}
		for ; len(part) > 0; part = part[mib:] {
			here := at + min(step, size-at) - int64(len(part))
			if err := w.mebibyte(part[:mib], here, want); err != nil {
				return fmt.Errorf("%s, of %d MiB: %w", device, size/mib, err)
			}
		}
	}
	return nil
}

var zeroes = make([]byte, mib)

func (w *Worker) mebibyte(got []byte, at int64, want []Held) error {
	place := w.place(at)
	block := got[place : place+stampBytes]
	version := binary.LittleEndian.Uint64(block)
	if text := stamp(version, at+place); version != 0 && !bytes.Equal(block, text) || version == 0 && !bytes.Equal(block, zeroes[:stampBytes]) {
		return fmt.Errorf("byte %d has %x, and no stamp of its own", at+place, block[:32])
	}
	if !slices.ContainsFunc(want, func(h Held) bool { return version == h.Version && h.Bytes > at || version == 0 && h.Bytes <= at }) {
		return fmt.Errorf("byte %d has version %d, want one of %v", at+place, version, want)
	}
	clear(block)
	if !bytes.Equal(got, zeroes) {
		i := slices.IndexFunc(got, func(b byte) bool { return b != 0 })
		return fmt.Errorf("byte %d has %x, where nothing was ever written (the stamp is at %d)", at+int64(i), got[i:min(i+32, len(got))], at+place)
	}
	return nil
}
