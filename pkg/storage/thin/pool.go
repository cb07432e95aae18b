package thin

import (
	"context"
	"errors"
	"fmt"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// guard refuses to create anything in a pool that is full, broken or would leak data, before LVM is asked. One that only is
// too full is extended first, if it may be.
func (b *Backend) guard(ctx context.Context, c *lvm.Client, m lvm.Metadata, pool string) (dm.PoolStatus, error) {
	st, err := b.status(ctx, c, pool)
	if err != nil {
		return st, err
	}
	refused := b.refusal(m, pool, st)
	if b.growth.on() && errors.Is(refused, storage.ErrNoSpace) {
		if err := b.Grow(ctx, c, m, pool, storage.PoolUse{}); err != nil {
			return st, fmt.Errorf("%w; it cannot be extended: %w", refused, err)
		}
		if st, err = b.status(ctx, c, pool); err != nil {
			return st, err
		}
		refused = b.refusal(m, pool, st)
	}
	return st, refused
}

func (b *Backend) refusal(m lvm.Metadata, pool string, st dm.PoolStatus) error {
	for _, p := range b.problems(m, pool, st) {
		if p.refuse != nil {
			return fmt.Errorf("%w: %s", p.refuse, p.Message)
		}
	}
	return nil
}

// problem is a condition of a pool and the error with which it refuses new objects; nil: it does not.
type problem struct {
	storage.Condition
	refuse error
	grows  bool // an extension ends it
}

// problems is the one place that judges a pool, the worst first.
func (b *Backend) problems(m lvm.Metadata, pool string, st dm.PoolStatus) []problem {
	name := m.Group + "/" + pool
	var out []problem
	add := func(refuse error, severity storage.Severity, reason, format string, args ...any) {
		message := "thin pool " + name + " " + fmt.Sprintf(format, args...)
		out = append(out, problem{storage.Condition{Severity: severity, Reason: reason, Message: message}, refuse, errors.Is(refuse, storage.ErrNoSpace)})
	}
	switch st.Mode {
	case dm.PoolFailed:
		add(storage.ErrDamaged, storage.SeverityInaccessible, storage.PoolFailed,
			"has failed; see the kernel log and lvmthin(7): lvconvert --repair %s", name)
		return out // the numbers mean nothing
	case dm.PoolReadOnly:
		refuse := storage.ErrDamaged
		if !st.NeedsCheck && st.UsedMetadataBlocks == st.TotalMetadataBlocks {
			refuse = storage.ErrNoSpace
		}
		add(refuse, storage.SeverityDegraded, storage.PoolReadOnly,
			"is read-only (metadata %.1f%% used), writes that need a new block fail, and nothing can be removed: lvextend --poolmetadatasize +SIZE %s",
			st.MetadataPercent(), name)
	case dm.PoolOutOfDataSpace:
		writers := "wait until it has some, by default for 60 seconds, and then fail (lvs -o lv_when_full: queue)"
		if st.ErrorIfNoSpace {
			writers = "fail (lvs -o lv_when_full: error, or they have waited too long)"
		}
		add(storage.ErrNoSpace, storage.SeverityDegraded, storage.PoolOutOfDataSpace,
			"is out of data space, all of its %s are used, and writes that need more %s: lvextend --size +SIZE %s, or delete snapshots or volumes",
			storage.HumanBytes(st.SizeBytes()), writers, name)
	case dm.PoolReadWrite:
	}
	if st.NeedsCheck {
		add(storage.ErrDamaged, storage.SeverityDegraded, storage.PoolNeedsCheck,
			"needs a metadata check: deactivate it and run lvconvert --repair %s", name)
	}
	if st.SkipZeroing {
		add(storage.ErrDamaged, storage.SeverityDegraded, storage.PoolNotZeroing,
			"does not zero new blocks, so a volume could show another's old data: lvchange --zero y %s", name)
	}
	if free := 100 - st.DataPercent(); free < b.dataReserve {
		add(storage.ErrNoSpace, storage.SeverityDegraded, storage.PoolDataLow,
			"has %s of %s data used (%.1f%%), the reserve is %g%% (--pool-data-reserve): delete snapshots or volumes, or lvextend --size +SIZE %s",
			storage.HumanBytes(st.UsedBytes()), storage.HumanBytes(st.SizeBytes()), st.DataPercent(), b.dataReserve, name)
	}
	if kept := b.metadataKept(st); 100-st.MetadataPercent() < kept {
		why := "--pool-metadata-reserve"
		if kept > b.metadataReserve {
			why = "LVM's own, for metadata of this size"
		}
		add(storage.ErrNoSpace, storage.SeverityDegraded, storage.PoolMetadataLow,
			"has %s of %s metadata used (%d of %d blocks, %.1f%%), the reserve is %.3g%% (%s): lvextend --poolmetadatasize +SIZE %s, or delete snapshots or volumes",
			storage.HumanBytes(st.UsedMetadataBytes()), storage.HumanBytes(st.MetadataBytes()), st.UsedMetadataBlocks, st.TotalMetadataBlocks, st.MetadataPercent(), kept, why, name)
	}
	if data, metadata := b.wanted(st, storage.PoolUse{}); data > 0 && b.growable(m, st) == 0 || metadata > 0 && m.FreeBytes < 2*m.ExtentBytes {
		add(nil, storage.SeverityDegraded, storage.PoolCannotGrow,
			"cannot grow, its group has %s free: vgextend %s DISK, or delete thick volumes (data %.1f%%, metadata %.1f%% used; --pool-autoextend-threshold=%g%%)",
			storage.HumanBytes(m.FreeBytes), m.Group, st.DataPercent(), st.MetadataPercent(), b.growth.ThresholdPercent)
	}
	return out
}

// Pools implements storage.Backend.
func (b *Backend) Pools(ctx context.Context, m lvm.Metadata) ([]storage.Pool, error) {
	var out []storage.Pool
	for _, lv := range pools(m.LVs) {
		p := storage.Pool{
			VolumeGroup: m.Group, Name: lv.Name, UUID: lv.UUID, SizeBytes: lv.SizeBytes,
			PromisedBytes: promised(m.LVs, lv.Name), Growths: b.grown.of(m.Group, lv.Name),
		}
		st, err := b.kernel.PoolStatus(ctx, m.Group, lv.Name)
		var silence *silentError
		switch {
		case errors.As(err, &silence):
			p.Conditions = []storage.Condition{{Severity: storage.SeverityInaccessible, Reason: storage.PoolNotAnswering, Message: silence.message()}}
		case errors.Is(err, dm.ErrNoDevice):
			p.Conditions = []storage.Condition{{
				Severity: storage.SeverityInaccessible, Reason: storage.PoolInactive,
				Message: fmt.Sprintf("thin pool %s/%s is not active: lvchange --activate y %s/%s", m.Group, lv.Name, m.Group, lv.Name),
			}}
		case err != nil:
			return nil, err
		default:
			b.describe(&p, m, st)
		}
		out = append(out, p)
	}
	return out, nil
}

// describe adds what only the kernel knows.
func (b *Backend) describe(p *storage.Pool, m lvm.Metadata, st dm.PoolStatus) {
	for _, problem := range b.problems(m, p.Name, st) {
		p.Conditions = append(p.Conditions, problem.Condition)
	}
	if p.Broken = st.NeedsCheck || st.Mode == dm.PoolFailed; st.Mode == dm.PoolFailed {
		return
	}
	p.Active, p.Transaction, p.SizeBytes, p.MetadataBytes = true, st.TransactionID, st.SizeBytes(), st.MetadataBytes()
	p.Used = storage.PoolUse{DataBytes: st.UsedBytes(), MetadataBytes: st.UsedMetadataBytes()}
	p.Limit = storage.PoolUse{
		DataBytes: p.SizeBytes - share(p.SizeBytes, b.dataReserve), MetadataBytes: p.MetadataBytes - share(p.MetadataBytes, b.metadataKept(st)),
	}
	p.DataPercent, p.MetadataPercent = st.DataPercent(), st.MetadataPercent()
}
