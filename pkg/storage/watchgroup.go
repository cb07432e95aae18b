package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
)

// areaHysteresis keeps snapshots that come and go from making a metadata area low again and again.
const areaHysteresis = 5

// Keys of watch.wrong for the group itself: no pool has the empty name.
const (
	keyAreaLow  = " " + MetadataAreaLow
	keyAreaFull = " " + MetadataAreaFull
)

// tellOfGroup tells of what has become wrong with the group itself. That is nobody's but the administrator's: what exists goes on, and
// of what is refused the sidecars tell.
func (w *watch) tellOfGroup(ctx context.Context, v *view, now map[string]time.Time) {
	low := int64(lowMetadataArea)
	if _, told := w.wrong[keyAreaLow]; told {
		low -= areaHysteresis
	}
	for _, c := range v.groupConditions(low) {
		if w.due(" "+c.Reason, now) {
			w.e.tell(ctx, "A volume group needs care", nil, Notice{c.Reason, c.Message, nil}, "volumeGroup", w.group.Name())
		}
	}
	_, full := now[keyAreaFull]
	for _, key := range []string{keyAreaLow, keyAreaFull} {
		// It is not over when nobody knows, since LVM had to be asked, nor when it has become worse.
		if last, told := w.wrong[key]; told && (v.metadata.TextLimitBytes == 0 || full && key == keyAreaLow) {
			now[key] = last
		}
	}
}

func (e *Engine) tellGroupRecovered(ctx context.Context, group, reason string) {
	e.tell(ctx, "A volume group has recovered", nil,
		Notice{GroupRecovered, fmt.Sprintf("volume group %s: %s is over", group, reason), nil}, "volumeGroup", group, "was", reason)
}

// watchTurn tells of an operation that has the group's turn for longer than is good, and of its end. It asks nobody: the looks of a watch
// may themselves wait for that turn.
func (e *Engine) watchTurn(ctx context.Context, g *group) {
	tick := time.NewTicker(e.cow.Interval)
	defer tick.Stop()
	var told time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		why := e.stuckText(g)
		switch {
		case why == "" && !told.IsZero():
			told = time.Time{}
			e.tellGroupRecovered(ctx, g.Name(), GroupStuck)
		case why != "" && e.now().Sub(told) >= tellAgain:
			told = e.now()
			e.tell(ctx, "A volume group is stuck", nil, Notice{GroupStuck, why, nil}, "volumeGroup", g.Name())
		}
	}
}

// raidTold is what was told last of a RAID volume, and when.
type raidTold struct {
	reason string
	at     time.Time
}

// tellOfRAID tells of RAID volumes that have become less than whole, or are whole again: the node, on which a disk is to be replaced,
// and the claim, whose data the next disk takes with it. What became of an inactive one nobody knows, and nobody is told.
func (w *watch) tellOfRAID(ctx context.Context, v *view) error {
	before := w.raids
	w.raids = map[string]raidTold{}
	var failed error
	for _, lv := range v.lvs {
		if !isRAID(lv) {
			continue
		}
		if _, ok := v.owned(lv, VolumeLV); !ok {
			continue
		}
		last, told := before[lv.UUID]
		keys := []any{"volumeGroup", w.group.Name(), "lv", lv.Name}
		objects := append([]Object{{Kind: ObjectNode}}, v.objects(lv)...)
		c, err := v.raidCondition(ctx, lv)
		switch {
		case err != nil:
			if told {
				w.raids[lv.UUID] = last
			}
			if !errors.Is(err, dm.ErrNoDevice) {
				failed = errors.Join(failed, err)
			}
		case c.Reason != "":
			if last.reason != c.Reason || w.e.now().Sub(last.at) >= tellAgain {
				last = raidTold{c.Reason, w.e.now()}
				w.e.tell(ctx, "A RAID volume is not whole", nil, Notice{c.Reason, c.Message, objects}, keys...)
			}
			w.raids[lv.UUID] = last
		case told:
			w.e.tell(ctx, "A RAID volume is whole again", nil, Notice{RAIDRecovered, v.path(lv.Name) + " is whole again", objects}, keys...)
		}
	}
	return failed
}
