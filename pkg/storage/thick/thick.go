// Package thick keeps volumes in extents of their own, linear, striped or RAID, and their snapshots in COW volumes: device-mapper's
// snapshot-origin and snapshot. A COW snapshot shows its origin's old blocks and cannot live without it.
// lvmraid(7), docs/adr/0010-thick-volumes.md
package thick

import (
	"context"
	"errors"
	"fmt"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// Backend is storage.Backend for thick volumes.
type Backend struct{ kernel dm.Kernel }

var _ storage.Backend = (*Backend)(nil)

// New makes a backend.
func New(kernel dm.Kernel) *Backend { return &Backend{kernel} }

// Open implements storage.Backend: a group of extents needs nothing.
func (b *Backend) Open(context.Context, *lvm.Client, []lvm.LV) error { return nil }

// Place implements storage.Backend.
func (b *Backend) Place(_ lvm.Metadata, class storage.Class) (storage.Class, error) {
	if class.ThinPool != "" {
		return class, fmt.Errorf("%w: thick volumes are in no thin pool, and the class names %q", storage.ErrInvalid, class.ThinPool)
	}
	if err := options(class.Layout).Validate(); err != nil {
		return class, fmt.Errorf("%w: %w", storage.ErrInvalid, err)
	}
	class.Type = storage.TypeThick
	return class, nil
}

// Zeroed implements storage.Backend: new extents hold what others left on them.
func (b *Backend) Zeroed() bool { return false }

// CreateVolume implements storage.Backend.
func (b *Backend) CreateVolume(ctx context.Context, c *lvm.Client, v storage.NewVolume) error {
	o := options(v.Class.Layout)
	o.Name, o.SizeBytes, o.Tags = v.LV, v.SizeBytes, v.Tags
	if err := fits(v.Group, o.AllocatedBytes(v.Group.ExtentBytes), "a volume of "+storage.HumanBytes(v.SizeBytes)); err != nil {
		return err
	}
	return c.CreateThickVolume(ctx, o)
}

func options(l storage.Layout) lvm.ThickVolumeOptions {
	layout := lvm.Layout(l.RAIDType)
	if layout == "" && l.Stripes > 0 {
		layout = lvm.LayoutStriped
	}
	return lvm.ThickVolumeOptions{Layout: layout, Stripes: l.Stripes, StripeBytes: l.StripeBytes, Mirrors: l.Mirrors}
}

// CreateSnapshot implements storage.Backend. By default the COW has room for all of the origin, and cannot overflow.
func (b *Backend) CreateSnapshot(ctx context.Context, c *lvm.Client, s storage.NewSnapshot) error {
	most := lvm.COWMaxBytes(s.Origin.SizeBytes)
	bytes := s.COW.Of(s.Origin.SizeBytes)
	if bytes <= 0 || bytes > most {
		bytes = most
	}
	if err := fits(s.Group, lvm.RoundUp(bytes, s.Group.ExtentBytes), "the COW of a snapshot of "+storage.HumanBytes(s.Origin.SizeBytes)); err != nil {
		return err
	}
	return c.CreateCOWSnapshot(ctx, lvm.COWSnapshotOptions{Name: s.LV, Origin: s.Origin.Name, COWBytes: bytes, Tags: s.Tags()})
}

// Extend implements storage.Backend.
func (b *Backend) Extend(ctx context.Context, c *lvm.Client, lv lvm.LV, sizeBytes int64) error {
	err := c.Extend(ctx, lv.Name, sizeBytes)
	if errors.Is(err, lvm.ErrOriginActive) {
		return fmt.Errorf("%w: %w", storage.OriginInUse(c.GroupName(), lv.Name), err)
	}
	return err
}

// States implements storage.Backend. What LVM has committed is there; only a COW snapshot can be lost, and only
// while it is active does anybody know.
func (b *Backend) States(ctx context.Context, group string, lvs []lvm.LV) (func(lvm.LV) storage.State, error) {
	lost := map[string]bool{}
	for _, lv := range lvs {
		if lv.Attr.Type() != lvm.TypeSnapshot {
			continue
		}
		st, err := b.kernel.SnapshotStatus(ctx, group, lv.Name)
		if err != nil && !errors.Is(err, dm.ErrNoDevice) {
			return nil, err
		}
		lost[lv.Name] = err == nil && !st.Valid()
	}
	return func(lv lvm.LV) storage.State {
		switch lv.Attr.Type() {
		case lvm.TypeLinear, lvm.TypeOrigin, lvm.TypeRaid, lvm.TypeRaidNoSync:
			return storage.StateCommitted
		case lvm.TypeSnapshot:
			if lost[lv.Name] {
				return storage.StateInvalid
			}
			return storage.StateCommitted
		default:
			return storage.StateUnknown
		}
	}, nil
}

// Pools implements storage.Backend: there are none.
func (b *Backend) Pools(context.Context, lvm.Metadata) ([]storage.Pool, error) { return nil, nil }

// Capacity implements storage.Backend: the group's free extents, divided by what a byte takes of them.
func (b *Backend) Capacity(_ context.Context, m lvm.Metadata, class storage.Class) (storage.Capacity, error) {
	o := options(class.Layout)
	// The least volume of the layout says how the extents are used: images, and their metadata.
	o.SizeBytes = m.ExtentBytes * int64(max(o.Stripes, 1))
	least := o.AllocatedBytes(m.ExtentBytes)
	twice := o
	twice.SizeBytes *= 2
	step := twice.AllocatedBytes(m.ExtentBytes) - least
	if m.FreeBytes < least {
		return storage.Capacity{}, nil
	}
	room := o.SizeBytes * (1 + (m.FreeBytes-least)/step)
	return storage.Capacity{AvailableBytes: room, MaximumBytes: room}, nil
}

func fits(m lvm.Metadata, bytes int64, what string) error {
	if bytes <= m.FreeBytes {
		return nil
	}
	return fmt.Errorf("%w: %s takes %s of volume group %s, which has %s free: delete volumes or snapshots, or vgextend %s DISK",
		storage.ErrNoSpace, what, storage.HumanBytes(bytes), m.Group, storage.HumanBytes(m.FreeBytes), m.Group)
}
