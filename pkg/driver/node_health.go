package driver

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/lvmsnap/lvmsnap/pkg/keylock"
	"github.com/lvmsnap/lvmsnap/pkg/mount"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// What the node sees of a volume and the engine does not.
const (
	reasonDeviceMissing = "DeviceMissing"
	reasonFSReadOnly    = "FilesystemReadOnly"
	reasonFSError       = "FilesystemError"
	reasonFSHangs       = "FilesystemNotResponding"
)

// patience is how long a healthy file system may take to say how full it is.
const patience = 5 * time.Second

// NodeGetVolumeHealth implements csi.NodeServer. The volume need not be staged; the paths only help to look.
func (n *node) NodeGetVolumeHealth(ctx context.Context, req *csi.NodeGetVolumeHealthRequest) (*csi.NodeGetVolumeHealthResponse, error) {
	id := req.GetVolumeId()
	if err := required("volume_id", id); err != nil {
		return nil, err
	}
	var paths []string
	for _, f := range []pathField{
		{"staging_target_path", req.GetStagingTargetPath()}, {"volume_publish_path", req.GetVolumePublishPath()},
	} {
		if f.path == "" {
			continue
		}
		if err := f.check(); err != nil {
			return nil, err
		}
		paths = append(paths, f.path)
	}
	if err := checkVolumeID(id); err != nil {
		return nil, err
	}
	vol, err := n.engine.Volume(ctx, id)
	if err != nil {
		return nil, err
	}
	points, places, err := n.mountsOf(ctx, vol, paths...)
	if err != nil {
		return nil, classify(err)
	}
	conditions := append([]storage.Condition(nil), vol.Conditions...)
	for i, p := range places {
		conditions = append(conditions, n.conditionsAt(ctx, vol, paths[i], p)...)
	}
	for _, p := range points {
		// Read-only without having been asked for: the kernel's answer to an error.
		if !p.Block && p.FSReadOnly && !p.ReadOnly {
			conditions = append(conditions, storage.Condition{
				Severity: storage.SeverityDegraded, Reason: reasonFSReadOnly,
				Message: "an error made the kernel turn the file system read-only; see its log, then restart the pod",
			})
		}
	}
	vol.Conditions = conditions
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: volumeHealth(vol)}, nil
}

// conditionsAt looks at one path at which the volume should be.
func (n *node) conditionsAt(ctx context.Context, vol storage.Volume, path string, p place) []storage.Condition {
	if p.at == nil {
		return nil // not staged or published, which is nothing wrong with the volume
	}
	if !vol.Active || !p.ours {
		return []storage.Condition{{
			Severity: storage.SeverityInaccessible, Reason: reasonDeviceMissing,
			Message: "it is mounted, but its device is not the volume's, or is gone; restart the pod",
		}}
	}
	// A key of its own: usage being measured at the same time does not mean that the file system hangs.
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := keylock.Do(ctx, &n.looking, "health of "+vol.ID+" at "+path, lookLimit, func(ctx context.Context) (mount.Usage, error) {
		return n.mounts.Usage(ctx, path)
	})
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist): // or unmounted meanwhile
		return nil
	case errors.Is(err, keylock.ErrHeld), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return []storage.Condition{{
			Severity: storage.SeverityInaccessible, Reason: reasonFSHangs, Message: "it does not answer; see the state of its device and pool",
		}}
	default:
		return []storage.Condition{{Severity: storage.SeverityInaccessible, Reason: reasonFSError, Message: err.Error()}}
	}
}

// NodeGetStorageHealth implements csi.NodeServer.
func (n *node) NodeGetStorageHealth(ctx context.Context, _ *csi.NodeGetStorageHealthRequest) (*csi.NodeGetStorageHealthResponse, error) {
	pools, err := n.engine.Pools(ctx)
	if err != nil {
		return nil, err
	}
	type key struct {
		status csi.StorageHealthErrorType
		reason string
	}
	found := map[key]*csi.NodeGetStorageHealthResponse_StorageBackendHealth{}
	res := &csi.NodeGetStorageHealthResponse{}
	for _, pool := range pools {
		for _, c := range pool.Conditions {
			k := key{storageErrorType(c.Severity), c.Reason}
			text := pool.VolumeGroup + "/" + pool.Name + ": " + c.Message
			// One message for each (status, reason), as the spec wants it; it tells of all pools.
			if entry := found[k]; entry != nil {
				entry.Message = clip(entry.Message + "; " + text)
				continue
			}
			found[k] = &csi.NodeGetStorageHealthResponse_StorageBackendHealth{Status: k.status, Reason: k.reason, Message: clip(text)}
			res.BackendHealth = append(res.BackendHealth, found[k])
		}
	}
	return res, nil
}

// storageErrorType: CSI knows no data loss of a backend; what has lost data cannot be counted on.
func storageErrorType(s storage.Severity) csi.StorageHealthErrorType {
	switch s {
	case storage.SeverityDegraded:
		return csi.StorageHealthErrorType_STORAGE_DEGRADED
	case storage.SeverityInaccessible, storage.SeverityDataLoss:
		return csi.StorageHealthErrorType_STORAGE_UNREACHABLE
	}
	return csi.StorageHealthErrorType_UNKNOWN_STORAGE_HEALTH_ERROR_TYPE
}
