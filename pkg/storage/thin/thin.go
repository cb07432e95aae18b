// Package thin keeps volumes and snapshots in LVM thin pools. A snapshot shares its blocks with its origin and
// costs nothing until one of them changes; it is an equal of its origin and outlives it. lvmthin(7)
package thin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/bounded"
	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// Backend is storage.Backend for thin pools.
type Backend struct {
	kernel *kernel
	memory memory
	// reserves in percent of the pool's data and metadata, kept free for writes to what exists already
	dataReserve, metadataReserve float64
	overprovisionRatio           float64
	growth                       Growth
	grown                        growths
}

var (
	_ storage.Backend = (*Backend)(nil)
	_ storage.Sharer  = (*Backend)(nil)
	_ storage.Grower  = (*Backend)(nil)
)

// Options of a Backend.
type Options struct {
	Kernel                 dm.Kernel
	DataReservePercent     float64 // nothing is created when less is free
	MetadataReservePercent float64
	OverprovisionRatio     float64 // of classes that have none; 0: volumes may have together what they like
	Growth                 Growth
}

// The defaults of the reserves, of both programs.
const (
	DefaultDataReservePercent     = 5
	DefaultMetadataReservePercent = 10
)

// New makes a backend.
func New(o Options) *Backend {
	return &Backend{
		kernel:      &kernel{Kernel: o.Kernel, pools: map[string]*bounded.Question[dm.PoolStatus]{}},
		dataReserve: o.DataReservePercent, metadataReserve: o.MetadataReservePercent,
		overprovisionRatio: o.OverprovisionRatio, growth: o.Growth.withDefaults(), grown: growths{counts: map[growthKey]int64{}},
	}
}

func pools(lvs []lvm.LV) []lvm.LV {
	var out []lvm.LV
	for _, lv := range lvs {
		if lv.Attr.Type() == lvm.TypeThinPool {
			out = append(out, lv)
		}
	}
	return out
}

// Open activates the group's pools: an inactive one can tell nobody how full it is. One that does not answer is no reason not to
// serve the others.
func (b *Backend) Open(ctx context.Context, c *lvm.Client, lvs []lvm.LV) error {
	for _, pool := range pools(lvs) {
		_, err := b.status(ctx, c, pool.Name)
		switch {
		case isSilent(err):
			klog.FromContext(ctx).Error(err, "A pool does not answer", "volumeGroup", c.GroupName(), "pool", pool.Name)
		case err != nil:
			return err
		}
	}
	return nil
}

// status reads a pool, and activates it if need be.
func (b *Backend) status(ctx context.Context, c *lvm.Client, pool string) (dm.PoolStatus, error) {
	st, err := b.kernel.PoolStatus(ctx, c.GroupName(), pool)
	if !errors.Is(err, dm.ErrNoDevice) {
		return st, err
	}
	if err := c.Activate(ctx, pool); err != nil {
		return dm.PoolStatus{}, err
	}
	return b.kernel.PoolStatus(ctx, c.GroupName(), pool)
}

// Place implements storage.Backend: the pool that the class names, or the group's only one.
func (b *Backend) Place(m lvm.Metadata, class storage.Class) (storage.Class, error) {
	found := pools(m.LVs)
	names := make([]string, len(found))
	for i, p := range found {
		names[i] = p.Name
	}
	class.Type = storage.TypeThin
	switch {
	case class.ThinPool != "":
		for _, n := range names {
			if n == class.ThinPool {
				return class, nil
			}
		}
		return class, fmt.Errorf("%w: volume group %s has no thin pool %q (it has: %s)",
			storage.ErrInvalid, class.VolumeGroup, class.ThinPool, strings.Join(names, ", "))
	case len(names) == 1:
		class.ThinPool = names[0]
		return class, nil
	case len(names) == 0:
		return class, fmt.Errorf("%w: volume group %s has no thin pool; make one: lvcreate --type thin-pool --extents 90%%FREE --name pool %s",
			storage.ErrInvalid, class.VolumeGroup, class.VolumeGroup)
	default:
		return class, fmt.Errorf("%w: volume group %s has several thin pools (%s); name one in the class: thinPool",
			storage.ErrInvalid, class.VolumeGroup, strings.Join(names, ", "))
	}
}

// Zeroed implements storage.Backend: guard sees to it.
func (b *Backend) Zeroed() bool { return true }

// CreateVolume implements storage.Backend.
func (b *Backend) CreateVolume(ctx context.Context, c *lvm.Client, v storage.NewVolume) error {
	st, err := b.guard(ctx, c, v.Group, v.Class.ThinPool)
	if err != nil {
		return err
	}
	if err := b.roomFor(v.Group, v.Class, st).refuse(v.SizeBytes); err != nil {
		return err
	}
	err = c.CreateThinVolume(ctx, lvm.ThinVolumeOptions{Name: v.LV, Pool: v.Class.ThinPool, SizeBytes: v.SizeBytes, Tags: v.Tags})
	if err != nil {
		return err
	}
	return b.confirm(ctx, c, v.Group, v.Class.ThinPool, v.LV, st)
}

