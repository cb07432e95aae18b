package driver

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func (r *nodeRig) expand(id, path string, c *csi.VolumeCapability, need int64) (*csi.NodeExpandVolumeResponse, error) {
	return r.srv.NodeExpandVolume(r.t.Context(), &csi.NodeExpandVolumeRequest{
		VolumeId: id, VolumePath: path, VolumeCapability: c, CapacityRange: &csi.CapacityRange{RequiredBytes: need},
	})
}

func TestExpand(t *testing.T) {
	r := newNodeRig(t)
	v := r.ready("a", "xfs")
	c := nodeCap(modeSNMW, "")
	_, err := r.expand(v.ID, r.staging, nil, 2*nodeVolumeBytes)
	r.want("not staged", err, codes.NotFound)
	r.ok(r.stage(v.ID, c))
	r.ok(r.publish(v.ID, "ro", c, true))
	_, err = r.expand(v.ID, r.target("nowhere"), nil, 2*nodeVolumeBytes)
	r.want("not there", err, codes.NotFound)
	_, err = r.expand(v.ID, r.staging, nodeBlockCap(modeSNW), 2*nodeVolumeBytes)
	r.want("another access type", err, codes.FailedPrecondition)
	r.did()
	// A read-only target, but the stage is writable; again, and with what is large enough already.
	for _, path := range []string{r.target("ro"), r.target("ro"), r.staging} {
		res, err := r.expand(v.ID, path, c, 2*nodeVolumeBytes)
		if err != nil || res.GetCapacityBytes() != 2*nodeVolumeBytes || r.host.FSBytes(v.DevicePath) != 2*nodeVolumeBytes {
			t.Errorf("%v, %v", res, err)
		}
		r.wantDid("ExpandVolume Grow")
	}
	// A crash between the two is made up for.
	r.setHook(failAt("Grow"))
	_, err = r.expand(v.ID, r.staging, nil, 3*nodeVolumeBytes)
	r.want("Grow", err, codes.Internal)
	r.setHook(nil)
	_, err = r.expand(v.ID, r.staging, nil, 3*nodeVolumeBytes)
	if r.ok(err); r.host.FSBytes(v.DevicePath) != 3*nodeVolumeBytes {
		t.Error("the file system did not grow")
	}
	// capacity_range is optional.
	res, err := r.srv.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{VolumeId: v.ID, VolumePath: r.staging})
	if err != nil || res.GetCapacityBytes() != 3*nodeVolumeBytes {
		t.Errorf("%v, %v", res, err)
	}
}

func TestExpandReadOnly(t *testing.T) {
	r := newNodeRig(t)
	v := r.ready("a", "ext4")
	r.ok(r.stage(v.ID, nodeCap(modeSNRO, "")))
	_, err := r.expand(v.ID, r.staging, nil, 2*nodeVolumeBytes)
	r.want("a file system that cannot be written to", err, codes.FailedPrecondition)
}

func TestExpandBlock(t *testing.T) {
	r := newNodeRig(t)
	v := r.add(storage.Volume{Name: "a", Access: storage.AccessBlock})
	r.ok(r.stage(v.ID, nodeBlockCap(modeSNW)))
	r.ok(r.publish(v.ID, "t", nodeBlockCap(modeSNW), false))
	r.did()
	for _, path := range []string{r.target("t"), v.DevicePath} {
		res, err := r.expand(v.ID, path, nodeBlockCap(modeSNW), 2*nodeVolumeBytes)
		if err != nil || res.GetCapacityBytes() != 2*nodeVolumeBytes {
			t.Errorf("%v, %v", res, err)
		}
		r.wantDid("ExpandVolume")
	}
}

func (r *nodeRig) stats(id, path string) ([]*csi.VolumeUsage, error) {
	res, err := r.srv.NodeGetVolumeStats(r.t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: path})
	return res.GetUsage(), err
}

func TestStats(t *testing.T) {
	r := newNodeRig(t)
	v, block := r.ready("a", "ext4"), r.add(storage.Volume{Name: "b", Access: storage.AccessBlock})
	_, err := r.stats(v.ID, r.staging)
	r.want("not staged", err, codes.NotFound)
	r.ok(r.stage(v.ID, nodeCap(modeSNW, "")))
	r.ok(r.publish(v.ID, "t", nodeCap(modeSNW, ""), false))
	for _, path := range []string{r.staging, r.target("t")} {
		got, err := r.stats(v.ID, path)
		if err != nil || len(got) != 2 || got[0].GetUnit() != csi.VolumeUsage_BYTES || got[0].GetTotal() != nodeVolumeBytes ||
			got[0].GetUsed()+got[0].GetAvailable() != nodeVolumeBytes || got[1].GetUnit() != csi.VolumeUsage_INODES || got[1].GetTotal() != 1000 {
			t.Errorf("%v, %v", got, err)
		}
	}
	for _, path := range []string{"some/path", "/", r.dir, r.target("nowhere")} {
		_, err := r.stats(v.ID, path)
		r.want(path, err, codes.NotFound)
	}
	r.ok(r.unstage(block.ID))
	_, err = r.stats(block.ID, r.staging)
	r.want("another volume's path", err, codes.NotFound)
	r.ok(r.stage(block.ID, nodeBlockCap(modeSNW)))
	r.ok(r.publish(block.ID, "block", nodeBlockCap(modeSNW), false))
	got, err := r.stats(block.ID, r.target("block"))
	if err != nil || len(got) != 1 || got[0].GetTotal() != nodeVolumeBytes || got[0].GetUsed() != 0 {
		t.Errorf("block: %v, %v", got, err)
	}
}

