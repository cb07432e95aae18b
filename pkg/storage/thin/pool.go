package thin

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/dustin/go-humanize"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// guard refuses to create anything in a pool that is full, broken or would leak data, before LVM is asked.
func (b *Backend) guard(ctx context.Context, c *lvm.Client, pool string) (dm.PoolStatus, error) {
	st, err := b.status(ctx, c, pool)
	if err != nil {
		return st, err
	}
	for _, p := range b.problems(c.GroupName(), pool, st) {
		if p.refuse != nil {
			return st, fmt.Errorf("%w: %s", p.refuse, p.Message)
		}
	}
	return st, nil
}

// problem is a condition of a pool and the error with which it refuses new objects; nil: it does not.
type problem struct {
	storage.Condition
	refuse error
}

// problems is the one place that judges a pool, the worst first.
func (b *Backend) problems(group, pool string, st dm.PoolStatus) []problem {
	name := group + "/" + pool
	var out []problem
	add := func(refuse error, severity storage.Severity, reason, format string, args ...any) {
		message := "thin pool " + name + " " + fmt.Sprintf(format, args...)
		out = append(out, problem{storage.Condition{Severity: severity, Reason: reason, Message: message}, refuse})
	}
	switch st.Mode {
	case dm.PoolFailed:
		add(storage.ErrDamaged, storage.SeverityInaccessible, "PoolFailed",
			"has failed; see the kernel log and lvmthin(7): lvconvert --repair %s", name)
		return out // the numbers mean nothing
	case dm.PoolReadOnly:
		add(storage.ErrDamaged, storage.SeverityDegraded, "PoolReadOnly",
			"is read-only (metadata %.1f%% used): lvextend --poolmetadatasize +SIZE %s", st.MetadataPercent(), name)
	case dm.PoolOutOfDataSpace:
		add(storage.ErrNoSpace, storage.SeverityDegraded, "PoolOutOfDataSpace",
			"is out of data space and writes wait or fail: lvextend --size +SIZE %s, or delete snapshots", name)
	case dm.PoolReadWrite:
	}
	if st.NeedsCheck {
		add(storage.ErrDamaged, storage.SeverityDegraded, "PoolNeedsCheck",
			"needs a metadata check: deactivate it and run lvconvert --repair %s", name)
	}
	if st.SkipZeroing {
		add(storage.ErrDamaged, storage.SeverityDegraded, "PoolNotZeroing",
			"does not zero new blocks, so a volume could show another's old data: lvchange --zero y %s", name)
	}
	if free := 100 - st.DataPercent(); free < b.dataReserve {
		add(storage.ErrNoSpace, storage.SeverityDegraded, "PoolDataLow",
			"has %s of %s data used (%.1f%%), the reserve is %g%% (--pool-data-reserve): delete snapshots or volumes, or lvextend --size +SIZE %s",
			size(st.UsedBytes()), size(st.SizeBytes()), st.DataPercent(), b.dataReserve, name)
	}
	if free := 100 - st.MetadataPercent(); free < b.metadataReserve {
		add(storage.ErrNoSpace, storage.SeverityDegraded, "PoolMetadataLow",
			"has %d of %d metadata blocks used (%.1f%%), the reserve is %g%% (--pool-metadata-reserve): lvextend --poolmetadatasize +SIZE %s",
			st.UsedMetadataBlocks, st.TotalMetadataBlocks, st.MetadataPercent(), b.metadataReserve, name)
	}
	return out
}

func size(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }

// fits refuses a volume that its pool could never hold, even if it were the only one.
func fits(group, pool string, sizeBytes int64, st dm.PoolStatus) error {
	if sizeBytes > st.SizeBytes() {
		return fmt.Errorf("%w: a volume of %s is larger than its thin pool %s/%s, which has %s",
			storage.ErrNoSpace, size(sizeBytes), group, pool, size(st.SizeBytes()))
	}
	return nil
}

// Capacity implements storage.Backend: what is not yet used, less the reserve. A thin volume may be larger
// than that, up to the size of the pool.
func (b *Backend) Capacity(ctx context.Context, _ lvm.Metadata, class storage.Class) (storage.Capacity, error) {
	st, err := b.kernel.PoolStatus(ctx, class.VolumeGroup, class.ThinPool)
	if err != nil {
		return storage.Capacity{}, err
	}
	refuses := func(p problem) bool { return p.refuse != nil }
	if slices.ContainsFunc(b.problems(class.VolumeGroup, class.ThinPool, st), refuses) {
		return storage.Capacity{}, nil
	}
	reserve := int64(float64(st.SizeBytes()) * b.dataReserve / 100)
	return storage.Capacity{AvailableBytes: max(0, st.SizeBytes()-st.UsedBytes()-reserve), MaximumBytes: st.SizeBytes()}, nil
}

// Pools implements storage.Backend.
func (b *Backend) Pools(ctx context.Context, group string, lvs []lvm.LV) ([]storage.Pool, error) {
	var out []storage.Pool
	for _, lv := range pools(lvs) {
		p := storage.Pool{VolumeGroup: group, Name: lv.Name, SizeBytes: lv.SizeBytes}
		st, err := b.kernel.PoolStatus(ctx, group, lv.Name)
		switch {
		case errors.Is(err, dm.ErrNoDevice):
			p.Conditions = []storage.Condition{{
				Severity: storage.SeverityInaccessible, Reason: "PoolInactive",
				Message: fmt.Sprintf("thin pool %s/%s is not active: lvchange --activate y %s/%s", group, lv.Name, group, lv.Name),
			}}
		case err != nil:
			return nil, err
		default:
			p.DataPercent, p.MetadataPercent = st.DataPercent(), st.MetadataPercent()
			for _, problem := range b.problems(group, lv.Name, st) {
				p.Conditions = append(p.Conditions, problem.Condition)
			}
		}
		out = append(out, p)
	}
	return out, nil
}