// CreateSnapshot implements storage.Backend.
func (b *Backend) CreateSnapshot(ctx context.Context, c *lvm.Client, s storage.NewSnapshot) error {
	st, err := b.guard(ctx, c, s.Group, s.Class.ThinPool)
	if err != nil {
		return err
	}
	err = c.CreateThinSnapshot(ctx, lvm.ThinSnapshotOptions{Name: s.LV, Origin: s.Origin.Name, Tags: s.Tags()})
	if err != nil {
		return err
	}
	return b.confirm(ctx, c, s.Group, s.Class.ThinPool, s.LV, st)
}

// Shares implements storage.Sharer: within one pool.
func (b *Backend) Shares(source, class storage.Class) bool {
	return source.Type == storage.TypeThin && source.VolumeGroup == class.VolumeGroup && source.ThinPool == class.ThinPool
}

// Restore implements storage.Sharer: a writable snapshot of the source. It takes no space when it is made, so that what is
// free need not be in proportion to its size.
func (b *Backend) Restore(ctx context.Context, c *lvm.Client, v storage.NewVolume, source lvm.LV) error {
	st, err := b.guard(ctx, c, v.Group, v.Class.ThinPool)
	if err != nil {
		return err
	}
	room := b.roomFor(v.Group, v.Class, st)
	room.ofFreeBytes = math.MaxInt64
	if err := room.refuse(v.SizeBytes); err != nil {
		return err
	}
	err = c.CreateThinSnapshot(ctx, lvm.ThinSnapshotOptions{Name: v.LV, Origin: source.Name, Writable: true, Tags: v.Tags})
	if err != nil {
		return err
	}
	return b.confirm(ctx, c, v.Group, v.Class.ThinPool, v.LV, st)
}

// Extend implements storage.Backend.
func (b *Backend) Extend(ctx context.Context, c *lvm.Client, lv lvm.LV, sizeBytes int64) error {
	st, err := b.status(ctx, c, lv.Pool)
	if err != nil {
		return err
	}
	room := room{pool: c.GroupName() + "/" + lv.Pool, poolBytes: st.SizeBytes(), promiseBytes: math.MaxInt64, ofFreeBytes: math.MaxInt64}
	if b.growth.on() {
		m, err := c.View(ctx)
		if err != nil {
			return err
		}
		room.poolBytes += b.growable(m, st)
	}
	if err := room.refuse(sizeBytes); err != nil {
		return err
	}
	return c.Extend(ctx, lv.Name, sizeBytes)
}

// confirm checks that the pool itself took part in what LVM reports as done: LVM commits its own metadata first
// and then the pool's, whose transaction id counts the commits.
func (b *Backend) confirm(ctx context.Context, c *lvm.Client, m lvm.Metadata, pool, lv string, before dm.PoolStatus) error {
	after, err := b.kernel.PoolStatus(ctx, c.GroupName(), pool)
	if isSilent(err) { // it is there or not: only a retry can tell, and nobody may remove it meanwhile
		return fmt.Errorf("%w: nobody knows yet whether %s is there: %s", storage.ErrPending, lv, err.Error())
	}
	if err != nil {
		return err
	}
	if after.TransactionID <= before.TransactionID {
		return fmt.Errorf("thin pool %s/%s did not take part in the creation of %s: its transaction id is still %d",
			c.GroupName(), pool, lv, after.TransactionID)
	}
	if i := slices.IndexFunc(m.LVs, func(lv lvm.LV) bool { return lv.Name == pool }); i >= 0 {
		b.memory.keep(m.LVs[i].UUID, after.TransactionID) // it will be reported, and has to be known from now on
	}
	return nil
}

// States implements storage.Backend. A volume's transaction id is the pool's when it was created, so the
// pool's is higher once it has the volume. A phantom is only what an interrupted creation leaves: LVM is exactly
// one transaction ahead of the kernel, and the volume is of that one. When they disagree in any other way (a
// repaired pool, a restored group) nothing is known, and nothing may be removed. Of a pool that does not answer it is known
// what it had when it last did.
func (b *Backend) States(ctx context.Context, group string, lvs []lvm.LV) (func(lvm.LV) storage.State, error) {
	known := map[string]transactions{}
	for _, pool := range pools(lvs) {
		t, ok, err := b.transactions(ctx, group, pool)
		if err != nil {
			return nil, err
		}
		if ok {
			known[pool.Name] = t
		}
	}
	return func(lv lvm.LV) storage.State {
		if own, ok := known[lv.Name]; ok && lv.Attr.Type() == lvm.TypeThinPool && !own.silent && own.lvm == own.kernel+1 {
			return storage.StateBehind
		}
		pool, ok := known[lv.Pool]
		switch {
		case lv.Pool == "" || !ok:
		case pool.has(lv.TransactionID):
			return storage.StateCommitted
		case pool.silent:
			return storage.StateSilent
		case lv.TransactionID == pool.kernel && pool.lvm == pool.kernel+1:
			return storage.StatePhantom
		}
		return storage.StateUnknown
	}, nil
}
