package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/blockcopy"
	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// target is the volume that a job fills.
type target struct {
	lv     lvm.LV
	record record
	filling
	device string
	zeroed bool // it reads zeroes wherever nothing was written
}

// startFill begins to fill a volume, or finds the job that does. Nothing is lost with the process: the tag is the order,
// and whoever finds it without a job begins again.
func (e *Engine) startFill(ctx context.Context, lv string, fresh bool) *fill {
	return e.fills.start(ctx, lv, fresh, func(ctx context.Context, f *fill) error {
		news := &fillNews{e: e}
		err := e.fill(ctx, f, news)
		switch {
		case err == nil:
			news.finished(ctx, f.lv)
			return nil
		case final(err) && !errors.Is(err, context.Canceled):
			news.failed(ctx, "Removing a volume whose source cannot be read", f.lv, err,
				"is removed, its source cannot be read: delete its claim and make another from what can be")
			return e.abandon(ctx, f, err)
		default:
			news.failed(ctx, "Filling a volume failed", f.lv, err, "has not got its content; it is tried again with the next call")
		}
		// The cause is told and not wrapped: it would look final, and the volume is still there.
		return fmt.Errorf("%w: writing the content of %s ended early and begins again with the next call: %s", ErrPending, f.lv, err.Error())
	})
}

// fill does the work of one job. The volume's own turn is taken at the begin and the end only, and the source's likewise:
// while blocks are copied, the groups are free.
func (e *Engine) fill(ctx context.Context, f *fill, news *fillNews) (err error) {
	if err := e.fills.slots.Acquire(ctx, 1); err != nil {
		return err
	}
	defer e.fills.slots.Release(1)
	f.working.Store(true)
	defer f.working.Store(false)
	t, err := e.openTarget(ctx, f, news)
	if err != nil || t.kind == fillNone {
		return err
	}
	if !slices.Contains(FillKinds, t.kind) {
		return fmt.Errorf("%w: %s has the unknown tag %s", ErrPending, f.lv, tag(tagFill, t.record[tagFill]))
	}
	defer func() { e.stats.fills.ended(t.kind, err) }()
	o := e.fillOptions(ctx, f, t, news)
	o.OnCheckpoint = e.recordProgress(ctx, t, o.OnCheckpoint)
	init := Init(t.record[tagInit])
	if t.kind == fillCopy {
		init, err = e.copyInto(ctx, f, &t, o)
	} else {
		o.OffsetBytes = min(t.offset, t.lv.SizeBytes)
		_, err = e.fills.o.Filler.Zero(ctx, t.device, o)
	}
	if err != nil {
		return err
	}
	if err := e.finishTarget(ctx, t, init); err != nil {
		return err
	}
	if t.kind == fillCopy {
		e.dropClone(ctx, t)
	}
	return nil
}

func (e *Engine) fillOptions(ctx context.Context, f *fill, t target, news *fillNews) blockcopy.Options {
	last := t.offset
	return blockcopy.Options{
		Limiter: e.fills.o.Limiter, CheckpointInterval: min(e.fills.o.Checkpoint, blockcopy.DefaultCheckpointInterval),
		OnCheckpoint: func(p blockcopy.Progress) {
			f.progress.Store(&p)
			e.stats.fills.progressed(t.kind, p.DurableBytes-last)
			last = p.DurableBytes
			if !news.progress(ctx, p) {
				klog.FromContext(ctx).Info("Filling a volume", "lv", f.lv, "kind", t.kind, "progress", p.String())
			}
		},
	}
}

// recordProgress writes down from time to time, in the volume's tag, up to where everything is on stable storage: that is
// where the next process begins. Not to be able to is no failure of the fill.
func (e *Engine) recordProgress(ctx context.Context, t target, next func(blockcopy.Progress)) func(blockcopy.Progress) {
	last := e.now()
	return func(p blockcopy.Progress) {
		next(p)
		if p.DurableBytes >= p.TotalBytes || e.now().Sub(last) < e.fills.o.Checkpoint {
			return
		}
		last = e.now()
		err := e.withLV(ctx, t.lv.Name, changing, "checkpoint "+t.lv.Name, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
			now := v.fillOf(lv)
			if lv.UUID != t.lv.UUID || now.kind != t.kind {
				return nil
			}
			now.offset = p.DurableBytes
			return v.changeFill(ctx, c, lv, now, nil, nil)
		})
		if err != nil && ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "The progress of filling a volume could not be recorded", "lv", t.lv.Name)
		}
	}
}

