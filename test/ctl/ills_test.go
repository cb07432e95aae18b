//go:build lab

package ctl_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// ill is something that is wrong on the machine.
type ill struct {
	object, reason string
	says           []string // by its message or its cure
	fixed          bool     // by --fix
	cure           func()   // what doctor says is to be done, where --fix does not do it
}

// ward is a machine on which a lot is wrong at once, each with something of its own.
type ward struct {
	*machine
	kernel *dm.Control
	points map[string][]int // of a command's ioctls, those that are messages to a pool
}

func (w *ward) path(lv string) string { return w.vg.Name + "/" + lv }

// pool makes one with a volume of somebody's in it, and returns the volume.
func (w *ward) pool(name string) (base string) {
	w.t.Helper()
	base = "base" + name
	labtest.Run(w.t, "lvcreate", "--yes", "--type", "thin", "--thinpool", name, "--size", "16m", "--chunksize", "64k", "--poolmetadatasize", "4m",
		"--name", base, "--virtualsize", "32m", w.vg.Name)
	return base
}

// snapshotArgs are the driver's for a thin snapshot; without a CSI name, somebody's.
func (w *ward) snapshotArgs(lv, name, origin string) []string {
	args := []string{"lvcreate", "--snapshot", "--name", lv, "--permission", "r", "--setactivationskip", "y"}
	if name != "" {
		args = append(args, "--addtag", "lvmsnap.driver=csi.lvmsnap.io", "--addtag", "lvmsnap.name="+name)
	}
	return append(args, w.path(origin))
}

var poolMessage = regexp.MustCompile(`^ioctl\(\d+, DM_TARGET_MSG`)

// trace runs a command, and keeps under a name which of its ioctls are messages to a pool.
func (w *ward) trace(name string, argv ...string) {
	w.t.Helper()
	file := filepath.Join(w.dir, "trace")
	labtest.Run(w.t, append([]string{"strace", "-o", file, "-e", "trace=ioctl"}, argv...)...)
	text, err := os.ReadFile(file)
	w.ok(err)
	n := 0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "ioctl(") {
			continue
		}
		if n++; poolMessage.MatchString(line) {
			w.points[name] = append(w.points[name], n)
		}
	}
	if len(w.points[name]) < 2 {
		w.t.Fatalf("%v sends %v messages to the pool", argv, w.points[name])
	}
}

// kill kills a command, which is like the one that was traced, before a message to the pool.
func (w *ward) kill(name string, message int, argv ...string) {
	w.t.Helper()
	out, err := exec.Command("strace", append([]string{
		"-o", "/dev/null", "-e", "trace=ioctl", "-e", fmt.Sprintf("inject=ioctl:signal=KILL:when=%d", w.points[name][message]),
	}, argv...)...).CombinedOutput()
	if err == nil {
		w.t.Fatalf("%v was not killed: %s", argv, out)
	}
}

// transactions are pools in which LVM died, or which are of another moment than the group.
func (w *ward) transactions() []ill {
	bases := map[string]string{}
	idle := []string{"lvchange", "--activate", "n"}
	for _, name := range []string{"removal", "jam", "phantom", "foreign"} {
		bases[name] = w.pool(name)
		idle = append(idle, w.path(bases[name]))
	}
	labtest.Run(w.t, idle...)
	w.trace("lvcreate", w.snapshotArgs("probe", "", bases["removal"])...)
	w.trace("lvremove", "lvremove", "--yes", w.path("probe"))
	labtest.Run(w.t, w.snapshotArgs("gone", "", bases["removal"])...)
	w.kill("lvremove", 0, "lvremove", "--yes", w.path("gone"))
	w.kill("lvcreate", 1, w.snapshotArgs(storage.SnapshotLV("jam"), "jam", bases["jam"])...)
	w.kill("lvcreate", 0, w.snapshotArgs(storage.SnapshotLV("phantom"), "phantom", bases["phantom"])...)
	w.kill("lvcreate", 0, w.snapshotArgs("theirs", "", bases["foreign"])...)

	w.pool("ahead")
	st, err := w.kernel.PoolStatus(w.t.Context(), w.vg.Name, "ahead")
	w.ok(err)
	w.ok(w.kernel.SetTransactionID(w.t.Context(), w.vg.Name, "ahead", st.TransactionID, st.TransactionID+5))
	return []ill{
		{object: w.path("removal"), reason: "RemovalUnfinished", says: []string{"still has what LVM removed"}, fixed: true},
		{object: w.path("jam"), reason: "PoolJammed", says: []string{storage.SnapshotLV("jam"), "What was made is whole"}, fixed: true},
		{object: w.path(storage.SnapshotLV("phantom")), reason: "Phantom", says: []string{"was never made"}, fixed: true},
		{object: w.path("theirs"), reason: "ForeignPhantom", says: []string{"lvremove " + w.path("theirs")}, cure: func() {
			labtest.Run(w.t, "lvremove", "--yes", w.path("theirs"))
		}},
		{
			object: w.path("ahead"), reason: "PoolTransactionMismatch", cure: func() { w.restore("ahead", st.TransactionID+5) },
			says: []string{fmt.Sprint("LVM has transaction ", st.TransactionID, " "), fmt.Sprint("the kernel ", st.TransactionID+5), "vgcfgrestore --force --yes", "set transaction_id of ahead in it to"},
		},
	}
}

