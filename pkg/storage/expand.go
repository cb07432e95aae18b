package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// ExpandVolume grows the device (not the file system on it) to at least requiredBytes, online; a volume that
// is large enough already is left alone. Where the new extents have to be overwritten first, it is as with CreateVolume.
func (e *Engine) ExpandVolume(ctx context.Context, id string, requiredBytes, limitBytes int64) (Volume, error) {
	for {
		var f *fill
		out, err := e.changeVolume(ctx, id, "ExpandVolume", func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV, vol *Volume) error {
			unit := v.records.of(lv).unit(v.metadata.ExtentBytes)
			size, ok := roundUp(requiredBytes, unit)
			if !ok {
				return fmt.Errorf("%w: %d bytes cannot be a volume", ErrSizeRange, requiredBytes)
			}
			size = max(size, lv.SizeBytes)
			if limitBytes > 0 && size > limitBytes {
				return fmt.Errorf("%w: volume %s would have %d bytes, above the limit of %d (extents of %d bytes; volumes do not shrink)",
					ErrSizeRange, id, size, limitBytes, unit)
			}
			if size > lv.SizeBytes {
				var err error
				if f, err = e.grow(ctx, c, v, &lv, size, vol); err != nil || f != nil {
					return err
				}
				vol.SizeBytes = lv.SizeBytes
			}
			return v.recordRequest(ctx, c, lv, requiredBytes, vol)
		})
		if err != nil || f == nil {
			return out, err
		}
		if err := e.fills.wait(ctx, f); err != nil {
			return Volume{}, err
		}
	}
}

// grow extends a volume, or starts what has to come before. A file system does not show what others left on new extents; that they
// are there is written down before, so that no copy shows them as a block device. Those of a block volume are overwritten.
func (e *Engine) grow(ctx context.Context, c *lvm.Client, v *view, lv *lvm.LV, size int64, vol *Volume) (*fill, error) {
	b, err := e.backend(vol.Class.Type)
	if err != nil {
		return nil, err
	}
	if b.Zeroed() || vol.Access == AccessMount {
		if !b.Zeroed() && v.records.of(*lv)[tagStale] == "" {
			if err := c.ChangeTags(ctx, lv.Name, nil, []string{tag(tagStale, strconv.FormatInt(lv.SizeBytes, 10))}); err != nil {
				return nil, err
			}
		}
		if err := b.Extend(ctx, c, *lv, size); err != nil {
			return nil, err
		}
		*lv, err = lvAfter(ctx, c, *lv, size)
		return nil, err
	}
	if vol.Active {
		return e.growOnline(ctx, c, v, b, *lv, size, vol)
	}
	// The tag comes first. A crash before the growth leaves nothing to overwrite, and the job finds that out.
	if err := v.changeFill(ctx, c, *lv, filling{kind: fillGrow, offset: lv.SizeBytes}, nil, nil); err != nil {
		return nil, err
	}
	f := e.startFill(ctx, lv.Name, false)
	return f, b.Extend(ctx, c, *lv, size)
}

// lvAfter is an LV that was extended: of stripes, LVM may have added more.
func lvAfter(ctx context.Context, c *lvm.Client, lv lvm.LV, size int64) (lvm.LV, error) {
	if lv.Pool != "" {
		lv.SizeBytes = size
		return lv, nil
	}
	m, err := c.View(ctx)
	if err != nil {
		return lv, err
	}
	if i := slices.IndexFunc(m.LVs, func(l lvm.LV) bool { return l.Name == lv.Name }); i >= 0 {
		return m.LVs[i], nil
	}
	return lv, fmt.Errorf("%w: %s has vanished", ErrNotFound, lv.Name)
}

