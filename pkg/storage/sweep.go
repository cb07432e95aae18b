package storage

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// sweep removes what a crash left of this driver's LVs, before anything else changes the group; swept says that there was
// something. What a fill works on is no leftover.
func (v *view) sweep(ctx context.Context, c *lvm.Client) (swept bool, err error) {
	for _, lv := range v.lvs {
		kind, why := v.leftover(lv)
		if why == "" {
			continue
		}
		err := v.checkClosed(ctx, lv)
		if err == nil {
			err = v.discard(ctx, c, lv)
		}
		switch {
		case err == nil, errors.Is(err, lvm.ErrNotFound): // somebody else was faster
		case kind != RecoveredPhantom && wasRefused(err):
			klog.FromContext(ctx).Error(err, "A leftover cannot be removed now", "volumeGroup", v.group.Name(), "lv", lv.Name, "what", why)
			continue
		default:
			return swept, fmt.Errorf("%s/%s (%s) cannot be removed: %w", v.group.Name(), lv.Name, why, err)
		}
		v.recovered(ctx, Recovery{kind, lv.Name, why, "removed it"})
		swept = true
	}
	return swept, nil
}

// wasRefused: LVM or the driver will not remove an LV now. But for a phantom, which the next change would make, it is in nobody's way.
func wasRefused(err error) bool {
	var refused *lvm.CommandError
	return errors.As(err, &refused) || errors.Is(err, ErrBusy) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrInUse)
}

// suspended: a thick volume is, whose COW snapshot was being made. Commands that touch its devices would hang.
func (v *view) suspended(ctx context.Context) (bool, error) {
	for _, lv := range v.lvs {
		if lv.Pool != "" || isCOW(lv) {
			continue
		}
		if _, ok := v.owned(lv, VolumeLV); !ok && !v.aside(lv) {
			continue
		}
		info, err := v.e.kernel.Info(ctx, v.group.Name(), lv.Name)
		if err != nil && !errors.Is(err, dm.ErrNoDevice) || err == nil && info.Suspended {
			return err == nil, err
		}
	}
	return false, nil
}

// leftover says why an LV is one; empty when it is not.
func (v *view) leftover(lv lvm.LV) (kind RecoveryKind, why string) {
	switch {
	case v.halfMade(lv):
		return RecoveredHalfMade, "LVM had made its COW and not yet a snapshot of it"
	case v.state(lv) == StatePhantom && v.ours(lv):
		return RecoveredPhantom, "LVM had it and its pool did not: the next change would have made it, too late"
	case v.aside(lv) && len(v.cowSnapshots(lv)) == 0:
		return RecoveredLeftover, "a deleted volume whose last snapshot is gone"
	case v.isClone(lv) && !v.cloneNeeded(lv):
		return RecoveredLeftover, "a snapshot for a clone that is finished or gone"
	case v.isReserve(lv) && v.e.fills.find(lv.Name) == nil:
		return RecoveredLeftover, "extents for a volume that has not got them"
	default:
		return "", ""
	}
}

// halfMade: LVM makes a COW snapshot in two commits, and between them it is a plain volume with the snapshot's name and tags.
// What an LV is, LVM says, and not the tags: this one shows nothing of its origin. (A finished snapshot that was split from its
// origin is plain, too, but read-only: see splitOff.)
func (v *view) halfMade(lv lvm.LV) bool {
	if lv.Pool != "" || lv.Attr.Type() != lvm.TypeLinear || !lv.Attr.Writable() {
		return false // without a look at its tags: this is asked of every LV at every look
	}
	_, snapshot := v.owned(lv, SnapshotLV)
	return snapshot || v.isClone(lv)
}

// splitOff: the COW of a finished snapshot without its origin, as an lvremove leaves it that died between its two commits, or
// somebody's lvconvert --splitsnapshot. What can be read of it is the COW's own format and no volume's data. Nobody can use it,
// and it is kept: it may be joined again, and is deleted with the snapshot.
func (v *view) splitOff(lv lvm.LV) bool {
	if lv.Pool != "" || lv.Attr.Type() != lvm.TypeLinear || lv.Attr.Writable() {
		return false
	}
	_, snapshot := v.owned(lv, SnapshotLV)
	return snapshot
}

func (v *view) ours(lv lvm.LV) bool {
	_, volume := v.owned(lv, VolumeLV)
	_, snapshot := v.owned(lv, SnapshotLV)
	return volume || snapshot || v.isClone(lv)
}

func (v *view) isReserve(lv lvm.LV) bool {
	if !strings.HasPrefix(lv.Name, reservePrefix) {
		return false
	}
	_, ok := v.owned(lv, reserveLV)
	return ok
}

func (v *view) isClone(lv lvm.LV) bool {
	if !strings.HasPrefix(lv.Name, clonePrefix) {
		return false
	}
	_, ok := v.owned(lv, cloneLV)
	return ok
}

