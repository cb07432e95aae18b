package driver

import (
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// Everything here is pure: a request is judged before anything is looked up, so that a request that cannot be
// right is InvalidArgument whatever the state of the node (CSI spec, "Error Scheme"). Lengths and control
// characters are not checked here but for all requests alike, in limits.go.

// required rejects an empty field.
func required(field, value string) error {
	if value == "" {
		return fmt.Errorf("%w: %s is missing", storage.ErrInvalid, field)
	}
	return nil
}

// volumeSpec reads a CreateVolumeRequest.
func volumeSpec(req *csi.CreateVolumeRequest) (storage.VolumeSpec, error) {
	if err := required("name", req.GetName()); err != nil {
		return storage.VolumeSpec{}, err
	}
	access, fsType, err := agreedCapability(req.GetVolumeCapabilities())
	if err != nil {
		return storage.VolumeSpec{}, err
	}
	params, err := parseVolumeParameters(req.GetParameters())
	if err != nil {
		return storage.VolumeSpec{}, err
	}
	if len(req.GetMutableParameters()) > 0 {
		return storage.VolumeSpec{}, fmt.Errorf("%w: mutable_parameters (VolumeAttributesClass) are not supported", storage.ErrInvalid)
	}
	if access == storage.AccessMount {
		if fsType, err = agreedFSType(fsType, params.fsType); err != nil {
			return storage.VolumeSpec{}, err
		}
	}
	size, err := parseCapacityRange(req.GetCapacityRange())
	if err != nil {
		return storage.VolumeSpec{}, err
	}
	source, err := parseSource(req.GetVolumeContentSource())
	if err != nil {
		return storage.VolumeSpec{}, err
	}
	return storage.VolumeSpec{
		Name:          req.GetName(),
		RequiredBytes: size.required,
		LimitBytes:    size.limit,
		Class:         params.class,
		Access:        access,
		FSType:        fsType,
		Source:        source,
		Claim:         params.claim,
	}, nil
}

// snapshotSpec reads a CreateSnapshotRequest.
func snapshotSpec(req *csi.CreateSnapshotRequest) (storage.SnapshotSpec, error) {
	if err := required("name", req.GetName()); err != nil {
		return storage.SnapshotSpec{}, err
	}
	if err := required("source_volume_id", req.GetSourceVolumeId()); err != nil {
		return storage.SnapshotSpec{}, err
	}
	params, err := parseSnapshotParameters(req.GetParameters())
	if err != nil {
		return storage.SnapshotSpec{}, err
	}
	return storage.SnapshotSpec{Name: req.GetName(), SourceID: req.GetSourceVolumeId(), COW: params.cow, Object: params.object}, nil
}

// agreedCapability reads all capabilities of a request, which the volume must serve at once: it is either a
// block device or one file system, never both.
func agreedCapability(vcs []*csi.VolumeCapability) (access storage.AccessType, fsType string, err error) {
	if len(vcs) == 0 {
		return "", "", fmt.Errorf("%w: volume_capabilities is missing", storage.ErrInvalid)
	}
	for _, vc := range vcs {
		c, err := parseCapability(vc)
		if err != nil {
			return "", "", err
		}
		if access != "" && access != c.access {
			return "", "", fmt.Errorf("%w: volume_capabilities ask for %s and for %s access; a volume has one", storage.ErrInvalid, access, c.access)
		}
		access = c.access
		if fsType != "" && c.fsType != "" && fsType != c.fsType {
			return "", "", fmt.Errorf("%w: volume_capabilities ask for fs_type %s and for %s; a volume has one", storage.ErrInvalid, fsType, c.fsType)
		}
		if c.fsType != "" {
			fsType = c.fsType
		}
	}
	return access, fsType, nil
}

// agreedFSType joins what the capability and the class say. The provisioner moves the class's key into the
// capability; other COs may pass both.
func agreedFSType(capability, parameter string) (string, error) {
	switch {
	case capability == "":
		return parameter, nil
	case parameter == "" || parameter == capability:
		return capability, nil
	default:
		return "", fmt.Errorf("%w: volume_capability.mount.fs_type %s and parameter %s %s differ", storage.ErrInvalid, capability, keyFSType, parameter)
	}
}

// sizeRange is a CapacityRange; 0 is no bound.
type sizeRange struct{ required, limit int64 }

// parseCapacityRange reads a CapacityRange, which may be missing.
func parseCapacityRange(r *csi.CapacityRange) (sizeRange, error) {
	if r == nil {
		return sizeRange{}, nil
	}
	size := sizeRange{required: r.GetRequiredBytes(), limit: r.GetLimitBytes()}
	switch {
	case size.required < 0:
		return sizeRange{}, fmt.Errorf("%w: capacity_range.required_bytes %d is negative", storage.ErrInvalid, size.required)
	case size.limit < 0:
		return sizeRange{}, fmt.Errorf("%w: capacity_range.limit_bytes %d is negative", storage.ErrInvalid, size.limit)
	case size.required == 0 && size.limit == 0:
		return sizeRange{}, fmt.Errorf("%w: capacity_range has neither required_bytes nor limit_bytes", storage.ErrInvalid)
	case size.limit > 0 && size.limit < size.required:
		return sizeRange{}, fmt.Errorf("%w: capacity_range.limit_bytes %d is less than required_bytes %d", storage.ErrInvalid, size.limit, size.required)
	}
	return size, nil
}

// parseSource reads a VolumeContentSource; nil is an empty volume.
func parseSource(cs *csi.VolumeContentSource) (*storage.Source, error) {
	if cs == nil {
		return nil, nil
	}
	switch {
	case cs.GetSnapshot() != nil:
		id := cs.GetSnapshot().GetSnapshotId()
		return &storage.Source{Kind: storage.SourceSnapshot, ID: id}, required("volume_content_source.snapshot.snapshot_id", id)
	case cs.GetVolume() != nil:
		id := cs.GetVolume().GetVolumeId()
		return &storage.Source{Kind: storage.SourceVolume, ID: id}, required("volume_content_source.volume.volume_id", id)
	default:
		return nil, fmt.Errorf("%w: volume_content_source must be a snapshot or a volume", storage.ErrInvalid)
	}
}

// checkComplete rejects a capability that lacks a required part. ValidateVolumeCapabilities needs to tell that
// (InvalidArgument) from a complete one that cannot be served (not confirmed).
func checkComplete(vc *csi.VolumeCapability) error {
	switch {
	case vc == nil:
		return fmt.Errorf("%w: volume_capability is missing", storage.ErrInvalid)
	case vc.GetMount() == nil && vc.GetBlock() == nil:
		return fmt.Errorf("%w: volume_capability.access_type must be mount or block", storage.ErrInvalid)
	case vc.GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_UNKNOWN:
		return fmt.Errorf("%w: volume_capability.access_mode is missing", storage.ErrInvalid)
	}
	return nil
}

// mismatch says in what a volume does not match a ValidateVolumeCapabilitiesRequest; empty: in nothing.
func mismatch(v storage.Volume, req *csi.ValidateVolumeCapabilitiesRequest) string {
	if len(req.GetVolumeContext()) > 0 {
		return "volume_context differs: volumes of this driver have none"
	}
	if len(req.GetMutableParameters()) > 0 {
		return "mutable_parameters are not supported"
	}
	access, fsType, err := agreedCapability(req.GetVolumeCapabilities())
	if err != nil {
		return err.Error()
	}
	params, err := parseVolumeParameters(req.GetParameters())
	if err != nil {
		return err.Error()
	}
	if access != v.Access {
		return fmt.Sprintf("the volume has %s access, not %s", v.Access, access)
	}
	if access == storage.AccessMount {
		if fsType, err = agreedFSType(fsType, params.fsType); err != nil {
			return err.Error()
		}
		if fsType != "" && fsType != v.FSType {
			return fmt.Sprintf("the volume has fs_type %s, not %s", v.FSType, fsType)
		}
	}
	for _, p := range []struct{ key, asked, is string }{
		{keyType, string(params.class.Type), string(v.Class.Type)},
		{keyVolumeGroup, params.class.VolumeGroup, v.Class.VolumeGroup},
		{keyThinPool, params.class.ThinPool, v.Class.ThinPool},
	} {
		if p.asked != "" && p.asked != p.is {
			return fmt.Sprintf("the volume has parameter %s %q, not %q", p.key, p.is, p.asked)
		}
	}
	return ""
}
