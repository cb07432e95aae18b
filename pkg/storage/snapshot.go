package storage

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// CreateSnapshot cuts a snapshot. A second call with the same name returns the first's snapshot, even if the
// source is gone by then.
func (e *Engine) CreateSnapshot(ctx context.Context, spec SnapshotSpec) (Snapshot, error) {
	name := SnapshotLV(spec.Name)
	return change(ctx, e, name, "CreateSnapshot", func() (Snapshot, error) {
		g, err := e.snapshotGroup(ctx, name, spec.SourceID)
		if err != nil {
			return Snapshot{}, err
		}
		var out Snapshot
		err = e.create(ctx, g, "CreateSnapshot "+name, func(ctx context.Context, c *lvm.Client, v *view) error {
			var err error
			out, err = e.createSnapshot(ctx, c, v, name, spec)
			return err
		})
		return out, err
	})
}

// snapshotGroup is where the snapshot is, or else where its source is. The name comes before the source: a
// retry must succeed after the source was deleted.
func (e *Engine) snapshotGroup(ctx context.Context, name, sourceID string) (*group, error) {
	if len(e.groups) == 1 {
		return e.groups[0], nil // both questions are answered in the turn that cuts
	}
	g, err := e.locate(ctx, name, "CreateSnapshot")
	if g != nil || err != nil {
		return g, unseen(err)
	}
	source, err := e.localVolume(sourceID)
	if err != nil {
		return nil, err
	}
	g, err = e.locate(ctx, source.LV, "CreateSnapshot")
	if g == nil && err == nil {
		err = fmt.Errorf("%w: source volume %s", ErrNotFound, sourceID)
	}
	return g, err
}

func (e *Engine) createSnapshot(ctx context.Context, c *lvm.Client, v *view, name string, spec SnapshotSpec) (Snapshot, error) {
	if lv, ok := v.find(name); ok {
		return v.existingSnapshot(ctx, lv, spec)
	}
	source, err := e.localVolume(spec.SourceID)
	if err != nil {
		return Snapshot{}, err
	}
	origin, ok := v.find(source.LV)
	if !ok {
		return Snapshot{}, fmt.Errorf("%w: source volume %s", ErrNotFound, spec.SourceID)
	}
	vol, ok := v.volume(origin)
	if !ok {
		return Snapshot{}, fmt.Errorf("%w: %s/%s is not a volume of this driver", ErrNotFound, v.group.Name(), origin.Name)
	}
	if v.fillOf(origin).kind != fillNone {
		return Snapshot{}, e.fills.find(origin.Name).pending()
	}
	backend, err := e.backend(vol.Class.Type)
	if err != nil {
		return Snapshot{}, err
	}
	if err := v.checkRoom(); err != nil {
		return Snapshot{}, err
	}
	if err := e.checkAwake(ctx, v.group.Name(), origin.Name); err != nil {
		return Snapshot{}, err
	}
	r := record{
		tagDriver: e.driver, tagName: spec.Name, tagSource: origin.Name, tagStale: v.records.of(origin).staleOf(origin.SizeBytes),
		tagSize:   strconv.FormatInt(vol.RequestedBytes, 10),
		tagAccess: string(vol.Access), tagFS: vol.FSType, tagInit: string(vol.Init),
		tagLayout: v.records.of(origin)[tagLayout],
		tagObject: objectText(spec.Object.Namespace, spec.Object.Name), tagContent: spec.Object.ContentName,
	}
	var tags []string
	err = backend.CreateSnapshot(ctx, c, NewSnapshot{LV: name, Origin: origin, Class: vol.Class, COW: spec.COW, Group: v.metadata, Tags: func() []string {
		r[tagCreated] = strconv.FormatInt(e.now().UnixNano(), 10)
		tags = r.tags()
		return tags
	}})
	if err != nil {
		return Snapshot{}, e.settle(ctx, v.group, c, name, SnapshotLV, err)
	}
	// What was just committed is known; asking LVM for it again would double the time.
	cut := lvm.LV{Name: name, SizeBytes: origin.SizeBytes, Tags: tags, Attr: "Vri---tz-k", Origin: origin.Name, Pool: origin.Pool}
	if origin.Pool == "" {
		cut.Attr, cut.OriginBytes = "sri------k", origin.SizeBytes
	}
	s, _ := v.snapshot(cut)
	s.Ready = true
	return s, nil
}