// cloneNeeded: the volume that is copied from this snapshot is not finished. It may be in another group, and what is there is
// remembered from the last job, or from the start on.
func (v *view) cloneNeeded(s lvm.LV) bool {
	r := v.records.of(s)
	name := VolumeLV(r[tagName])
	if v.e.fills.find(name) != nil {
		return true
	}
	lv, ok := v.find(name)
	if !ok {
		_, kept := v.e.fills.kept(name)
		return len(v.e.groups) > 1 && (kept || len(v.e.unopened()) > 0)
	}
	t := target{lv: lv, record: v.records.of(lv), filling: v.fillOf(lv)}
	return t.kind == fillCopy && t.wasCut(r)
}

// aside: a deleted volume that waits for its last COW snapshot to go.
func (v *view) aside(lv lvm.LV) bool {
	return strings.HasPrefix(lv.Name, asidePrefix) && lv.Name == asideLV(lv.UUID) && v.records.of(lv)[tagDriver] == v.e.driver
}

func isCOW(lv lvm.LV) bool {
	t := lv.Attr.Type()
	return t == lvm.TypeSnapshot || t == lvm.TypeMergingSnap
}

// cowSnapshots are all COW snapshots of a volume, whoever made them.
func (v *view) cowSnapshots(origin lvm.LV) []lvm.LV {
	var out []lvm.LV
	for _, lv := range v.lvs {
		if isCOW(lv) && lv.Origin == origin.Name {
			out = append(out, lv)
		}
	}
	return out
}

// discard removes an LV of this driver for good, or as far as is possible: the origin of COW snapshots, which live on
// its blocks, is set aside under another name, and goes with the last of them. After a crash between two of its
// steps the next call, or the sweep, takes the rest.
func (v *view) discard(ctx context.Context, c *lvm.Client, lv lvm.LV) error {
	switch {
	case lv.Pool != "":
		if err := v.checkPoolTakes(ctx, lv); err != nil {
			return err
		}
		return c.Remove(ctx, lv.Name)
	case v.halfMade(lv), v.splitOff(lv):
		// Its hidden device may have been left behind. LVM takes that over with the activation, and else it would be
		// in the way of every snapshot of this name (docs/adr/0010, Crashes).
		if err := c.Activate(ctx, lv.Name); err != nil {
			return err
		}
		return c.Remove(ctx, lv.Name)
	case isCOW(lv):
		if err := c.Remove(ctx, lv.Name); err != nil {
			return err
		}
		if origin, ok := v.find(lv.Origin); ok && v.aside(origin) && len(v.cowSnapshots(origin)) == 1 {
			return c.RemoveThick(ctx, origin.Name)
		}
		return nil
	case len(v.cowSnapshots(lv)) > 0:
		return v.setAside(ctx, c, lv)
	default:
		err := c.RemoveThick(ctx, lv.Name)
		if errors.Is(err, lvm.ErrHasSnapshots) { // somebody else's, since we looked
			return v.setAside(ctx, c, lv)
		}
		return err
	}
}

// setAside hides a volume whose snapshots are still needed. Its name is free for another one at once.
func (v *view) setAside(ctx context.Context, c *lvm.Client, lv lvm.LV) error {
	if v.aside(lv) {
		return nil
	}
	if err := v.deactivateIfIdle(ctx, c, lv); err != nil {
		return err
	}
	return c.Rename(ctx, lv.Name, asideLV(lv.UUID))
}

// deactivateIfIdle deactivates a volume unless it or one of its COW snapshots is open, or about to be.
func (v *view) deactivateIfIdle(ctx context.Context, c *lvm.Client, lv lvm.LV) error {
	if v.e.fills.giveUp(lv.UUID) {
		return nil // the last reader does it
	}
	switch err := v.checkClosed(ctx, lv); {
	case errors.Is(err, ErrInUse):
		return nil
	case err != nil:
		return err
	}
	if _, err := v.e.kernel.Info(ctx, v.group.Name(), lv.Name); errors.Is(err, dm.ErrNoDevice) {
		return nil
	} else if err != nil {
		return err
	}
	return v.deactivate(ctx, c, lv)
}

// deactivate writes down first what nobody can tell afterwards.
func (v *view) deactivate(ctx context.Context, c *lvm.Client, lv lvm.LV) error {
	for _, s := range v.cowSnapshots(lv) {
		if v.state(s) != StateInvalid {
			continue
		}
		if err := v.recordLost(ctx, c, s); err != nil {
			return err
		}
	}
	return c.Deactivate(ctx, lv.Name)
}

// checkClosed says whether somebody has the LV or one of its COW snapshots open.
func (v *view) checkClosed(ctx context.Context, lv lvm.LV) error {
	for _, lv := range append(v.cowSnapshots(lv), lv) {
		if err := v.e.checkClosed(ctx, v.group.Name(), lv); err != nil {
			return err
		}
	}
	return nil
}
