package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// Pools reports the state of every thin pool in the driver's groups.
func (e *Engine) Pools(ctx context.Context) ([]Pool, error) {
	return read(ctx, func() ([]Pool, error) {
		var out []Pool
		for _, g := range e.groups {
			err := e.inTurn(ctx, g, looking, "Pools", func(ctx context.Context, _ *lvm.Client, v *view) error {
				pools, err := v.pools(ctx)
				out = append(out, pools...)
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		return out, nil
	})
}

// Capacity says how much room there is for new volumes of a class. A group or pool that this node does not
// have is no room, not an error: the scheduler asks every node for every class.
func (e *Engine) Capacity(ctx context.Context, class Class) (Capacity, error) {
	g, err := e.groupFor(class)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("No capacity", "class", class, "reason", err)
		return Capacity{}, nil
	}
	b, err := e.backend(class.Type)
	if err != nil {
		return Capacity{}, err
	}
	return read(ctx, func() (Capacity, error) {
		var out Capacity
		err := e.inTurn(ctx, g, looking, "Capacity", func(ctx context.Context, _ *lvm.Client, v *view) error {
			extent := v.metadata.ExtentBytes
			out.MinimumBytes = extent
			class.VolumeGroup = g.Name()
			placed, err := b.Place(v.metadata, class)
			if err == nil {
				err = v.checkRoom()
			}
			if errors.Is(err, ErrInvalid) || errors.Is(err, ErrNoSpace) {
				klog.FromContext(ctx).V(2).Info("No capacity", "class", class, "reason", err)
				return nil
			}
			if err != nil {
				return err
			}
			room, err := b.Capacity(ctx, v.metadata, placed)
			out.AvailableBytes = room.AvailableBytes / extent * extent
			out.MaximumBytes = room.MaximumBytes / extent * extent
			return err
		})
		if err != nil {
			return Capacity{}, err
		}
		return out, nil
	})
}

// checkPoolTakes refuses what a pool cannot do now. One that is read-only cannot remove anything, which LVM would write down and then
// find out ("Cannot send messages to thin pool with read only metadata"); with one that does not answer LVM would hang.
func (v *view) checkPoolTakes(ctx context.Context, lv lvm.LV) error {
	return v.checkPool(ctx, lv, PoolReadOnly, PoolNotAnswering)
}

// checkPool refuses what is to be done with an LV whose pool is in one of these conditions.
func (v *view) checkPool(ctx context.Context, lv lvm.LV, reasons ...string) error {
	if lv.Pool == "" {
		return nil
	}
	pools, err := v.pools(ctx)
	if err != nil {
		return err
	}
	for _, p := range pools {
		if p.Name != lv.Pool {
			continue
		}
		for _, c := range p.Conditions {
			switch {
			case !slices.Contains(reasons, c.Reason):
			case c.Reason == PoolReadOnly:
				return fmt.Errorf("%w: nothing can be removed from it now: %s", ErrDamaged, c.Message)
			case c.Reason == PoolNotAnswering:
				return fmt.Errorf("%w: %s", ErrBusy, c.Message)
			}
		}
	}
	return nil
}

// pools are those of all backends.
func (v *view) pools(ctx context.Context) ([]Pool, error) {
	var out []Pool
	for _, b := range v.e.backends {
		pools, err := b.Pools(ctx, v.metadata)
		if err != nil {
			return nil, err
		}
		out = append(out, pools...)
	}
	return out, nil
}

// Ready says whether the engine can serve: nil, or what is wrong and what to do about it. It asks nobody, so
// that it answers when LVM does not.
func (e *Engine) Ready(context.Context) error {
	for _, g := range e.groups {
		if busy, ok := g.Busy(); ok && e.now().Sub(busy.Since) > e.stuck {
			return fmt.Errorf("%w: volume group %s is stuck: %s; see `ps`, `dmsetup info` and the kernel log for what it waits for",
				ErrDamaged, g.Name(), busy)
		}
	}
	return nil
}
