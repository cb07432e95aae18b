package driver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/lvmsnap/lvmsnap/pkg/keylock"
	"github.com/lvmsnap/lvmsnap/pkg/mount"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// checkVolumePath is for the RPCs whose volume_path says where a volume is thought to be. A path that cannot be
// one is no other case than one where the volume is not: NotFound, later.
func checkVolumePath(id, path string) error {
	if err := required("volume_id", id); err != nil {
		return err
	}
	if err := required("volume_path", path); err != nil {
		return err
	}
	return checkVolumeID(id)
}

func notAt(id, path string) error {
	return fmt.Errorf("%w: volume %s at volume_path %q", storage.ErrNotFound, id, path)
}

// volumeAt finds the volume and its mount at the path; NotFound if there is none.
func (n *node) volumeAt(ctx context.Context, id, path string) (storage.Volume, []mount.Point, mount.Point, error) {
	vol, err := n.engine.Volume(ctx, id)
	if err != nil {
		return vol, nil, mount.Point{}, err
	}
	if mount.CheckPath(path) != nil {
		return vol, nil, mount.Point{}, notAt(id, path)
	}
	points, places, err := n.mountsOf(ctx, vol, path)
	if errors.Is(err, mount.ErrPath) || err == nil && !places[0].ours {
		err = notAt(id, path)
	}
	if err != nil {
		return vol, points, mount.Point{}, err
	}
	return vol, points, *places[0].at, nil
}

// NodeExpandVolume implements csi.NodeServer: the device first, then what is on it.
func (n *node) NodeExpandVolume(ctx context.Context, req *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	id, path := req.GetVolumeId(), req.GetVolumePath()
	var c *capability
	if req.GetVolumeCapability() != nil {
		parsed, err := parseCapability(req.GetVolumeCapability())
		if err != nil {
			return nil, err
		}
		c = &parsed
	}
	size, err := parseCapacityRange(req.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	if err := checkVolumePath(id, path); err != nil {
		return nil, err
	}
	return exclusive(ctx, n, id, func(ctx context.Context) (*csi.NodeExpandVolumeResponse, error) {
		vol, err := n.expand(ctx, id, path, c, size)
		if err != nil {
			return nil, err
		}
		return &csi.NodeExpandVolumeResponse{CapacityBytes: vol.SizeBytes}, nil
	})
}

func (n *node) expand(ctx context.Context, id, path string, c *capability, size sizeRange) (storage.Volume, error) {
	vol, err := n.engine.Volume(ctx, id)
	if err != nil {
		return vol, err
	}
	if c != nil {
		if err := checkAccess(vol, *c); err != nil {
			return vol, err
		}
	}
	if vol.Access == storage.AccessBlock {
		// Of a block volume kubelet names the device in volume_path (pkg/volume/csi/expander.go), by whichever of
		// its names: there is nothing in it to check that the id does not say better.
		return n.engine.ExpandVolume(ctx, id, size.required, size.limit)
	}
	vol, points, at, err := n.volumeAt(ctx, id, path)
	if err != nil {
		return vol, err
	}
	vol, err = n.engine.ExpandVolume(ctx, id, size.required, size.limit)
	if err != nil {
		return vol, err
	}
	return vol, n.fs.Grow(ctx, vol.DevicePath, writable(points, at).Path)
}

// writable finds the volume's mount to grow its file system by: a target may be read-only while the stage is not.
func writable(points []mount.Point, at mount.Point) mount.Point {
	if !at.ReadOnly {
		return at
	}
	for _, p := range points {
		if !p.ReadOnly && !p.Block {
			return p
		}
	}
	return at
}

// NodeGetVolumeStats implements csi.NodeServer.
func (n *node) NodeGetVolumeStats(ctx context.Context, req *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	id, path := req.GetVolumeId(), req.GetVolumePath()
	if err := checkVolumePath(id, path); err != nil {
		return nil, err
	}
	// statfs of a file system whose device hangs does not return. kubelet asks again every minute: without a
	// key each time one more thread would be lost.
	u, err := keylock.Do(ctx, &n.looking, id+" "+path, lookLimit, func(ctx context.Context) (mount.Usage, error) {
		if _, _, _, err := n.volumeAt(ctx, id, path); err != nil {
			return mount.Usage{}, err
		}
		u, err := n.mounts.Usage(ctx, path)
		if errors.Is(err, fs.ErrNotExist) {
			err = notAt(id, path) // unpublished meanwhile
		}
		return u, err
	})
	if err != nil {
		return nil, classify(err)
	}
	return &csi.NodeGetVolumeStatsResponse{Usage: usageOf(u)}, nil
}

func usageOf(u mount.Usage) []*csi.VolumeUsage {
	bytes := &csi.VolumeUsage{Unit: csi.VolumeUsage_BYTES, Total: u.TotalBytes}
	if u.Block {
		return []*csi.VolumeUsage{bytes}
	}
	bytes.Used, bytes.Available = u.UsedBytes, u.AvailableBytes
	if u.TotalInodes == 0 {
		return []*csi.VolumeUsage{bytes} // btrfs makes inodes as it needs them
	}
	return []*csi.VolumeUsage{bytes, {
		Unit: csi.VolumeUsage_INODES, Total: u.TotalInodes, Used: u.UsedInodes, Available: u.AvailableInodes,
	}}
}
