package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/pkg/mount"
	"github.com/lvmsnap/lvmsnap/pkg/mount/mounttest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

const (
	modeSNW  = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	modeSNRO = csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY
	modeSNSW = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	modeSNMW = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	modeMNRO = csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY

	nodeVolumeBytes = 1 << 30
)

// nodeRig is a node service on fakes that behave, with one log for both.
type nodeRig struct {
	t       *testing.T
	srv     csi.NodeServer
	host    *mounttest.Fake
	dir     string
	staging string

	mu      sync.Mutex
	volumes map[string]*storage.Volume
	pools   []storage.Pool
	log     []string
	hook    func(op, on string) error // for both fakes
}

func newNodeRig(t *testing.T) *nodeRig {
	r := &nodeRig{t: t, host: mounttest.NewFake(), dir: t.TempDir(), volumes: map[string]*storage.Volume{}}
	r.staging = filepath.Join(r.dir, "staging")
	r.host.Before = r.before
	r.restart()
	return r
}

// restart makes a new service on the same machine, as after a crash.
func (r *nodeRig) restart() {
	r.srv = NewNode(NodeOptions{NodeID: "node-1", Engine: r, FileSystems: r.host, Mounts: r.host})
}

func (r *nodeRig) before(op, on string) error {
	r.mu.Lock()
	r.log = append(r.log, op)
	hook := r.hook
	r.mu.Unlock()
	if hook != nil {
		return hook(op, on)
	}
	return nil
}

func (r *nodeRig) setHook(hook func(op, on string) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hook = hook
}

func failAt(op string) func(string, string) error {
	return func(o, _ string) error {
		if o == op {
			return errors.New("injected failure of " + op)
		}
		return nil
	}
}

// did forgets the log and returns what was in it, without what only looks.
func (r *nodeRig) did() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	log := slices.DeleteFunc(r.log, func(s string) bool { return s == "Probe" || s == "Volume" || s == "Usage" })
	r.log = nil
	return strings.Join(log, " ")
}

func nodeVolumeID(name string) string {
	return storage.Handle{NodeHash: storage.NodeHash("node-1"), LV: storage.VolumeLV(name)}.String()
}

// add makes a volume, inactive, on a blank device.
func (r *nodeRig) add(v storage.Volume) *storage.Volume {
	v.ID = nodeVolumeID(v.Name)
	v.DevicePath = "/dev/vg/" + storage.VolumeLV(v.Name)
	v.SizeBytes = nodeVolumeBytes
	if v.Access == "" {
		v.Access = storage.AccessMount
	}
	r.mu.Lock()
	r.volumes[v.ID] = &v
	r.mu.Unlock()
	r.host.AddDevice(v.DevicePath, v.SizeBytes)
	return &v
}

// ready makes a volume with a file system that has been used before.
func (r *nodeRig) ready(name, fsType string) *storage.Volume {
	v := r.add(storage.Volume{Name: name, FSType: fsType})
	r.host.SetContent(v.DevicePath, fsType)
	return v
}

func (r *nodeRig) find(op, id string) (*storage.Volume, error) {
	if err := r.before(op, id); err != nil {
		return nil, err
	}
	h, err := storage.ParseHandle(id)
	if err != nil {
		return nil, err
	}
	if h.NodeHash != storage.NodeHash("node-1") {
		return nil, fmt.Errorf("%w: %s", storage.ErrOtherNode, id)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := r.volumes[id]; v != nil {
		return v, nil
	}
	return nil, fmt.Errorf("%w: volume %s", storage.ErrNotFound, id)
}

func (r *nodeRig) change(op, id string, fn func(v *storage.Volume) error) (storage.Volume, error) {
	v, err := r.find(op, id)
	if err != nil {
		return storage.Volume{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	err = fn(v)
	return *v, err
}

func (r *nodeRig) Volume(_ context.Context, id string) (storage.Volume, error) {
	return r.change("Volume", id, func(*storage.Volume) error { return nil })
}

func (r *nodeRig) Activate(_ context.Context, id string) (storage.Volume, error) {
	if _, err := r.change("Activate", id, func(v *storage.Volume) error { v.Active = true; return nil }); err != nil {
		return storage.Volume{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return *r.volumes[id], nil
}

func (r *nodeRig) Initialized(_ context.Context, id string) error {
	_, err := r.change("Initialized", id, func(v *storage.Volume) error { v.Init = storage.InitDone; return nil })
	return err
}

func (r *nodeRig) Deactivate(ctx context.Context, id string) error {
	_, err := r.change("Deactivate", id, func(v *storage.Volume) error {
		if of, _ := r.host.Of(ctx, v.DevicePath); len(of) > 0 {
			return fmt.Errorf("%w: volume %s", storage.ErrInUse, id)
		}
		v.Active = false
		return nil
	})
	return err
}

func (r *nodeRig) ExpandVolume(ctx context.Context, id string, need, _ int64) (storage.Volume, error) {
	_, err := r.change("ExpandVolume", id, func(v *storage.Volume) error {
		v.SizeBytes = max(v.SizeBytes, need)
		r.host.AddDevice(v.DevicePath, v.SizeBytes)
		return nil
	})
	if err != nil {
		return storage.Volume{}, err
	}
	return r.Volume(ctx, id)
}

func (r *nodeRig) Pools(context.Context) ([]storage.Pool, error) { return r.pools, nil }

func nodeCap(mode csi.VolumeCapability_AccessMode_Mode, fsType string, flags ...string) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fsType, MountFlags: flags}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
	}
}

func nodeBlockCap(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
	}
}

func (r *nodeRig) stage(id string, c *csi.VolumeCapability) error {
	_, err := r.srv.NodeStageVolume(r.t.Context(), &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: r.staging, VolumeCapability: c})
	return err
}

