//go:build lab

package integration_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// poolStatus is the kernel's line of the group's pool, in words: transaction, metadata, data, held root, mode, ...
func (c *co) poolStatus() []string {
	c.t.Helper()
	return strings.Fields(labtest.Run(c.t, "dmsetup", "status", c.vg.Name+"-pool-tpool"))[3:]
}

// used of a ratio of the status, in percent.
func used(ratio string) float64 {
	a, b, _ := strings.Cut(ratio, "/")
	n, _ := strconv.ParseFloat(a, 64)
	total, _ := strconv.ParseFloat(b, 64)
	return n * 100 / total
}

// until waits for what has to come by itself.
func (c *co) until(what string, fn func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(callTimeout); !fn(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("%s: not after %s; the pool: %v", what, callTimeout, c.poolStatus())
		}
	}
}

// aligned is memory for direct I/O.
func aligned(n int) []byte {
	buf := make([]byte, n+4096)
	skip := 4096 - int(uintptr(unsafe.Pointer(&buf[0]))%4096)
	return buf[skip : skip+n]
}

// holdsOnDisk is holds without the page cache.
func (u *use) holdsOnDisk(text string) {
	u.t.Helper()
	f, err := os.OpenFile(u.target, os.O_RDONLY|unix.O_DIRECT, 0)
	u.ok(err)
	defer f.Close()
	got := aligned(patternBytes)
	for _, offset := range offsets {
		if _, err := f.ReadAt(got, offset); err != nil || !bytes.Equal(got, pattern(text)) {
			u.t.Errorf("%s holds %.40q at %d, want %q; %v", u.id, got, offset, text, err)
		}
	}
}

// flood writes to a block volume past the page cache, a MiB after the other, from one offset to the other.
func (u *use) flood(from, to int64) error {
	f, err := os.OpenFile(u.target, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := aligned(int(mib))
	copy(buf, bytes.Repeat([]byte("flood"), len(buf)/5+1))
	for at := from; at < to; at += mib {
		if _, err := f.WriteAt(buf, at); err != nil {
			return fmt.Errorf("at %d MiB: %w", at/mib, err)
		}
	}
	return nil
}

// scatter writes a block of 4 KiB to each 12 MiB of a volume, as far as flood has filled its origin.
func (u *use) scatter() error {
	const step, to = 12 * mib, 600 * mib
	f, err := os.OpenFile(u.target, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for at := int64(0); at < to; at += step {
		if _, err := f.WriteAt(aligned(4096), at); err != nil {
			return fmt.Errorf("at %d MiB: %w", at/mib, err)
		}
	}
	return nil
}

// health is what the driver says about a volume.
func (c *co) health(v *csi.Volume) string {
	c.t.Helper()
	res, err := c.Controller.ControllerListVolumeHealth(c.context(), &csi.ControllerListVolumeHealthRequest{})
	c.ok(err)
	var words []string
	for _, entry := range res.GetEntries() {
		if entry.GetVolumeId() != v.GetVolumeId() {
			continue
		}
		for _, status := range entry.GetHealthStatuses() {
			words = append(words, status.GetReason(), status.GetMessage())
		}
	}
	return strings.Join(words, " ")
}

func (c *co) says(what, text string, words ...string) {
	c.t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			c.t.Errorf("%s: %q does not say %q", what, text, word)
		}
	}
}

// poolIsSound ends the use of the group and has the pool's metadata checked.
func (c *co) poolIsSound() {
	c.t.Helper()
	c.driver.Stop()
	labtest.Run(c.t, "vgchange", "--activate", "n", c.vg.Name)
	meta := c.vg.Name + "/pool_tmeta"
	labtest.Run(c.t, "lvchange", "--yes", "--activate", "y", meta)
	labtest.Run(c.t, "thin_check", "/dev/"+meta)
	labtest.Run(c.t, "lvchange", "--activate", "n", meta)
	labtest.Run(c.t, "vgck", c.vg.Name)
}

func inRatio(ratio string) func(*csi.CreateVolumeRequest) {
	return func(req *csi.CreateVolumeRequest) { req.Parameters = map[string]string{"overprovisionRatio": ratio} }
}

