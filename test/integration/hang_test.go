//go:build lab

package integration_test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// suspendDevice takes a device away from those who use it, as an administrator can, until the returned function is called.
func suspendDevice(t *testing.T, device string) (resume func()) {
	labtest.Run(t, "dmsetup", "suspend", "--noflush", device)
	return func() { labtest.Run(t, "dmsetup", "resume", device) }
}

// delayFlushes makes a device of one linear target take a minute for each flush, as a broken disk does.
func delayFlushes(t *testing.T, device string) (undo func()) {
	table := strings.TrimSpace(labtest.Run(t, "dmsetup", "table", device))
	var start, sectors, offset int64
	var disk string
	if _, err := fmt.Sscanf(table, "%d %d linear %s %d", &start, &sectors, &disk, &offset); err != nil || start != 0 {
		t.Fatalf("the table of %s is %q: %v", device, table, err)
	}
	load := func(table string) {
		labtest.Run(t, "dmsetup", "load", device, "--table", table)
		labtest.Run(t, "dmsetup", "suspend", device) // lets go of what is delayed
		labtest.Run(t, "dmsetup", "resume", device)
	}
	at := fmt.Sprintf("%s %d", disk, offset)
	load(fmt.Sprintf("0 %d delay %s 0 %s 0 %s 60000", sectors, at, at, at))
	return func() { load(table) }
}

// An LVM command that does not come back, because of what the data of its pool are on. Its group's callers, probes and metrics
// say so until that device is well; reads of the group, and all of the others, go on; then work goes on without a restart.
func TestStuckPool(t *testing.T) {
	other := labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool"})
	c := newCOWith(t, labtest.Options{ThinPool: "pool"}, driverproc.Options{
		Groups: []string{other.Name}, Flags: []string{"--stuck-after", "2s", "--metrics-address", metricsAddress},
		Env: []string{"LVM_SYSTEM_DIR=" + withoutFilter(t)}, // LVM looks at volumes, as on most hosts
	})
	for name, hang := range map[string]func(*testing.T, string) func(){"suspended": suspendDevice, "slow": delayFlushes} {
		t.Run(name, func(t *testing.T) {
			c.in(t).stuckPool(other, func() func() { return hang(t, c.vg.Name+"-pool_tdata") })
		})
	}
}

