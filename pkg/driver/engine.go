package driver

import (
	"context"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// Engine is what the identity and controller services need of *storage.Engine.
type Engine interface {
	volumes
	snapshots
	readiness
}

var _ Engine = (*storage.Engine)(nil)

// volumes is the engine as the volume half of the controller sees it.
type volumes interface {
	CreateVolume(ctx context.Context, spec storage.VolumeSpec) (storage.Volume, error)
	DeleteVolume(ctx context.Context, id string) error
	Volume(ctx context.Context, id string) (storage.Volume, error)
	Health(ctx context.Context, id string) (storage.Volume, error)
	Volumes(ctx context.Context) ([]storage.Volume, error)
	Capacity(ctx context.Context, class storage.Class) (storage.Capacity, error)
}

// snapshots is the engine as the snapshot half of the controller sees it.
type snapshots interface {
	CreateSnapshot(ctx context.Context, spec storage.SnapshotSpec) (storage.Snapshot, error)
	DeleteSnapshot(ctx context.Context, id string) error
	Snapshot(ctx context.Context, id string) (storage.Snapshot, error)
	Snapshots(ctx context.Context, q storage.SnapshotQuery) ([]storage.Snapshot, error)
}

// readiness is the engine as the identity service sees it.
type readiness interface {
	Ready(ctx context.Context) error
}
