//go:build lab

package integration_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
)

// load writes to a volume without a pause, and counts what it has finished.
type load struct {
	*use
	finished   atomic.Int64
	quit, done chan struct{}
	failure    error
}

func (u *use) load() *load {
	l := &load{use: u, quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		if l.block {
			l.failure = l.writeLedger()
			return
		}
		for l.failure == nil && l.goesOn() {
			l.failure = churnOnce(l.target, int(l.finished.Load()))
			l.finished.Add(1)
		}
	}()
	return l
}

func (l *load) goesOn() bool {
	select {
	case <-l.quit:
		return false
	default:
		return true
	}
}

func (l *load) stop() {
	l.t.Helper()
	close(l.quit)
	<-l.done
	if l.failure != nil {
		l.t.Errorf("%s: the writer: %v", l.name, l.failure)
	}
}

// more waits until the writer has finished so much more.
func (l *load) more(n int64) {
	l.t.Helper()
	want := l.finished.Load() + n
	for deadline := time.Now().Add(callTimeout); l.finished.Load() < want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatalf("%s: the writer has stopped at %d", l.name, l.finished.Load())
		}
	}
}

// A ledger is slots all over a block device. Number n goes to the slot after that of n-1, in an order that jumps, when n-1 is durable:
// what is found later says up to which number it was written, and everything else follows.
const (
	ledgerSlots  = 1024
	ledgerJump   = 397 // without a common factor
	ledgerStride = volumeBytes / ledgerSlots
)

func ledgerOffset(n int64) int64 { return n * ledgerJump % ledgerSlots * ledgerStride }

func (l *load) writeLedger() error {
	f, err := os.OpenFile(l.target, os.O_WRONLY|unix.O_DSYNC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for l.goesOn() {
		n := l.finished.Load() + 1
		if _, err := f.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(n)), ledgerOffset(n)); err != nil {
			return err
		}
		l.finished.Add(1)
	}
	return nil
}

// ledger checks that a device has a ledger of one moment, and says up to which number.
func (u *use) ledger() int64 {
	u.t.Helper()
	f, err := os.Open(u.target)
	u.ok(err)
	defer f.Close()
	have, last := map[int64]int64{}, int64(0)
	for slot := range int64(ledgerSlots) {
		b := make([]byte, 8)
		_, err := f.ReadAt(b, slot*ledgerStride)
		u.ok(err)
		n := int64(binary.LittleEndian.Uint64(b))
		have[slot*ledgerStride], last = n, max(last, n)
	}
	for n := last; n > last-ledgerSlots; n-- {
		if at := ledgerOffset(n + ledgerSlots); have[at] != max(n, 0) {
			u.t.Fatalf("%s: up to %d, but at %d there is %d, not %d", u.name, last, at, have[at], max(n, 0))
		}
	}
	return last
}

// moment is a snapshot, and what the writer had finished before and after its cut.
type moment struct {
	*csi.Snapshot
	before, after int64
}

func (l *load) cut(name string, v *csi.Volume) moment {
	l.t.Helper()
	m := moment{before: l.finished.Load()}
	m.Snapshot = l.snapshot(name, v)
	m.after = l.finished.Load()
	return m
}

// isThere checks that a restored volume is what the snapshot has cut.
func (m moment) isThere(u *use) {
	u.t.Helper()
	if !u.block {
		u.holds("before")
		if n := u.churnIsWhole(); n == 0 {
			u.t.Error("nothing of the writer's is in the copy")
		}
		return
	}
	if n := u.ledger(); n < m.before || n > m.after+1 {
		u.t.Errorf("the copy has %d, the writer had %d before the cut and %d after it", n, m.before, m.after)
	}
}

// Snapshots of a thick volume that is being written to, one after the other up to eight: each has one moment, while the others
// are being filled, and its file system is clean.
func TestThickSnapshotsUnderLoad(t *testing.T) {
	c := newThickCO(t)
	for _, k := range []kind{ext4, {name: "xfs"}, block} {
		t.Run(k.name, func(t *testing.T) {
			c := c.in(t)
			t.Cleanup(c.deleteAll)
			v := c.patient("v", k, ofType("thick"))
			u := c.use(v, k)
			if !k.block {
				u.write("before")
			}
			writer := u.load()
			restored := map[int]*csi.Volume{}
			moments := map[int]moment{}
			for n := 1; n <= 8; n++ {
				writer.more(20)
				moments[n] = writer.cut(fmt.Sprint(n), v)
				if n == 1 { // while the writer goes on
					restored[n] = c.patient("restored 1", k, fromSnapshot(moments[n].Snapshot))
				}
			}
			writer.more(20)
			writer.stop()
			for _, n := range []int{4, 8} {
				restored[n] = c.patient(fmt.Sprint("restored ", n), k, fromSnapshot(moments[n].Snapshot))
			}
			for n, r := range restored {
				if k == ext4 {
					c.isClean(r.GetVolumeId(), k) // LVM froze it: there is not even a log to replay
				}
				copied := c.use(r, k)
				moments[n].isThere(copied)
				copied.release()
				if !k.block {
					c.isClean(r.GetVolumeId(), k)
				}
			}
			u.release()
			if !k.block {
				c.isClean(v.GetVolumeId(), k)
			}
		})
	}
}
