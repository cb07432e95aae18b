//go:build lab

package integration_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// remains is what an interrupted lvcreate of a COW snapshot has left; docs/adr/0010, Crashes.
type remains struct {
	lv        string // "" none, "plain", or "snapshot"
	suspended bool   // the origin, and its writers hang
	orphans   bool   // hidden devices of the snapshot, or a hidden layer of the origin
}

func (r remains) String() string {
	return fmt.Sprintf("LV %q, origin suspended %t, orphans %t", r.lv, r.suspended, r.orphans)
}

// interrupted is a thick volume with a writer, whose snapshots are begun by an lvcreate that dies.
type interrupted struct {
	*co
	kernel *dm.Control
	v      *csi.Volume
	writer *load
	cuts   int
}

// argv is the driver's command for a snapshot.
func (i *interrupted) argv(name string) []string {
	origin := lvOf(i.v.GetVolumeId())
	return []string{
		"lvcreate", "--snapshot", "--size", fmt.Sprint(68*mib, "b"), "--chunksize", "4096b", "--name", storage.SnapshotLV(name),
		"--permission", "r", "--setactivationskip", "y",
		"--addtag", "lvmsnap.driver=csi.lvmsnap.io", "--addtag", "lvmsnap.name=" + name, "--addtag", "lvmsnap.source=" + origin,
		"--addtag", fmt.Sprint("lvmsnap.size=", 64*mib), "--addtag", fmt.Sprint("lvmsnap.created=", time.Now().UnixNano()),
		i.vg.Name + "/" + origin,
	}
}

var changesDevices = regexp.MustCompile(`ioctl\(\d+, DM_(DEV_CREATE|DEV_REMOVE|DEV_RENAME|DEV_SUSPEND|TABLE_LOAD|TABLE_CLEAR)`)

// points are the numbers of those system calls of the command that change devices, among all of its ioctls.
func (i *interrupted) points() []int {
	i.t.Helper()
	trace := filepath.Join(i.dir, "trace")
	argv := i.argv("whole")
	labtest.Run(i.t, append([]string{"strace", "-o", trace, "-e", "trace=ioctl"}, argv...)...)
	i.deleteSnapshot(i.snapshot("whole", i.v))
	text, err := os.ReadFile(trace)
	i.ok(err)
	var out []int
	n := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "ioctl(") {
			continue
		}
		n++
		if changesDevices.MatchString(line) {
			out = append(out, n)
		}
	}
	return out
}

// interrupt begins a snapshot, and kills LVM before one of its system calls.
func (i *interrupted) interrupt(name string, point int) remains {
	i.t.Helper()
	argv := append([]string{"-o", "/dev/null", "-e", "trace=ioctl", "-e", fmt.Sprintf("inject=ioctl:signal=KILL:when=%d", point)}, i.argv(name)...)
	if out, err := exec.Command("strace", argv...).CombinedOutput(); err == nil {
		i.t.Fatalf("point %d: it was not killed: %s", point, out)
	}
	var r remains
	for row := range strings.Lines(labtest.Run(i.t, "lvs", "--noheadings", "-o", "lv_name,lv_attr", i.vg.Name)) {
		if f := strings.Fields(row); len(f) == 2 && f[0] == storage.SnapshotLV(name) {
			r.lv = map[byte]string{'-': "plain", 's': "snapshot"}[f[1][0]]
		}
	}
	origin := dm.DeviceName(i.vg.Name, lvOf(i.v.GetVolumeId()))
	for _, d := range i.devices() {
		switch {
		case d.Name == origin:
			r.suspended = d.Suspended
		case r.lv != "snapshot":
			r.orphans = true
		}
	}
	return r
}

// devices are those of the group, without its pool's.
func (i *interrupted) devices() []dm.Device {
	i.t.Helper()
	all, err := i.kernel.Devices(i.context(), i.vg.Name)
	i.ok(err)
	return slices.DeleteFunc(all, func(d dm.Device) bool { return strings.HasPrefix(d.Name, dm.DeviceName(i.vg.Name, i.vg.ThinPool)) })
}

// number is what a snapshot has of the writer's.
func (i *interrupted) number(s *csi.Snapshot) int64 {
	i.t.Helper()
	labtest.Run(i.t, "dmsetup", "mknodes")
	return numberAt(i.co, "/dev/mapper/"+dm.DeviceName(i.vg.Name, lvOf(s.GetSnapshotId())))
}

