package driver

import (
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// capability is a VolumeCapability that this driver can serve.
type capability struct {
	access     storage.AccessType
	fsType     string   // as requested; empty is the default
	mountFlags []string // may hold secrets: never log them
	mode       csi.VolumeCapability_AccessMode_Mode
}

// readOnly says that no writer may use the volume through this capability.
func (c capability) readOnly() bool {
	return c.mode == csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY ||
		c.mode == csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
}

// The access modes that a volume on one node can serve. Readers on "many nodes" are served because the
// volume's topology keeps all of them on this node: backup tools ask for ReadOnlyMany claims. Writers on
// many nodes would be a promise that we cannot keep.
var accessModes = []csi.VolumeCapability_AccessMode_Mode{
	csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER,
	csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER,
	csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY,
}

// fsTypes are the file systems that a mount volume can have; the first is the default.
var fsTypes = []string{"ext4", "xfs", "btrfs"}

// parseCapability reads one VolumeCapability; errors wrap storage.ErrInvalid and name the field.
func parseCapability(vc *csi.VolumeCapability) (capability, error) {
	if vc == nil {
		return capability{}, fmt.Errorf("%w: volume_capability is missing", storage.ErrInvalid)
	}
	c := capability{mode: vc.GetAccessMode().GetMode()}
	switch {
	case vc.GetMount() != nil:
		c.access = storage.AccessMount
		c.fsType = vc.GetMount().GetFsType()
		c.mountFlags = vc.GetMount().GetMountFlags()
		if vc.GetMount().GetVolumeMountGroup() != "" {
			return capability{}, fmt.Errorf("%w: volume_capability.mount.volume_mount_group is not supported", storage.ErrInvalid)
		}
		if c.fsType != "" && !slices.Contains(fsTypes, c.fsType) {
			return capability{}, fmt.Errorf("%w: volume_capability.mount.fs_type %q is none of %v", storage.ErrInvalid, c.fsType, fsTypes)
		}
	case vc.GetBlock() != nil:
		c.access = storage.AccessBlock
	default:
		return capability{}, fmt.Errorf("%w: volume_capability.access_type must be mount or block", storage.ErrInvalid)
	}
	if !slices.Contains(accessModes, c.mode) {
		return capability{}, fmt.Errorf("%w: volume_capability.access_mode %s is not possible for a volume on one node", storage.ErrInvalid, c.mode)
	}
	return c, nil
}
