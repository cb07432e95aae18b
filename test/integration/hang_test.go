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

// An LVM command that cannot come back: the data of its pool are on a device that somebody has suspended, and a write
// is under way. Callers, probes and metrics say so until that device is resumed; then work goes on without a restart.
func TestStuckSuspend(t *testing.T) {
	c := newCOWith(t, labtest.Options{ThinPool: "pool"}, driverproc.Options{
		Flags: []string{"--stuck-after", "2s", "--metrics-address", metricsAddress},
	})
	v := c.volume("v", block)
	u := c.use(v, block)
	u.write("v1")
	pid := c.driver.PID()

	data := c.vg.Name + "-pool_tdata"
	labtest.Run(t, "dmsetup", "suspend", "--noflush", data)
	resumed := false
	resume := func() {
		if !resumed {
			resumed = true
			labtest.Run(t, "dmsetup", "resume", data)
		}
	}
	defer resume()
	write := exec.Command("dd", "if=/dev/zero", "of="+c.vg.Device(lvOf(v.GetVolumeId())), "bs=4k", "count=1", "seek=2000", "oflag=direct", "status=none")
	c.ok(write.Start())

	short, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := c.Controller.CreateSnapshot(short, &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: v.GetVolumeId()})
	c.fails("the call whose command hangs", err, codes.DeadlineExceeded, "its command lvcreate "+c.vg.Name, "has been running for")
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
		t.Errorf("the metric is %q", got)
	}

	resume()
	c.ok(write.Wait())
	var cut *csi.Snapshot
	c.eventually("the retry", func() (err error) {
		cut, err = c.trySnapshot("s", v.GetVolumeId())
		return err
	})
	c.lists("afterwards", lvOf(cut.GetSnapshotId()))
	_, err = c.Identity.Probe(c.context(), &csi.ProbeRequest{})
	c.ok(err)
	if got := c.metric(stuck); got != "0" || c.driver.PID() != pid {
		t.Errorf("the metric is %q; process %d, was %d", got, c.driver.PID(), pid)
	}
	u.holds("v1")
	u.release()
	c.deleteAll()
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
