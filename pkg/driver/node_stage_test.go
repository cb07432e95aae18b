package driver

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func TestStageNewVolume(t *testing.T) {
	for _, tc := range []struct{ recorded, requested, want string }{
		{"", "", "ext4"}, {"xfs", "", "xfs"}, {"", "btrfs", "btrfs"}, {"btrfs", "btrfs", "btrfs"},
	} {
		r := newNodeRig(t)
		v := r.add(storage.Volume{Name: "a", FSType: tc.recorded, Init: storage.InitFormat})
		// What a crashed attempt left is overwritten.
		r.host.SetContent(v.DevicePath, "?half")
		r.ok(r.stage(v.ID, nodeCap(modeSNW, tc.requested, "noatime")))
		// Recorded before the mount: nobody can have written before, nor be formatted after.
		r.wantDid("Activate Format Initialized Mount")
		if p := r.at(r.staging); p == nil || p.FSType != tc.want || p.ReadOnly || p.Options[2] != "noatime" {
			t.Errorf("%+v: staged %+v", tc, p)
		}
		r.restart()
		r.ok(r.stage(v.ID, nodeCap(modeSNW, tc.requested, "noatime")))
		r.wantDid("Activate")
	}
}

// A failure or a crash at any step is followed by a retry that ends well, and no second mkfs after Initialized.
func TestStageNewVolumeFailures(t *testing.T) {
	for step, want := range map[string]string{
		"Activate":    "Activate Format Initialized Mount",
		"Format":      "Activate Format Initialized Mount",
		"Initialized": "Activate Format Initialized Mount",
		"Mount":       "Activate Mount",
	} {
		r := newNodeRig(t)
		v := r.add(storage.Volume{Name: "a", Init: storage.InitFormat})
		r.setHook(failAt(step))
		r.want(step, r.stage(v.ID, nodeCap(modeSNW, "")), codes.Internal)
		if did := r.did(); step != "Activate" && !strings.HasSuffix(did, " Deactivate") {
			t.Errorf("%s failed, and the volume was left active: %s", step, did)
		}
		r.setHook(nil)
		r.restart()
		r.ok(r.stage(v.ID, nodeCap(modeSNW, "")))
		r.wantDid(want)
	}
}

func TestStageClone(t *testing.T) {
	for _, fsType := range fsTypes {
		r := newNodeRig(t)
		origin := r.ready("origin", fsType)
		v := r.add(storage.Volume{Name: "clone", FSType: fsType, Init: storage.InitClone})
		r.host.CopyDevice(origin.DevicePath, v.DevicePath)
		r.host.AddDevice(v.DevicePath, 2*nodeVolumeBytes) // a larger volume than its source
		// The original is mounted meanwhile.
		r.ok(r.host.Mount(t.Context(), origin.DevicePath, r.target("origin"), fsType, nil, false))
		r.did()
		r.ok(r.stage(v.ID, nodeCap(modeSNW, "")))
		r.wantDid("Activate NewIdentity Mount Grow Initialized")
		if got := r.host.FSBytes(v.DevicePath); got != 2*nodeVolumeBytes {
			t.Errorf("%s: the file system has %d bytes", fsType, got)
		}
		r.ok(r.stage(v.ID, nodeCap(modeSNW, "")))
		r.wantDid("Activate")
	}
}

// A clone for readers is mounted writable first, so that its log is replayed and it grows; flags of the
// read-only mount stay out of that.
func TestStageCloneReadOnly(t *testing.T) {
	for _, c := range []*csi.VolumeCapability{
		nodeCap(modeSNRO, "xfs", "norecovery"), nodeCap(modeMNRO, "", "norecovery"), nodeCap(modeSNW, "", "ro", "norecovery"),
	} {
		r := newNodeRig(t)
		v := r.ready("a", "xfs")
		v.Init = storage.InitClone
		r.add(*v)
		r.host.SetContent(v.DevicePath, "xfs")
		r.host.AddDevice(v.DevicePath, 2*nodeVolumeBytes)
		r.ok(r.stage(v.ID, c))
		r.wantDid("Activate NewIdentity Mount Grow Unmount Initialized Mount")
		p := r.at(r.staging)
		if !p.ReadOnly || !p.FSReadOnly || r.host.FSBytes(v.DevicePath) != 2*nodeVolumeBytes {
			t.Errorf("%+v", p)
		}
		for _, entry := range r.host.Log() {
			if strings.HasPrefix(entry, "Mount") && strings.HasSuffix(entry, "rw") != strings.Contains(r.host.Log()[1], entry) {
				t.Errorf("mounts: %v", r.host.Log())
			}
		}
		r.ok(r.stage(v.ID, c))
		r.want("with a writer's mode", r.stage(v.ID, nodeCap(modeSNMW, "")), codes.AlreadyExists)
	}
}

