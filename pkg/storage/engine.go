package storage

import (
	"context"
	"errors"
)

// Engine is the driver's node-local storage. All methods are safe for concurrent use and idempotent.
//
// A method that changes something outlives its context: when the context ends first, the method returns the
// context's error, the work goes on to its end, and calls for the same object get ErrPending until then.
type Engine struct{}

var errTODO = errors.New("TODO")

// CreateVolume makes a volume, empty or from Source. A second call with the same name returns the first's volume.
func (e *Engine) CreateVolume(ctx context.Context, spec VolumeSpec) (Volume, error) {
	return Volume{}, errTODO
}

// DeleteVolume removes a volume; its snapshots stay usable. A volume that is gone is no error; one that is
// open (mounted, or held by a process) is ErrInUse; another node's is ErrOtherNode.
func (e *Engine) DeleteVolume(ctx context.Context, id string) error { return errTODO }

// Volume finds one volume; ErrNotFound, or ErrOtherNode.
func (e *Engine) Volume(ctx context.Context, id string) (Volume, error) { return Volume{}, errTODO }

// Volumes lists all volumes, ordered by ID.
func (e *Engine) Volumes(ctx context.Context) ([]Volume, error) { return nil, errTODO }

// CreateSnapshot cuts a snapshot. A second call with the same name returns the first's snapshot, even if the
// source is gone by then.
func (e *Engine) CreateSnapshot(ctx context.Context, spec SnapshotSpec) (Snapshot, error) {
	return Snapshot{}, errTODO
}

// DeleteSnapshot removes a snapshot; what was restored from it stays. One that is gone is no error.
func (e *Engine) DeleteSnapshot(ctx context.Context, id string) error { return errTODO }

// Snapshot finds one snapshot, ready or not; ErrNotFound, or ErrOtherNode.
func (e *Engine) Snapshot(ctx context.Context, id string) (Snapshot, error) {
	return Snapshot{}, errTODO
}

// Snapshots lists all snapshots, ordered by ID.
func (e *Engine) Snapshots(ctx context.Context) ([]Snapshot, error) { return nil, errTODO }

// Capacity says how much room there is for new volumes of a class.
func (e *Engine) Capacity(ctx context.Context, class Class) (Capacity, error) {
	return Capacity{}, errTODO
}

// Pools reports the state of every thin pool in the driver's groups.
func (e *Engine) Pools(ctx context.Context) ([]Pool, error) { return nil, errTODO }

// Activate makes the volume's device appear; the result has DevicePath and Init.
func (e *Engine) Activate(ctx context.Context, id string) (Volume, error) { return Volume{}, errTODO }

// Initialized records that what Volume.Init asked for is done, so that it is never done again.
func (e *Engine) Initialized(ctx context.Context, id string) error { return errTODO }

// Deactivate makes the volume's device disappear. A volume that is gone or inactive is no error; one that is
// still open is ErrInUse.
func (e *Engine) Deactivate(ctx context.Context, id string) error { return errTODO }

// ExpandVolume grows the device (not the file system on it) to at least requiredBytes, online; a volume that
// is large enough already is left alone.
func (e *Engine) ExpandVolume(ctx context.Context, id string, requiredBytes, limitBytes int64) (Volume, error) {
	return Volume{}, errTODO
}

// Ready says whether the engine can serve: nil, or what is wrong and what to do about it.
func (e *Engine) Ready(ctx context.Context) error { return errTODO }
