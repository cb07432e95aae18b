package storage

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// openedSource is what a job reads: a snapshot, active.
type openedSource struct {
	group  string
	lv     lvm.LV
	holder lvm.LV // what was activated: the LV itself, or the origin of a COW snapshot
	device string
	init   Init
	given  bool // it is not counted as read, or not any more
	idle   bool // and nobody else needs it active
}

// openSource activates the snapshot to copy from. Of a volume one is cut first, or found, after a crash. What it returns is to be
// closed, whatever the error.
func (e *Engine) openSource(ctx context.Context, f *fill, t *target) (*openedSource, error) {
	name := t.record[tagSource]
	s := &openedSource{given: true}
	if t.isClone() {
		if err := e.cutForClone(ctx, f, t, name); err != nil {
			return s, err
		}
		name = cloneLV(t.record[tagName])
	}
	err := e.withLV(ctx, name, changing, "read "+name, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
		if !v.ours(lv) {
			return fmt.Errorf("%w: the source %s/%s is not of this driver", ErrNotFound, v.group.Name(), lv.Name)
		}
		if !t.isClone() && !t.isOf(lv) {
			return fmt.Errorf("%w: the source %s/%s was deleted before it was copied", ErrNotFound, v.group.Name(), lv.Name)
		}
		if v.halfMade(lv) || v.splitOff(lv) {
			return v.notKnown(ctx, lv) // what is on it is nobody's data
		}
		s.group, s.lv, s.holder = v.group.Name(), lv, lv
		s.device, s.init = v.devicePath(lv), Init(v.records.of(lv)[tagInit])
		if isCOW(lv) {
			// LVM activates it with its origin only, and would ask first (docs/adr/0010, Activation).
			origin, ok := v.find(lv.Origin)
			if !ok {
				return fmt.Errorf("%w: COW snapshot %s/%s has no origin", ErrDamaged, s.group, lv.Name)
			}
			s.holder = origin
		}
		_, err := e.kernel.Info(ctx, s.group, lv.Name)
		inactive := errors.Is(err, dm.ErrNoDevice)
		if inactive {
			err = c.Activate(ctx, s.holder.Name)
		}
		if err != nil {
			return err
		}
		e.fills.read(s.holder.UUID, inactive || !isCOW(lv)) // nobody but a job activates a thin snapshot
		if isCOW(lv) {
			e.fills.read(lv.UUID, false)
		}
		s.given = false
		return nil
	})
	if err == nil { // a turn may end badly after it has gone well
		err = e.checkSource(ctx, s)
	}
	return s, err
}

// isClone: it is copied from a volume, by a snapshot that is cut for this copy, and removed when it is complete.
func (t *target) isClone() bool { return strings.HasPrefix(t.record[tagSource], volumePrefix) }

// isOf says whether it was to be made from this LV, and not from one that had its name before. What was begun by an older driver
// does not tell.
func (t *target) isOf(source lvm.LV) bool {
	from := t.record[tagFrom]
	return from == "" || from == source.UUID
}

// wasCut: a clone's snapshot with that record was cut for it, and not for a volume that had its name before.
func (t *target) wasCut(r record) bool {
	return r[tagFor] == t.lv.UUID || r[tagFor] == "" && t.record[tagFrom] == "" // by an older driver
}

// cutForClone cuts the snapshot of a volume that its copy is made from, unless there is one already.
func (e *Engine) cutForClone(ctx context.Context, f *fill, t *target, source string) error {
	name := cloneLV(t.record[tagName])
	e.fills.keep(*t)
	err := e.withLV(ctx, name, changing, "clone "+name, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
		switch {
		case !v.isClone(lv):
			return nil // which openSource refuses
		case v.halfMade(lv):
			return v.notKnown(ctx, lv)
		case t.wasCut(v.records.of(lv)):
			return nil
		}
		// It was cut for a volume that is gone, and nobody has swept it yet: that may have been in another group than this one.
		if err := v.discard(ctx, c, lv); err != nil {
			return err
		}
		return ErrNotFound
	})
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	if !f.fresh {
		// An earlier attempt may have copied another moment. That is written down before there is a snapshot of the new one.
		if err := e.beginAgain(ctx, t); err != nil {
			return err
		}
	}
	return e.withLV(ctx, source, changing, "clone "+source, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
		vol, ok := v.volume(lv)
		if !ok || !t.isOf(lv) {
			return fmt.Errorf("%w: the source volume %s was deleted before it was copied", ErrNotFound, source)
		}
		if v.fillOf(lv).kind != fillNone {
			// It has grown since the clone was asked for, and has what others left on its new extents.
			return e.startFill(ctx, source, false).pending()
		}
		b, err := e.backend(vol.Class.Type)
		if err != nil {
			return err
		}
		r := record{tagDriver: e.driver, tagName: t.record[tagName], tagSource: source, tagInit: string(vol.Init), tagFS: vol.FSType}
		r[tagStale], r[tagFor] = v.records.of(lv).staleOf(lv.SizeBytes), t.lv.UUID
		err = b.CreateSnapshot(ctx, c, NewSnapshot{LV: name, Origin: lv, Class: vol.Class, Group: v.metadata, Tags: func() []string {
			r[tagCreated] = strconv.FormatInt(e.now().UnixNano(), 10)
			return r.tags()
		}})
		if err != nil {
			err = e.settle(ctx, v.group, c, name, cloneLV, err)
		}
		if errors.Is(err, ErrNoSpace) {
			err = fmt.Errorf("%w (a clone is copied from a snapshot of %s that is cut for it, beside the %s of the clone itself)",
				err, source, HumanBytes(t.lv.SizeBytes))
		}
		return err
	})
}

