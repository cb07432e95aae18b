package thin

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// room is how large a new volume of a pool may be: no larger than each of the three (docs/adr/0016).
type room struct {
	pool          string
	poolBytes     int64 // a volume by itself
	promiseBytes  int64 // what all of the pool's volumes may have together, less what they have
	ofFreeBytes   int64 // in proportion to what is really free
	ratio         float64
	promisedBytes int64
	freeBytes     int64 // above the reserve
}

// roomFor works out the room of a placed class. Where the pool is extended by itself, it is as large as it can become.
func (b *Backend) roomFor(m lvm.Metadata, class storage.Class, st dm.PoolStatus) room {
	size := st.SizeBytes() + b.growable(m, st)
	r := room{
		pool: m.Group + "/" + class.ThinPool, poolBytes: size, ratio: class.OverprovisionRatio,
		promisedBytes: promised(m.LVs, class.ThinPool), freeBytes: max(size-st.UsedBytes()-share(size, b.dataReserve), 0),
	}
	if r.ratio == 0 {
		r.ratio = b.overprovisionRatio
	}
	if r.ratio == 0 {
		r.promiseBytes, r.ofFreeBytes = math.MaxInt64, math.MaxInt64
		return r
	}
	r.promiseBytes = max(times(r.ratio, size)-r.promisedBytes, 0)
	r.ofFreeBytes = times(r.ratio, r.freeBytes)
	return r
}

func (r room) maximumBytes() int64 { return min(r.poolBytes, r.promiseBytes, r.ofFreeBytes) }

// refuse says in numbers why a volume is too large.
func (r room) refuse(sizeBytes int64) error {
	const what = "%w: a volume of %s is more than thin pool %s takes: "
	switch {
	case sizeBytes > r.poolBytes:
		return fmt.Errorf(what+"it has %s, and could never hold it", storage.ErrNoSpace, storage.HumanBytes(sizeBytes), r.pool, storage.HumanBytes(r.poolBytes))
	case sizeBytes > r.promiseBytes:
		return fmt.Errorf(what+"its volumes have %s together, and may have %g times its %s (--overprovision-ratio, or overprovisionRatio of the class): "+
			"delete volumes, or lvextend --size +SIZE %s", storage.ErrNoSpace, storage.HumanBytes(sizeBytes), r.pool, storage.HumanBytes(r.promisedBytes), r.ratio, storage.HumanBytes(r.poolBytes), r.pool)
	case sizeBytes > r.ofFreeBytes:
		return fmt.Errorf(what+"%s are free above its reserve, and a new volume may have %g times as much (--overprovision-ratio, or overprovisionRatio of the class): "+
			"delete snapshots or volumes, or lvextend --size +SIZE %s", storage.ErrNoSpace, storage.HumanBytes(sizeBytes), r.pool, storage.HumanBytes(r.freeBytes), r.ratio, r.pool)
	}
	return nil
}

// promised is what the volumes of a pool can be filled with, whoever's they are. What is read-only, as snapshots are, takes only
// what it has already, and that is in the pool's use.
func promised(lvs []lvm.LV, pool string) int64 {
	n := int64(0)
	for _, lv := range lvs {
		if lv.Pool == pool && lv.Attr.Writable() {
			n += lv.SizeBytes
		}
	}
	return n
}

// Capacity implements storage.Backend: what is not yet used, less the reserve. A thin volume may be larger than that.
func (b *Backend) Capacity(ctx context.Context, m lvm.Metadata, class storage.Class) (storage.Capacity, error) {
	st, err := b.kernel.PoolStatus(ctx, class.VolumeGroup, class.ThinPool)
	if err != nil {
		return storage.Capacity{}, err
	}
	grows := b.growable(m, st) > 0
	refuses := func(p problem) bool { return p.refuse != nil && (!p.grows || !grows) }
	if slices.ContainsFunc(b.problems(m, class.ThinPool, st), refuses) {
		return storage.Capacity{}, nil
	}
	r := b.roomFor(m, class, st)
	return storage.Capacity{AvailableBytes: r.freeBytes, MaximumBytes: r.maximumBytes()}, nil
}

func share(n int64, percent float64) int64 { return int64(float64(n) * percent / 100) }

// times is n times ratio, or as much as there is.
func times(ratio float64, n int64) int64 {
	if product := ratio * float64(n); product < math.MaxInt64 {
		return int64(product)
	}
	return math.MaxInt64
}