// restore is what doctor says of a pool that has counted further than LVM.
func (w *ward) restore(pool string, transaction uint64) {
	w.t.Helper()
	file := filepath.Join(w.dir, "group.vg")
	labtest.Run(w.t, "vgcfgbackup", "--file", file, w.vg.Name)
	text, err := os.ReadFile(file)
	w.ok(err)
	found := regexp.MustCompile(`(?s)\n\t\t` + pool + ` \{.*?transaction_id = (\d+)`).FindSubmatchIndex(text)
	if found == nil {
		w.t.Fatalf("no transaction_id of %s in\n%s", pool, text)
	}
	text = slices.Concat(text[:found[2]], fmt.Append(nil, transaction), text[found[3]:])
	w.ok(os.WriteFile(file, text, 0o600))
	labtest.Run(w.t, "vgcfgrestore", "--force", "--yes", "--file", file, w.vg.Name)
}

// devices are those that hang, and that nobody knows.
func (w *ward) devices() []ill {
	group := strings.ReplaceAll(strings.TrimSpace(labtest.Run(w.t, "vgs", "--noheadings", "--options", "vg_uuid", w.vg.Name)), "-", "")
	orphan := func(name string, letter string) string {
		device := dm.DeviceName(w.vg.Name, storage.SnapshotLV(name)) + "-cow"
		labtest.Run(w.t, "dmsetup", "--noudevsync", "create", device, "--uuid", "LVM-"+group+strings.Repeat(letter, 32)+"-cow", "--table", "0 8192 zero")
		return device
	}
	idle, open := orphan("idle", "x"), orphan("open", "y")
	labtest.Run(w.t, "dmsetup", "mknodes") // where there is no udevd
	labtest.Run(w.t, "dmsetup", "--noudevsync", "create", "holder", "--table", "0 8192 linear /dev/mapper/"+open+" 0")
	w.t.Cleanup(func() { _ = exec.Command("dmsetup", "remove", "holder").Run() }) // if the test did not come to its cure
	labtest.Run(w.t, "lvcreate", "--thinpool", pool, "--virtualsize", "16m", "--name", "suspended", w.vg.Name)
	theirs := dm.DeviceName(w.vg.Name, "suspended")
	labtest.Run(w.t, "dmsetup", "suspend", theirs)
	labtest.Run(w.t, "dmsetup", "message", dm.DeviceName(w.vg.Name, pool)+"-tpool", "0", "reserve_metadata_snap")
	return []ill{
		{object: idle, reason: "OrphanedDevice", says: []string{"belongs to nothing that LVM knows"}, fixed: true},
		{object: open, reason: "OrphanedDevice", says: []string{"it is open", "dmsetup ls --tree"}, cure: func() {
			labtest.Run(w.t, "dmsetup", "remove", "holder")
			labtest.Run(w.t, "dmsetup", "remove", open)
		}},
		{object: theirs, reason: "ForeignDeviceSuspended", says: []string{"dmsetup resume " + theirs}, cure: func() { labtest.Run(w.t, "dmsetup", "resume", theirs) }},
		{object: w.path(pool), reason: "MetadataSnapshotHeld", says: []string{"release_metadata_snap"}, cure: func() {
			labtest.Run(w.t, "dmsetup", "message", dm.DeviceName(w.vg.Name, pool)+"-tpool", "0", "release_metadata_snap")
		}},
	}
}