func (c *co) stuckPool(other *labtest.Group, hang func() func()) {
	inOther := func(r *csi.CreateVolumeRequest) { r.Parameters = map[string]string{"volumeGroup": other.Name} }
	v, w := c.volume("v", block), c.volume("w", block, inOther)
	u := c.use(v, block)
	u.write("v1")
	first := c.snapshot("first", v)
	pid := c.driver.PID()
	nodes := c.nodesOf(other)
	stuckBefore, recoveredBefore := c.told("GroupStuck"), c.told("GroupRecovered")

	undo, undone := hang(), false
	end := func() {
		if !undone {
			undone = true
			undo()
		}
	}
	defer end()

	short, cancel := context.WithTimeout(c.t.Context(), 3*time.Second)
	defer cancel()
	_, err := c.Controller.CreateSnapshot(short, &csi.CreateSnapshotRequest{Name: c.prefix + "s", SourceVolumeId: v.GetVolumeId()})
	c.fails("the call whose command hangs", err, codes.DeadlineExceeded, "its command lvcreate "+c.vg.Name, "has been running for")
	write := exec.Command("dd", "if=/dev/zero", "of="+c.vg.Device(lvOf(v.GetVolumeId())), "bs=4k", "count=1", "seek=2000", "oflag=direct", "status=none")
	c.ok(write.Start())
	_, err = c.trySnapshot("s", v.GetVolumeId())
	c.fails("its retry", err, codes.Aborted, "another call")
	c.eventually("Probe is not ready", func() error {
		_, err := c.Identity.Probe(c.context(), &csi.ProbeRequest{})
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "its command lvcreate "+c.vg.Name) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	const stuck = "lvmsnap_lvm_stuck_commands"
	if got := c.metric(stuck); got != "1" {
		c.t.Errorf("the metric is %q", got)
	}

	c.isTold("GroupStuck", stuckBefore)

	// Everything else goes on.
	c.readsOn(v, first)
	c.operatorSees(other)
	nodes.goOn()
	s := c.snapshot("in the other group", w)
	c.deleteSnapshot(s)
	c.deleteVolume(w)

	end()
	c.ok(write.Wait())
	var cut *csi.Snapshot
	c.eventually("the retry", func() (err error) {
		cut, err = c.trySnapshot("s", v.GetVolumeId())
		return err
	})
	c.lists("afterwards", lvOf(first.GetSnapshotId()), lvOf(cut.GetSnapshotId()))
	_, err = c.Identity.Probe(c.context(), &csi.ProbeRequest{})
	c.ok(err)
	if got := c.metric(stuck); got != "0" || c.driver.PID() != pid {
		c.t.Errorf("the metric is %q; process %d, was %d", got, c.driver.PID(), pid)
	}
	c.isTold("GroupRecovered", recoveredBefore)
	if got := c.metric("lvmsnap_pool_condition", "PoolNotAnswering"); got != "" {
		c.t.Errorf("the pool's condition is %q", got)
	}
	u.holds("v1")
	restored := c.use(c.volume("restored", block, fromSnapshot(cut)), block)
	restored.holds("v1")
	restored.release()
	u.release()
	nodes.end()
	c.deleteAll()
}

// told is how often the node was told of something of the group, by the log.
func (c *co) told(reason string) int {
	return strings.Count(c.driver.Log(), `reason="`+reason+`" message="volume group `+c.vg.Name)
}

// isTold waits until it was told more often, of which the metric says the same.
func (c *co) isTold(reason string, before int) {
	c.t.Helper()
	c.eventually(reason, func() error {
		n := c.told(reason)
		if got := c.series("lvmsnap_notices_total", `reason="`+reason+`"`); n <= before || got != fmt.Sprint(n) {
			return fmt.Errorf("%d lines in the log, %d before, and the metric says %q", n, before, got)
		}
		return nil
	})
}

// readsOn reads a group whose pool does not answer: what there was before is there, what may not be is not ready, and the volume
// says why.
func (c *co) readsOn(v *csi.Volume, first *csi.Snapshot) {
	c.t.Helper()
	c.eventually("the pool does not answer", func() error {
		if got := c.metric("lvmsnap_pool_condition", "PoolNotAnswering"); got != "1" {
			return fmt.Errorf("the pool's condition is %q", got)
		}
		return nil
	})
	list, err := c.Controller.ListSnapshots(c.context(), &csi.ListSnapshotsRequest{})
	c.ok(err)
	ready := map[string]bool{}
	for _, entry := range list.GetEntries() {
		ready[entry.GetSnapshot().GetSnapshotId()] = entry.GetSnapshot().GetReadyToUse()
	}
	if id := first.GetSnapshotId(); !ready[id] {
		c.t.Errorf("the snapshot of before is not ready: %v", ready)
	}
	for id, is := range ready {
		if is && id != first.GetSnapshotId() {
			c.t.Errorf("%s is ready, and its lvcreate hangs", id)
		}
	}
	volumes, err := c.Controller.ListVolumes(c.context(), &csi.ListVolumesRequest{})
	c.ok(err)
	if len(volumes.GetEntries()) != 4 {
		c.t.Errorf("volumes: %v", volumes)
	}
	health, err := c.Controller.ControllerGetVolumeHealth(c.context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: v.GetVolumeId()})
	c.ok(err)
	if text := fmt.Sprint(health); !strings.Contains(text, "PoolNotAnswering") {
		c.t.Errorf("health: %s", text)
	}
	_, err = c.Controller.GetCapacity(c.context(), &csi.GetCapacityRequest{})
	c.fails("the capacity", err, codes.Unavailable, "thin pool "+c.vg.Name+"/pool has not answered for", c.vg.Name+"-pool_tdata")
}

// eventually tries until check is content.
func (c *co) eventually(what string, check func() error) {
	c.t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	c.t.Fatalf("%s: %v", what, err)
}