// refuses checks that everything new is refused, with the numbers, and that nothing was begun for it.
func (c *co) refuses(v *csi.Volume, s *csi.Snapshot, words ...string) {
	c.t.Helper()
	before, lvs := c.poolStatus()[0], c.lvs()
	_, err := c.trySnapshot("refused", v.GetVolumeId())
	c.fails("snapshot", err, codes.ResourceExhausted, words...)
	_, err = c.Controller.CreateVolume(c.context(), c.volumeRequest("refused", block, ofSize(4*mib)))
	c.fails("volume", err, codes.ResourceExhausted, words...)
	_, err = c.Controller.CreateVolume(c.context(), c.volumeRequest("refused", block, fromSnapshot(s)))
	c.fails("restore", err, codes.ResourceExhausted, words...)
	capacity, err := c.Controller.GetCapacity(c.context(), &csi.GetCapacityRequest{})
	if err != nil || capacity.GetAvailableCapacity() != 0 || capacity.GetMaximumVolumeSize().GetValue() != 0 {
		c.t.Errorf("capacity: %v, %v", capacity, err)
	}
	if after := c.poolStatus()[0]; after != before || fmt.Sprint(c.lvs()) != fmt.Sprint(lvs) {
		c.t.Errorf("what was refused was begun: transaction %s, was %s; LVs %v, were %v", after, before, c.lvs(), lvs)
	}
}

// A writer fills the pool to the brim while snapshots are cut. They are refused from the reserve on; what is there can be read
// and deleted; the writer that waits goes on when there is room again, and so does the driver.
func TestFullPoolData(t *testing.T) {
	c := newCOWith(t, labtest.Options{ThinPool: "pool", PoolSize: "512m", ChunkSize: "64k"}, driverproc.Options{})
	keep := c.volume("keep", block)
	u := c.use(keep, block)
	u.write("v1")
	s := c.snapshot("s", keep)
	u.write("v2")
	for ratio, want := range map[string]int64{"1": 0, "1.5": 256 * mib, "3": 512 * mib} { // keep has all of the pool
		class := map[string]string{"overprovisionRatio": ratio}
		capacity, err := c.Controller.GetCapacity(c.context(), &csi.GetCapacityRequest{Parameters: class})
		if err != nil || capacity.GetMaximumVolumeSize().GetValue() != want {
			t.Errorf("ratio %s: %v, %v; want %d", ratio, capacity, err, want)
		}
		_, err = c.Controller.CreateVolume(c.context(), c.volumeRequest("too large", block, ofSize(want+4*mib), inRatio(ratio)))
		c.fails("ratio "+ratio, err, codes.ResourceExhausted, c.vg.Name+"/pool", "512 MiB")
	}
	ballast := c.volume("ballast", block)
	b := c.use(ballast, block)
	c.ok(b.flood(0, 64*mib))
	b.release()
	old := c.snapshot("old", ballast)
	hose := c.use(c.volume("hose", block), block)

	done := make(chan error, 1)
	go func() { done <- errors.Join(hose.flood(0, 400*mib), hose.pour(400*mib, 458*mib)) }()
	cuts, refusals := 0, 0
	for c.poolStatus()[4] != "out_of_data_space" {
		switch _, err := c.trySnapshot(fmt.Sprint("cut ", cuts), keep.GetVolumeId()); {
		case err == nil && refusals == 0:
			cuts++
		case status.Code(err) == codes.ResourceExhausted:
			refusals++
		default:
			t.Fatalf("after %d snapshots and %d refusals: %v", cuts, refusals, err)
		}
	}
	t.Logf("%d snapshots, then %d refusals on the way to the brim", cuts, refusals)
	if cuts == 0 || refusals == 0 {
		t.Error("the writer was too fast to see anything")
	}
	c.refuses(keep, s, c.vg.Name+"/pool", "512 MiB", "out of data space", "writes that need more wait", "60 seconds", "lvextend --size")
	c.says("health in queue mode", c.health(keep), "PoolOutOfDataSpace", "wait", "PoolDataLow", "100.0%", "the reserve is 5%")
	u.holdsOnDisk("v2")
	select {
	case err := <-done:
		t.Errorf("the writer has ended in a full pool: %v", err)
	default:
	}

	c.deleteSnapshot(old)
	c.deleteVolume(ballast)
	if err := <-done; err != nil {
		t.Errorf("the writer, after deletions: %v", err)
	}
	c.until("a snapshot after deletions", func() bool {
		_, err := c.trySnapshot("after deletions", keep.GetVolumeId())
		return err == nil
	})
	r := c.use(c.volume("restored", block, fromSnapshot(s)), block)
	r.holdsOnDisk("v1")

	// The same in the mode in which writers get an error, and an administrator's lvextend for a cure.
	labtest.Run(t, "lvchange", "--errorwhenfull", "y", c.vg.Name+"/pool")
	if err := hose.flood(458*mib, volumeBytes); !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EIO) {
		t.Errorf("the writer in error mode: %v", err)
	}
	c.refuses(keep, s, "out of data space", "writes that need more fail")
	c.says("health in error mode", c.health(keep), "PoolOutOfDataSpace", "need more fail")
	u.holdsOnDisk("v2")
	labtest.Run(t, "lvextend", "--size", "640m", c.vg.Name+"/pool")
	c.snapshot("after lvextend", keep)
	c.ok(hose.flood(458*mib, volumeBytes))
	if text := c.health(keep); text != "" {
		t.Errorf("the driver still says %q", text)
	}
	u.holdsOnDisk("v2")
	again := c.use(c.volume("restored again", block, fromSnapshot(s), inRatio("10")), block)
	again.holdsOnDisk("v1")
	for _, x := range []*use{u, hose, r, again} {
		x.release()
	}
	c.poolIsSound()
}

