//go:build lab

package integration_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// badDisk is a physical volume that can be made to hang: a device-mapper device on one of the lab's disks.
type badDisk struct {
	t    *testing.T
	name string
	disk string // the lab's
	good string // its table
	bad  string // what hangs of it, as the arguments of dm-delay; Documentation/admin-guide/device-mapper/delay.rst
}

// never is longer, in milliseconds, than anybody waits.
const never = 3600_000

func newBadDisk(t *testing.T) *badDisk {
	t.Helper()
	disk := labtest.Disk(t)
	sectors := strings.TrimSpace(labtest.Run(t, "blockdev", "--getsz", disk))
	d := &badDisk{t: t, name: "bad", disk: disk, good: fmt.Sprintf("0 %s linear %s 0", sectors, disk)}
	d.bad = fmt.Sprintf("0 %s delay %s 0 %%d %s 0 %d", sectors, disk, disk, never)
	labtest.Run(t, "dmsetup", "create", d.name, "--table", d.good)
	labtest.Run(t, "dmsetup", "mknodes", d.name) // where there is no udev
	return d
}

func (d *badDisk) path() string { return "/dev/mapper/" + d.name }

// load replaces the table, and lets go of what was delayed.
func (d *badDisk) load(table string) {
	labtest.Run(d.t, "dmsetup", "load", d.name, "--table", table)
	labtest.Run(d.t, "dmsetup", "suspend", d.name)
	labtest.Run(d.t, "dmsetup", "resume", d.name)
}

func (d *badDisk) suspend() (undo func()) { return suspendDevice(d.t, d.name) }

// delay delays writes for ever, and reads for so many milliseconds.
func (d *badDisk) delay(reads int) (undo func()) {
	d.load(fmt.Sprintf(d.bad, reads))
	return func() { d.load(d.good) }
}

// groupOnBadDisk makes a group with a thin pool on one, which the host's lvm.conf lets LVM see until the end of the test.
func groupOnBadDisk(t *testing.T) (*labtest.Group, *badDisk) {
	t.Helper()
	d := newBadDisk(t)
	conf, err := os.ReadFile(filepath.Join(os.Getenv("LVM_SYSTEM_DIR"), "lvm.conf"))
	if err != nil {
		t.Fatal(err)
	}
	const filter = "global_filter = [ "
	// Not the lab's disk itself, which has the same label.
	text := strings.Replace(string(conf), filter, fmt.Sprintf("%s%q, %q, ", filter, "a|^"+d.path()+"$|", "r|^"+d.disk+"$|"), 1)
	if text == string(conf) {
		t.Fatalf("no %q in the lab's lvm.conf:\n%s", filter, conf)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "lvm.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LVM_SYSTEM_DIR", dir)
	g := &labtest.Group{Name: "onbaddisk", Disks: []string{d.path()}, ThinPool: "pool"}
	labtest.Run(t, "vgcreate", "-y", g.Name, d.path())
	t.Cleanup(func() { labtest.Run(t, "vgremove", "-ff", "-y", g.Name) })
	labtest.Run(t, "lvcreate", "-y", "--type", "thin-pool", "--name", g.ThinPool, "--extents", "80%VG", g.Name)
	return g, d
}

// All that a group is on hangs, LVM's own metadata first of all. LVM reads the label of every disk, whichever group a command
// is for: the other group goes on all the same. When the disk is well, work goes on without a restart.
func TestStuckDisk(t *testing.T) {
	other := labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool"})
	vg, disk := groupOnBadDisk(t)
	c := &co{t: t, vg: vg, dir: t.TempDir()}
	c.driver = driverproc.Start(t, driverproc.Options{
		Groups: []string{vg.Name, other.Name}, Flags: []string{"--stuck-after", "2s", "--metrics-address", metricsAddress},
	})
	c.Clients = c.driver.Clients
	for _, tt := range []struct {
		name string
		hang func() func()
		// command is whether the disk can still be read, so that LVM begins with a command, and hangs in it
		command bool
	}{
		{"suspended", disk.suspend, false},
		{"slow", func() func() { return disk.delay(never) }, false},
		{"slow writes", func() func() { return disk.delay(0) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) { c.in(t).stuckDisk(other, tt.hang, tt.command) })
	}
}

