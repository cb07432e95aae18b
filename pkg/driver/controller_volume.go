package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// controller is the CSI Controller service of one node, for the volumes and snapshots of that node. Its
// handlers return the engine's errors as they are; an interceptor makes them gRPC codes.
type controller struct {
	csi.UnimplementedControllerServer
	nodeID    string
	volumes   volumes
	snapshots snapshots
}

// controllerCapabilities is all that ControllerGetCapabilities says. Expansion is the node's work, and a local
// volume needs no publishing.
var controllerCapabilities = []csi.ControllerServiceCapability_RPC_Type{
	csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
	csi.ControllerServiceCapability_RPC_GET_CAPACITY,
	csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
	csi.ControllerServiceCapability_RPC_GET_VOLUME,
	csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
	csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
	csi.ControllerServiceCapability_RPC_GET_SNAPSHOT,
	csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
	csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	csi.ControllerServiceCapability_RPC_GET_VOLUME_HEALTH,
	csi.ControllerServiceCapability_RPC_LIST_VOLUME_HEALTH,
}

// ControllerGetCapabilities says what this service can do.
func (s *controller) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	rsp := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range controllerCapabilities {
		rsp.Capabilities = append(rsp.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}},
		})
	}
	return rsp, nil
}

// CreateVolume makes a volume, empty or from a snapshot or another volume. The engine is idempotent by name,
// so a retry is nothing special here.
func (s *controller) CreateVolume(ctx context.Context, req *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	spec, err := volumeSpec(req)
	if err != nil {
		return nil, err
	}
	if err := checkTopology(s.nodeID, req.GetAccessibilityRequirements()); err != nil {
		return nil, err
	}
	volume, err := s.volumes.CreateVolume(ctx, spec)
	if errors.Is(err, storage.ErrOtherNode) && spec.Source != nil {
		return nil, fmt.Errorf("%w; %s", err, whoseNode(spec.Source.Kind))
	}
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: s.csiVolume(volume)}, nil
}

// whoseNode says where Kubernetes has the name of the node that a source is on. A handle has no more than its hash, and the
// driver knows no other node: it does not ask the API (docs/explanation/sidecars-on-nodes.md).
func whoseNode(kind storage.SourceKind) string {
	if kind == storage.SourceVolume {
		return "its PersistentVolume has the node's name, in spec.nodeAffinity"
	}
	return "its VolumeSnapshotContent has the node's name, in the label " + managedByLabel
}

// managedByLabel is set by the snapshot-controller.
const managedByLabel = "snapshot.storage.kubernetes.io/managed-by"

// DeleteVolume removes a volume. One that is gone, or whose id this driver cannot have given out, is OK; one of
// another node is an error, because OK would let the CO forget a volume that still exists.
func (s *controller) DeleteVolume(ctx context.Context, req *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if err := required("volume_id", req.GetVolumeId()); err != nil {
		return nil, err
	}
	if err := s.volumes.DeleteVolume(ctx, req.GetVolumeId()); err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// ValidateVolumeCapabilities confirms what the request says about a volume, all of it or nothing.
func (s *controller) ValidateVolumeCapabilities(ctx context.Context, req *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if err := required("volume_id", req.GetVolumeId()); err != nil {
		return nil, err
	}
	if len(req.GetVolumeCapabilities()) == 0 {
		return nil, fmt.Errorf("%w: volume_capabilities is missing", storage.ErrInvalid)
	}
	for _, vc := range req.GetVolumeCapabilities() {
		if err := checkComplete(vc); err != nil {
			return nil, err
		}
	}
	volume, err := s.volumes.Volume(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if text := mismatch(volume, req); text != "" {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: clip(text)}, nil
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeCapabilities: req.GetVolumeCapabilities(),
		Parameters:         req.GetParameters(),
	}}, nil
}

// ListVolumes lists this node's volumes.
func (s *controller) ListVolumes(ctx context.Context, req *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	after, err := parsePage(listVolumes, req)
	if err != nil {
		return nil, err
	}
	all, err := s.volumes.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	entries, next := page(all, volumeID, listVolumes, after, req.GetMaxEntries())
	rsp := &csi.ListVolumesResponse{NextToken: next}
	for _, v := range entries {
		rsp.Entries = append(rsp.Entries, &csi.ListVolumesResponse_Entry{Volume: s.csiVolume(v)})
	}
	return rsp, nil
}

