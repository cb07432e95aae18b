package storage

import (
	"context"
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

// recordRequest keeps what was asked for with an LV that has just got, or has got, that size. It comes after
// the growth: a crash in between leaves a record that no longer fits the size and is not believed
// (requestedBytes), until kubelet's next try.
func (v *view) recordRequest(ctx context.Context, c *lvm.Client, lv lvm.LV, requiredBytes int64, vol *Volume) error {
	recorded := v.records.of(lv).size()
	fits := func(n int64) bool {
		rounded, ok := roundUp(n, v.records.of(lv).unit(v.metadata.ExtentBytes))
		return ok && n > 0 && rounded == lv.SizeBytes
	}
	if !fits(requiredBytes) || fits(recorded) && recorded >= requiredBytes {
		vol.RequestedBytes = requestedBytes(v.records.of(lv), lv.SizeBytes, v.metadata.ExtentBytes)
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
				if slices.ContainsFunc(out.Conditions, func(c Condition) bool { return c.Reason == suspendedReason }) {
					return suspended(v.group.Name(), lv.Name)
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
