package driver

import (
	"fmt"
	"os"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// The second table of the CSI spec under NodePublishVolume, for both access types.
func TestPublishTable(t *testing.T) {
	for mode, second := range map[csi.VolumeCapability_AccessMode_Mode]codes.Code{
		modeSNSW: codes.FailedPrecondition,
		modeSNMW: codes.OK,
		modeMNRO: codes.OK,
		modeSNW:  codes.FailedPrecondition,
		modeSNRO: codes.FailedPrecondition,
	} {
		for _, access := range []storage.AccessType{storage.AccessMount, storage.AccessBlock} {
			t.Run(fmt.Sprint(mode, access), func(t *testing.T) {
				r := newNodeRig(t)
				v := r.add(storage.Volume{Name: "a", Access: access})
				r.host.SetContent(v.DevicePath, "ext4")
				c := nodeCap(mode, "")
				if access == storage.AccessBlock {
					c = nodeBlockCap(mode)
				}
				reader := mode == modeMNRO || mode == modeSNRO
				r.ok(r.stage(v.ID, c))
				r.ok(r.publish(v.ID, "one", c, false))
				if p := r.at(r.target("one")); p.ReadOnly != reader || p.Block != (access == storage.AccessBlock) {
					t.Errorf("%+v", p)
				}
				r.restart() // the kernel knows, not we
				r.ok(r.publish(v.ID, "one", c, false))
				if !reader {
					r.want("T1=T2, P1!=P2", r.publish(v.ID, "one", c, true), codes.AlreadyExists)
				}
				r.want("T1!=T2, P1=P2", r.publish(v.ID, "two", c, false), second)
				r.want("again", r.publish(v.ID, "two", c, false), second)
				if second == codes.OK {
					r.ok(r.unpublish(v.ID, "two"))
				} else if _, err := os.Lstat(r.target("two")); err == nil {
					t.Error("a target was made")
				}
				r.ok(r.publish(v.ID, "one", c, false))
				for range 2 {
					r.ok(r.unpublish(v.ID, "one"))
				}
				if _, err := os.Lstat(r.target("one")); err == nil {
					t.Error("the target is left")
				}
				r.ok(r.publish(v.ID, "two", c, false))
				r.ok(r.unpublish(v.ID, "two"))
				r.ok(r.unstage(v.ID))
			})
		}
	}
}

func TestPublishReadOnlyDir(t *testing.T) {
	r := newNodeRig(t)
	v := r.ready("a", "ext4")
	c := nodeCap(modeSNMW, "")
	r.ok(r.stage(v.ID, c))
	r.ok(r.publish(v.ID, "rw", c, false))
	r.ok(r.publish(v.ID, "ro", c, true)) // T1!=T2, P1!=P2
	if !r.at(r.target("ro")).ReadOnly || r.at(r.target("rw")).ReadOnly || r.at(r.staging).ReadOnly {
		t.Error("only one target is read-only")
	}
	r.ok(r.publish(v.ID, "ro", c, true))
	r.want("now writable", r.publish(v.ID, "ro", c, false), codes.AlreadyExists)
	r.want("now read-only", r.publish(v.ID, "rw", c, true), codes.AlreadyExists)
}

// A block device is read-only for all or for none, because only the device itself can be.
func TestPublishReadOnlyDevice(t *testing.T) {
	r := newNodeRig(t)
	v := r.add(storage.Volume{Name: "a", Access: storage.AccessBlock})
	c := nodeBlockCap(modeSNMW)
	r.ok(r.stage(v.ID, c))
	r.ok(r.publish(v.ID, "one", c, true))
	r.ok(r.publish(v.ID, "two", c, true))
	if !r.at(r.target("one")).ReadOnly {
		t.Error("the device can be written to")
	}
	r.want("a writer beside readers", r.publish(v.ID, "three", c, false), codes.FailedPrecondition)
	if !r.at(r.target("one")).ReadOnly {
		t.Error("the refused call made the device writable")
	}
	r.ok(r.unpublish(v.ID, "one"))
	r.ok(r.unpublish(v.ID, "two"))
	r.ok(r.publish(v.ID, "three", c, false))
	if r.at(r.target("three")).ReadOnly {
		t.Error("the device stays read-only")
	}
	r.want("a reader beside a writer", r.publish(v.ID, "one", c, true), codes.FailedPrecondition)
	r.want("while published", r.unstage(v.ID), codes.FailedPrecondition)
	r.ok(r.unpublish(v.ID, "three"))
	r.ok(r.unstage(v.ID))
}

func TestPublishNotStaged(t *testing.T) {
	r := newNodeRig(t)
	v, block, other := r.ready("a", "ext4"), r.add(storage.Volume{Name: "b", Access: storage.AccessBlock}), r.ready("c", "ext4")
	r.want("mount", r.publish(v.ID, "t", nodeCap(modeSNW, ""), false), codes.FailedPrecondition)
	r.want("block", r.publish(block.ID, "t", nodeBlockCap(modeSNW), false), codes.FailedPrecondition)
	r.ok(r.stage(v.ID, nodeCap(modeSNW, "")))
	r.volumes[other.ID].Active = true
	r.want("another volume's stage", r.publish(other.ID, "t", nodeCap(modeSNW, ""), false), codes.FailedPrecondition)
	r.want("as block", r.publish(v.ID, "t", nodeBlockCap(modeSNW), false), codes.FailedPrecondition)
	r.want("another file system", r.publish(v.ID, "t", nodeCap(modeSNW, "xfs"), false), codes.InvalidArgument)
	// Activated, but its restore is not over.
	r.volumes[v.ID].Init = storage.InitClone
	r.want("unprepared", r.publish(v.ID, "t", nodeCap(modeSNW, ""), false), codes.FailedPrecondition)
	if _, err := os.Lstat(r.target("t")); err == nil {
		t.Error("a target was made")
	}
}

func TestPublishStagedForReaders(t *testing.T) {
	r := newNodeRig(t)
	v := r.ready("a", "ext4")
	r.ok(r.stage(v.ID, nodeCap(modeMNRO, "")))
	r.want("a writer", r.publish(v.ID, "t", nodeCap(modeSNMW, ""), false), codes.FailedPrecondition)
	r.ok(r.publish(v.ID, "t", nodeCap(modeMNRO, ""), false))
	if !r.at(r.target("t")).ReadOnly {
		t.Error("writable")
	}
}

func TestPublishOccupiedTarget(t *testing.T) {
	r := newNodeRig(t)
	v, other := r.ready("a", "ext4"), r.ready("b", "ext4")
	c := nodeCap(modeSNMW, "")
	r.ok(r.host.Mount(t.Context(), other.DevicePath, r.target("t"), "ext4", nil, false))
	r.ok(r.stage(v.ID, c))
	r.want("another volume is there", r.publish(v.ID, "t", c, false), codes.AlreadyExists)
	// What is at the target is not what the CO thinks: nothing is followed or destroyed.
	elsewhere := t.TempDir()
	r.ok(os.Symlink(elsewhere, r.target("link")))
	r.want("a link", r.publish(v.ID, "link", c, false), codes.InvalidArgument)
	r.want("a link", r.unpublish(v.ID, "link"), codes.InvalidArgument)
	r.ok(os.WriteFile(r.target("file"), []byte("data"), 0o600))
	r.want("a file", r.publish(v.ID, "file", c, false), codes.InvalidArgument)
	r.want("a file", r.unpublish(v.ID, "file"), codes.InvalidArgument)
	r.ok(os.MkdirAll(r.target("full/data"), 0o700))
	r.want("data", r.unpublish(v.ID, "full"), codes.Internal)
	// A directory that was made by a call that failed is used and removed.
	r.ok(os.Mkdir(r.target("empty"), 0o700))
	r.ok(r.publish(v.ID, "empty", c, false))
	r.ok(r.unpublish(v.ID, "empty"))
}

func TestUnpublishBusy(t *testing.T) {
	r := newNodeRig(t)
	v := r.ready("a", "ext4")
	r.ok(r.stage(v.ID, nodeCap(modeSNW, "")))
	r.ok(r.publish(v.ID, "t", nodeCap(modeSNW, ""), false))
	r.host.SetBusy(r.target("t"), true)
	r.want("busy", r.unpublish(v.ID, "t"), codes.FailedPrecondition)
	r.host.SetBusy(r.target("t"), false)
	// LVM hanging or gone is no obstacle.
	r.setHook(failAt("Volume"))
	r.ok(r.unpublish(v.ID, "t"))
}

// kubelet binds directories inside a volume for subPath: those are no targets.
func TestSubPathsAreNoTargets(t *testing.T) {
	r := newNodeRig(t)
	v := r.ready("a", "ext4")
	c := nodeCap(modeSNSW, "")
	r.ok(r.stage(v.ID, c))
	r.ok(r.publish(v.ID, "t", c, false))
	points, err := r.host.Of(t.Context(), v.DevicePath)
	r.ok(err)
	sub := points[1]
	sub.ID, sub.Root = 12345, "/inside"
	if got := targets(append(points, sub), r.at(r.staging)); len(got) != 1 || got[0].Path != r.target("t") {
		t.Errorf("targets %+v", got)
	}
}
