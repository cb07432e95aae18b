package storage

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
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

// cowTroubles say of each COW that had to grow and could not how full it is and why, by UUID, for the health of its volume.
type cowTroubles struct {
	mu   sync.Mutex
	text map[string]string
	told map[string]time.Time // when somebody was
}

func (t *cowTroubles) of(lv lvm.LV) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text[lv.UUID]
}

func (t *cowTroubles) set(lv lvm.LV, text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.text == nil {
		t.text = map[string]string{}
	}
	t.text[lv.UUID] = text
}

// due says whether somebody has to be told, who then is.
func (t *cowTroubles) due(lv lvm.LV, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told == nil {
		t.told = map[string]time.Time{}
	}
	last, told := t.told[lv.UUID]
	if told && now.Sub(last) < tellAgain {
		return false
	}
	t.told[lv.UUID] = now
	return true
}

// keep forgets those that were not looked at: they are gone, lost, or inactive and not written to.
func (t *cowTroubles) keep(looked map[string]look) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.text, func(uuid, _ string) bool {
		_, ok := looked[uuid]
		return !ok
	})
	maps.DeleteFunc(t.told, func(uuid string, _ time.Time) bool { return t.text[uuid] == "" })
}

// clear says that the COW has room, and whether somebody was told that it had not.
func (t *cowTroubles) clear(lv lvm.LV) (told bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, told = t.told[lv.UUID]
	delete(t.text, lv.UUID)
	delete(t.told, lv.UUID)
	return told
}

// canOverflow: a COW snapshot of ours that has less room than it can need, and is not known to be lost.
func (v *view) canOverflow(lv lvm.LV) bool {
	most, _ := roundUp(lvm.COWMaxBytes(lv.OriginBytes), v.metadata.ExtentBytes)
	return isCOW(lv) && v.ours(lv) && lv.SizeBytes < most && v.records.of(lv)[tagInvalid] == ""
}

// cow looks at a COW that can overflow, and has it extended if need be.
func (w *watch) cow(ctx context.Context, v *view, lv lvm.LV, before map[string]look) error {
	e := w.e
	st, err := e.kernel.SnapshotStatus(ctx, v.group.Name(), lv.Name)
	switch {
	case errors.Is(err, dm.ErrNoDevice):
		return nil // inactive: nobody writes to its origin
	case err != nil:
		return err
	case !st.Valid():
		return e.withLV(ctx, lv.Name, changing, "invalid "+lv.Name, func(ctx context.Context, c *lvm.Client, v *view, now lvm.LV) error {
			if now.UUID != lv.UUID {
				return nil // another has its name
			}
			return v.recordLost(ctx, c, now)
		})
	}
	isNew := e.now().Sub(v.records.of(lv).created()) < 2*e.cow.Interval
	soon, paused := w.saw(lv.UUID, st.UsedBytes, isNew, before)
	soonFull := st.UsedBytes+soon > st.TotalBytes
	if e.cow.ThresholdPercent <= 0 || st.Percent() <= e.cow.ThresholdPercent && !soonFull {
		w.hasRoom(ctx, v, lv)
		return nil
	}
	if paused {
		return nil
	}
	trouble := ""
	err = e.withLV(ctx, lv.Name, changing, "extend "+lv.Name, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
		more := max(int64(float64(lv.SizeBytes)*e.cow.ExtendPercent/100), soon, 1)
		size, _ := roundUp(lv.SizeBytes+more, v.metadata.ExtentBytes)
		if err := c.Extend(ctx, lv.Name, size); err != nil {
			e.stats.cowFailed.Add(1)
			trouble = fmt.Sprintf("COW of snapshot %s/%s is %.0f%% full and cannot grow", v.group.Name(), lv.Name, st.Percent())
			return err
		}
		e.stats.cowGrown.Add(1)
		klog.FromContext(ctx).Info("A COW snapshot has grown", "volumeGroup", v.group.Name(), "lv", lv.Name,
			"percent", st.Percent(), "from", lv.SizeBytes, "to", size)
		return nil
	})
	if err != nil {
		w.failed(lv.UUID)
		text := cowTrouble(trouble, err)
		w.group.cowTroubles.set(lv, text)
		if trouble == "" {
			return err // not LVM's to the growth
		}
		if w.group.cowTroubles.due(lv, e.now()) {
			e.tell(ctx, "A COW snapshot cannot grow", err, Notice{
				COWCannotGrow, text + "; when it is full, the snapshot is lost: make room in the volume group, or delete a snapshot", v.objects(lv),
			}, "volumeGroup", v.group.Name(), "lv", lv.Name)
		}
		return nil
	}
	w.hasRoom(ctx, v, lv)
	return nil
}

// hasRoom ends what trouble there was.
func (w *watch) hasRoom(ctx context.Context, v *view, lv lvm.LV) {
	if w.group.cowTroubles.clear(lv) {
		w.e.tell(ctx, "A COW snapshot has room again", nil, Notice{
			COWHasRoom, fmt.Sprintf("COW of snapshot %s/%s has room again", v.group.Name(), lv.Name), v.objects(lv),
		}, "volumeGroup", v.group.Name(), "lv", lv.Name)
	}
}

// cowTrouble is short, because health has room for 128 bytes: LVM's own words without the command's, which names the snapshot again.
func cowTrouble(trouble string, err error) string {
	var failed *lvm.CommandError
	switch {
	case trouble == "":
		return err.Error()
	case errors.As(err, &failed):
		return trouble + ": " + failed.Text
	default:
		return trouble + ": " + err.Error()
	}
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
