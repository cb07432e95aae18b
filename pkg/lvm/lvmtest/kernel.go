package lvmtest

import (
	"context"
	"fmt"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
)

// PoolStatus implements dm.Kernel.
func (l *LVM) PoolStatus(ctx context.Context, group, name string) (dm.PoolStatus, error) {
	if err := ctx.Err(); err != nil {
		return dm.PoolStatus{}, context.Cause(ctx)
	}
	l.mu.Lock()
	silent := l.silent[group+"/"+name]
	l.mu.Unlock()
	if silent != nil {
		<-silent // no context ends an ioctl
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g, v := l.lookup(group, name)
	if v == nil || v.pool == nil || !g.poolActive(v) {
		return dm.PoolStatus{}, fmt.Errorf("%w: thin pool %s/%s is not active", dm.ErrNoDevice, group, name)
	}
	metadataBlocks := uint64(v.pool.metadataBytes / dm.MetadataBlockBytes)
	s := dm.PoolStatus{
		TransactionID: v.pool.kernelTxID, Mode: g.poolMode(v), NeedsCheck: v.pool.needsCheck, ErrorIfNoSpace: v.pool.errorIfFull,
		ChunkBytes: v.pool.chunk, SkipZeroing: !v.pool.zero, TotalMetadataBlocks: metadataBlocks,
		UsedMetadataBlocks: uint64(v.pool.metadataUsed * float64(metadataBlocks) / 100),
		UsedDataBlocks:     uint64(g.usedBlocks(v)), TotalDataBlocks: uint64(v.size / v.pool.chunk),
	}
	if s.Mode == dm.PoolFailed {
		return dm.PoolStatus{Mode: dm.PoolFailed}, nil // a failed pool says nothing else
	}
	return s, nil
}

func (g *group) poolMode(v *volume) dm.PoolMode {
	switch {
	case v.pool.mode != "":
		return dm.PoolMode(v.pool.mode)
	case v.pool.metadataUsed >= 100:
		return dm.PoolReadOnly
	case g.dataPercent(v) >= 100:
		return dm.PoolOutOfDataSpace
	default:
		return dm.PoolReadWrite
	}
}

// poolHealth is the ninth character of lv_attr.
func (g *group) poolHealth(v *volume) byte {
	switch g.poolMode(v) {
	case dm.PoolReadOnly:
		return 'M'
	case dm.PoolOutOfDataSpace:
		return 'D'
	case dm.PoolFailed:
		return 'F'
	default:
		return '-'
	}
}

// SnapshotStatus implements dm.Kernel.
func (l *LVM) SnapshotStatus(ctx context.Context, group, name string) (dm.SnapshotStatus, error) {
	if err := ctx.Err(); err != nil {
		return dm.SnapshotStatus{}, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.lookup(group, name)
	if v == nil || v.cow == nil || !v.active {
		return dm.SnapshotStatus{}, fmt.Errorf("%w: %s/%s is not an active COW snapshot", dm.ErrNoDevice, group, name)
	}
	if v.cow.invalid {
		return dm.SnapshotStatus{State: dm.SnapshotInvalid}, nil
	}
	return dm.SnapshotStatus{UsedBytes: v.cow.used(), TotalBytes: v.size, MetadataBytes: v.cow.metadata()}, nil
}

// RAIDStatus implements dm.Kernel.
func (l *LVM) RAIDStatus(ctx context.Context, group, name string) (dm.RAIDStatus, error) {
	if err := ctx.Err(); err != nil {
		return dm.RAIDStatus{}, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.lookup(group, name)
	if v == nil || v.images == 0 || !v.active {
		return dm.RAIDStatus{}, fmt.Errorf("%w: %s/%s is not an active RAID volume", dm.ErrNoDevice, group, name)
	}
	each := v.size / v.dataImages
	st := dm.RAIDStatus{Type: v.segType, Devices: int(v.images), Failed: v.failed, Action: "idle", SyncedBytes: each, TotalBytes: each}
	if v.recovering {
		st.Action, st.SyncedBytes = dm.RAIDRecover, each/2
	}
	return st, nil
}

// Info implements dm.Kernel.
func (l *LVM) Info(ctx context.Context, group, name string) (dm.Info, error) {
	if err := ctx.Err(); err != nil {
		return dm.Info{}, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.lookup(group, name)
	if v == nil || !v.active {
		return dm.Info{}, fmt.Errorf("%w: %s", dm.ErrNoDevice, dm.DeviceName(group, name))
	}
	return v.info(), nil
}

func (v *volume) info() dm.Info {
	return dm.Info{OpenCount: v.open, Suspended: v.suspended, ReadOnly: !v.writable, Major: 253, Minor: v.minor}
}
