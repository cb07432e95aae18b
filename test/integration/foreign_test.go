//go:build lab

package integration_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

func handle(nodeID, lv string) string {
	return storage.Handle{NodeHash: storage.NodeHash(nodeID), LV: lv}.String()
}

// state is all that LVM knows about a group's LVs of those names, or of any.
func state(t *testing.T, vg string, lvs ...string) string {
	t.Helper()
	targets := []string{vg}
	if len(lvs) > 0 {
		targets = nil
		for _, lv := range lvs {
			targets = append(targets, vg+"/"+lv)
		}
	}
	fields := "lv_name,lv_uuid,lv_attr,lv_size,lv_tags,lv_time,lv_active,origin,pool_lv,thin_id,transaction_id,segtype,devices"
	return labtest.Run(t, append([]string{"lvs", "--all", "--noheadings", "--units", "b", "-o", fields}, targets...)...)
}

// LVs that the administrator has made, with names and tags like the driver's own.
func TestForeignLVsAreNeverTouched(t *testing.T) {
	c := newCO(t)
	vg, ours := c.vg.Name, c.volume("ours", block, ofSize(4*mib))
	thin := func(lv string, args ...string) string {
		labtest.Run(t, append([]string{"lvcreate", "--type", "thin", "-V", "4m", "-n", lv, "--thinpool", vg + "/pool"}, args...)...)
		return lv
	}
	tags := strings.Split(strings.TrimSpace(labtest.Run(t, "lvs", "--noheadings", "-o", "lv_tags", vg+"/"+lvOf(ours.GetVolumeId()))), ",")
	var copied []string
	for _, tag := range tags {
		copied = append(copied, "--addtag", tag)
	}
	noTags := thin(storage.VolumeLV("v"))
	otherTags := thin(storage.VolumeLV("w"), copied...)
	snapshot := thin(storage.SnapshotLV("s"), "--addtag", "lvmsnap.driver=csi.lvmsnap.io")
	plain := thin("csi-v-mine")
	linear := "data"
	labtest.Run(t, "lvcreate", "-y", "-L", "4m", "-n", linear, vg)
	foreign := []string{noTags, otherTags, snapshot, plain, linear}

	// And a second group, which the driver was not told of.
	other := labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool"})
	labtest.Run(t, append([]string{"lvcreate", "--type", "thin", "-V", "4m", "-n", lvOf(ours.GetVolumeId()), "--thinpool", other.Name + "/pool"}, copied...)...)
	before, beforeOther := state(t, vg, foreign...), state(t, other.Name)+labtest.Run(t, "vgs", "-o", "vg_all", other.Name)

	for _, lv := range []string{noTags, otherTags} {
		id := handle(driverproc.NodeID, lv)
		_, err := c.Controller.DeleteVolume(c.context(), &csi.DeleteVolumeRequest{VolumeId: id})
		c.ok(err)
		_, err = c.trySnapshot("of "+lv, id)
		c.fails("snapshot of a foreign LV", err, codes.NotFound)
		_, err = c.Controller.CreateVolume(c.context(), c.volumeRequest("clone of "+lv, block, fromVolume(&csi.Volume{VolumeId: id, CapacityBytes: 4 * mib})))
		c.fails("clone of a foreign LV", err, codes.NotFound)
		_, err = c.Controller.ControllerGetVolume(c.context(), &csi.ControllerGetVolumeRequest{VolumeId: id})
		c.fails("get of a foreign LV", err, codes.NotFound)
		dir := c.place()
		_, err = c.Node.NodeStageVolume(c.context(), &csi.NodeStageVolumeRequest{
			VolumeId: id, StagingTargetPath: dir + "/staging", VolumeCapability: block.capability(writer),
		})
		c.fails("stage of a foreign LV", err, codes.NotFound)
		_, err = c.Node.NodeUnstageVolume(c.context(), &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: dir + "/staging"})
		c.ok(err)
	}
	for _, name := range []string{"v", "w"} {
		_, err := c.Controller.CreateVolume(c.context(), c.volumeRequest(name, block, ofSize(4*mib)))
		c.fails("volume whose LV is there", err, codes.AlreadyExists, storage.VolumeLV(name))
	}
	_, err := c.trySnapshot("s", ours.GetVolumeId())
	c.fails("snapshot whose LV is there", err, codes.AlreadyExists, snapshot)
	_, err = c.Controller.DeleteSnapshot(c.context(), &csi.DeleteSnapshotRequest{SnapshotId: handle(driverproc.NodeID, snapshot)})
	c.ok(err)
	_, err = c.Controller.CreateVolume(c.context(), c.volumeRequest("elsewhere", block, func(req *csi.CreateVolumeRequest) {
		req.Parameters = map[string]string{"volumeGroup": other.Name}
	}))
	c.fails("volume in a group that is not opted in", err, codes.InvalidArgument, other.Name, vg)

	c.snapshot("mine", ours)
	c.deleteAllBut(foreign...)
	if after := state(t, vg, foreign...); after != before {
		t.Errorf("foreign LVs have changed:\n%s\nwere\n%s", after, before)
	}
	if after := state(t, other.Name) + labtest.Run(t, "vgs", "-o", "vg_all", other.Name); after != beforeOther {
		t.Errorf("the other group has changed:\n%s\nwas\n%s", after, beforeOther)
	}
}

