package storage

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// view is what one volume group holds at one moment, read through the eyes of this driver.
type view struct {
	e     *Engine
	group *group
	lvs   []lvm.LV
}

// look reads the group in the caller's turn.
func (e *Engine) look(ctx context.Context, g *group, c *lvm.Client) (*view, error) {
	lvs, err := c.LVs(ctx)
	if err != nil {
		return nil, classify(err)
	}
	return &view{e: e, group: g, lvs: lvs}, nil
}

// find returns an LV by name, whoever owns it.
func (v *view) find(name string) (lvm.LV, bool) {
	i := slices.IndexFunc(v.lvs, func(lv lvm.LV) bool { return lv.Name == name })
	if i < 0 {
		return lvm.LV{}, false
	}
	return v.lvs[i], true
}

// volume reads an LV as a volume of this driver.
func (v *view) volume(lv lvm.LV) (Volume, bool) {
	r, ok := owned(lv, v.e.driver, VolumeLV)
	if !ok {
		return Volume{}, false
	}
	vol := Volume{
		ID:             v.e.handle(lv.Name),
		Name:           r[tagName],
		RequestedBytes: requestedBytes(r, lv.SizeBytes, v.group.extentBytes),
		SizeBytes:      lv.SizeBytes,
		Class:          v.class(lv),
		Access:         AccessType(r[tagAccess]),
		FSType:         r[tagFS],
		Source:         sourceOf(r[tagSource]),
		CreatedAt:      r.created(),
		Active:         lv.Attr.Active(),
		DevicePath:     path.Join("/dev", v.group.Name(), lv.Name),
		Init:           Init(r[tagInit]),
		Conditions:     lvConditions(v.group.Name(), lv),
	}
	vol.Claim.Namespace, vol.Claim.Name = r.object()
	vol.Claim.VolumeName = r[tagContent]
	return vol, true
}

// snapshotRecord reads an LV as a snapshot of this driver, without asking whether it is ready.
func (v *view) snapshotRecord(lv lvm.LV) (Snapshot, bool) {
	r, ok := owned(lv, v.e.driver, SnapshotLV)
	if !ok {
		return Snapshot{}, false
	}
	s := Snapshot{
		ID:         v.e.handle(lv.Name),
		Name:       r[tagName],
		SourceID:   r[tagSource],
		SizeBytes:  requestedBytes(r, lv.SizeBytes, v.group.extentBytes),
		CreatedAt:  r.created(),
		Class:      v.class(lv),
		FSType:     r[tagFS],
		Access:     AccessType(r[tagAccess]),
		Conditions: lvConditions(v.group.Name(), lv),
	}
	s.Object.Namespace, s.Object.Name = r.object()
	s.Object.ContentName = r[tagContent]
	return s, true
}

// snapshot reads an LV as a snapshot of this driver.
func (v *view) snapshot(ctx context.Context, lv lvm.LV) (Snapshot, bool, error) {
	s, ok := v.snapshotRecord(lv)
	if !ok {
		return Snapshot{}, false, nil
	}
	backend, ok := v.e.backends[s.Class.Type]
	if !ok {
		return Snapshot{}, false, nil
	}
	ready, err := backend.Committed(ctx, v.group.Name(), lv)
	if err != nil {
		return Snapshot{}, false, classify(err)
	}
	s.Ready = ready && len(s.Conditions) == 0
	return s, true, nil
}

// class derives what an LV is from what LVM says, never from a tag.
func (v *view) class(lv lvm.LV) Class {
	if lv.Pool != "" {
		return Class{Type: TypeThin, VolumeGroup: v.group.Name(), ThinPool: lv.Pool}
	}
	return Class{Type: TypeThick, VolumeGroup: v.group.Name()}
}

// sourceOf turns a handle in a tag into a Source.
func sourceOf(id string) *Source {
	switch h, err := ParseHandle(id); {
	case id == "" || err != nil:
		return nil
	case h.IsSnapshot():
		return &Source{Kind: SourceSnapshot, ID: id}
	default:
		return &Source{Kind: SourceVolume, ID: id}
	}
}

// lvConditions reads LVM's own complaints about an LV; lvs(8), lv_attr.
func lvConditions(group string, lv lvm.LV) []Condition {
	name := group + "/" + lv.Name
	var out []Condition
	if lv.Attr.Suspended() {
		out = append(out, Condition{
			SeverityInaccessible, "DeviceSuspended",
			"the device of " + name + " is suspended and its I/O hangs; an LVM command was interrupted: dmsetup resume it",
		})
	}
	switch lv.Attr.Health() {
	case 'p':
		out = append(out, Condition{
			SeverityInaccessible, "DiskMissing",
			name + " is partly on a disk that is missing; see `pvs` and `vgs`",
		})
	case 'F':
		out = append(out, Condition{SeverityInaccessible, "PoolFailed", "the thin pool of " + name + " has failed; see lvmthin(7), repair"})
	}
	if lv.Attr.InvalidSnapshot() {
		out = append(out, Condition{SeverityDataLoss, "SnapshotInvalid", "the COW of " + name + " overflowed; it can only be deleted"})
	}
	return out
}

// volumes lists this driver's volumes, ordered by ID.
func (v *view) volumes() []Volume {
	var out []Volume
	for _, lv := range v.lvs {
		if vol, ok := v.volume(lv); ok {
			out = append(out, vol)
		}
	}
	return out
}

// snapshots lists this driver's snapshots.
func (v *view) snapshots(ctx context.Context) ([]Snapshot, error) {
	var out []Snapshot
	for _, lv := range v.lvs {
		s, ok, err := v.snapshot(ctx, lv)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, s)
		}
	}
	return out, nil
}

func byID[T any](id func(T) string) func(a, b T) int {
	return func(a, b T) int { return strings.Compare(id(a), id(b)) }
}