// Writers fill the pool's metadata: clones that stop sharing take much metadata and little data. Snapshots are refused where LVM
// would refuse them; at the end the pool is read-only, and takes nothing, deletions neither, until its metadata is extended.
func TestFullPoolMetadata(t *testing.T) {
	c := newCOWith(t, labtest.Options{ThinPool: "pool", PoolSize: "1g", ChunkSize: "64k", ExtentSize: "1m", PoolMetadataSize: "2m"},
		driverproc.Options{Flags: []string{"--overprovision-ratio=20"}})
	ofPool := func(req *csi.CreateVolumeRequest) { req.CapacityRange.RequiredBytes = 700 * mib }
	keep := c.volume("keep", block, ofPool)
	u := c.use(keep, block)
	c.ok(u.flood(0, 600*mib))
	u.write("v1")
	s := c.snapshot("s", keep)
	u.write("v2")
	var clones []*csi.Volume
	for i := range 12 {
		clones = append(clones, c.volume(fmt.Sprint("clone ", i), block, ofPool, fromVolume(keep), ofPool))
	}
	var late, failed error
	checked := false
	for i := 0; failed == nil && i < len(clones); i++ {
		x := c.use(clones[i], block)
		failed = x.scatter()
		x.release()
		metadata := used(c.poolStatus()[1])
		_, err := c.trySnapshot(fmt.Sprint("cut ", i), keep.GetVolumeId())
		switch {
		case err == nil && metadata > 77: // the kernel's number goes up and down a little
			t.Errorf("a snapshot with %.1f%% of the metadata used", metadata)
		case err != nil && late == nil:
			late = err
			t.Logf("the first refusal, with %.1f%% of the metadata used: %v", metadata, err)
		}
		if metadata > 80 && !checked {
			checked = true
			c.refuses(keep, s, c.vg.Name+"/pool", "of 512 blocks", "%", "the reserve is 25% (LVM's own", "lvextend --poolmetadatasize")
			c.deleteVolume(clones[0])
			if now := used(c.poolStatus()[1]); now >= metadata {
				t.Errorf("a deletion has freed nothing: %.1f%% of the metadata used, were %.1f%%", now, metadata)
			}
		}
	}
	if !errors.Is(failed, unix.EIO) || late == nil || !checked || c.poolStatus()[4] != "ro" {
		t.Fatalf("the pool is not full: writer %v, refusal %v, pool %v", failed, late, c.poolStatus())
	}
	c.refuses(keep, s, c.vg.Name+"/pool", "read-only", "100.0% used", "lvextend --poolmetadatasize")
	c.says("health", c.health(keep), "PoolReadOnly", "PoolMetadataLow", "512 of 512 blocks")
	u.holdsOnDisk("v2")
	lvs := c.lvs()
	_, err := c.Controller.DeleteVolume(c.context(), &csi.DeleteVolumeRequest{VolumeId: clones[1].GetVolumeId()})
	c.fails("deletion", err, codes.FailedPrecondition, "read-only", "lvextend --poolmetadatasize")
	if now := c.lvs(); fmt.Sprint(now) != fmt.Sprint(lvs) {
		t.Errorf("the deletion was begun: %v, were %v", now, lvs)
	}

	labtest.Run(t, "lvextend", "--poolmetadatasize", "4m", c.vg.Name+"/pool")
	c.deleteVolume(clones[1])
	c.snapshot("after lvextend", keep)
	r := c.use(c.volume("restored", block, ofPool, fromSnapshot(s), ofPool), block)
	r.holdsOnDisk("v1")
	u.holdsOnDisk("v2")
	if text := c.health(keep); text != "" {
		t.Errorf("the driver still says %q", text)
	}
	r.release()
	u.release()
	c.poolIsSound()
}