// beginAgain forgets how far a copy is.
func (e *Engine) beginAgain(ctx context.Context, t *target) error {
	t.filling = filling{kind: fillCopy, again: true}
	return e.withLV(ctx, t.lv.Name, changing, "begin again "+t.lv.Name, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
		if lv.UUID != t.lv.UUID {
			return fmt.Errorf("%w: another volume has taken the name of %s", ErrPending, lv.Name)
		}
		return v.changeFill(ctx, c, lv, t.filling, nil, nil)
	})
}

// dropClone removes the snapshot that a volume was copied from, which nobody else knows of, in whichever group it is. If that fails,
// the sweep does it. Only a job calls it, while which the sweep leaves it alone.
func (e *Engine) dropClone(ctx context.Context, t target) {
	if !t.isClone() {
		return
	}
	e.fills.drop(t.lv.Name)
	name := cloneLV(t.record[tagName])
	err := e.withLV(ctx, name, changing, "drop "+name, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
		if !v.isClone(lv) || !t.wasCut(v.records.of(lv)) {
			return nil
		}
		return v.discard(ctx, c, lv)
	})
	if ignoreNotFound(err) != nil {
		klog.FromContext(ctx).Error(err, "The snapshot that a volume was copied from is still there", "lv", name)
	}
}

// checkSource says whether an active COW snapshot is still what was cut, and if it is not, writes it down.
func (e *Engine) checkSource(ctx context.Context, s *openedSource) error {
	if !isCOW(s.lv) {
		return nil
	}
	st, err := e.kernel.SnapshotStatus(ctx, s.group, s.lv.Name)
	if err != nil || st.Valid() {
		return err
	}
	err = e.withLV(ctx, s.lv.Name, changing, "invalid "+s.lv.Name, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
		if lv.UUID != s.lv.UUID {
			return nil
		}
		return v.recordLost(ctx, c, lv)
	})
	return errors.Join(fmt.Errorf("%w: %s", ErrDamaged, snapshotLost(s.group, s.lv).Message), err)
}

// recordLost writes down that a COW snapshot is lost: once it is inactive, LVM and the kernel do not tell any more.
func (v *view) recordLost(ctx context.Context, c *lvm.Client, lv lvm.LV) error {
	if v.records.of(lv)[tagInvalid] != "" || !v.ours(lv) {
		return nil
	}
	v.e.stats.cowLost.Add(1)
	v.e.tell(ctx, "A COW snapshot is lost", nil, Notice{
		SnapshotInvalid, snapshotLost(v.group.Name(), lv).Message + ": do so, and give the next one a larger cowSize", v.objects(lv),
	}, "volumeGroup", v.group.Name(), "lv", lv.Name)
	return c.ChangeTags(ctx, lv.Name, nil, []string{tag(tagInvalid, strconv.FormatInt(v.e.now().UnixNano(), 10))})
}

// closeSource, which may be tried again, gives the source back: inactive, if it was.
func (e *Engine) closeSource(ctx context.Context, s *openedSource) error {
	err := e.withLV(ctx, s.lv.Name, changing, "read "+s.lv.Name, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
		holder := lv
		if origin, ok := v.find(lv.Origin); ok && isCOW(lv) { // by whatever name it goes now
			holder = origin
		}
		// In the turn, so that a caller who wants the volume active comes before or after.
		e.unread(s)
		if !s.idle {
			return nil
		}
		return v.deactivateIfIdle(ctx, c, holder)
	})
	e.unread(s) // though it could not even be found
	return ignoreNotFound(err)
}

func (e *Engine) unread(s *openedSource) {
	if s.given {
		return
	}
	s.given, s.idle = true, e.fills.unread(s.holder.UUID)
	if isCOW(s.lv) {
		e.fills.unread(s.lv.UUID)
	}
}
