//go:build powercut

package powercut_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The careless one is an LV of the pool to which somebody writes without ever flushing, so that there is much to lose at any
// moment: its blocks, what the pool maps for them, and whatever else is on its way to the disk between two flushes of others.
const (
	careless        = "careless"
	carelessBytes   = 64 << 20
	carelessBlock   = 4096
	carelessWriters = 8
	carelessPause   = 4 * time.Millisecond // one CPU is for all
)

func carelessPath() string { return filepath.Join("/dev", group, careless) }

// aligned is memory for direct I/O.
func (n *node) aligned(size int) []byte {
	buf, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	n.ok(err)
	return buf
}

// writeCarelessly writes, past the page cache, until the power is cut: at random places blocks that say where they belong.
func (n *node) writeCarelessly() {
	f, err := os.OpenFile(carelessPath(), os.O_WRONLY|unix.O_DIRECT, 0)
	n.ok(err)
	for i := range carelessWriters {
		buf, rng := n.aligned(carelessBlock), rand.New(rand.NewPCG(n.Seed, uint64(i))) //nolint:gosec // a test has to be repeatable
		go func() {
			for number := uint64(1); ; number++ {
				at := rng.Int64N(carelessBytes/carelessBlock) * carelessBlock
				stamp(buf, at, number)
				if _, err := f.WriteAt(buf, at); err != nil {
					n.Errorf("the careless writer: %v", err)
					return
				}
				time.Sleep(carelessPause)
			}
		}()
	}
}

const stampBytes = 16

func stamp(block []byte, at int64, number uint64) {
	for i := 0; i < len(block); i += stampBytes {
		binary.LittleEndian.PutUint64(block[i:], uint64(at))
		binary.LittleEndian.PutUint64(block[i+8:], number)
	}
}

// checkCareless: any of its writes may be lost, but what is there is its own and where it belongs.
func (n *node) checkCareless() {
	f, err := os.OpenFile(carelessPath(), os.O_RDONLY|unix.O_DIRECT, 0)
	n.ok(err)
	defer f.Close()
	buf := n.aligned(1 << 20)
	written := 0
	for at := int64(0); at < carelessBytes; at += int64(len(buf)) {
		_, err := f.ReadAt(buf, at)
		n.ok(err)
		for i := 0; i < len(buf); i += carelessBlock {
			block := buf[i : i+carelessBlock]
			number := binary.LittleEndian.Uint64(block[8:])
			if number != 0 {
				written++
			}
			want := make([]byte, carelessBlock)
			if number != 0 {
				stamp(want, at+int64(i), number)
			}
			if string(block) != string(want) {
				n.Errorf("block %d of the careless one holds %x, and not what was written there", (at+int64(i))/carelessBlock, block[:2*stampBytes])
			}
		}
	}
	fmt.Printf("%d blocks of the careless one are there\n", written)
}