func TestStageCloneFailures(t *testing.T) {
	for _, step := range []string{"NewIdentity", "Mount", "Grow", "Initialized"} {
		r := newNodeRig(t)
		v := r.add(storage.Volume{Name: "a", Init: storage.InitClone})
		r.host.SetContent(v.DevicePath, "btrfs")
		r.setHook(failAt(step))
		r.want(step, r.stage(v.ID, nodeCap(modeSNW, "")), codes.Internal)
		if p := r.at(r.staging); p != nil {
			t.Errorf("%s failed, and it is left mounted", step)
		}
		r.setHook(nil)
		r.did()
		r.ok(r.stage(v.ID, nodeCap(modeSNW, "")))
		r.wantDid("Activate NewIdentity Mount Grow Initialized")
	}
}

// A driver that died between the mount of a clone and Initialized: the mount is there, and nobody has seen it.
func TestStageCloneAfterCrash(t *testing.T) {
	r := newNodeRig(t)
	v := r.add(storage.Volume{Name: "a", Init: storage.InitClone, Active: true})
	r.host.SetContent(v.DevicePath, "btrfs")
	r.ok(r.host.Mount(t.Context(), v.DevicePath, r.staging, "btrfs", nil, false))
	r.did()
	r.ok(r.stage(v.ID, nodeCap(modeSNRO, "")))
	r.wantDid("Activate Unmount NewIdentity Mount Grow Unmount Initialized Mount")
}

// Whoever mounted a volume that is not prepared may have written to it.
func TestStageUnpreparedAndMounted(t *testing.T) {
	for _, init := range []storage.Init{storage.InitFormat, storage.InitClone} {
		r := newNodeRig(t)
		v := r.add(storage.Volume{Name: "a", Init: init})
		r.host.SetContent(v.DevicePath, "ext4")
		r.ok(r.host.Mount(t.Context(), v.DevicePath, r.target("by hand"), "ext4", nil, false))
		r.did()
		r.want(string(init), r.stage(v.ID, nodeCap(modeSNW, "")), codes.FailedPrecondition)
		if init == storage.InitFormat {
			r.ok(r.host.Unmount(t.Context(), r.target("by hand")))
			r.ok(r.host.Mount(t.Context(), v.DevicePath, r.staging, "ext4", nil, false))
			r.did()
			r.want("mounted on the stage", r.stage(v.ID, nodeCap(modeSNW, "")), codes.FailedPrecondition)
		}
		if did := r.did(); strings.Contains(did, "Format") || strings.Contains(did, "NewIdentity") {
			t.Error(did)
		}
	}
}

// Never mkfs over what was restored or used, however it looks.
func TestStageNeverFormatsOldData(t *testing.T) {
	for _, init := range []storage.Init{storage.InitDone, storage.InitClone} {
		for content, code := range map[string]codes.Code{
			"": codes.FailedPrecondition, "?ambiguous": codes.FailedPrecondition, "LVM2_member": codes.FailedPrecondition, "xfs": codes.InvalidArgument,
		} {
			r := newNodeRig(t)
			v := r.add(storage.Volume{Name: "a", Init: init})
			r.host.SetContent(v.DevicePath, content)
			r.want(content, r.stage(v.ID, nodeCap(modeSNW, "ext4")), code)
			r.wantDid("Activate Deactivate")
			if r.at(r.staging) != nil {
				t.Error("mounted")
			}
		}
		// And an unreadable device does not look blank.
		r := newNodeRig(t)
		v := r.add(storage.Volume{Name: "a", Init: init})
		r.setHook(failAt("Probe"))
		r.want("unreadable", r.stage(v.ID, nodeCap(modeSNW, "")), codes.Internal)
		r.wantDid("Activate Deactivate")
	}
}

func TestStageMismatch(t *testing.T) {
	r := newNodeRig(t)
	v := r.ready("a", "ext4")
	block := r.add(storage.Volume{Name: "b", Access: storage.AccessBlock})
	r.want("block of a mount volume", r.stage(v.ID, nodeBlockCap(modeSNW)), codes.FailedPrecondition)
	r.want("mount of a block volume", r.stage(block.ID, nodeCap(modeSNW, "")), codes.FailedPrecondition)
	r.want("another file system", r.stage(v.ID, nodeCap(modeSNW, "xfs")), codes.InvalidArgument)
	r.wantDid("") // not even activated
}

func TestStageAgain(t *testing.T) {
	r := newNodeRig(t)
	v, other := r.ready("a", "ext4"), r.ready("b", "ext4")
	r.ok(r.stage(v.ID, nodeCap(modeSNW, "", "noatime")))
	r.restart()
	r.ok(r.stage(v.ID, nodeCap(modeSNW, "ext4", "noatime")))
	r.want("read-only", r.stage(v.ID, nodeCap(modeSNRO, "")), codes.AlreadyExists)
	r.want("other flags", r.stage(v.ID, nodeCap(modeSNW, "", "nosuid")), codes.AlreadyExists)
	r.want("another volume", r.stage(other.ID, nodeCap(modeSNW, "")), codes.AlreadyExists)
	if got := len(r.host.Log()); got != 1 {
		t.Errorf("mounted more than once: %v", r.host.Log())
	}
}

