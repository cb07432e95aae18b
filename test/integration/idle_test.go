//go:build lab

package integration_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// idle is a driver that nobody calls, beside which an administrator's commands die.
type idle struct {
	*co
	kernel *dm.Control
	v      *csi.Volume
	writer *load
}

// An administrator's LVM command is killed beside a driver that nobody calls, where it leaves what there is a kind of recovery for. Each
// time the driver puts it right by itself: the writer, which may have been hanging, goes on, the log says what was found, it is counted, and
// what is left is a snapshot of the right moment, or nothing.
func TestRecoveryBesideAnIdleDriver(t *testing.T) {
	c := newCOWith(t, labtest.Options{Disks: 2, ThinPool: "pool", PoolSize: "512m"}, driverproc.Options{Flags: []string{"--metrics-address", metricsAddress}})
	i := &idle{co: c, kernel: &dm.Control{}}
	t.Cleanup(func() { _ = i.kernel.Close() })
	i.v = c.volume("thin", block, ofSize(64*mib))
	i.writer = c.use(i.v, block).count()
	i.thin()
	i.writer.stop()

	i.v = c.patient("thick", block, ofType("thick"), ofSize(64*mib))
	i.writer = c.use(i.v, block).count()
	i.halfMade()
	i.writer.stop()
}

// create is the driver's command for a thin snapshot.
func (i *idle) create(name string) []string {
	origin := lvOf(i.v.GetVolumeId())
	return []string{
		"lvcreate", "--snapshot", "--name", storage.SnapshotLV(name), "--permission", "r", "--setactivationskip", "y",
		"--addtag", "lvmsnap.driver=csi.lvmsnap.io", "--addtag", "lvmsnap.name=" + name, "--addtag", "lvmsnap.source=" + origin,
		"--addtag", fmt.Sprint("lvmsnap.size=", 64*mib), "--addtag", fmt.Sprint("lvmsnap.created=", time.Now().UnixNano()),
		i.vg.Name + "/" + origin,
	}
}

func (i *idle) remove(name string) []string {
	return []string{"lvremove", "--yes", i.vg.Name + "/" + storage.SnapshotLV(name)}
}

// messages are the numbers of those of a command's ioctls that send a message to a pool: what it is to do, and to count that. The
// command is carried out.
func (i *idle) messages(argv []string) (doing, counting int) {
	i.t.Helper()
	trace := filepath.Join(i.dir, "trace")
	labtest.Run(i.t, append([]string{"strace", "-o", trace, "-e", "trace=ioctl"}, argv...)...)
	text, err := os.ReadFile(trace)
	i.ok(err)
	var found []int
	n := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "ioctl(") {
			continue
		}
		n++
		if strings.Contains(line, "DM_TARGET_MSG") {
			found = append(found, n)
		}
	}
	if len(found) != 2 {
		i.t.Fatalf("%v sends messages by its ioctls %v, want two:\n%s", argv, found, text)
	}
	return found[0], found[1]
}

// dies runs a command that is killed before one of its ioctls, and waits until the driver has recovered from it, as many kinds as there are.
func (i *idle) dies(argv []string, ioctl int, kinds ...storage.RecoveryKind) (before, at int64) {
	i.t.Helper()
	counted, logged := i.recoveries(), len(i.driver.Log())
	i.writer.more(2)
	before = i.writer.finished.Load()
	args := append([]string{"-o", "/dev/null", "-e", "trace=ioctl", "-e", fmt.Sprintf("inject=ioctl:signal=KILL:when=%d", ioctl)}, argv...)
	if out, err := exec.Command("strace", args...).CombinedOutput(); err == nil {
		i.t.Fatalf("%v was not killed: %s", argv, out)
	}
	at = i.writer.finished.Load()
	i.until(fmt.Sprint("recovery by itself: ", kinds), func() bool {
		now := i.recoveries()
		return !slices.ContainsFunc(kinds, func(kind storage.RecoveryKind) bool { return now[kind] <= counted[kind] })
	})
	i.writer.more(2)
	now := i.recoveries()
	for kind, n := range now {
		want := counted[kind]
		if slices.Contains(kinds, kind) {
			want++
		}
		if n != want {
			i.t.Errorf("%v: %d recoveries of kind %s, want %d", argv[:2], n, kind, want)
		}
	}
	log := i.driver.Log()[logged:]
	for _, kind := range kinds {
		line := regexp.MustCompile(`(?m)^.*"Recovered from an interrupted command".*kind="` + string(kind) + `".*$`).FindString(log)
		if !strings.Contains(line, `volumeGroup="`+i.vg.Name+`"`) || !strings.Contains(line, "done: ") {
			i.t.Errorf("the log's line of kind %s: %q in\n%s", kind, line, log)
		}
		i.t.Log(line)
	}
	return before, at
}

// recoveries are those that are counted, by their kind.
func (i *idle) recoveries() map[storage.RecoveryKind]int {
	i.t.Helper()
	out := map[storage.RecoveryKind]int{}
	for _, kind := range storage.RecoveryKinds {
		n, err := strconv.Atoi(i.series("lvmsnap_recoveries_total", `kind="`+string(kind)+`"`))
		i.ok(err)
		out[kind] = n
	}
	return out
}

func (i *idle) thin() {
	i.t.Helper()
	creating, counting := i.messages(i.create("probe"))
	removing, _ := i.messages(i.remove("probe"))
	lvs := i.lvs()

	i.dies(i.create("phantom"), creating, storage.RecoveredSuspended, storage.RecoveredPhantom)
	if now := i.lvs(); !slices.Equal(now, lvs) {
		i.t.Errorf("behind a phantom there is %v, want %v", now, lvs)
	}

	before, at := i.dies(i.create("jam"), counting, storage.RecoveredSuspended, storage.RecoveredJam)
	s := i.snapshot("jam", i.v) // it is there
	i.withDevice(s.GetSnapshotId(), func(device string) {
		if got := numberAt(i.co, device); got < before || got > at+1 {
			i.t.Errorf("the snapshot has %d, the writer had %d before it and %d when LVM was killed", got, before, at)
		}
	})
	i.deleteSnapshot(s)

	i.snapshot("removal", i.v)
	i.dies(i.remove("removal"), removing, storage.RecoveredRemoval)
	if now := i.lvs(); !slices.Equal(now, lvs) {
		i.t.Errorf("behind a removal there is %v, want %v", now, lvs)
	}
	i.deleteSnapshot(i.snapshot("afterwards", i.v))
}

// halfMade is a snapshot of a thick volume between its two commits, and the volume suspended.
func (i *idle) halfMade() {
	i.t.Helper()
	thick := &interrupted{co: i.co, kernel: i.kernel, v: i.v, writer: i.writer}
	points := thick.points()
	lvs, devices := i.lvs(), i.devices()
	i.dies(thick.argv("half"), points[len(points)-4], storage.RecoveredSuspended, storage.RecoveredHalfMade)
	if now := i.lvs(); !slices.Equal(now, lvs) {
		i.t.Errorf("behind half a snapshot there is %v, want %v", now, lvs)
	}
	// The volume's layer may have stayed, until the next snapshot (docs/adr/0010, Crashes).
	i.deleteSnapshot(i.snapshot("half", i.v))
	if now := i.devices(); now != devices {
		i.t.Errorf("behind half a snapshot and another there are the devices:\n%s\nwant:\n%s", now, devices)
	}
}
