package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// CreateSnapshot cuts a snapshot, and returns when it is cut. Nothing is looked up here, the source least of
// all: a retry must succeed after the source was deleted, which only the engine can tell.
func (s *controller) CreateSnapshot(ctx context.Context, req *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	spec, err := snapshotSpec(req)
	if err != nil {
		return nil, err
	}
	if err := checkTopology(s.nodeID, req.GetAccessibilityRequirements()); err != nil {
		return nil, err
	}
	snapshot, err := s.snapshots.CreateSnapshot(ctx, spec)
	if err != nil {
		return nil, err
	}
	message, err := s.csiSnapshot(snapshot)
	if err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: message}, nil
}

// DeleteSnapshot removes a snapshot. One that is gone, or whose id this driver cannot have given out, is OK; one
// of another node is an error, because OK would let the CO forget a snapshot that still exists.
func (s *controller) DeleteSnapshot(ctx context.Context, req *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	if err := required("snapshot_id", req.GetSnapshotId()); err != nil {
		return nil, err
	}
	if err := s.snapshots.DeleteSnapshot(ctx, req.GetSnapshotId()); err != nil && !errors.Is(err, storage.ErrNotFound) {
		return nil, err
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

// GetSnapshot finds one snapshot, ready or not.
func (s *controller) GetSnapshot(ctx context.Context, req *csi.GetSnapshotRequest) (*csi.GetSnapshotResponse, error) {
	if err := required("snapshot_id", req.GetSnapshotId()); err != nil {
		return nil, err
	}
	snapshot, err := s.snapshots.Snapshot(ctx, req.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	message, err := s.csiSnapshot(snapshot)
	if err != nil {
		return nil, err
	}
	return &csi.GetSnapshotResponse{Snapshot: message}, nil
}

// ListSnapshots lists this node's snapshots, however they were made, or those that a filter lets through.
func (s *controller) ListSnapshots(ctx context.Context, req *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	found, next, err := s.findSnapshots(ctx, req)
	if err != nil {
		return nil, err
	}
	rsp := &csi.ListSnapshotsResponse{NextToken: next, Entries: make([]*csi.ListSnapshotsResponse_Entry, 0, len(found))}
	for _, snap := range found {
		if snap.CreatedAt.IsZero() {
			continue // not cut yet: "SHALL NOT list" (spec, ListSnapshots)
		}
		message, err := s.csiSnapshot(snap)
		if err != nil {
			return nil, err
		}
		rsp.Entries = append(rsp.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: message})
	}
	return rsp, nil
}

// findSnapshots returns one page of what the filters let through, of which empty ones let everything through. An id that
// does not exist, here or at all, is an empty list.
func (s *controller) findSnapshots(ctx context.Context, req *csi.ListSnapshotsRequest) (found []storage.Snapshot, next string, err error) {
	after, err := parsePage(listSnapshots, req)
	if err != nil {
		return nil, "", err
	}
	if req.GetSnapshotId() != "" {
		found, err = s.findSnapshot(ctx, req)
	} else {
		q := storage.SnapshotQuery{SourceID: req.GetSourceVolumeId(), AfterID: after}
		if req.GetMaxEntries() > 0 {
			q.Limit = int(req.GetMaxEntries()) + 1 // one more tells whether there is another page
		}
		found, err = s.snapshots.Snapshots(ctx, q)
	}
	if err != nil {
		return nil, "", err
	}
	found, next = page(found, snapshotID, listSnapshots, after, req.GetMaxEntries())
	return found, next, nil
}

// findSnapshot is a lookup instead of a list, because pre-provisioned contents are resolved this way, again and again.
func (s *controller) findSnapshot(ctx context.Context, req *csi.ListSnapshotsRequest) ([]storage.Snapshot, error) {
	snapshot, err := s.snapshots.Snapshot(ctx, req.GetSnapshotId())
	switch {
	case errors.Is(err, storage.ErrNotFound), errors.Is(err, storage.ErrOtherNode):
		return nil, nil
	case err != nil:
		return nil, err
	case req.GetSourceVolumeId() != "" && snapshot.SourceID != req.GetSourceVolumeId():
		return nil, nil
	}
	return []storage.Snapshot{snapshot}, nil
}

func snapshotID(s storage.Snapshot) string { return s.ID }

// csiSnapshot is a snapshot as CSI sees it, the same in every answer. A snapshot without a creation time is not
// cut, and must not be shown: csi-snapshotter would record 1970 for it.
func (s *controller) csiSnapshot(snapshot storage.Snapshot) (*csi.Snapshot, error) {
	if snapshot.CreatedAt.IsZero() {
		return nil, fmt.Errorf("%w: snapshot %s is not cut yet; try again", storage.ErrPending, snapshot.ID)
	}
	return &csi.Snapshot{
		SnapshotId:         snapshot.ID,
		SourceVolumeId:     snapshot.SourceID,
		SizeBytes:          snapshot.SizeBytes,
		CreationTime:       timestamppb.New(snapshot.CreatedAt),
		ReadyToUse:         snapshot.Ready,
		AccessibleTopology: topologyOf(s.nodeID),
	}, nil
}