// pools are states of whole pools.
func (w *ward) pools() []ill {
	labtest.Run(w.t, "lvchange", "--activate", "n", w.path(w.pool("inactive")), w.path("inactive"))
	base := w.pool("full")
	labtest.Run(w.t, "lvchange", "--zero", "n", "--errorwhenfull", "y", w.path("full"))
	if out, err := exec.Command("dd", "if=/dev/zero", "of="+w.vg.Device(base), "bs=1M", "oflag=direct").CombinedOutput(); err == nil || !strings.Contains(string(out), "No space left") {
		w.t.Errorf("32 MiB into a pool of 16: %v: %s", err, out)
	}
	more := func() { labtest.Run(w.t, "lvextend", "--size", "+16m", w.path("full")) }
	return []ill{
		{object: w.path("inactive"), reason: "PoolInactive", says: []string{"lvchange --activate y"}, fixed: true},
		{object: w.path("full"), reason: "PoolDataLow", says: []string{"lvextend --size"}, cure: more},
		{object: w.path("full"), reason: "PoolOutOfDataSpace", says: []string{"lvextend"}, cure: func() {}},
		{object: w.path("full"), reason: "PoolNotZeroing", says: []string{"lvchange --zero y"}, cure: func() {
			labtest.Run(w.t, "lvchange", "--zero", "y", w.path("full"))
		}},
	}
}

// thick makes one with COW snapshots of these sizes.
func (w *ward) thick(name string, snapshots map[string]string) (*csi.Volume, map[string]string) {
	w.t.Helper()
	req := volumeRequest(name)
	req.CapacityRange.RequiredBytes = 16 * mib
	req.Parameters["type"] = "thick"
	res, err := w.driver.Controller.CreateVolume(w.t.Context(), req)
	w.ok(err)
	lvs := map[string]string{}
	for s, size := range snapshots {
		req := &csi.CreateSnapshotRequest{Name: s, SourceVolumeId: res.GetVolume().GetVolumeId(), Parameters: map[string]string{}}
		if size != "" {
			req.Parameters["cowSize"] = size
		}
		res, err := w.driver.Controller.CreateSnapshot(w.t.Context(), req)
		w.ok(err)
		lvs[s] = w.path(lvOf(res.GetSnapshot().GetSnapshotId()))
	}
	return res.GetVolume(), lvs
}

// cows are COW snapshots, of volumes that the driver has made before it went down.
func (w *ward) cows() []ill {
	kept, lvs := w.thick("kept", map[string]string{"lost": "4Mi", "nearly": "8Mi", "split": ""})
	deleted, more := w.thick("deleted", map[string]string{"last": ""})
	_, err := w.driver.Controller.DeleteVolume(w.t.Context(), &csi.DeleteVolumeRequest{VolumeId: deleted.GetVolumeId()})
	w.ok(err)
	w.driver.Stop()

	labtest.Run(w.t, "lvconvert", "--yes", "--splitsnapshot", lvs["split"])
	w.write(kept, 1, 7*mib+512<<10)
	labtest.Run(w.t, "lvremove", "--yes", more["last"])
	aside := strings.TrimSpace(labtest.Run(w.t, "lvs", "--noheadings", "-o", "lv_name", "@lvmsnap.name=deleted"))
	half := storage.SnapshotLV("half")
	labtest.Run(w.t, "lvcreate", "--yes", "--wipesignatures", "n", "--size", "4m", "--name", half, "--addtag", "lvmsnap.driver=csi.lvmsnap.io", "--addtag", "lvmsnap.name=half", w.vg.Name)
	remove := func(lv string) func() { return func() { labtest.Run(w.t, "lvremove", "--yes", lv) } }
	return []ill{
		{object: lvs["lost"], reason: "SnapshotInvalid", says: []string{"delete its VolumeSnapshot"}, cure: remove(lvs["lost"])},
		{object: lvs["nearly"], reason: "COWNearlyFull", says: []string{"lvextend --size +SIZE " + lvs["nearly"]}, cure: func() {
			labtest.Run(w.t, "lvextend", "--size", "+4m", lvs["nearly"])
		}},
		{object: lvs["split"], reason: "SnapshotSplitOff", says: []string{"no volume's data", "delete its VolumeSnapshot"}, cure: remove(lvs["split"])},
		{object: w.path(aside), reason: "Leftover", says: []string{"a deleted volume whose last snapshot is gone"}, fixed: true},
		{object: w.path(half), reason: "SnapshotHalfMade", says: []string{"is no snapshot"}, fixed: true},
	}
}

