package storage

import (
	"context"
	"fmt"
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
		return nil
	})
}

// Deactivate makes the volume's device disappear. A volume that is gone or inactive is no error; one that is
// still open is ErrInUse.
func (e *Engine) Deactivate(ctx context.Context, id string) error {
	_, err := e.changeVolume(ctx, id, "Deactivate", func(ctx context.Context, c *lvm.Client, _ *view, lv lvm.LV, vol *Volume) error {
		if !vol.Active {
			return nil
		}
		return c.Deactivate(ctx, lv.Name)
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
	return e.changeVolume(ctx, id, "ExpandVolume", func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV, vol *Volume) error {
		size, ok := roundUp(requiredBytes, v.group.extentBytes)
		if !ok {
			return fmt.Errorf("%w: %d bytes cannot be a volume", ErrSizeRange, requiredBytes)
		}
		size = max(size, lv.SizeBytes)
		if limitBytes > 0 && size > limitBytes {
			return fmt.Errorf("%w: volume %s would have %d bytes, above the limit of %d (extents of %d bytes; volumes do not shrink)",
				ErrSizeRange, id, size, limitBytes, v.group.extentBytes)
		}
		if requiredBytes > vol.RequestedBytes {
			// The record first: see requestedBytes.
			old, now := tag(tagSize, strconv.FormatInt(parseRecord(lv.Tags).size(), 10)), tag(tagSize, strconv.FormatInt(requiredBytes, 10))
			if old != now {
				if err := c.ChangeTags(ctx, lv.Name, []string{old}, []string{now}); err != nil {
					return err
				}
			}
			vol.RequestedBytes = requiredBytes
		}
		if size == lv.SizeBytes {
			return nil
		}
		b, err := e.backend(vol.Class.Type)
		if err != nil {
			return err
		}
		if err := b.Extend(ctx, c, lv, size); err != nil {
			return err
		}
		vol.SizeBytes = size
		return nil
	})
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
		err := e.withVolume(ctx, h, purpose, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV, vol Volume) error {
			out = vol
			return fn(ctx, c, v, lv, &out)
		})
		if err != nil {
			return Volume{}, err
		}
		return out, nil
	})
}