// existingSnapshot answers a retry.
func (v *view) existingSnapshot(ctx context.Context, lv lvm.LV, spec SnapshotSpec) (Snapshot, error) {
	s, ok := v.snapshot(lv)
	switch {
	case !ok:
		return Snapshot{}, fmt.Errorf("%w: %s/%s is in the way of snapshot %q and was not made by this driver; rename it (lvrename)",
			ErrConflict, v.group.Name(), lv.Name, spec.Name)
	case s.SourceID != spec.SourceID:
		return Snapshot{}, fmt.Errorf("%w: snapshot %q is of volume %s, not of %s", ErrConflict, spec.Name, s.SourceID, spec.SourceID)
	case len(s.Conditions) > 0:
		return Snapshot{}, fmt.Errorf("%w: snapshot %q: %s", ErrDamaged, spec.Name, s.Conditions[0].Message)
	case !s.Ready:
		return Snapshot{}, v.notKnown(ctx, lv)
	}
	return s, nil
}

// notKnown is the answer about an LV whose pool says nothing about it. It may be what a call is to make: that must not look final.
func (v *view) notKnown(ctx context.Context, lv lvm.LV) error {
	if v.state(lv) == StateSilent {
		err := v.checkPoolTakes(ctx, lv) // which says who is silent, and for how long
		if err == nil {
			err = fmt.Errorf("%w: thin pool %s/%s did not answer; try again", ErrBusy, v.group.Name(), lv.Pool)
		}
		return err
	}
	if v.halfMade(lv) {
		return fmt.Errorf("%w: an interrupted command left %s/%s, and it cannot be removed now", ErrBusy, v.group.Name(), lv.Name)
	}
	if lv.Pool == "" {
		return fmt.Errorf("%w: %s/%s is not what its tags say, or of a kind that this driver does not make; see `lvs -a -o+tags`",
			ErrDamaged, v.group.Name(), lv.Name)
	}
	return fmt.Errorf("%w: %s/%s: its thin pool is not active, or LVM and the kernel disagree about it, so nobody knows whether it is there; see `lvs -o+transaction_id` and `dmsetup status`, or lvchange --activate y %s/%s",
		ErrBusy, v.group.Name(), lv.Name, v.group.Name(), lv.Pool)
}

// DeleteSnapshot removes a snapshot; what was restored from it stays. One that is gone is no error.
func (e *Engine) DeleteSnapshot(ctx context.Context, id string) error {
	h, err := e.localSnapshot(id)
	if err != nil {
		return ignoreNotFound(err)
	}
	return e.remove(ctx, h.LV, "DeleteSnapshot", SnapshotLV)
}

// Snapshot finds one snapshot, ready or not; ErrNotFound, or ErrOtherNode.
func (e *Engine) Snapshot(ctx context.Context, id string) (Snapshot, error) {
	h, err := e.localSnapshot(id)
	if err != nil {
		return Snapshot{}, err
	}
	return read(ctx, func() (Snapshot, error) {
		var out Snapshot
		err := e.withLV(ctx, h.LV, looking, "Snapshot", func(_ context.Context, _ *lvm.Client, v *view, lv lvm.LV) error {
			s, ok := v.snapshot(lv)
			if !ok {
				return fmt.Errorf("%w: %s/%s is not a snapshot of this driver", ErrNotFound, v.group.Name(), lv.Name)
			}
			out = s
			return nil
		})
		return out, err
	})
}

// Snapshots lists the snapshots that a query asks for, ordered by ID.
func (e *Engine) Snapshots(ctx context.Context, q SnapshotQuery) ([]Snapshot, error) {
	return read(ctx, func() ([]Snapshot, error) {
		var out []Snapshot
		for _, g := range e.groups {
			err := e.inTurn(ctx, g, looking, "Snapshots", func(_ context.Context, _ *lvm.Client, v *view) error {
				out = append(out, v.snapshots(q)...)
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
		slices.SortFunc(out, byID(func(s Snapshot) string { return s.ID }))
		if q.Limit > 0 {
			out = out[:min(q.Limit, len(out))]
		}
		return out, nil
	})
}

// snapshots are those of one group, ordered by ID. Only what is asked for is worked out: a page of a long list costs
// no more than one of a short list.
func (v *view) snapshots(q SnapshotQuery) []Snapshot {
	var candidates []*lvm.LV
	for i := range v.lvs {
		if lv := &v.lvs[i]; strings.HasPrefix(lv.Name, snapshotPrefix) {
			candidates = append(candidates, lv)
		}
	}
	slices.SortFunc(candidates, func(a, b *lvm.LV) int { return strings.Compare(a.Name, b.Name) })
	first := sort.Search(len(candidates), func(i int) bool { return v.e.handle(candidates[i].Name) > q.AfterID })
	var out []Snapshot
	for _, lv := range candidates[first:] {
		if q.Limit > 0 && len(out) == q.Limit {
			break
		}
		if s, ok := v.snapshot(*lv); ok && (q.SourceID == "" || s.SourceID == q.SourceID) {
			out = append(out, s)
		}
	}
	return out
}