func (r *nodeRig) unstage(id string) error {
	_, err := r.srv.NodeUnstageVolume(r.t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: r.staging})
	return err
}

func (r *nodeRig) target(name string) string { return filepath.Join(r.dir, name) }

func (r *nodeRig) publish(id, target string, c *csi.VolumeCapability, readOnly bool) error {
	_, err := r.srv.NodePublishVolume(r.t.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: id, StagingTargetPath: r.staging, TargetPath: r.target(target), VolumeCapability: c, Readonly: readOnly,
	})
	return err
}

func (r *nodeRig) unpublish(id, target string) error {
	_, err := r.srv.NodeUnpublishVolume(r.t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: r.target(target)})
	return err
}

// want checks the code that the interceptor makes of an error; OK is none.
func (r *nodeRig) want(what string, err error, code codes.Code) {
	r.t.Helper()
	if got := status.Code(toStatus(err)); got != code {
		r.t.Errorf("%s: %s (%v), want %s", what, got, err, code)
	}
}

func (r *nodeRig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *nodeRig) wantDid(want string) {
	r.t.Helper()
	if got := r.did(); got != want {
		r.t.Errorf("did %q, want %q", got, want)
	}
}

func (r *nodeRig) at(path string) *mount.Point {
	r.t.Helper()
	p, err := r.host.At(r.t.Context(), path)
	r.ok(err)
	return p
}

func TestNodeInfo(t *testing.T) {
	r := newNodeRig(t)
	info, err := r.srv.NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	if err != nil || info.GetNodeId() != "node-1" || info.GetAccessibleTopology().GetSegments()["topology.csi.lvmsnap.io/node"] != "node-1" {
		t.Errorf("%v, %v", info, err)
	}
	caps, err := r.srv.NodeGetCapabilities(t.Context(), &csi.NodeGetCapabilitiesRequest{})
	r.ok(err)
	var got []string
	for _, c := range caps.GetCapabilities() {
		got = append(got, c.GetRpc().GetType().String())
	}
	want := []string{"STAGE_UNSTAGE_VOLUME", "GET_VOLUME_STATS", "EXPAND_VOLUME", "SINGLE_NODE_MULTI_WRITER", "GET_VOLUME_HEALTH", "GET_STORAGE_HEALTH"}
	if !slices.Equal(got, want) {
		t.Errorf("capabilities %v, want %v", got, want)
	}
}

