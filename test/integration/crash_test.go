//go:build lab

package integration_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// logbook is one client of a driver that is about to be killed: it writes a number to its volume, snapshots it
// under that number's name, and writes the next one.
type logbook struct {
	name   string
	volume *csi.Volume
	device *os.File

	last     uint64                   // number that was written, and whose snapshot was asked for
	reported map[uint64]*csi.Snapshot // to this client as ready
}

func (c *co) newLogbook(name string) *logbook {
	c.t.Helper()
	v := c.volume(name, block, ofSize(16*mib))
	u := c.use(v, block)
	device, err := os.OpenFile(u.target, os.O_WRONLY|unix.O_SYNC, 0)
	c.ok(err)
	c.t.Cleanup(func() { _ = device.Close() }) // before the volume is released
	return &logbook{name: name, volume: v, device: device, reported: map[uint64]*csi.Snapshot{}}
}

func (l *logbook) snapshotName(n uint64) string { return fmt.Sprintf("%s/%d", l.name, n) }

// run works until ctx ends, or a call fails.
func (l *logbook) run(ctx context.Context, c *co) error {
	for ctx.Err() == nil {
		l.last++
		if _, err := l.device.WriteAt(binary.LittleEndian.AppendUint64(nil, l.last), 0); err != nil {
			return err
		}
		res, err := c.Controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{
			Name: l.snapshotName(l.last), SourceVolumeId: l.volume.GetVolumeId(),
		})
		if err != nil {
			return nil // the driver is gone
		}
		l.reported[l.last] = res.GetSnapshot()
	}
	return nil
}

// The driver is killed while it cuts snapshots, several times. What it had reported as ready is there, with its
// data and its time; what it had not is made by a retry, once.
func TestKilledWhileCutting(t *testing.T) {
	c := newCO(t)
	books := []*logbook{c.newLogbook("a"), c.newLogbook("b"), c.newLogbook("c")}
	for round := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for _, l := range books {
			all.Go(func() {
				if err := l.run(ctx, c); err != nil {
					t.Errorf("%s: %v", l.name, err)
				}
			})
		}
		time.Sleep(2*time.Second + time.Duration(round)*170*time.Millisecond)
		c.driver.Kill()
		cancel()
		all.Wait()
		c.driver.Start()
		for _, l := range books {
			c.retryAll(l)
		}
	}
	want := []string{}
	total := 0
	for _, l := range books {
		want = append(want, lvOf(l.volume.GetVolumeId()))
		for n := uint64(1); n <= l.last; n++ {
			want = append(want, lvOf(l.reported[n].GetSnapshotId()))
			total++
		}
	}
	slices.Sort(want)
	if got := c.lvs(); !slices.Equal(got, want) {
		t.Errorf("%d LVs, want %d:\n%v\n%v", len(got), len(want), got, want)
	}
	t.Logf("%d snapshots", total)
	c.haveTheirNumbers(books)
}

// retryAll asks for all of a client's snapshots again: the reported ones have not changed, and the one that was
// on its way is made.
func (c *co) retryAll(l *logbook) {
	c.t.Helper()
	for n := uint64(1); n <= l.last; n++ {
		s, _ := untilDone(c, l.snapshotName(n), func() (*csi.Snapshot, error) {
			return c.trySnapshot(l.snapshotName(n), l.volume.GetVolumeId())
		})
		before, ok := l.reported[n]
		if ok && (s.GetSnapshotId() != before.GetSnapshotId() || s.GetCreationTime().AsTime() != before.GetCreationTime().AsTime()) {
			c.t.Errorf("%s is %v, and was reported as %v", l.snapshotName(n), s, before)
		}
		l.reported[n] = s
	}
}

// haveTheirNumbers reads every snapshot, on the devices that an administrator can activate.
func (c *co) haveTheirNumbers(books []*logbook) {
	c.t.Helper()
	labtest.Run(c.t, "lvchange", "--activate", "y", "--ignoreactivationskip", "--select", "lv_name=~^csi-s-", c.vg.Name)
	for _, l := range books {
		for n, s := range l.reported {
			f, err := os.Open(c.vg.Device(lvOf(s.GetSnapshotId())))
			c.ok(err)
			got := make([]byte, 8)
			_, err = f.ReadAt(got, 0)
			_ = f.Close()
			if err != nil || binary.LittleEndian.Uint64(got) != n {
				c.t.Errorf("snapshot %s holds %d, %v", l.snapshotName(n), binary.LittleEndian.Uint64(got), err)
			}
		}
	}
}

// Killed while it makes volumes: of each name there is one volume after the retry, and it is as good as any.
func TestKilledWhileRestoring(t *testing.T) {
	c := newCO(t)
	v := c.volume("origin", ext4)
	u := c.use(v, ext4)
	u.write("v1")
	s := c.snapshot("s", v)
	u.write("v2")
	const each = 8
	larger := func(i int) *csi.CreateVolumeRequest {
		return c.volumeRequest(fmt.Sprint(i), ext4, fromSnapshot(s), ofSize(gib))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range each {
		all.Go(func() { _, _ = c.Controller.CreateVolume(ctx, larger(i)) })
	}
	time.Sleep(300 * time.Millisecond)
	c.driver.Kill()
	cancel()
	all.Wait()
	c.driver.Start()
	for i := range each {
		res, _ := untilDone(c, fmt.Sprint(i), func() (*csi.CreateVolumeResponse, error) {
			return c.Controller.CreateVolume(c.context(), larger(i))
		})
		if got := res.GetVolume().GetCapacityBytes(); got != gib {
			t.Errorf("volume %d has %d bytes", i, got)
		}
		if i < 3 {
			restored := c.use(res.GetVolume(), ext4)
			restored.holds("v1")
			restored.hasSize(gib)
		}
	}
	if lvs := c.lvs(); len(lvs) != each+2 {
		t.Errorf("LVs: %v", lvs)
	}
	u.holds("v2")
}
