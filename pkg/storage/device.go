package storage

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// Activate makes the volume's device appear; the result has DevicePath and Init.
func (e *Engine) Activate(ctx context.Context, id string) (Volume, error) {
	return e.changeVolume(ctx, id, "Activate", func(ctx context.Context, c *lvm.Client, _ *view, lv lvm.LV, vol *Volume) error {
		if !vol.Active {
			if err := c.Activate(ctx, lv.Name); err != nil {
				return err
			}
			vol.Active = true
		}
		e.fills.claim(lv.UUID)
		return nil
	})
}

// Deactivate makes the volume's device disappear. A volume that is gone or inactive is no error; one that is
// still open is ErrInUse.
func (e *Engine) Deactivate(ctx context.Context, id string) error {
	_, err := e.changeVolume(ctx, id, "Deactivate", func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV, vol *Volume) error {
		if !vol.Active {
			return nil
		}
		if err := e.checkClosed(ctx, v.group.Name(), lv); err != nil {
			return err
		}
		if e.fills.giveUp(lv.UUID) {
			return nil // a copy reads its snapshot, and deactivates both at its end
		}
		if err := v.checkClosed(ctx, lv); err != nil {
			return err
		}
		return v.deactivate(ctx, c, lv)
	})
	return ignoreNotFound(err)
}

// Initialized records that what Volume.Init asked for is done, so that it is never done again.
func (e *Engine) Initialized(ctx context.Context, id string) error {
	_, err := e.changeVolume(ctx, id, "Initialized", func(ctx context.Context, c *lvm.Client, _ *view, lv lvm.LV, vol *Volume) error {
		if vol.Init == InitDone {
			return nil
		}
		return c.ChangeTags(ctx, lv.Name, []string{tag(tagInit, string(vol.Init))}, nil)
	})
	return err
}

// ExpandVolume grows the device (not the file system on it) to at least requiredBytes, online; a volume that
// is large enough already is left alone.
func (e *Engine) ExpandVolume(ctx context.Context, id string, requiredBytes, limitBytes int64) (Volume, error) {
	var f *fill
	out, err := e.changeVolume(ctx, id, "ExpandVolume", func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV, vol *Volume) error {
		size, ok := roundUp(requiredBytes, v.group.extentBytes)
		if !ok {
			return fmt.Errorf("%w: %d bytes cannot be a volume", ErrSizeRange, requiredBytes)
		}
		size = max(size, lv.SizeBytes)
		if limitBytes > 0 && size > limitBytes {
			return fmt.Errorf("%w: volume %s would have %d bytes, above the limit of %d (extents of %d bytes; volumes do not shrink)",
				ErrSizeRange, id, size, limitBytes, v.group.extentBytes)
		}
		if size > lv.SizeBytes {
			grown, err := e.grow(ctx, c, v, lv, size, vol)
			if fillOf(grown).kind != fillNone {
				f = e.startFill(ctx, lv.Name, false)
			}
			if err != nil {
				return err
			}
			lv = grown
			vol.SizeBytes = lv.SizeBytes
		}
		return v.recordRequest(ctx, c, lv, requiredBytes, vol)
	})
	if err == nil && f != nil {
		err = e.fills.wait(ctx, f)
	}
	return out, err
}

// grow extends a volume. What others left on new extents is no danger below a file system, which shows nothing that was not
// written to it; a block volume is not to be seen before it is overwritten.
func (e *Engine) grow(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV, size int64, vol *Volume) (lvm.LV, error) {
	b, err := e.backend(vol.Class.Type)
	if err != nil {
		return lv, err
	}
	if b.Zeroed() || vol.Access == AccessMount {
		if err := b.Extend(ctx, c, lv, size); err != nil {
			return lv, err
		}
		return lvAfter(ctx, c, lv, size)
	}
	if vol.Active {
		return lv, fmt.Errorf("%w: the extents that %s/%s would get hold what others left, and have to be overwritten before a block volume shows them: "+
			"expand it while nothing uses it", ErrInUse, v.group.Name(), lv.Name)
	}
	// The tag comes first. A crash before the growth leaves nothing to overwrite, and the job finds that out.
	fill := tag(tagFill, growFrom(lv.SizeBytes))
	if err := c.ChangeTags(ctx, lv.Name, nil, []string{fill}); err != nil {
		return lv, err
	}
	lv.Tags = append(slices.Clone(lv.Tags), fill)
	if err := b.Extend(ctx, c, lv, size); err != nil {
		return lv, err
	}
	return lvAfter(ctx, c, lv, size)
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

// recordRequest keeps what was asked for with an LV that has just got, or has got, that size. It comes after
// the growth: a crash in between leaves a record that no longer fits the size and is not believed
// (requestedBytes), until kubelet's next try.
func (v *view) recordRequest(ctx context.Context, c *lvm.Client, lv lvm.LV, requiredBytes int64, vol *Volume) error {
	recorded := parseRecord(lv.Tags).size()
	fits := func(n int64) bool {
		rounded, ok := roundUp(n, v.group.extentBytes)
		return ok && n > 0 && rounded == lv.SizeBytes
	}
	if !fits(requiredBytes) || fits(recorded) && recorded >= requiredBytes {
		vol.RequestedBytes = requestedBytes(parseRecord(lv.Tags), lv.SizeBytes, v.group.extentBytes)
		return nil
	}
	old, now := tag(tagSize, strconv.FormatInt(recorded, 10)), tag(tagSize, strconv.FormatInt(requiredBytes, 10))
	if err := c.ChangeTags(ctx, lv.Name, []string{old}, []string{now}); err != nil {
		return err
	}
	vol.RequestedBytes = requiredBytes
	return nil
}

// changeVolume runs fn on one volume: alone, in its group's turn, beyond the caller's end.
func (e *Engine) changeVolume(
	ctx context.Context, id, purpose string, fn func(context.Context, *lvm.Client, *view, lvm.LV, *Volume) error,
) (Volume, error) {
	h, err := e.localVolume(id)
	if err != nil {
		return Volume{}, err
	}
	return change(ctx, e, h.LV, purpose, func() (Volume, error) {
		var out Volume
		err := e.whenClosed(ctx, func() error {
			return e.withVolume(ctx, h, changing, purpose, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV, vol Volume) error {
				out = vol
				if err := v.ask(ctx, &out); err != nil {
					return err
				}
				return fn(ctx, c, v, lv, &out)
			})
		})
		if err != nil {
			return Volume{}, err
		}
		return out, nil
	})
}