func TestStageBlock(t *testing.T) {
	r := newNodeRig(t)
	// A file system volume's snapshot restored as a block volume: nothing is to be done, now or ever.
	v := r.add(storage.Volume{Name: "a", Access: storage.AccessBlock, Init: storage.InitClone})
	r.ok(r.stage(v.ID, nodeBlockCap(modeSNW)))
	r.wantDid("Activate Initialized")
	r.ok(r.stage(v.ID, nodeBlockCap(modeSNW)))
	r.wantDid("Activate")
	for range 2 {
		r.ok(r.unstage(v.ID))
		r.wantDid("Deactivate")
	}
}

func TestUnstage(t *testing.T) {
	r := newNodeRig(t)
	v, other := r.ready("a", "ext4"), r.ready("b", "xfs")
	r.ok(r.stage(v.ID, nodeCap(modeSNW, "")))
	r.ok(r.publish(v.ID, "t", nodeCap(modeSNW, ""), false))
	r.did()
	r.want("while published", r.unstage(v.ID), codes.FailedPrecondition)
	r.wantDid("")
	r.ok(r.unpublish(v.ID, "t"))
	r.host.SetBusy(r.staging, true)
	r.want("while busy", r.unstage(v.ID), codes.FailedPrecondition)
	r.host.SetBusy(r.staging, false)
	// The same path as another volume's: this one is not staged there, which is OK, and the other's stays.
	r.ok(r.stage(v.ID, nodeCap(modeSNW, "")))
	r.volumes[other.ID].Active = true
	r.ok(r.unstage(other.ID))
	if r.at(r.staging) == nil {
		t.Error("the other volume's mount is gone")
	}
	r.did()
	r.ok(r.unstage(v.ID))
	r.wantDid("Unmount Deactivate")
	r.ok(r.unstage(v.ID))
	// The volume was removed under its mount.
	r.ok(r.stage(v.ID, nodeCap(modeSNW, "")))
	delete(r.volumes, v.ID)
	r.ok(r.unstage(v.ID))
	if r.at(r.staging) != nil {
		t.Error("a mount of a volume that is gone stays")
	}
}

// One operation a volume: others are told so at once, and other volumes are not concerned. What was begun
// goes on when its client has given up.
func TestNodeConcurrency(t *testing.T) {
	r := newNodeRig(t)
	v, other := r.add(storage.Volume{Name: "a", Init: storage.InitFormat}), r.add(storage.Volume{Name: "b", Access: storage.AccessBlock})
	begun, finish := make(chan struct{}), make(chan struct{})
	r.setHook(func(op, _ string) error {
		if op == "Format" {
			close(begun)
			<-finish
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	go func() {
		_, err := r.srv.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: v.ID, StagingTargetPath: r.staging, VolumeCapability: nodeCap(modeSNW, "")})
		result <- err
	}()
	<-begun
	aborted := func() {
		t.Helper()
		r.want("stage", r.stage(v.ID, nodeCap(modeSNW, "")), codes.Aborted)
		r.want("unstage", r.unstage(v.ID), codes.Aborted)
		r.want("publish", r.publish(v.ID, "t", nodeCap(modeSNW, ""), false), codes.Aborted)
		r.want("unpublish", r.unpublish(v.ID, "t"), codes.Aborted)
		_, err := r.srv.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{VolumeId: v.ID, VolumePath: r.staging})
		r.want("expand", err, codes.Aborted)
	}
	aborted()
	r.ok(r.stage(other.ID, nodeBlockCap(modeSNW)))
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("the call whose client gave up: %v", err)
	}
	aborted()
	close(finish)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		err := r.stage(v.ID, nodeCap(modeSNW, ""))
		if err == nil {
			break
		}
		r.want("retry", err, codes.Aborted)
		if time.Now().After(deadline) {
			t.Fatal("the operation does not end")
		}
	}
	if got := strings.Join(r.host.Log(), ","); strings.Count(got, "Format") != 1 || strings.Count(got, "Mount") != 1 {
		t.Errorf("did %s", got)
	}
}

// Mount flags can be secrets.
func TestNodeFlagsStaySecret(t *testing.T) {
	r := newNodeRig(t)
	v := r.ready("a", "ext4")
	for _, flag := range []string{"password=hunter2,x", "password=hunter2\n"} {
		if err := r.stage(v.ID, nodeCap(modeSNW, "", flag)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v", err)
		}
	}
	r.ok(r.stage(v.ID, nodeCap(modeSNW, "", "password=hunter2")))
	if err := r.stage(v.ID, nodeCap(modeSNRO, "", "password=hunter2")); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}