// A file system that hangs costs one waiting call, not one a minute, and does not hold up the volume's other calls.
func TestStatsHang(t *testing.T) {
	r := newNodeRig(t)
	v := r.ready("a", "ext4")
	r.ok(r.stage(v.ID, nodeCap(modeSNW, "")))
	stuck := make(chan struct{})
	defer close(stuck)
	r.setHook(func(op, _ string) error {
		if op == "Usage" {
			<-stuck
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	_, err := r.srv.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{VolumeId: v.ID, VolumePath: r.staging})
	r.want("first", err, codes.DeadlineExceeded)
	_, err = r.stats(v.ID, r.staging)
	r.want("second", err, codes.Aborted)
	health, err := r.srv.NodeGetVolumeHealth(ctx, &csi.NodeGetVolumeHealthRequest{VolumeId: v.ID, StagingTargetPath: r.staging})
	if err != nil || len(health.GetVolumeHealth().GetHealthStatuses()) != 1 || health.GetVolumeHealth().GetHealthStatuses()[0].GetReason() != reasonFSHangs {
		t.Errorf("health: %v, %v", health, err)
	}
	r.ok(r.publish(v.ID, "t", nodeCap(modeSNW, ""), false))
}

func (r *nodeRig) health(id string) string {
	r.t.Helper()
	res, err := r.srv.NodeGetVolumeHealth(r.t.Context(), &csi.NodeGetVolumeHealthRequest{
		VolumeId: id, StagingTargetPath: r.staging, VolumePublishPath: r.target("t"),
	})
	r.ok(err)
	if res.GetVolumeHealth().GetVolumeId() != id {
		r.t.Errorf("volume_id %q", res.GetVolumeHealth().GetVolumeId())
	}
	var out []string
	for _, e := range res.GetVolumeHealth().GetHealthStatuses() {
		if len(e.GetMessage()) > 128 || e.GetMessage() == "" {
			r.t.Errorf("message %q", e.GetMessage())
		}
		out = append(out, e.GetStatus().String()+" "+e.GetReason())
	}
	return strings.Join(out, ", ")
}

func (r *nodeRig) wantHealth(id, want string) {
	r.t.Helper()
	if got := r.health(id); got != want {
		r.t.Errorf("health %q, want %q", got, want)
	}
}

func TestNodeVolumeHealth(t *testing.T) {
	r := newNodeRig(t)
	v := r.ready("a", "ext4")
	r.wantHealth(v.ID, "") // not staged: nothing wrong
	r.ok(r.stage(v.ID, nodeCap(modeSNW, "")))
	r.ok(r.publish(v.ID, "t", nodeCap(modeSNW, ""), true))
	r.wantHealth(v.ID, "") // read-only as was asked for
	r.host.TurnReadOnly(v.DevicePath)
	r.wantHealth(v.ID, "DEGRADED FilesystemReadOnly")
	r.setHook(failAt("Usage"))
	r.wantHealth(v.ID, "INACCESSIBLE FilesystemError, DEGRADED FilesystemReadOnly")
	r.setHook(nil)
	r.host.RemoveDevice(v.DevicePath)
	r.wantHealth(v.ID, "INACCESSIBLE DeviceMissing")
	r.volumes[v.ID].Conditions = []storage.Condition{
		{Severity: storage.SeverityDataLoss, Reason: "ThinIDMissing", Message: strings.Repeat("ä", 100)},
		{Severity: storage.SeverityDataLoss, Reason: "ThinIDMissing", Message: "twice"},
		{Severity: storage.SeverityDegraded, Reason: "ThinIDMissing", Message: "x"},
	}
	r.wantHealth(v.ID, "DATA_LOSS ThinIDMissing, DEGRADED ThinIDMissing, INACCESSIBLE DeviceMissing")
}

func TestNodeStorageHealth(t *testing.T) {
	r := newNodeRig(t)
	ask := func() []*csi.NodeGetStorageHealthResponse_StorageBackendHealth {
		t.Helper()
		res, err := r.srv.NodeGetStorageHealth(t.Context(), &csi.NodeGetStorageHealthRequest{})
		r.ok(err)
		return res.GetBackendHealth()
	}
	r.pools = []storage.Pool{{VolumeGroup: "vg", Name: "good"}}
	if got := ask(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	full := storage.Condition{Severity: storage.SeverityDegraded, Reason: "PoolDataFull", Message: "95 %"}
	r.pools = append(r.pools,
		storage.Pool{VolumeGroup: "vg", Name: "one", Conditions: []storage.Condition{full}},
		storage.Pool{VolumeGroup: "vg", Name: "two", Conditions: []storage.Condition{full, {Severity: storage.SeverityDataLoss, Reason: "PoolFailed", Message: "m"}}},
	)
	got := ask()
	if len(got) != 2 || got[0].GetStatus() != csi.StorageHealthErrorType_STORAGE_DEGRADED || got[0].GetMessage() != "vg/one: 95 %; vg/two: 95 %" ||
		got[1].GetStatus() != csi.StorageHealthErrorType_STORAGE_UNREACHABLE || got[1].GetReason() != "PoolFailed" {
		t.Errorf("%v", got)
	}
}
