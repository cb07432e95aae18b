package driver

import (
	"context"
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/lvmsnap/lvmsnap/pkg/mount"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// severalTargets are the access modes with which a volume may be published at a second target: the second
// table of the CSI spec under NodePublishVolume, for plugins with SINGLE_NODE_MULTI_WRITER. SINGLE_NODE_WRITER
// is not among them; a CO that knows our capabilities asks for SINGLE_NODE_MULTI_WRITER instead.
var severalTargets = []csi.VolumeCapability_AccessMode_Mode{
	csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
	csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
}

// publication is a validated NodePublishVolumeRequest.
type publication struct {
	id, staging, target string
	capability          capability
	readOnly            bool
}

// NodePublishVolume implements csi.NodeServer. Secrets, contexts and the ephemeral attribute are not looked at.
func (n *node) NodePublishVolume(ctx context.Context, req *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	p, err := parsePublication(req)
	if err != nil {
		return nil, classify(err)
	}
	return exclusive(ctx, n, p.id, func(ctx context.Context) (*csi.NodePublishVolumeResponse, error) {
		return &csi.NodePublishVolumeResponse{}, n.publish(ctx, p)
	})
}

func parsePublication(req *csi.NodePublishVolumeRequest) (publication, error) {
	c, err := parseCapability(req.GetVolumeCapability())
	if err == nil {
		err = mount.CheckFlags(c.mountFlags)
	}
	p := publication{
		id: req.GetVolumeId(), staging: req.GetStagingTargetPath(), target: req.GetTargetPath(), capability: c,
		readOnly: req.GetReadonly() || wishOf(c).readOnly,
	}
	paths := []pathField{{"target_path", p.target}}
	if p.staging != "" {
		paths = append(paths, pathField{"staging_target_path", p.staging})
	}
	if err == nil {
		err = checkFields(p.id, paths...)
	}
	if err != nil {
		return publication{}, err
	}
	if p.staging == "" {
		// CSI spec, NodePublishVolume errors, "Staging target path not set".
		return publication{}, failedPrecondition("staging_target_path is not set: the volume has to be staged first")
	}
	if p.staging == p.target {
		return publication{}, fmt.Errorf("%w: target_path is the staging_target_path", storage.ErrInvalid)
	}
	return p, nil
}

func (n *node) publish(ctx context.Context, p publication) error {
	vol, err := n.engine.Volume(ctx, p.id)
	if err != nil {
		return err
	}
	if err := checkAccess(vol, p.capability); err != nil {
		return err
	}
	if !vol.Active || vol.Init != storage.InitDone {
		return failedPrecondition("volume %s is not staged", p.id)
	}
	points, places, err := n.mountsOf(ctx, vol, p.staging, p.target)
	if err != nil {
		return err
	}
	if vol.Access == storage.AccessBlock {
		return n.publishDevice(ctx, vol, p, points, places[1])
	}
	return n.publishDir(ctx, p, points, places[0], places[1])
}

func (n *node) publishDir(ctx context.Context, p publication, points []mount.Point, staged, there place) error {
	switch {
	case !staged.ours:
		return failedPrecondition("volume %s is not staged at staging_target_path %s", p.id, p.staging)
	case p.capability.fsType != "" && p.capability.fsType != staged.at.FSType:
		return failedPrecondition("volume %s is staged as %s, not as %s", p.id, staged.at.FSType, p.capability.fsType)
	case staged.at.ReadOnly && !p.readOnly:
		return failedPrecondition("volume %s is staged read-only", p.id)
	}
	if there.at != nil {
		return p.metBy(there)
	}
	if err := p.allowedBeside(targets(points, staged.at)); err != nil {
		return err
	}
	return n.mounts.BindDir(ctx, p.staging, p.target, p.readOnly)
}

// publishDevice places the device's node at the target. A read-only bind of a node does not keep anybody from
// writing to the device, so the device itself is made read-only, which it then is for all who use it. (kubelet
// also has the container's device cgroup refuse writes, but only for its own containers.)
func (n *node) publishDevice(ctx context.Context, vol storage.Volume, p publication, points []mount.Point, there place) error {
	if there.at != nil {
		return p.metBy(there)
	}
	others := targets(points)
	if err := p.allowedBeside(others); err != nil {
		return err
	}
	for _, other := range others {
		if other.ReadOnly != p.readOnly {
			return fmt.Errorf("%w: volume %s is published at %s with read-only %t; a block device is read-only for all of its users or for none",
				storage.ErrInUse, p.id, other.Path, other.ReadOnly)
		}
	}
	return n.mounts.BindDevice(ctx, vol.DevicePath, p.target, p.readOnly)
}

// metBy says whether what is at the target already is what is wanted.
func (p publication) metBy(there place) error {
	switch {
	case !there.ours:
		return fmt.Errorf("%w: something else is mounted on target_path %s", storage.ErrConflict, p.target)
	case there.at.Block != (p.capability.access == storage.AccessBlock):
		return fmt.Errorf("%w: volume %s is published at %s with another access type", storage.ErrConflict, p.id, p.target)
	case there.at.ReadOnly != p.readOnly:
		return fmt.Errorf("%w: volume %s is published at %s with read-only %t, not %t", storage.ErrConflict, p.id, p.target, there.at.ReadOnly, p.readOnly)
	}
	return nil
}

// allowedBeside says whether one more target is allowed.
func (p publication) allowedBeside(others []mount.Point) error {
	if len(others) == 0 || slices.Contains(severalTargets, p.capability.mode) {
		return nil
	}
	return fmt.Errorf("%w: volume %s is published at %v, and access mode %s allows one target", storage.ErrInUse, p.id, pathsOf(others), p.capability.mode)
}

// NodeUnpublishVolume implements csi.NodeServer. It asks nothing of the engine: a pod must be able to end while
// LVM hangs, and after its volume is gone.
func (n *node) NodeUnpublishVolume(ctx context.Context, req *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	id, target := req.GetVolumeId(), req.GetTargetPath()
	if err := checkFields(id, pathField{"target_path", target}); err != nil {
		return nil, err
	}
	return exclusive(ctx, n, id, func(ctx context.Context) (*csi.NodeUnpublishVolumeResponse, error) {
		if err := n.mounts.Unmount(ctx, target); err != nil {
			return nil, err
		}
		if err := n.mounts.Remove(ctx, target); err != nil {
			return nil, err
		}
		return &csi.NodeUnpublishVolumeResponse{}, nil
	})
}
