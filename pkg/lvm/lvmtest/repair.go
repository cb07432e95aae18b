package lvmtest

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
)

// Devices implements dm.Kernel: the active volumes.
func (l *LVM) Devices(ctx context.Context, group string) ([]dm.Device, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.groups[group]
	if g == nil {
		return nil, nil
	}
	var out []dm.Device
	for _, v := range g.sorted() {
		if v.active {
			out = append(out, dm.Device{Name: dm.DeviceName(group, v.name), UUID: g.deviceUUID(v), Info: v.info()})
		}
	}
	return out, nil
}

func (g *group) deviceUUID(v *volume) string {
	return "LVM-" + strings.ReplaceAll(g.uuid+v.uuid, "-", "")
}

// Resume implements dm.Kernel.
func (l *LVM) Resume(ctx context.Context, device string) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for name, g := range l.groups {
		for _, v := range g.volumes {
			if v.active && dm.DeviceName(name, v.name) == device {
				v.suspended = false
				return nil
			}
		}
	}
	return fmt.Errorf("%w: %s", dm.ErrNoDevice, device)
}

// ClearTable implements dm.Kernel: there never is one.
func (l *LVM) ClearTable(ctx context.Context, _ string) error { return context.Cause(ctx) }

// HasThin implements dm.Kernel.
func (l *LVM) HasThin(ctx context.Context, group, pool string, id uint32) (bool, error) {
	g, _, err := l.activePool(ctx, group, pool)
	if err != nil {
		return false, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(g.thinVolumes(pool), func(v *volume) bool { return v.thinID == id && !v.pending }), nil
}

// DeleteThin implements dm.Kernel. There is never one that LVM does not know.
func (l *LVM) DeleteThin(ctx context.Context, group, pool string, _ uint32) error {
	_, _, err := l.activePool(ctx, group, pool)
	return err
}

// SetTransactionID implements dm.Kernel.
func (l *LVM) SetTransactionID(ctx context.Context, group, pool string, from, to uint64) error {
	_, p, err := l.activePool(ctx, group, pool)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.pool.kernelTxID != from {
		return fmt.Errorf("message \"set_transaction_id %d %d\" to %s: invalid argument", from, to, dm.DeviceName(group, pool))
	}
	p.pool.kernelTxID, p.pool.jammed = to, false
	return nil
}

func (l *LVM) activePool(ctx context.Context, vg, pool string) (*group, *volume, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g, v := l.lookup(vg, pool)
	if v == nil || v.pool == nil || !g.poolActive(v) {
		return nil, nil, fmt.Errorf("%w: thin pool %s/%s is not active", dm.ErrNoDevice, vg, pool)
	}
	return g, v, nil
}
