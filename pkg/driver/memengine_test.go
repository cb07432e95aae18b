package driver

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/keylock"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

const (
	testNode  = "node-a"
	otherNode = "node-b"

	mib           = int64(1) << 20
	extent        = 4 * mib
	defaultSize   = 1024 * mib
	memCapacity   = int64(64) << 30
	memGroup      = "vg0"
	memPool       = "pool0"
	memDefaultExt = "ext4"
)

// memEngine behaves like the storage engine: idempotent by name, locked by name, errors that wrap storage.Err...
type memEngine struct {
	// before runs at the start of every method; what it returns is what the method returns.
	before func(method string) error
	// cut runs while a create holds its lock.
	cut func()

	locks keylock.Set

	mu        sync.Mutex
	calls     []string
	volumes   map[string]storage.Volume // by ID
	snapshots map[string]storage.Snapshot
	half      map[string]storage.Volume // volumes that are being copied
	now       time.Time
}

func newMemEngine() *memEngine {
	return &memEngine{
		volumes:   map[string]storage.Volume{},
		snapshots: map[string]storage.Snapshot{},
		now:       time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC),
	}
}

func volumeHandle(node, name string) string {
	return storage.Handle{NodeHash: storage.NodeHash(node), LV: storage.VolumeLV(name)}.String()
}

func snapshotHandle(node, name string) string {
	return storage.Handle{NodeHash: storage.NodeHash(node), LV: storage.SnapshotLV(name)}.String()
}

// enter records the call; the caller owns e.mu afterwards if there is no error.
func (e *memEngine) enter(method string) error {
	e.mu.Lock()
	e.calls = append(e.calls, method)
	e.mu.Unlock()
	if e.before != nil {
		if err := e.before(method); err != nil {
			return err
		}
	}
	e.mu.Lock()
	return nil
}

func (e *memEngine) takeCalls() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	calls := e.calls
	e.calls = nil
	return calls
}

func memOwn(id string) error {
	h, err := storage.ParseHandle(id)
	if err == nil && h.NodeHash != storage.NodeHash(testNode) {
		return fmt.Errorf("%w: %s", storage.ErrOtherNode, id)
	}
	return err
}

func memRoundUp(size int64) int64 { return (size + extent - 1) / extent * extent }

func (e *memEngine) lock(name string) (func(), error) {
	unlock, ok := e.locks.TryLock(name)
	if !ok {
		return nil, fmt.Errorf("%w: %s", storage.ErrPending, name)
	}
	if e.cut != nil {
		e.cut()
	}
	return unlock, nil
}

func (e *memEngine) CreateVolume(_ context.Context, spec storage.VolumeSpec) (storage.Volume, error) {
	unlock, err := e.lock("volume " + spec.Name)
	if err != nil {
		return storage.Volume{}, err
	}
	defer unlock()
	if err := e.enter("CreateVolume"); err != nil {
		return storage.Volume{}, err
	}
	defer e.mu.Unlock()
	v := storage.Volume{
		ID: volumeHandle(testNode, spec.Name), Name: spec.Name, RequestedBytes: spec.RequiredBytes, Class: spec.Class,
		Access: spec.Access, FSType: spec.FSType, Source: spec.Source, Claim: spec.Claim, CreatedAt: e.now,
	}
	v.Class.Type = cmp.Or(v.Class.Type, storage.TypeThin)
	v.Class.VolumeGroup = cmp.Or(v.Class.VolumeGroup, memGroup)
	if v.Class.Type == storage.TypeThin {
		v.Class.ThinPool = cmp.Or(v.Class.ThinPool, memPool)
	}
	if v.Access == storage.AccessMount {
		v.FSType = cmp.Or(v.FSType, memDefaultExt)
	}
	if old, ok := e.volumes[v.ID]; ok {
		if old.SizeBytes < spec.RequiredBytes || spec.LimitBytes > 0 && old.SizeBytes > spec.LimitBytes ||
			old.Access != v.Access || old.FSType != v.FSType || old.Class != v.Class || (old.Source == nil) != (v.Source == nil) ||
			old.Source != nil && *old.Source != *v.Source {
			return storage.Volume{}, fmt.Errorf("%w: volume %q", storage.ErrConflict, spec.Name)
		}
		return old, nil
	}
	atLeast, err := e.sourceSize(spec.Source)
	if err != nil {
		return storage.Volume{}, err
	}
	v.RequestedBytes = cmp.Or(v.RequestedBytes, atLeast, defaultSize)
	v.SizeBytes = memRoundUp(v.RequestedBytes)
	switch {
	case v.RequestedBytes < atLeast:
		return storage.Volume{}, fmt.Errorf("%w: the source has %d bytes", storage.ErrSizeRange, atLeast)
	case spec.LimitBytes > 0 && v.SizeBytes > spec.LimitBytes:
		return storage.Volume{}, fmt.Errorf("%w: extents have %d bytes", storage.ErrSizeRange, extent)
	case v.SizeBytes > memCapacity:
		return storage.Volume{}, fmt.Errorf("%w: pool %s", storage.ErrNoSpace, memPool)
	}
	e.volumes[v.ID] = v
	return v, nil
}