// Every field that is required or must be well-formed, in every call, before anything is looked up or done.
func TestNodeInvalid(t *testing.T) {
	r := newNodeRig(t)
	v := r.ready("a", "ext4")
	c, good := nodeCap(modeSNW, ""), r.staging
	var stage []*csi.NodeStageVolumeRequest
	add := func(id, path string, c *csi.VolumeCapability) {
		stage = append(stage, &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: path, VolumeCapability: c})
	}
	add("", good, c)
	add(v.ID, "", c)
	add(v.ID, good, nil)
	add(v.ID, good, &csi.VolumeCapability{AccessMode: c.GetAccessMode()})
	add(v.ID, good, nodeCap(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER, ""))
	add(v.ID, good, nodeCap(modeSNW, "vfat"))
	for _, flag := range []string{"", "a,b", "a\nb", "remount", "bind"} {
		add(v.ID, good, nodeCap(modeSNW, "", flag))
	}
	for _, path := range []string{"relative", "/", good + "/", "/x/../" + good, "/a\nb"} {
		add(v.ID, path, c)
		_, err := r.srv.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: v.ID, StagingTargetPath: path})
		r.want("unstage "+path, err, codes.InvalidArgument)
		_, err = r.srv.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.ID, TargetPath: path})
		r.want("unpublish "+path, err, codes.InvalidArgument)
		for _, paths := range [][2]string{{path, r.target("t")}, {good, path}} {
			_, err = r.srv.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{VolumeId: v.ID, StagingTargetPath: paths[0], TargetPath: paths[1], VolumeCapability: c})
			r.want(fmt.Sprint("publish ", paths), err, codes.InvalidArgument)
		}
	}
	for _, req := range stage {
		_, err := r.srv.NodeStageVolume(t.Context(), req)
		r.want("stage "+req.String(), err, codes.InvalidArgument)
		if req.GetVolumeId() == "" || req.GetStagingTargetPath() == good && req.GetVolumeId() != "" {
			_, err = r.srv.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{
				VolumeId: req.GetVolumeId(), StagingTargetPath: good, TargetPath: r.target("t"), VolumeCapability: req.GetVolumeCapability(),
			})
			r.want("publish "+req.String(), err, codes.InvalidArgument)
		}
	}
	_, err := r.srv.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{StagingTargetPath: good})
	r.want("unstage", err, codes.InvalidArgument)
	_, err = r.srv.NodeUnstageVolume(t.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: v.ID})
	r.want("unstage", err, codes.InvalidArgument)
	_, err = r.srv.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{TargetPath: good})
	r.want("unpublish", err, codes.InvalidArgument)
	_, err = r.srv.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.ID})
	r.want("unpublish", err, codes.InvalidArgument)
	_, err = r.srv.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{VolumeId: v.ID, StagingTargetPath: good, VolumeCapability: c})
	r.want("publish", err, codes.InvalidArgument)
	r.want("publish on the stage", r.publish(v.ID, "staging", c, false), codes.InvalidArgument)
	_, err = r.srv.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{VolumeId: v.ID, TargetPath: r.target("t"), VolumeCapability: c})
	r.want("publish without a stage", err, codes.FailedPrecondition)
	_, err = r.srv.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumePath: good})
	r.want("stats", err, codes.InvalidArgument)
	_, err = r.srv.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: v.ID})
	r.want("stats", err, codes.InvalidArgument)
	for _, req := range []*csi.NodeExpandVolumeRequest{
		{VolumePath: good},
		{VolumeId: v.ID},
		{VolumeId: v.ID, VolumePath: good, CapacityRange: &csi.CapacityRange{RequiredBytes: -1}},
		{VolumeId: v.ID, VolumePath: good, CapacityRange: &csi.CapacityRange{RequiredBytes: 2, LimitBytes: 1}},
		{VolumeId: v.ID, VolumePath: good, VolumeCapability: &csi.VolumeCapability{}},
	} {
		_, err = r.srv.NodeExpandVolume(t.Context(), req)
		r.want("expand "+req.String(), err, codes.InvalidArgument)
	}
	_, err = r.srv.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{})
	r.want("health", err, codes.InvalidArgument)
	_, err = r.srv.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: v.ID, StagingTargetPath: "x"})
	r.want("health", err, codes.InvalidArgument)
	r.wantDid("")
}

// Ids: what cannot be a volume's is NotFound, another node's is Unavailable; what is gone need not be undone.
func TestNodeIDs(t *testing.T) {
	r := newNodeRig(t)
	unknown := nodeVolumeID("unknown")
	other := storage.Handle{NodeHash: storage.NodeHash("node-2"), LV: storage.VolumeLV("x")}.String()
	snapshot := storage.Handle{NodeHash: storage.NodeHash("node-1"), LV: storage.SnapshotLV("x")}.String()
	for id, code := range map[string]codes.Code{
		"nonsense": codes.NotFound, strings.Repeat("x", 300): codes.NotFound, snapshot: codes.NotFound, unknown: codes.NotFound, other: codes.Unavailable,
	} {
		undo := codes.OK
		if id != unknown && id != other {
			undo = codes.NotFound
		}
		r.want("stage", r.stage(id, nodeCap(modeSNW, "")), code)
		r.want("publish", r.publish(id, "t", nodeCap(modeSNW, ""), false), code)
		r.want("unstage", r.unstage(id), undo)
		r.want("unpublish", r.unpublish(id, "t"), undo)
		// csi-sanity's path is a relative one, and wants NotFound all the same.
		_, err := r.srv.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: id, VolumePath: "some/path"})
		r.want("stats", err, code)
		_, err = r.srv.NodeExpandVolume(t.Context(), &csi.NodeExpandVolumeRequest{VolumeId: id, VolumePath: "some/path"})
		r.want("expand", err, code)
		_, err = r.srv.NodeGetVolumeHealth(t.Context(), &csi.NodeGetVolumeHealthRequest{VolumeId: id})
		r.want("health", err, code)
	}
	if _, err := os.Lstat(r.target("t")); err == nil {
		t.Error("a target was made")
	}
}
