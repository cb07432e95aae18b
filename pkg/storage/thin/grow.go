package thin

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// Growth is when and by how much pools are extended, in the terms of LVM's own thin_pool_autoextend_threshold and
// thin_pool_autoextend_percent (lvmthin(7)), which dmeventd acts on.
type Growth struct {
	ThresholdPercent float64 // extend what is fuller; 0 and 100: never
	ExtendPercent    float64 // by so much of its size, or what brings it below the threshold; default 20
}

const defaultExtendPercent = 20

func (g Growth) withDefaults() Growth {
	if g.ExtendPercent <= 0 {
		g.ExtendPercent = defaultExtendPercent
	}
	return g
}

func (g Growth) on() bool { return g.ThresholdPercent > 0 && g.ThresholdPercent < 100 }

// least of a metadata device that LVM wants free before it makes anything: 4 MiB, or a quarter of a small one.
// thin_pool_metadata_min_threshold() in LVM's lib/metadata/thin_manip.c
const (
	leastMetadataFreeBytes   = 4 << 20
	leastMetadataFreePercent = 25
)

// metadataKept is how much of the pool's metadata has to be free, in percent: the reserve, or what LVM wants.
func (b *Backend) metadataKept(st dm.PoolStatus) float64 {
	least := min(leastMetadataFreePercent, 100*leastMetadataFreeBytes/float64(max(st.MetadataBytes(), 1)))
	return max(b.metadataReserve, least)
}

// thresholds are those of the options, or lower: a pool is extended before anything is refused.
func (b *Backend) thresholds(st dm.PoolStatus) (data, metadata float64) {
	t := b.growth.ThresholdPercent
	return min(t, 100-b.dataReserve), min(t, 100-b.metadataKept(st))
}

// Due implements storage.Grower.
func (b *Backend) Due(p storage.Pool, soon storage.PoolUse) bool {
	const block = dm.MetadataBlockBytes
	if !p.Active || p.Broken {
		return false
	}
	data, metadata := b.wanted(dm.PoolStatus{
		Mode: dm.PoolReadWrite, ChunkBytes: 1, UsedDataBlocks: uint64(p.Used.DataBytes), TotalDataBlocks: uint64(p.SizeBytes), //nolint:gosec // not negative
		UsedMetadataBlocks: uint64(p.Used.MetadataBytes / block), TotalMetadataBlocks: uint64(p.MetadataBytes / block), //nolint:gosec // not negative
	}, soon)
	return data > 0 || metadata > 0
}

// wanted are the sizes that a pool should have; 0: what it has will do.
func (b *Backend) wanted(st dm.PoolStatus, soon storage.PoolUse) (dataBytes, metadataBytes int64) {
	if !b.growth.on() || st.Mode == dm.PoolFailed || st.NeedsCheck {
		return 0, 0 // extending what has to be repaired first is no help
	}
	data, metadata := b.thresholds(st)
	dataBytes = b.enough(st.UsedBytes(), st.SizeBytes(), soon.DataBytes, data)
	if st.MetadataBytes() < lvm.MaxPoolMetadataBytes {
		metadataBytes = min(b.enough(st.UsedMetadataBytes(), st.MetadataBytes(), soon.MetadataBytes, metadata), lvm.MaxPoolMetadataBytes)
	}
	return dataBytes, metadataBytes
}

func (b *Backend) enough(used, total, soon int64, threshold float64) int64 {
	if float64(used) <= float64(total)*threshold/100 && used+soon <= total {
		return 0
	}
	return max(total+share(total, b.growth.ExtendPercent), int64(float64(used)*100/threshold)+1, used+soon)
}

// kept are the free extents that the growth of data leaves to the growth of metadata, and of LVM's spare for its repair: without
// metadata a pool is worse off than without data.
func (b *Backend) kept(st dm.PoolStatus, extentBytes int64) int64 {
	return 2 * lvm.RoundUp(share(st.MetadataBytes(), b.growth.ExtendPercent), extentBytes)
}

