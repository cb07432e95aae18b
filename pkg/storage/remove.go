package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// remove deletes an LV of this driver. What is not there, or not the driver's, is left alone and no error.
func (e *Engine) remove(ctx context.Context, name, purpose string, lvName func(string) string) error {
	_, err := change(ctx, e, name, purpose, func() (struct{}, error) {
		if err := e.fills.stop(ctx, name); err != nil {
			return struct{}{}, err
		}
		unfinished, _ := e.fills.kept(name)
		err := e.whenClosed(ctx, func() error {
			return e.withLV(ctx, name, changing, purpose+" "+name, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
				if _, ok := v.owned(lv, lvName); !ok {
					return nil
				}
				if err := e.checkClosed(ctx, v.group.Name(), lv); err != nil {
					return err
				}
				if _, isVolume := v.owned(lv, VolumeLV); !isVolume && e.fills.isRead(lv.UUID) {
					return fmt.Errorf("%w: %s/%s is being copied into a new volume", ErrInUse, v.group.Name(), lv.Name)
				}
				unfinished = target{lv: lv, record: v.records.of(lv), filling: v.fillOf(lv)}
				return v.discard(ctx, c, lv)
			})
		})
		if ignoreNotFound(err) == nil && unfinished.kind == fillCopy && unfinished.isClone() {
			<-e.fills.start(ctx, name, false, func(ctx context.Context, _ *fill) error {
				e.dropClone(ctx, unfinished)
				return nil
			}).done
		}
		return struct{}{}, err
	})
	return ignoreNotFound(err)
}

func ignoreNotFound(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// checkClosed says whether somebody has the LV's device open. LVM would find out, too, but only after retrying
// for six seconds (activation/retry_deactivation), in which the group is closed to everybody else.
func (e *Engine) checkClosed(ctx context.Context, group string, lv lvm.LV) error {
	info, err := e.kernel.Info(ctx, group, lv.Name)
	if errors.Is(err, dm.ErrNoDevice) {
		return nil
	}
	if err == nil && info.OpenCount > 0 {
		err = fmt.Errorf("%w: /dev/%s/%s is open or mounted (%d times); see `lsblk` and `fuser -vm` on the node",
			ErrInUse, group, lv.Name, info.OpenCount)
	}
	return err
}

// whenClosed tries fn for about a second while it says ErrInUse: after an unmount udev opens the device for a
// moment to look at it.
func (e *Engine) whenClosed(ctx context.Context, fn func() error) error {
	for pause := 50 * time.Millisecond; ; pause *= 2 {
		err := fn()
		if !errors.Is(err, ErrInUse) || pause > 400*time.Millisecond {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}
