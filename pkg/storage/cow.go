package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// COWOptions are for COW snapshots with less room than their origin has: they grow before they are full. LVM's own
// monitor (dmeventd, snapshot_autoextend_threshold) needs a daemon on the host, and what it does is nobody's to know here.
type COWOptions struct {
	Interval         time.Duration // how often they are looked at; default 1 s
	ThresholdPercent float64       // grow what is fuller than this, or will be full soon at its present pace; 0: never
	ExtendPercent    float64       // by so much of its size, or more at that pace; default 20
}

const (
	defaultCOWInterval = time.Second
	defaultCOWExtend   = 20
	// cowLooksAhead is for how many intervals there has to be room at the present pace: one until the next look, one in
	// which others have the group's turn, and one in which the pace may double.
	cowLooksAhead = 3
	// cowPause keeps a group without room from being asked for it every second.
	cowPause = 15 * time.Second
)

func (o COWOptions) withDefaults() COWOptions {
	if o.Interval <= 0 {
		o.Interval = defaultCOWInterval
	}
	if o.ExtendPercent <= 0 {
		o.ExtendPercent = defaultCOWExtend
	}
	return o
}

// Run does until ctx ends what nobody calls for.
func (e *Engine) Run(ctx context.Context) error {
	tick := time.NewTicker(e.cow.Interval)
	defer tick.Stop()
	var last cowUsage
	health := map[*group]healthLook{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			now := cowUsage{}
			if err := e.watchCOWs(ctx, last, now); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "COW snapshots could not be looked after")
			}
			last = now
			if err := e.watchHealth(ctx, health); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "What an interrupted command left could not be put right")
			}
		}
	}
}

// cowUsage is what was seen of each COW, by UUID, when it was looked at.
type cowUsage map[string]cowLook

type cowLook struct {
	usedBytes int64
	failed    time.Time // when it could not be extended
}

// watchCOWs looks at each active COW that can overflow. Only for one that needs something is a turn taken.
func (e *Engine) watchCOWs(ctx context.Context, last, now cowUsage) error {
	var all error
	for _, g := range e.groups {
		err := e.inTurn(ctx, g, looking, "watch", func(ctx context.Context, _ *lvm.Client, v *view) error {
			var failed error
			for _, lv := range v.lvs {
				if v.canOverflow(lv) {
					failed = errors.Join(failed, e.watchCOW(ctx, v, lv, last, now))
				}
			}
			return failed
		})
		all = errors.Join(all, err)
	}
	return all
}

// canOverflow: a COW snapshot of ours that has less room than it can need, and is not known to be lost.
func (v *view) canOverflow(lv lvm.LV) bool {
	most, _ := roundUp(lvm.COWMaxBytes(lv.OriginBytes), v.group.extentBytes)
	return isCOW(lv) && v.ours(lv) && lv.SizeBytes < most && v.records.of(lv)[tagInvalid] == ""
}

func (e *Engine) watchCOW(ctx context.Context, v *view, lv lvm.LV, last, now cowUsage) error {
	st, err := e.kernel.SnapshotStatus(ctx, v.group.Name(), lv.Name)
	switch {
	case errors.Is(err, dm.ErrNoDevice):
		return nil // inactive: nobody writes to its origin
	case err != nil:
		return err
	case !st.Valid():
		return e.withLV(ctx, lv.Name, changing, "invalid "+lv.Name, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
			return v.recordLost(ctx, c, lv)
		})
	}
	before, seen := last[lv.UUID]
	now[lv.UUID] = cowLook{st.UsedBytes, before.failed}
	ahead := int64(0)
	if seen || e.now().Sub(v.records.of(lv).created()) < 2*e.cow.Interval { // what is new was empty
		ahead = cowLooksAhead * (st.UsedBytes - before.usedBytes)
	}
	soonFull := st.UsedBytes+ahead > st.TotalBytes
	if e.now().Sub(before.failed) < cowPause || e.cow.ThresholdPercent <= 0 || st.Percent() <= e.cow.ThresholdPercent && !soonFull {
		return nil
	}
	err = e.withLV(ctx, lv.Name, changing, "extend "+lv.Name, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
		more := max(int64(float64(lv.SizeBytes)*e.cow.ExtendPercent/100), ahead, 1)
		size, _ := roundUp(lv.SizeBytes+more, v.group.extentBytes)
		if err := c.Extend(ctx, lv.Name, size); err != nil {
			e.stats.cowFailed.Add(1)
			return fmt.Errorf("the COW of snapshot %s/%s is %.1f%% full and cannot grow to %d bytes: when it is full, the snapshot is lost: %w",
				v.group.Name(), lv.Name, st.Percent(), size, err)
		}
		e.stats.cowGrown.Add(1)
		klog.FromContext(ctx).Info("A COW snapshot has grown", "volumeGroup", v.group.Name(), "lv", lv.Name,
			"percent", st.Percent(), "from", lv.SizeBytes, "to", size)
		return nil
	})
	if err != nil {
		now[lv.UUID] = cowLook{st.UsedBytes, e.now()}
	}
	return err
}

// probeCOWs finds out what became of those that were active when the node or the driver went down: inactive, only the
// COW itself knows that it overflowed.
func (v *view) probeCOWs(ctx context.Context, c *lvm.Client) error {
	for _, origin := range v.lvs {
		if origin.Attr.Type() != lvm.TypeOrigin {
			continue
		}
		if _, err := v.e.kernel.Info(ctx, v.group.Name(), origin.Name); !errors.Is(err, dm.ErrNoDevice) {
			continue // those who look see it
		}
		if err := v.probeSnapshots(ctx, c, origin); err != nil {
			return err
		}
	}
	return nil
}

func (v *view) probeSnapshots(ctx context.Context, c *lvm.Client, origin lvm.LV) (err error) {
	activated := false
	for _, lv := range v.cowSnapshots(origin) {
		if !v.canOverflow(lv) {
			continue
		}
		if !activated {
			if err := c.Activate(ctx, origin.Name); err != nil {
				return err
			}
			activated = true
			defer func() { err = errors.Join(err, v.deactivateIfIdle(ctx, c, origin)) }()
		}
		st, err := v.e.kernel.SnapshotStatus(ctx, v.group.Name(), lv.Name)
		if err == nil && !st.Valid() {
			err = v.recordLost(ctx, c, lv)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
