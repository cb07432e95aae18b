package dm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// SnapshotState is what has become of a COW snapshot.
type SnapshotState string

// The states of a COW snapshot, in the kernel's words; drivers/md/dm-snap.c, snapshot_status().
const (
	SnapshotValid SnapshotState = "" // the kernel says how full it is instead
	// SnapshotInvalid: the COW overflowed or could not be written. Its content is lost for ever, more room does not help.
	SnapshotInvalid     SnapshotState = "Invalid"
	SnapshotOverflow    SnapshotState = "Overflow" // the same of a store that keeps what it had (PO); LVM makes none
	SnapshotMergeFailed SnapshotState = "Merge failed"
	SnapshotUnknown     SnapshotState = "Unknown" // a store that cannot tell how full it is (N); LVM makes none
)

// SnapshotStatus is the state of an active COW snapshot. The numbers mean something only while it is valid.
type SnapshotStatus struct {
	State         SnapshotState
	UsedBytes     int64 // of the COW, its metadata included
	TotalBytes    int64 // the size of the COW
	MetadataBytes int64
}

// Valid: the snapshot still shows what was there at its cut.
func (s SnapshotStatus) Valid() bool { return s.State == SnapshotValid }

// Percent is how full the COW is, 100 when the snapshot is lost.
func (s SnapshotStatus) Percent() float64 {
	if !s.Valid() || s.TotalBytes <= 0 {
		return 100
	}
	return float64(s.UsedBytes) * 100 / float64(s.TotalBytes)
}

const snapshotTarget = "snapshot"

// ParseSnapshotStatus reads the status line of a snapshot target.
func ParseSnapshotStatus(status string) (SnapshotStatus, error) {
	status = strings.TrimSpace(status)
	switch state := SnapshotState(status); state {
	case SnapshotInvalid, SnapshotOverflow, SnapshotMergeFailed, SnapshotUnknown:
		return SnapshotStatus{State: state}, nil
	case SnapshotValid: // no state at all is not a good one
	}
	// <used>/<total> <metadata>, in sectors
	ratio, metadata, ok := strings.Cut(status, " ")
	used, total, err := parseRatio(ratio)
	if !ok || err != nil {
		return SnapshotStatus{}, fmt.Errorf("snapshot status %q: %w", status, errors.Join(err, errors.New("it is not used/total metadata")))
	}
	meta, err := strconv.ParseUint(metadata, 10, 64)
	if err != nil {
		return SnapshotStatus{}, fmt.Errorf("snapshot status %q: metadata: %w", status, err)
	}
	if used > total || meta > used || total > maxSectors {
		return SnapshotStatus{}, fmt.Errorf("snapshot status %q makes no sense", status)
	}
	return SnapshotStatus{
		UsedBytes: int64(used) * sectorBytes, TotalBytes: int64(total) * sectorBytes, MetadataBytes: int64(meta) * sectorBytes, //nolint:gosec // not above maxSectors
	}, nil
}

const maxSectors = 1 << 53

// SnapshotStatus implements Kernel.
func (c *Control) SnapshotStatus(ctx context.Context, group, snapshot string) (SnapshotStatus, error) {
	_, target, status, err := c.call(ctx, cmdTableStatus, DeviceName(group, snapshot), flagNoFlush)
	if err != nil {
		return SnapshotStatus{}, err
	}
	if target != snapshotTarget {
		return SnapshotStatus{}, fmt.Errorf("%w: %s/%s is not an active COW snapshot", ErrNoDevice, group, snapshot)
	}
	return ParseSnapshotStatus(status)
}
