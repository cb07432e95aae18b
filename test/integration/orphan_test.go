//go:build lab

package integration_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// deletion is a thick volume whose snapshots are removed by an lvremove that dies.
type deletion struct {
	*co
	v       *csi.Volume
	device  string
	content []byte
}

// An lvremove of a COW snapshot is killed, with the driver, at the places that leave different things. What is listed as ready
// afterwards is a snapshot; what is only its COW is not, and goes with a deletion. The volume is as it was, and a device of an LV that LVM
// does not know any more is removed at the start, and counted.
func TestKilledWhileDeleting(t *testing.T) {
	c := newCOWith(t, labtest.Options{Disks: 2, ThinPool: "pool", PoolSize: "256m"}, driverproc.Options{Flags: []string{"--metrics-address", metricsAddress}})
	d := &deletion{co: c, v: c.patient("v", block, ofType("thick"), ofSize(64*mib)), content: bytes.Repeat([]byte("content "), 512)}
	c.use(d.v, block)
	d.device = c.vg.Device(lvOf(d.v.GetVolumeId()))
	f, err := os.OpenFile(d.device, os.O_WRONLY, 0)
	c.ok(err)
	_, err = f.Write(d.content)
	c.ok(errors.Join(err, f.Sync(), f.Close()))

	// Its devices are suspended (4), it is committed that the COW is plain, they are resumed (4), and removed (3).
	points := c.changesOfDevices("lvremove", "--yes", c.vg.Name+"/"+lvOf(c.snapshot("s", d.v).GetSnapshotId()))
	if len(points) < 11 {
		t.Fatalf("only %d system calls of lvremove change devices", len(points))
	}
	whole, plain := 0, 0
	for _, point := range []int{points[len(points)-9], points[len(points)-7], points[len(points)-1]} {
		if d.interrupt(point) {
			whole++
		} else {
			plain++
		}
	}
	if whole == 0 || plain == 0 {
		t.Errorf("%d times a snapshot was left and %d times its COW: want both", whole, plain)
	}
	d.orphan()
}

// changesOfDevices are the numbers of those system calls of a command that change devices, among its ioctls.
func (c *co) changesOfDevices(argv ...string) []int {
	c.t.Helper()
	trace := filepath.Join(c.dir, "trace")
	labtest.Run(c.t, append([]string{"strace", "-o", trace, "-e", "trace=ioctl"}, argv...)...)
	text, err := os.ReadFile(trace)
	c.ok(err)
	var out []int
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "ioctl(") {
			n++
			if changesDevices.MatchString(line) {
				out = append(out, n)
			}
		}
	}
	return out
}

// interrupt kills the removal of a snapshot and the driver, and says whether the snapshot is still whole.
func (d *deletion) interrupt(point int) (whole bool) {
	d.t.Helper()
	s := d.snapshot("s", d.v)
	lv := d.vg.Name + "/" + lvOf(s.GetSnapshotId())
	d.driver.Kill()
	out, err := exec.Command("strace", "-o", "/dev/null", "-e", "trace=ioctl", "-e", fmt.Sprintf("inject=ioctl:signal=KILL:when=%d", point),
		"lvremove", "--yes", lv).CombinedOutput()
	if err == nil {
		d.t.Fatalf("point %d: it was not killed: %s", point, out)
	}
	d.driver.Start()
	attr := strings.TrimSpace(labtest.Run(d.t, "lvs", "--noheadings", "--options", "lv_attr", lv))
	whole = attr[0] == 's'
	again, err := d.trySnapshot("s", d.v.GetVolumeId())
	if want := map[bool]codes.Code{true: codes.OK, false: codes.FailedPrecondition}[whole]; status.Code(err) != want {
		d.t.Errorf("point %d, what is left is %s: the snapshot is reported as %v, %v; want %s", point, attr, again, err, want)
	}
	list, err := d.Controller.ListSnapshots(d.context(), &csi.ListSnapshotsRequest{SnapshotId: s.GetSnapshotId()})
	d.ok(err)
	if n := len(list.GetEntries()); n != 1 || list.GetEntries()[0].GetSnapshot().GetReadyToUse() != whole {
		d.t.Errorf("point %d, what is left is %s, and listed is %v", point, attr, list)
	}
	d.t.Logf("killed before ioctl %d: left is %s", point, attr)
	d.deleteSnapshot(s)
	d.deleteSnapshot(d.snapshot("s", d.v))
	d.asBefore()
	return whole
}

// asBefore: the volume holds what it held, and can be read.
func (d *deletion) asBefore() {
	d.t.Helper()
	f, err := os.Open(d.device)
	d.ok(err)
	defer f.Close()
	got := make([]byte, len(d.content))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, d.content) {
		d.t.Errorf("the volume holds %.16q, %v", got, err)
	}
}

// orphan is a device as an LV's that LVM has removed. (LVM 2.03.16 was not seen to leave one.)
func (d *deletion) orphan() {
	d.t.Helper()
	d.driver.Kill()
	name := dm.DeviceName(d.vg.Name, "csi-s-orphan") + "-cow"
	group := strings.ReplaceAll(strings.TrimSpace(labtest.Run(d.t, "vgs", "--noheadings", "--options", "vg_uuid", d.vg.Name)), "-", "")
	labtest.Run(d.t, "dmsetup", "--noudevsync", "create", name, "--uuid", "LVM-"+group+strings.Repeat("x", 32)+"-cow", "--table", "0 8192 zero")
	d.driver.Start()
	d.deleteSnapshot(d.snapshot("s", d.v))
	if got := d.series("lvmsnap_recoveries_total", `kind="device"`); got != "1" {
		d.t.Errorf("%q recoveries of devices are counted, want 1", got)
	}
	if list := labtest.Run(d.t, "dmsetup", "ls"); strings.Contains(list, name) {
		d.t.Errorf("the device is still there: %s", list)
	}
}