// growOnline reserves the extents as a volume of their own, has that overwritten beside all else, and only then gives the
// very same extents to the volume. After a crash the reserve is swept, and the next call begins again.
func (e *Engine) growOnline(ctx context.Context, c *lvm.Client, v *view, b Backend, lv lvm.LV, size int64, vol *Volume) (*fill, error) {
	reserve := reserveLV(vol.Name)
	if f := e.fills.find(reserve); f != nil {
		return f, nil
	}
	if _, ok := v.find(reserve); ok {
		return nil, fmt.Errorf("%w: %s/%s, which an interrupted growth left, cannot be removed now", ErrBusy, v.group.Name(), reserve)
	}
	if len(v.cowSnapshots(lv)) > 0 {
		// LVM refuses it, too, unless the volume is deactivated meanwhile: then it would get extents that nobody overwrites.
		return nil, OriginInUse(v.group.Name(), lv.Name)
	}
	if _, err := c.Extents(ctx, lv.Name); errors.Is(err, lvm.ErrNotLinear) {
		return nil, fmt.Errorf("%w: the extents that %s/%s would get have to be overwritten before a block volume shows them, "+
			"and with stripes or RAID that is possible only while nothing uses it: expand it then: %w", ErrInUse, v.group.Name(), lv.Name, err)
	} else if err != nil {
		return nil, err
	}
	r := record{tagDriver: e.driver, tagName: vol.Name, tagSource: lv.Name, tagCreated: strconv.FormatInt(e.now().UnixNano(), 10)}
	nv := NewVolume{LV: reserve, Class: Class{Type: vol.Class.Type}, SizeBytes: size - lv.SizeBytes, Tags: r.tags(), Group: v.metadata}
	if err := b.CreateVolume(ctx, c, nv); err != nil {
		return nil, e.settle(ctx, v.group, c, reserve, reserveLV, err)
	}
	news := &fillNews{e: e}
	news.of(v, lv, fillGrow)
	return e.fills.start(ctx, reserve, true, func(ctx context.Context, f *fill) error {
		if err := e.fillReserve(ctx, f, lv, size, news); err != nil {
			news.failed(ctx, "Extents for a volume were not prepared", lv.Name, err, "has not grown; it is tried again with the next call")
			return fmt.Errorf("%w: preparing extents for %s ended early and begins again with the next call: %s", ErrPending, lv.Name, err.Error())
		}
		news.finished(ctx, lv.Name)
		return nil
	}), nil
}

// fillReserve overwrites the reserve, and gives its extents to the volume if that is as it was.
func (e *Engine) fillReserve(ctx context.Context, f *fill, lv lvm.LV, size int64, news *fillNews) error {
	if err := e.fills.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer e.fills.slots.Release(1)
	f.working.Store(true)
	defer f.working.Store(false)
	device := ""
	err := e.withLV(ctx, f.lv, changing, "reserve "+f.lv, func(ctx context.Context, c *lvm.Client, v *view, reserve lvm.LV) error {
		device = v.devicePath(reserve)
		return c.Activate(ctx, reserve.Name)
	})
	if err == nil {
		_, err = e.fills.o.Filler.Zero(ctx, device, e.fillOptions(ctx, f, target{filling: filling{kind: fillGrow}}, news))
		e.stats.fills.ended(fillGrow, err)
	}
	if err != nil {
		return err
	}
	return e.whenClosed(ctx, func() error {
		return e.withLV(ctx, f.lv, changing, "extend "+lv.Name, func(ctx context.Context, c *lvm.Client, v *view, reserve lvm.LV) error {
			now, ok := v.find(lv.Name)
			if !ok || now.UUID != lv.UUID || now.SizeBytes != lv.SizeBytes {
				return fmt.Errorf("%w: %s/%s has changed meanwhile", ErrPending, v.group.Name(), lv.Name)
			}
			if err := v.checkClosed(ctx, reserve); err != nil {
				return err
			}
			extents, err := c.Extents(ctx, reserve.Name)
			if err == nil {
				err = c.RemoveKeepingBlocks(ctx, reserve.Name)
			}
			if err == nil {
				err = c.ExtendOnto(ctx, lv.Name, size, extents)
			}
			return err
		})
	})
}

// OriginInUse is the answer to who expands an active volume that has COW snapshots.
func OriginInUse(group, lv string) error {
	return fmt.Errorf("%w: %s/%s has COW snapshots, and LVM resizes such a volume only while it is inactive: delete its snapshots and restart the "+
		"pod that uses it (kubelet does not ask again while it runs), or, without Kubernetes, expand it while nothing uses it", ErrInUse, group, lv)
}