// A handle says whose it is: another node's object is neither here nor gone.
func TestHandlesOfAnotherNode(t *testing.T) {
	here := newCO(t)
	there := newCOWith(t, labtest.Options{ThinPool: "pool"}, driverproc.Options{NodeID: "node-2"})
	v := there.volume("v", block)
	s := there.snapshot("s", v)
	if info, err := there.Node.NodeGetInfo(there.context(), &csi.NodeGetInfoRequest{}); err != nil || info.GetNodeId() != "node-2" {
		t.Fatalf("%v, %v", info, err)
	}

	_, err := here.Controller.DeleteVolume(here.context(), &csi.DeleteVolumeRequest{VolumeId: v.GetVolumeId()})
	here.fails("delete", err, codes.Unavailable)
	_, err = here.Controller.DeleteSnapshot(here.context(), &csi.DeleteSnapshotRequest{SnapshotId: s.GetSnapshotId()})
	here.fails("delete of a snapshot", err, codes.Unavailable)
	_, err = here.Controller.CreateVolume(here.context(), here.volumeRequest("restored", block, fromSnapshot(s)))
	here.fails("restore", err, codes.ResourceExhausted)
	_, err = here.Controller.CreateVolume(here.context(), here.volumeRequest("clone", block, fromVolume(v)))
	here.fails("clone", err, codes.ResourceExhausted)
	_, err = here.trySnapshot("s", v.GetVolumeId())
	here.fails("snapshot", err, codes.Unavailable)
	list, err := here.Controller.ListSnapshots(here.context(), &csi.ListSnapshotsRequest{SnapshotId: s.GetSnapshotId()})
	if err != nil || len(list.GetEntries()) > 0 {
		t.Errorf("list: %v, %v", list, err)
	}
	if lvs := here.lvs(); len(lvs) > 0 {
		t.Errorf("LVs: %v", lvs)
	}
	// The snapshot is still there, and its node restores it.
	there.deleteSnapshotAfterRestore(s)
}

func (c *co) deleteSnapshotAfterRestore(s *csi.Snapshot) {
	c.t.Helper()
	v := c.volume("restored", block, fromSnapshot(s))
	if _, err := os.Stat(c.vg.Device(lvOf(v.GetVolumeId()))); !errors.Is(err, fs.ErrNotExist) {
		c.t.Errorf("a volume that is not staged has a device: %v", err)
	}
	c.deleteAll()
}