// numberAt is the writer's number at the begin of a device.
func numberAt(c *co, device string) int64 {
	c.t.Helper()
	f, err := os.OpenFile(device, os.O_RDONLY|unix.O_DIRECT, 0)
	c.ok(err)
	defer f.Close()
	page := aligned(4096)
	_, err = f.ReadAt(page, 0)
	c.ok(err)
	return int64(binary.LittleEndian.Uint64(page))
}

// LVM is killed in the middle of a snapshot's creation, with the driver or without it. Whatever that leaves, the next call or the next
// start makes good: the writer goes on without an error, a retry has a snapshot of one moment, and nothing is left behind. (test/torture
// kills at every system call; here is one of each kind.)
func TestThickInterruptedSnapshot(t *testing.T) {
	c := newThickCO(t)
	i := &interrupted{co: c, kernel: &dm.Control{}}
	t.Cleanup(func() { _ = i.kernel.Close() })
	i.v = c.patient("v", block, ofType("thick"), ofSize(64*mib))
	u := c.use(i.v, block)
	i.writer = u.count()
	defer i.writer.stop()
	points := i.points()
	if len(points) < 8 {
		t.Fatalf("only %d system calls change devices", len(points))
	}
	// The first: the snapshot is a plain LV, to be cleared. Before the fifth from the end its devices have been made, and the
	// origin is to be suspended; then its layer is; then, after the commit, the layer, the snapshot and at last the origin are resumed.
	first, making, layer, committed, resuming := points[0], points[len(points)-5], points[len(points)-4], points[len(points)-3], points[len(points)-2]
	plain, orphans := remains{lv: "plain"}, remains{lv: "plain", orphans: true}
	waiting, finished := remains{lv: "plain", orphans: true, suspended: true}, remains{lv: "snapshot", suspended: true}
	for _, step := range []struct {
		point   int
		restart bool
		want    remains
	}{
		{first, false, plain},
		{first, true, plain},
		{making, false, orphans},
		{making, true, orphans},
		{layer, false, waiting},
		{layer, true, waiting},
		{committed, false, finished},
		{resuming, true, finished},
	} {
		i.recovers(step.point, step.restart, step.want)
	}
}

// recovers interrupts a snapshot at a point, and has the driver make good.
func (i *interrupted) recovers(point int, restart bool, want remains) {
	i.t.Helper()
	i.cuts++
	name := fmt.Sprint("cut", i.cuts)
	if restart {
		i.driver.Kill()
	}
	i.writer.more(2)
	before := i.writer.finished.Load()
	r := i.interrupt(name, point)
	at := i.writer.finished.Load()
	where := fmt.Sprintf("point %d, restart %t, %s", point, restart, r)
	if r != want {
		i.t.Errorf("%s: expected were %s", where, want)
	}
	if restart {
		i.driver.Start()
		i.writer.more(2) // at the start, unasked
	}
	s := i.snapshot(name, i.v)
	after := i.writer.finished.Load()
	i.writer.more(2)
	switch got := i.number(s); {
	case r.lv == "snapshot" && (got < before || got > at+1):
		i.t.Errorf("%s: it has %d, the writer had %d before and %d after", where, got, before, at)
	case r.lv != "snapshot" && (got < at || got > after+1):
		i.t.Errorf("%s: cut anew it has %d, the writer had %d before and %d after", where, got, at, after)
	}
	i.deleteSnapshot(s)
	i.writer.more(2)
	if lvs, devices := i.lvs(), i.devices(); len(lvs) != 1 || len(devices) != 1 {
		i.t.Errorf("%s: left behind: %v, %+v", where, lvs, devices)
	}
}

// count writes one number after the other to the begin of a block device.
func (u *use) count() *load {
	l := &load{use: u, quit: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		f, err := os.OpenFile(l.target, os.O_WRONLY|unix.O_DSYNC, 0)
		if l.failure = err; err != nil {
			return
		}
		defer f.Close()
		for l.failure == nil && l.goesOn() {
			_, l.failure = f.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(l.finished.Load()+1)), 0)
			l.finished.Add(1)
		}
	}()
	return l
}