func (c *co) stuckDisk(other *labtest.Group, hang func() func(), command bool) {
	v := c.volume("v", block)
	w := c.volume("w", block, func(r *csi.CreateVolumeRequest) { r.Parameters = map[string]string{"volumeGroup": other.Name} })
	u := c.use(v, block)
	u.write("v1")
	before, kept := c.snapshot("before", v), c.snapshot("kept", w)
	pid := c.driver.PID()

	undo, undone := hang(), false
	end := func() {
		if !undone {
			undone = true
			undo()
		}
	}
	defer end()
	if command {
		c.hangsInCommand(v)
	} else {
		c.hangsWithoutCommand(v)
	}
	c.listsReady(before, kept)
	c.otherGroupGoesOn(other, w, kept)

	end()
	c.eventually("the driver is ready", func() error {
		_, err := c.Identity.Probe(c.context(), &csi.ProbeRequest{})
		return err
	})
	var cut *csi.Snapshot
	c.eventually("a snapshot on the disk that is well again", func() (err error) {
		cut, err = c.trySnapshot("s", v.GetVolumeId())
		return err
	})
	u.holds("v1")
	restored := c.use(c.volume("restored", block, fromSnapshot(cut)), block)
	restored.holds("v1")
	restored.release()
	u.release()
	if got := c.metric("lvmsnap_lvm_stuck_commands"); got != "0" || c.driver.PID() != pid {
		c.t.Errorf("stuck commands: %q; process %d, was %d", got, c.driver.PID(), pid)
	}
	c.deleteAll()
}

// hangsInCommand: calls say which command it is, and Probe does after a while; what only looks goes on.
func (c *co) hangsInCommand(v *csi.Volume) {
	c.t.Helper()
	short, cancel := context.WithTimeout(c.t.Context(), 4*time.Second)
	defer cancel()
	_, err := c.Controller.CreateSnapshot(short, &csi.CreateSnapshotRequest{Name: c.prefix + "s", SourceVolumeId: v.GetVolumeId()})
	c.fails("the call whose command hangs", err, codes.DeadlineExceeded, "its command lvcreate "+c.vg.Name, "has been running for")
	c.eventually("Probe is not ready", func() error {
		_, err := c.Identity.Probe(c.context(), &csi.ProbeRequest{})
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "its command lvcreate "+c.vg.Name) {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	if got := c.metric("lvmsnap_lvm_stuck_commands"); got != "1" {
		c.t.Errorf("stuck commands: %q", got)
	}
}

// hangsWithoutCommand: calls are told at once which group's disks do not answer, and no command is begun that would hang as well.
func (c *co) hangsWithoutCommand(v *csi.Volume) {
	c.t.Helper()
	words := []string{"the disks do not answer", "reading the metadata of volume group " + c.vg.Name + " has taken"}
	_, err := c.trySnapshot("s", v.GetVolumeId())
	c.fails("CreateSnapshot", err, codes.Unavailable, words...)
	health, err := c.Controller.ControllerGetVolumeHealth(c.context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: v.GetVolumeId()})
	c.ok(err)
	if text := fmt.Sprint(health); !strings.Contains(text, "DisksNotAnswering") {
		c.t.Errorf("health: %s", text)
	}
	_, err = c.Controller.GetCapacity(c.context(), &csi.GetCapacityRequest{})
	c.fails("GetCapacity", err, codes.Unavailable, words...)
	_, err = c.Identity.Probe(c.context(), &csi.ProbeRequest{})
	c.ok(err)
	if got := c.metric("lvmsnap_lvm_stuck_commands"); got != "0" {
		c.t.Errorf("stuck commands: %q", got)
	}
}

// listsReady: what there was before is listed, whichever group it is in, and nothing else is said to be ready.
func (c *co) listsReady(want ...*csi.Snapshot) {
	c.t.Helper()
	list, err := c.Controller.ListSnapshots(c.context(), &csi.ListSnapshotsRequest{})
	c.ok(err)
	ready := map[string]bool{}
	for _, entry := range list.GetEntries() {
		if entry.GetSnapshot().GetReadyToUse() {
			ready[entry.GetSnapshot().GetSnapshotId()] = true
		}
	}
	for _, s := range want {
		if !ready[s.GetSnapshotId()] {
			c.t.Errorf("%s is not listed as ready: %v", s.GetSnapshotId(), list)
		}
	}
	if len(ready) != len(want) {
		c.t.Errorf("listed as ready: %v, want %v", ready, want)
	}
}

// otherGroupGoesOn calls everything that changes the other group, whose LVM must not look at the disk that hangs.
func (c *co) otherGroupGoesOn(other *labtest.Group, w *csi.Volume, kept *csi.Snapshot) {
	c.t.Helper()
	inOther := func(r *csi.CreateVolumeRequest) { r.Parameters = map[string]string{"volumeGroup": other.Name} }
	s := c.snapshot("in the other group", w)
	restored := c.volume("restored in the other group", block, fromSnapshot(kept), inOther)
	u := c.use(restored, block)
	u.write("v2")
	u.release()
	_, err := c.Controller.GetCapacity(c.context(), &csi.GetCapacityRequest{Parameters: map[string]string{"volumeGroup": other.Name}})
	c.ok(err)
	if got := c.series("lvmsnap_volume_group_size_bytes", `volume_group="`+other.Name+`"`); got == "" {
		c.t.Error("no metrics of the other group")
	}
	c.deleteVolume(restored)
	c.deleteSnapshot(s)
}
