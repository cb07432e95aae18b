package storage

import (
	"context"
	"errors"
	"strings"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// Inspector sees what an Engine sees, with the same eyes, and does nothing that an Engine does by itself: no pool is
// activated, nothing put right, no fill begun. It is for people who look, with a driver at work or without.
// No two of its methods may look at the same group at the same time.
type Inspector struct{ e *Engine }

// NewInspector makes an Inspector. It asks nobody anything yet.
func NewInspector(o Options) (*Inspector, error) {
	e, err := newEngine(o)
	if err != nil {
		return nil, err
	}
	return &Inspector{e}, nil
}

// Inventory is what a group holds of the driver's.
type Inventory struct {
	Group     Group
	Pools     []Pool
	Volumes   []VolumeDetail
	Snapshots []SnapshotDetail
}

// VolumeDetail is a volume with what no CSI caller asks for.
type VolumeDetail struct {
	Volume
	LV      string
	SegType string // LVM's: thin, linear, striped, raid1, ...
	ThinID  uint32 // of a thin volume
	// OpenCount of the device: mounts, opens, and devices stacked on it, such as those of its COW snapshots.
	OpenCount    int
	Suspended    bool
	Major, Minor uint32 // of the device, while Active
	Deleted      bool   // it was deleted, and waits for its last COW snapshot to go
	Fill         *Fill  // its content is not complete
}

// Fill is how far the content of a volume is, as its tag says: a driver at work is further than that.
type Fill struct {
	Kind       string // zero, copy or grow
	DoneBytes  int64
	TotalBytes int64
}

// SnapshotDetail is a snapshot with what no CSI caller asks for.
type SnapshotDetail struct {
	Snapshot
	LV       string
	OriginLV string // LVM's own; of a thin snapshot gone with its origin
	ThinID   uint32 // of a thin snapshot
	Active   bool
	COW      *COWUse // of a thick volume's snapshot
}

// COWUse is how full a COW snapshot is. While it is inactive nobody can tell.
type COWUse struct {
	UsedBytes, TotalBytes int64
	Known                 bool
}

// Inventory looks at one of the groups.
func (i *Inspector) Inventory(ctx context.Context, group string) (Inventory, error) {
	return inspect(ctx, i, group, func(ctx context.Context, v *view) (Inventory, error) {
		out := Inventory{Group: v.describeGroup()}
		var err error
		if out.Pools, err = v.pools(ctx); err != nil {
			return out, err
		}
		for _, lv := range v.lvs {
			vol, ok, err := v.volumeDetail(ctx, lv)
			if err != nil {
				return out, err
			}
			if ok {
				out.Volumes = append(out.Volumes, vol)
			}
			s, ok, err := v.snapshotDetail(ctx, lv)
			if err != nil {
				return out, err
			}
			if ok {
				out.Snapshots = append(out.Snapshots, s)
			}
		}
		return out, nil
	})
}

// inspect makes a view of a group for fn.
func inspect[T any](ctx context.Context, i *Inspector, name string, fn func(context.Context, *view) (T, error)) (T, error) {
	var none T
	g, err := i.e.groupFor(Class{VolumeGroup: name})
	if err != nil {
		return none, err
	}
	return read(ctx, func() (T, error) {
		var out T
		err := i.e.inTurn(ctx, g, looking, "look", func(ctx context.Context, _ *lvm.Client, v *view) error {
			var err error
			out, err = fn(ctx, v)
			return err
		})
		return out, err
	})
}

func (v *view) describeGroup() Group {
	m := v.metadata
	return Group{
		Name: v.group.Name(), SizeBytes: m.SizeBytes, FreeBytes: m.FreeBytes, MetadataBytes: m.TextBytes, MetadataLimitBytes: m.TextLimitBytes,
	}
}

// volumeDetail describes a volume, one without its content and one that was deleted included.
func (v *view) volumeDetail(ctx context.Context, lv lvm.LV) (VolumeDetail, bool, error) {
	out := VolumeDetail{LV: lv.Name, SegType: lv.SegType, ThinID: lv.ThinID}
	if v.aside(lv) {
		r := v.records.of(lv)
		out.Deleted = true
		out.Volume = Volume{
			Name: r[tagName], SizeBytes: lv.SizeBytes, RequestedBytes: requestedBytes(r, lv.SizeBytes, v.metadata.ExtentBytes), Class: v.class(lv),
			Access: AccessType(r[tagAccess]), FSType: r[tagFS], CreatedAt: r.created(), DevicePath: v.devicePath(lv), Conditions: lvConditions(v.group.Name(), lv),
		}
		out.Claim.Namespace, out.Claim.Name = r.object()
		out.Claim.VolumeName = r[tagContent]
	} else {
		list, err := v.withConditions(ctx, []lvm.LV{lv})
		if err != nil || len(list) == 0 {
			return out, false, err
		}
		out.Volume = list[0]
	}
	info, err := v.e.kernel.Info(ctx, v.group.Name(), lv.Name)
	switch {
	case err == nil:
		out.Active, out.OpenCount, out.Suspended, out.Major, out.Minor = true, info.OpenCount, info.Suspended, info.Major, info.Minor
	case !errors.Is(err, dm.ErrNoDevice):
		return out, false, err
	}
	if f := v.fillOf(lv); f.kind != fillNone {
		out.Fill = &Fill{Kind: f.kind, DoneBytes: f.offset, TotalBytes: v.fillBytes(lv, f)}
	}
	return out, true, nil
}

// fillBytes is up to where a volume has to be filled: a copy ends where its source does.
func (v *view) fillBytes(lv lvm.LV, f filling) int64 {
	if f.kind != fillCopy {
		return lv.SizeBytes
	}
	if source, ok := v.find(v.records.of(lv)[tagSource]); ok {
		return min(contentBytes(source), lv.SizeBytes)
	}
	return lv.SizeBytes
}

func (v *view) snapshotDetail(ctx context.Context, lv lvm.LV) (SnapshotDetail, bool, error) {
	s, ok := v.snapshot(lv)
	if !ok {
		return SnapshotDetail{}, false, nil
	}
	out := SnapshotDetail{Snapshot: s, LV: lv.Name, OriginLV: lv.Origin, ThinID: lv.ThinID}
	_, err := v.e.kernel.Info(ctx, v.group.Name(), lv.Name)
	if err != nil && !errors.Is(err, dm.ErrNoDevice) {
		return out, false, err
	}
	out.Active = err == nil
	if !isCOW(lv) {
		return out, true, nil
	}
	out.COW = &COWUse{TotalBytes: lv.SizeBytes}
	st, err := v.e.kernel.SnapshotStatus(ctx, v.group.Name(), lv.Name)
	switch {
	case errors.Is(err, dm.ErrNoDevice):
	case err != nil:
		return out, false, err
	case st.Valid():
		out.COW.UsedBytes, out.COW.Known = st.UsedBytes, true
	}
	return out, true, nil
}

// Recover puts right in one group what interrupted LVM commands left, as an Engine does before a change, and says how often
// it did what. The Inspector's groups need everything for it that an Engine's have.
//
// Alone says that no driver is at work on the group, nor will be meanwhile. Beside one, only that is done which is certain under
// LVM's own lock, whoever asks for it; what is to be removed afterwards, the driver removes with its next change, and nobody else:
// by then it may have made another thing of that name.
func (i *Inspector) Recover(ctx context.Context, group string, alone bool) (map[RecoveryKind]int64, error) {
	g, err := i.e.groupFor(Class{VolumeGroup: group})
	if err != nil {
		return nil, err
	}
	before := i.e.stats.recoveries.all()
	if alone {
		err = i.e.recoverAll(ctx, g)
	} else {
		err = g.Do(ctx, "recovery", i.e.limit, func(ctx context.Context, c *lvm.Client) error {
			v, err := i.e.look(ctx, g, c.View)
			if err != nil {
				return err
			}
			return v.recover(ctx, c)
		})
	}
	done := i.e.stats.recoveries.all()
	for kind, n := range before {
		if done[kind] -= n; done[kind] == 0 {
			delete(done, kind)
		}
	}
	return done, classify(err)
}

// recoverAll is the start of an engine, for one group, without what goes on afterwards.
func (e *Engine) recoverAll(ctx context.Context, g *group) error {
	g.opened.Store(false)
	g.suspect.Store(true)
	return e.inTurn(ctx, g, changing, "recovery", func(context.Context, *lvm.Client, *view) error { return nil })
}

// ByAge sorts snapshots, the oldest first.
func ByAge(a, b SnapshotDetail) int {
	if c := a.CreatedAt.Compare(b.CreatedAt); c != 0 {
		return c
	}
	return strings.Compare(a.LV, b.LV)
}

// DriverTag is the tag that every LV of a driver has.
func DriverTag(driver string) string { return tag(tagDriver, driver) }
