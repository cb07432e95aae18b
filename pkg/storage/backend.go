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
	Place(lvs []lvm.LV, class Class) (Class, error)
	// CreateVolume makes an empty, inactive volume.
	CreateVolume(ctx context.Context, c *lvm.Client, v NewVolume) error
	// CreateSnapshot cuts a read-only, inactive snapshot and returns once it is durable. The tags are asked
	// for at the last moment before the cut, because the time is among them.
	CreateSnapshot(ctx context.Context, c *lvm.Client, s NewSnapshot) error
	// Restore makes an inactive, writable volume with the content of the source, a volume or a snapshot.
	Restore(ctx context.Context, c *lvm.Client, v NewVolume, source lvm.LV) error
	// Extend grows a volume, online.
	Extend(ctx context.Context, c *lvm.Client, lv lvm.LV, sizeBytes int64) error
	// States says of each of its LVs, by name, whether it is really there.
	States(ctx context.Context, group string, lvs []lvm.LV) (map[string]State, error)
	// Pools reports the state of the pools among the group's LVs.
	Pools(ctx context.Context, group string, lvs []lvm.LV) ([]Pool, error)
	// Capacity says how much room a placed class has.
	Capacity(ctx context.Context, class Class) (Capacity, error)
}

// NewVolume is what a backend needs to know to make a volume.
type NewVolume struct {
	LV        string
	Class     Class // placed
	SizeBytes int64 // a multiple of the extent size
	Tags      []string
}

// NewSnapshot is what a backend needs to know to cut a snapshot.
type NewSnapshot struct {
	LV     string
	Origin lvm.LV
	Class  Class
	Tags   func() []string
}

// State is whether an LV is really there.
type State int

// The states of an LV.
const (
	// StateUnknown: nobody can tell now; its pool is not active, or LVM and the kernel disagree about the pool.
	StateUnknown State = iota
	// StateCommitted: LVM and the kernel agree that it is there.
	StateCommitted
	// StatePhantom: LVM was killed after its own commit and before the kernel's. The LV was reported to nobody,
	// and the next change of the pool would make it, with that later moment's content.
	StatePhantom
)