func (e *memEngine) sourceSize(source *storage.Source) (int64, error) {
	if source == nil {
		return 0, nil
	}
	err := memOwn(source.ID)
	if err == nil {
		if s, ok := e.snapshots[source.ID]; ok && source.Kind == storage.SourceSnapshot {
			return s.SizeBytes, nil
		}
		if v, ok := e.volumes[source.ID]; ok && source.Kind == storage.SourceVolume {
			return v.RequestedBytes, nil
		}
		err = fmt.Errorf("%w: source %s", storage.ErrNotFound, source.ID)
	} else if h, _ := storage.ParseHandle(source.ID); h != (storage.Handle{}) {
		err = fmt.Errorf("%w: %w: source %s", storage.ErrNoSpace, storage.ErrOtherNode, source.ID)
	}
	return 0, err
}

func (e *memEngine) DeleteVolume(_ context.Context, id string) error {
	if err := e.enter("DeleteVolume"); err != nil {
		return err
	}
	defer e.mu.Unlock()
	if err := memOwn(id); err != nil {
		return err // ErrNotFound for malformed ids: the handler must cope with it
	}
	delete(e.volumes, id)
	return nil
}

func (e *memEngine) Volume(_ context.Context, id string) (storage.Volume, error) {
	if err := e.enter("Volume"); err != nil {
		return storage.Volume{}, err
	}
	defer e.mu.Unlock()
	if err := memOwn(id); err != nil {
		return storage.Volume{}, err
	}
	v, ok := e.volumes[id]
	if !ok {
		return storage.Volume{}, fmt.Errorf("%w: volume %s", storage.ErrNotFound, id)
	}
	return v, nil
}

// Health knows nothing that Volume does not, but for half of a copy.
func (e *memEngine) Health(ctx context.Context, id string) (storage.Volume, error) {
	if v, ok := e.half[id]; ok {
		return v, nil
	}
	return e.Volume(ctx, id)
}

func (e *memEngine) Volumes(context.Context) ([]storage.Volume, error) {
	if err := e.enter("Volumes"); err != nil {
		return nil, err
	}
	defer e.mu.Unlock()
	return slices.SortedFunc(maps.Values(e.volumes), func(a, b storage.Volume) int { return cmp.Compare(a.ID, b.ID) }), nil
}

func (e *memEngine) CreateSnapshot(_ context.Context, spec storage.SnapshotSpec) (storage.Snapshot, error) {
	unlock, err := e.lock("snapshot " + spec.Name)
	if err != nil {
		return storage.Snapshot{}, err
	}
	defer unlock()
	if err := e.enter("CreateSnapshot"); err != nil {
		return storage.Snapshot{}, err
	}
	defer e.mu.Unlock()
	id := snapshotHandle(testNode, spec.Name)
	if old, ok := e.snapshots[id]; ok {
		if old.SourceID != spec.SourceID {
			return storage.Snapshot{}, fmt.Errorf("%w: snapshot %q", storage.ErrConflict, spec.Name)
		}
		return old, nil
	}
	if err := memOwn(spec.SourceID); err != nil {
		return storage.Snapshot{}, err
	}
	v, ok := e.volumes[spec.SourceID]
	if !ok {
		return storage.Snapshot{}, fmt.Errorf("%w: volume %s", storage.ErrNotFound, spec.SourceID)
	}
	e.now = e.now.Add(time.Second)
	s := storage.Snapshot{
		ID: id, Name: spec.Name, SourceID: spec.SourceID, SizeBytes: v.RequestedBytes, CreatedAt: e.now, Ready: true,
		Class: v.Class, FSType: v.FSType, Access: v.Access, Object: spec.Object,
	}
	e.snapshots[id] = s
	return s, nil
}

func (e *memEngine) DeleteSnapshot(_ context.Context, id string) error {
	if err := e.enter("DeleteSnapshot"); err != nil {
		return err
	}
	defer e.mu.Unlock()
	if err := memOwn(id); err != nil {
		return err
	}
	delete(e.snapshots, id)
	return nil
}

func (e *memEngine) Snapshot(_ context.Context, id string) (storage.Snapshot, error) {
	if err := e.enter("Snapshot"); err != nil {
		return storage.Snapshot{}, err
	}
	defer e.mu.Unlock()
	if err := memOwn(id); err != nil {
		return storage.Snapshot{}, err
	}
	s, ok := e.snapshots[id]
	if !ok {
		return storage.Snapshot{}, fmt.Errorf("%w: snapshot %s", storage.ErrNotFound, id)
	}
	return s, nil
}

func (e *memEngine) Snapshots(_ context.Context, q storage.SnapshotQuery) ([]storage.Snapshot, error) {
	if err := e.enter("Snapshots"); err != nil {
		return nil, err
	}
	defer e.mu.Unlock()
	list := slices.SortedFunc(maps.Values(e.snapshots), func(a, b storage.Snapshot) int { return cmp.Compare(a.ID, b.ID) })
	list = slices.DeleteFunc(list, func(s storage.Snapshot) bool {
		return s.ID <= q.AfterID || q.SourceID != "" && s.SourceID != q.SourceID
	})
	if q.Limit > 0 {
		list = list[:min(q.Limit, len(list))]
	}
	return list, nil
}

func (e *memEngine) Capacity(_ context.Context, class storage.Class) (storage.Capacity, error) {
	if err := e.enter("Capacity"); err != nil {
		return storage.Capacity{}, err
	}
	defer e.mu.Unlock()
	if cmp.Or(class.VolumeGroup, memGroup) != memGroup {
		return storage.Capacity{}, nil
	}
	return storage.Capacity{AvailableBytes: memCapacity, MaximumBytes: memCapacity - extent, MinimumBytes: extent}, nil
}

func (e *memEngine) Ready(context.Context) error {
	if err := e.enter("Ready"); err != nil {
		return err
	}
	e.mu.Unlock()
	return nil
}