// growable is by how much the pool's data can be extended by itself.
func (b *Backend) growable(m lvm.Metadata, st dm.PoolStatus) int64 {
	if !b.growth.on() {
		return 0
	}
	return max(m.FreeBytes-b.kept(st, m.ExtentBytes), 0)
}

// Grow implements storage.Grower. What somebody else has extended meanwhile, dmeventd or an administrator, is not due any more.
func (b *Backend) Grow(ctx context.Context, c *lvm.Client, m lvm.Metadata, pool string, soon storage.PoolUse) error {
	st, err := b.kernel.PoolStatus(ctx, c.GroupName(), pool)
	if err != nil {
		return err
	}
	data, metadata := b.wanted(st, soon)
	free := m.FreeBytes
	var all error
	if metadata > 0 {
		// The spare is to be as large as the metadata, and grows out of the same extents.
		from := lvm.RoundUp(st.MetadataBytes(), m.ExtentBytes)
		to := min(lvm.RoundUp(metadata, m.ExtentBytes), from+free/2/m.ExtentBytes*m.ExtentBytes)
		all = b.extend(ctx, c, extension{pool, storage.GrowthOfMetadata, st.MetadataPercent(), from, to}, c.ExtendPoolMetadata)
		free -= 2 * max(to-from, 0)
	}
	if data > 0 {
		from := lvm.RoundUp(st.SizeBytes(), m.ExtentBytes)
		to := min(lvm.RoundUp(data, m.ExtentBytes), from+max(free-b.kept(st, m.ExtentBytes), 0)/m.ExtentBytes*m.ExtentBytes)
		all = errors.Join(all, b.extend(ctx, c, extension{pool, storage.GrowthOfData, st.DataPercent(), from, to}, c.Extend))
	}
	return all
}

// extension is of a pool's data or metadata.
type extension struct {
	pool, of string
	percent  float64 // how full it is
	from, to int64
}

func (b *Backend) extend(ctx context.Context, c *lvm.Client, x extension, extend func(context.Context, string, int64) error) error {
	logger := klog.FromContext(ctx).WithValues("volumeGroup", c.GroupName(), "pool", x.pool, "of", x.of, "percent", x.percent)
	var err error
	if x.to <= x.from {
		err = fmt.Errorf("%w: the %s of thin pool %s/%s is %.1f%% full, and the group has no extents for it", storage.ErrNoSpace, x.of, c.GroupName(), x.pool, x.percent)
	} else {
		err = extend(ctx, x.pool, x.to)
	}
	result := storage.GrowthDone
	switch {
	case err == nil:
		logger.Info("A pool has grown", "from", x.from, "to", x.to)
	case errors.Is(err, storage.ErrNoSpace), errors.Is(err, lvm.ErrNoSpace):
		result = storage.GrowthNoSpace
	default:
		result = storage.GrowthFailed // logged by whoever wanted it
		err = fmt.Errorf("the %s of thin pool %s/%s is %.1f%% full and could not be extended to %d bytes: %w", x.of, c.GroupName(), x.pool, x.percent, x.to, err)
	}
	b.grown.add(growthKey{c.GroupName(), x.pool, storage.Growth{Of: x.of, Result: result}})
	return err
}

// growths counts.
type growths struct {
	mu     sync.Mutex
	counts map[growthKey]int64
}

type growthKey struct {
	group, pool string
	storage.Growth
}

func (g *growths) add(key growthKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts[key]++
}

// of a pool: all kinds, also those that have not happened.
func (g *growths) of(group, pool string) map[storage.Growth]int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := map[storage.Growth]int64{}
	for _, of := range []string{storage.GrowthOfData, storage.GrowthOfMetadata} {
		for _, result := range []string{storage.GrowthDone, storage.GrowthNoSpace, storage.GrowthFailed} {
			out[storage.Growth{Of: of, Result: result}] = 0
		}
	}
	for key, n := range g.counts {
		if key.group == group && key.pool == pool {
			out[key.Growth] = n
		}
	}
	return out
}