// openTarget activates the volume; kind is fillNone when there is nothing to do any more.
func (e *Engine) openTarget(ctx context.Context, f *fill, news *fillNews) (target, error) {
	var out target
	err := e.withLV(ctx, f.lv, changing, "fill "+f.lv, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
		vol, ok := v.volume(lv)
		if !ok || v.fillOf(lv).kind == fillNone {
			return nil
		}
		b, err := e.backend(vol.Class.Type)
		if err != nil {
			return err
		}
		out = target{lv: lv, record: v.records.of(lv), filling: v.fillOf(lv), device: vol.DevicePath, zeroed: b.Zeroed()}
		news.of(v, lv, out.kind)
		if _, err = e.kernel.Info(ctx, v.group.Name(), lv.Name); errors.Is(err, dm.ErrNoDevice) {
			err = c.Activate(ctx, lv.Name)
		}
		return err
	})
	if errors.Is(err, ErrNotFound) {
		return target{}, fmt.Errorf("%w: %s has been deleted meanwhile", ErrPending, f.lv)
	}
	return out, err
}

// finishTarget makes the volume exist. From here on nobody writes to it but its owner.
func (e *Engine) finishTarget(ctx context.Context, t target, init Init) error {
	return e.whenClosed(ctx, func() error {
		return e.withLV(ctx, t.lv.Name, changing, "filled "+t.lv.Name, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
			if lv.UUID != t.lv.UUID {
				return fmt.Errorf("%w: another volume has taken the name of %s", ErrPending, lv.Name)
			}
			if err := v.checkClosed(ctx, lv); err != nil {
				return err
			}
			if err := c.Deactivate(ctx, lv.Name); err != nil {
				return err
			}
			var remove, add []string
			if from := t.record[tagFrom]; from != "" {
				remove = append(remove, tag(tagFrom, from))
			}
			if old := t.record[tagInit]; string(init) != old {
				remove, add = append(remove, tag(tagInit, old)), []string{tag(tagInit, string(init))}
			}
			return v.changeFill(ctx, c, lv, filling{}, remove, add)
		})
	})
}

// abandon removes a volume whose content can never be had, and returns why.
func (e *Engine) abandon(ctx context.Context, f *fill, cause error) error {
	unfinished, _ := e.fills.kept(f.lv)
	err := e.whenClosed(ctx, func() error {
		return e.withLV(ctx, f.lv, changing, "undo "+f.lv, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
			if _, ok := v.volume(lv); !ok || v.fillOf(lv).kind != fillCopy {
				return nil
			}
			if err := v.checkClosed(ctx, lv); err != nil {
				return err
			}
			unfinished = target{lv: lv, record: v.records.of(lv)}
			return v.discard(ctx, c, lv)
		})
	})
	if ignoreNotFound(err) != nil {
		return fmt.Errorf("%w: %s cannot be filled (%s) and undoing it failed: %w", ErrPending, f.lv, cause.Error(), err)
	}
	e.dropClone(ctx, unfinished)
	return cause
}

// releaseLimit bounds what a job does for its source after it was canceled.
const releaseLimit = time.Minute

// copyInto copies a volume's source. The result is what has to happen before the copy's first mount.
func (e *Engine) copyInto(ctx context.Context, f *fill, t *target, o blockcopy.Options) (Init, error) {
	s, err := e.openSource(ctx, f, t)
	defer func() {
		if s.given {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseLimit)
		defer cancel()
		err := e.closeSource(ctx, s)
		if err != nil {
			err = e.closeSource(ctx, s) // LVM went away, or said no: it may do better now
		}
		if err != nil {
			klog.FromContext(ctx).Error(err, "What was copied from may have stayed active", "lv", s.lv.Name)
		}
	}()
	if err != nil {
		return "", err
	}
	size := contentBytes(s.lv)
	if size > t.lv.SizeBytes {
		return "", fmt.Errorf("%w: the source %s has grown to %d bytes since the copy of %d was made", ErrDamaged, s.lv.Name, size, t.lv.SizeBytes)
	}
	if parseRecord(s.lv.Tags).staleOf(size) != t.record[tagStale] { // and this was made, and allowed, of what had none
		return "", fmt.Errorf("%w: the source %s has grown since the copy was made, by extents that were not overwritten", ErrDamaged, s.lv.Name)
	}
	o.OffsetBytes = min(t.offset, size)
	_, err = e.fills.o.Filler.Copy(ctx, blockcopy.Request{
		Source: s.device, Destination: t.device, SizeBytes: size, DestinationZeroed: t.zeroed && !t.again,
	}, o)
	if err == nil {
		err = e.checkSource(ctx, s)
	} else if lost := e.checkSource(ctx, s); lost != nil {
		err = lost // and that is why
	}
	init := Init(t.record[tagInit])
	if init == InitFormat && s.init != InitFormat {
		init = InitClone // it was formatted between the call and the cut
	}
	return init, err
}
