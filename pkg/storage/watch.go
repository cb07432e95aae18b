package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

const (
	// looksAhead is for how many intervals there has to be room at the present pace: one until the next look, one in
	// which others have the group's turn, and one in which the pace may double.
	looksAhead = 3
	// growthPause keeps a group without room from being asked for it every second, unless it has more room than it had.
	growthPause = 15 * time.Second
)

// watch looks after what fills by itself in one group, COW snapshots and thin pools: LVM's own monitor needs a daemon on the
// host, and what it does is nobody's to know here. A look takes no turn; only what needs something does.
type watch struct {
	e      *Engine
	group  *group
	free   int64                // bytes of the group's extents
	seen   map[string]look      // by what is watched, a UUID with or without more
	wrong  map[string]time.Time // conditions of pools and of the group, and when they were told of
	raids  map[string]raidTold  // RAID volumes that are not whole, by UUID
	health health
}

// look is what was seen of something that fills.
type look struct {
	usedBytes int64
	failed    time.Time // when it could not be extended
	free      int64     // in the group then
}

// Run does until ctx ends what nobody calls for. A group that hangs does not keep the others from being looked after.
func (e *Engine) Run(ctx context.Context) error {
	var groups errgroup.Group
	for _, g := range e.groups {
		groups.Go(func() error {
			(&watch{e: e, group: g}).run(ctx)
			return nil
		})
		groups.Go(func() error {
			e.watchTurn(ctx, g)
			return nil
		})
	}
	return groups.Wait()
}

func (w *watch) run(ctx context.Context) {
	tick := time.NewTicker(w.e.cow.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			looked, err := w.look(ctx)
			if err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "COW snapshots and pools could not be looked after", "volumeGroup", w.group.Name())
			}
			if !looked {
				continue
			}
			if err := w.recover(ctx); err != nil && ctx.Err() == nil {
				klog.FromContext(ctx).Error(err, "What an interrupted command left could not be put right", "volumeGroup", w.group.Name())
			}
		}
	}
}

// look says whether it could, whatever became of what it found.
func (w *watch) look(ctx context.Context) (looked bool, err error) {
	err = w.e.inTurn(ctx, w.group, looking, "watch", func(ctx context.Context, _ *lvm.Client, v *view) error {
		looked = true
		failed := w.health.see(ctx, v)
		before := w.seen
		w.seen, w.free = map[string]look{}, v.metadata.FreeBytes
		for _, lv := range v.lvs {
			if v.canOverflow(lv) {
				failed = errors.Join(failed, w.cow(ctx, v, lv, before))
			}
		}
		if failed == nil {
			w.group.cowTroubles.keep(w.seen)
		}
		return errors.Join(failed, w.tellOfRAID(ctx, v), w.pools(ctx, v, before))
	})
	return looked, err
}

// saw records how full something is, and says how much of it will be used before it can be extended, at its present pace.
func (w *watch) saw(key string, usedBytes int64, isNew bool, before map[string]look) (soon int64, paused bool) {
	last, seen := before[key]
	w.seen[key] = look{usedBytes, last.failed, last.free}
	if seen || isNew { // what is new was empty
		soon = looksAhead * max(usedBytes-last.usedBytes, 0)
	}
	return soon, w.e.now().Sub(last.failed) < growthPause && w.free <= last.free
}

func (w *watch) failed(key string) {
	w.seen[key] = look{w.seen[key].usedBytes, w.e.now(), w.free}
}

func (w *watch) pools(ctx context.Context, v *view, before map[string]look) error {
	var all []Pool
	var failed error
	for _, b := range w.e.backends {
		pools, err := b.Pools(ctx, v.metadata)
		if err != nil {
			return errors.Join(failed, err)
		}
		all = append(all, pools...)
		if grower, ok := b.(Grower); ok {
			for _, p := range pools {
				failed = errors.Join(failed, w.pool(ctx, grower, p, before))
			}
		}
	}
	w.tell(ctx, v, all)
	return failed
}

// pool has a pool extended if it is due. That the group has no room for it is a condition of the pool, and no error here.
func (w *watch) pool(ctx context.Context, b Grower, p Pool, before map[string]look) error {
	data, paused := w.saw(p.UUID, p.Used.DataBytes, false, before)
	metadata, _ := w.saw(p.UUID+" metadata", p.Used.MetadataBytes, false, before)
	soon := PoolUse{data, metadata}
	if paused || !b.Due(p, soon) {
		return nil
	}
	err := w.e.inTurn(ctx, w.group, changing, "extend "+p.Name, func(ctx context.Context, c *lvm.Client, v *view) error {
		return b.Grow(ctx, c, v.metadata, p.Name, soon)
	})
	if err != nil {
		w.failed(p.UUID)
	}
	if errors.Is(err, ErrNoSpace) {
		return nil
	}
	return err
}

// tell tells of what has become wrong with the group and its pools, and what has become right again.
func (w *watch) tell(ctx context.Context, v *view, pools []Pool) {
	now := map[string]time.Time{}
	w.tellOfGroup(ctx, v, now)
	group := w.group.Name()
	for _, p := range pools {
		for _, c := range p.Conditions {
			if w.due(p.Name+" "+c.Reason, now) {
				w.e.tell(ctx, "A pool needs care", nil, Notice{c.Reason, c.Message, v.poolObjects(ctx, p.Name, c.Reason)},
					"volumeGroup", group, "pool", p.Name)
			}
		}
	}
	for key := range w.wrong {
		pool, reason, _ := strings.Cut(key, " ")
		switch _, still := now[key]; {
		case still:
		case pool == "":
			w.e.tellGroupRecovered(ctx, group, reason)
		case slices.ContainsFunc(pools, func(p Pool) bool { return p.Name == pool }):
			w.e.tell(ctx, "A pool has recovered", nil, Notice{
				PoolRecovered, fmt.Sprintf("thin pool %s/%s: %s is over", group, pool, reason), v.poolObjects(ctx, pool, reason),
			}, "volumeGroup", group, "pool", pool, "was", reason)
		}
	}
	w.wrong = now
}

// due says whether somebody has to be told of what is wrong now, who then is.
func (w *watch) due(key string, now map[string]time.Time) bool {
	last, known := w.wrong[key]
	due := !known || w.e.now().Sub(last) >= tellAgain
	if due {
		last = w.e.now()
	}
	now[key] = last
	return due
}