// pastLVM has a pool lose a volume and get a device past LVM, as a disk may that loses what it had confirmed; and then does what doctor says.
func (w *ward) pastLVM() {
	w.t.Helper()
	lost, device := w.path("baseremoval"), dm.DeviceName(w.vg.Name, "removal")+"-tpool"
	id := strings.TrimSpace(labtest.Run(w.t, "lvs", "--noheadings", "-o", "thin_id", lost))
	labtest.Run(w.t, "lvchange", "--activate", "y", w.path("removal"))
	for _, message := range []string{"delete " + id, "create_thin 4711"} {
		labtest.Run(w.t, "dmsetup", "message", device, "0", message)
	}
	w.finds("what was done past LVM", w.doctor("--space"), []string{lost + " ThinDeviceLost", w.path("removal") + " ThinDeviceUnknown"}, map[string]string{
		"ThinDeviceLost": "lvremove " + lost, "ThinDeviceUnknown": "dmsetup message " + device + " 0 'delete 4711'",
	})
	labtest.Run(w.t, "lvremove", "--yes", lost)
	labtest.Run(w.t, "dmsetup", "message", device, "0", "delete 4711")
}

func (i ill) String() string { return i.object + " " + i.reason }

// found lists what doctor found, or has put right.
func found(findings []storage.Finding) []string {
	var out []string
	for _, f := range findings {
		out = append(out, f.Object+" "+f.Reason)
	}
	slices.Sort(out)
	return out
}

// chosen are the ills that --fix puts right, or those that it does not.
func chosen(all []ill, fixed bool) []string {
	var out []string
	for _, i := range all {
		if i.fixed == fixed {
			out = append(out, i.String())
		}
	}
	slices.Sort(out)
	return out
}

// Everything that the driver's group can have is wrong at once. doctor names each thing with what is to be done, --fix puts right what
// it can and nothing else, what doctor says puts right the others, and the driver works on with what there is.
func TestLabDoctorKnows(t *testing.T) {
	w := &ward{newMachine(t), &dm.Control{}, map[string][]int{}}
	defer w.kernel.Close()
	v := w.volume()
	w.write(v, 1, mib)
	all := slices.Concat(w.cows(), w.pools(), w.transactions(), w.devices())

	got := w.doctor()
	if diff := cmp.Diff(slices.Sorted(slices.Values(append(chosen(all, true), chosen(all, false)...))), found(got.Findings)); diff != "" {
		t.Fatalf("doctor (-want +got):\n%s\n%+v", diff, got)
	}
	for _, i := range all {
		f := got.Findings[slices.IndexFunc(got.Findings, func(f storage.Finding) bool { return f.Object+" "+f.Reason == i.String() })]
		if f.Fixable != i.fixed {
			t.Errorf("%s: to be fixed: %t", i, f.Fixable)
		}
		for _, word := range i.says {
			if !strings.Contains(f.Message+"\n"+f.Cure, word) {
				t.Errorf("%s: %q does not say %q", i, f.Message+"\n"+f.Cure, word)
			}
		}
	}
	got = w.doctor("--fix")
	if diff := cmp.Diff(chosen(all, true), found(got.Fixed)); diff != "" {
		t.Errorf("put right (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(chosen(all, false), found(got.Findings)); diff != "" {
		t.Errorf("not put right (-want +got):\n%s", diff)
	}
	for _, i := range all {
		if i.cure != nil {
			i.cure()
		}
	}
	if got := w.doctor("--space"); len(got.Findings) > 0 {
		t.Errorf("all is cured, and doctor says %+v", got.Findings)
	}
	w.pastLVM()
	w.driver.Start()
	w.snapshot("after", v)
}
