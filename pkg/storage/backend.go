package storage

import (
	"context"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// Backend is what differs between thin pools and thick volumes. Its methods are called in the volume group's
// turn (lvm.Group.Do) with that turn's client, so nothing changes the group meanwhile through this driver.
// Errors wrap this package's or pkg/lvm's.
type Backend interface {
	// Open is called once for every group at the start.
	Open(ctx context.Context, c *lvm.Client, lvs []lvm.LV) error
	// Place fills in what the class leaves open, from what the group has; ErrInvalid when it cannot be.
	Place(m lvm.Metadata, class Class) (Class, error)
	// Zeroed says whether a new volume reads zeroes. Else the engine overwrites it before anybody gets it.
	Zeroed() bool
	// CreateVolume makes an empty, inactive volume.
	CreateVolume(ctx context.Context, c *lvm.Client, v NewVolume) error
	// CreateSnapshot cuts a read-only, inactive snapshot and returns once it is durable. The tags are asked
	// for at the last moment before the cut, because the time is among them.
	CreateSnapshot(ctx context.Context, c *lvm.Client, s NewSnapshot) error
	// Extend grows a volume, online where the backend can.
	Extend(ctx context.Context, c *lvm.Client, lv lvm.LV, sizeBytes int64) error
	// States looks at what the group's LVs depend on, and returns what says of each whether it is really there;
	// StateUnknown of one that is not this backend's.
	States(ctx context.Context, group string, lvs []lvm.LV) (func(lvm.LV) State, error)
	// Pools reports the state of the group's pools.
	Pools(ctx context.Context, m lvm.Metadata) ([]Pool, error)
	// Capacity says how much room a placed class has.
	Capacity(ctx context.Context, m lvm.Metadata, class Class) (Capacity, error)
}

// Sharer is a Backend in which a volume can share the blocks of what it is made from, so that nothing is copied.
type Sharer interface {
	// Shares says whether a volume of the (placed) class can share the blocks of such a source.
	Shares(source, class Class) bool
	// Restore makes an inactive, writable volume with the content of the source, a volume or a snapshot.
	Restore(ctx context.Context, c *lvm.Client, v NewVolume, source lvm.LV) error
}

// Mender is a Backend whose pools count in the kernel what LVM counts, too, so that the two can differ after a crash.
type Mender interface {
	// Mend makes them agree on what is done, wherever that needs no LVM command, and says what it found. Nobody runs an LVM
	// command on the group meanwhile, nor may this.
	Mend(ctx context.Context, group string, lvs []lvm.LV) ([]Recovery, error)
}

// Grower is a Backend whose pools are extended before they are full.
type Grower interface {
	// Due says whether a pool has to be extended now, if so much more will soon be written to it.
	Due(p Pool, soon PoolUse) bool
	// Grow looks at the pool again, and extends it if it is still due. ErrNoSpace: the group has nothing left for it.
	Grow(ctx context.Context, c *lvm.Client, m lvm.Metadata, pool string, soon PoolUse) error
}

// PoolUse is an amount of a pool's data and metadata.
type PoolUse struct{ DataBytes, MetadataBytes int64 }

// NewVolume is what a backend needs to know to make a volume.
type NewVolume struct {
	LV        string
	Class     Class // placed
	SizeBytes int64 // a multiple of the extent size
	Tags      []string
	Group     lvm.Metadata // as it is before
}

// NewSnapshot is what a backend needs to know to cut a snapshot.
type NewSnapshot struct {
	LV     string
	Origin lvm.LV
	Class  Class
	COW    COWSize
	Tags   func() []string
	Group  lvm.Metadata
}

// State is whether an LV is really there.
type State int

// The states of an LV.
const (
	// StateUnknown: nobody can tell now; its pool is not active, or LVM and the kernel disagree about the pool.
	StateUnknown State = iota
	// StateCommitted: LVM and the kernel agree that it is there.
	StateCommitted
	// StateSilent: nobody can tell before its pool answers again.
	StateSilent
	// StatePhantom: LVM was killed after its own commit and before the kernel's. The LV was reported to nobody,
	// and the next change of the pool would make it, with that later moment's content.
	StatePhantom
	// StateBehind is a thin pool's: LVM is one transaction ahead of the kernel. Something was interrupted, or is being done.
	StateBehind
	// StateInvalid: a COW snapshot that overflowed, or whose disk failed. Its content is lost.
	StateInvalid
)