// ControllerGetVolume finds one volume.
func (s *controller) ControllerGetVolume(ctx context.Context, req *csi.ControllerGetVolumeRequest) (*csi.ControllerGetVolumeResponse, error) {
	if err := required("volume_id", req.GetVolumeId()); err != nil {
		return nil, err
	}
	volume, err := s.volumes.Volume(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeResponse{
		Volume: s.csiVolume(volume),
		Status: &csi.ControllerGetVolumeResponse_VolumeStatus{}, // REQUIRED, and nothing to say
	}, nil
}

// ControllerGetVolumeHealth says what is wrong with one volume. One that is being copied or zeroed cannot be accessed yet, and
// is in no list: here it says how far it is. (Since CSI 1.13 ControllerGetVolume has no condition.)
func (s *controller) ControllerGetVolumeHealth(ctx context.Context, req *csi.ControllerGetVolumeHealthRequest) (*csi.ControllerGetVolumeHealthResponse, error) {
	if err := required("volume_id", req.GetVolumeId()); err != nil {
		return nil, err
	}
	volume, err := s.volumes.Health(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeHealthResponse{VolumeHealth: volumeHealth(volume)}, nil
}

// ControllerListVolumeHealth lists the volumes with which something is wrong, and only those (spec,
// ControllerListVolumeHealth: "SHOULD omit volumes with no known adverse health condition").
func (s *controller) ControllerListVolumeHealth(ctx context.Context, req *csi.ControllerListVolumeHealthRequest) (*csi.ControllerListVolumeHealthResponse, error) {
	after, err := parsePage(listHealth, req)
	if err != nil {
		return nil, err
	}
	all, err := s.volumes.Volumes(ctx)
	if err != nil {
		return nil, err
	}
	var abnormal []storage.Volume
	for _, v := range all {
		if len(v.Conditions) > 0 {
			abnormal = append(abnormal, v)
		}
	}
	entries, next := page(abnormal, volumeID, listHealth, after, req.GetMaxEntries())
	rsp := &csi.ControllerListVolumeHealthResponse{NextToken: next}
	for _, v := range entries {
		rsp.Entries = append(rsp.Entries, volumeHealth(v))
	}
	return rsp, nil
}

// GetCapacity says how much room there is for volumes of a class. On another node there is none: each node
// answers for itself.
func (s *controller) GetCapacity(ctx context.Context, req *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	params, err := parseVolumeParameters(req.GetParameters())
	if err != nil {
		return nil, err
	}
	if len(req.GetVolumeCapabilities()) > 0 {
		if _, _, err := agreedCapability(req.GetVolumeCapabilities()); err != nil {
			return nil, err
		}
	}
	if !coversNode(s.nodeID, req.GetAccessibleTopology()) {
		return noCapacity(), nil
	}
	capacity, err := s.volumes.Capacity(ctx, params.class)
	if err != nil {
		return nil, err
	}
	// A class may name a group or pool that this node lacks. That is no error but an answer: without it, csi-provisioner would
	// leave an outdated CSIStorageCapacity in place.
	return &csi.GetCapacityResponse{
		// "MUST NOT be negative", and below the reserve there is no room.
		AvailableCapacity: max(capacity.AvailableBytes, 0),
		MaximumVolumeSize: wrapperspb.Int64(max(capacity.MaximumBytes, 0)),
		MinimumVolumeSize: wrapperspb.Int64(max(capacity.MinimumBytes, 0)),
	}, nil
}

func noCapacity() *csi.GetCapacityResponse {
	return &csi.GetCapacityResponse{MaximumVolumeSize: wrapperspb.Int64(0)}
}

func volumeID(v storage.Volume) string { return v.ID }

// csiVolume is a volume as CSI sees it, the same in every answer. There is no volume_context: the id alone is
// enough to find all that the node service needs. The content source must be there, or csi-provisioner deletes
// the volume as one whose source was not honored; without the topology, the volume would be everybody's.
func (s *controller) csiVolume(v storage.Volume) *csi.Volume {
	return &csi.Volume{
		VolumeId:           v.ID,
		CapacityBytes:      v.SizeBytes,
		ContentSource:      csiSource(v.Source),
		AccessibleTopology: topologyOf(s.nodeID),
	}
}

func csiSource(source *storage.Source) *csi.VolumeContentSource {
	if source == nil {
		return nil
	}
	if source.Kind == storage.SourceSnapshot {
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: source.ID},
		}}
	}
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
		Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: source.ID},
	}}
}
