package storage

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// view is what one volume group holds at one moment, read through the eyes of this driver.
type view struct {
	e        *Engine
	group    *group
	metadata lvm.Metadata
	lvs      []lvm.LV // shared with other views: not to be changed in place
	records  *records
	states   []func(lvm.LV) State // of each backend
	silent   error                // why this is what was known last: the disks do not answer
}

// records are what the tags of a group's LVs say, each read when somebody asks for it, once for each commit of the
// group's metadata: what has not changed is the same slice.
type records struct {
	lvs []lvm.LV

	mu     sync.Mutex
	byTags map[tagsKey]record
}

// tagsKey tells the tags of an LV from those that it, or another of its name, has later; none are changed in place.
type tagsKey struct {
	first *string
	n     int
}

func (g *group) recordsOf(lvs []lvm.LV) *records {
	if last := g.records.Load(); last != nil && len(lvs) == len(last.lvs) && len(lvs) > 0 && &lvs[0] == &last.lvs[0] {
		return last
	}
	r := &records{lvs: lvs, byTags: map[tagsKey]record{}}
	g.records.Store(r)
	return r
}

func (r *records) of(lv lvm.LV) record {
	if len(lv.Tags) == 0 {
		return record{}
	}
	key := tagsKey{&lv.Tags[0], len(lv.Tags)}
	r.mu.Lock()
	defer r.mu.Unlock()
	out, ok := r.byTags[key]
	if !ok {
		out = parseRecord(lv.Tags)
		r.byTags[key] = out
	}
	return out
}

// look makes a view of what read returns.
func (e *Engine) look(ctx context.Context, g *group, read func(context.Context) (lvm.Metadata, error)) (*view, error) {
	m, err := read(ctx)
	if err != nil {
		return nil, classify(err)
	}
	v := &view{e: e, group: g, metadata: m, lvs: m.LVs, records: g.recordsOf(m.LVs)}
	for _, b := range e.backends {
		states, err := b.States(ctx, g.Name(), m.LVs)
		if err != nil {
			return nil, classify(err)
		}
		v.states = append(v.states, states)
	}
	return v, nil
}

// state says whether an LV is really there.
func (v *view) state(lv lvm.LV) State {
	if v.halfMade(lv) {
		return StatePhantom
	}
	if v.splitOff(lv) {
		return StateUnknown
	}
	for _, of := range v.states {
		if s := of(lv); s != StateUnknown {
			return s
		}
	}
	return StateUnknown
}

// metadataReservePercent of a group's metadata area are kept for what frees space: LVM's way to remove a thin
// volume makes the metadata longer first.
const metadataReservePercent = 5

// checkRoom refuses a creation when the group's metadata area is nearly full. LVM would refuse it, too, but at
// the last byte, and then it refuses whatever an administrator wants to do about it.
func (v *view) checkRoom() error {
	used, limit := v.metadata.TextBytes, v.metadata.TextLimitBytes
	if limit == 0 || used <= limit/100*(100-metadataReservePercent) {
		return nil
	}
	return fmt.Errorf("%w: the metadata area of volume group %s has %d of %d bytes used (%.1f%%), the rest is kept for removals: "+
		"delete snapshots or volumes, or give the group a disk with a larger area (vgextend --metadatasize, "+
		"then pvchange --metadataignore y on the others)", ErrNoSpace, v.group.Name(), used, limit, float64(used)*100/float64(limit))
}

// owned is the record of an LV, and whether it is this driver's.
func (v *view) owned(lv lvm.LV, lvName func(csiName string) string) (record, bool) {
	r := v.records.of(lv)
	return r, r.owns(lv.Name, v.e.driver, lvName)
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
	r, ok := v.owned(lv, VolumeLV)
	if !ok {
		return Volume{}, false
	}
	vol := Volume{
		ID:             v.e.handle(lv.Name),
		Name:           r[tagName],
		RequestedBytes: requestedBytes(r, lv.SizeBytes, v.metadata.ExtentBytes),
		SizeBytes:      lv.SizeBytes,
		Class:          v.class(lv),
		Access:         AccessType(r[tagAccess]),
		FSType:         r[tagFS],
		Source:         v.sourceOf(r[tagSource]),
		CreatedAt:      r.created(),
		DevicePath:     v.devicePath(lv),
		Init:           Init(r[tagInit]),
		Conditions:     lvConditions(v.group.Name(), lv),
	}
	vol.Claim.Namespace, vol.Claim.Name = r.object()
	vol.Claim.VolumeName = r[tagContent]
	return vol, true
}

func (v *view) devicePath(lv lvm.LV) string { return path.Join("/dev", v.group.Name(), lv.Name) }

// ask adds to a volume what only the kernel knows: whether its device exists, and works.
func (v *view) ask(ctx context.Context, vol *Volume) error {
	h, err := ParseHandle(vol.ID)
	if err != nil {
		return err
	}
	info, err := v.e.kernel.Info(ctx, v.group.Name(), h.LV)
	if errors.Is(err, dm.ErrNoDevice) {
		return nil
	}
	if err != nil {
		return err
	}
	vol.Active = true
	if info.Suspended {
		vol.Conditions = append(vol.Conditions, Condition{
			SeverityInaccessible, suspendedReason,
			vol.DevicePath + " is suspended and its I/O hangs: an LVM command is at work, or was interrupted, and then the next call " +
				"that changes something in the volume group resumes it",
		})
	}
	return nil
}

const suspendedReason = "DeviceSuspended"

// snapshot reads an LV as a snapshot of this driver.
func (v *view) snapshot(lv lvm.LV) (Snapshot, bool) {
	r, ok := v.owned(lv, SnapshotLV)
	if !ok {
		return Snapshot{}, false
	}
	s := Snapshot{
		ID:         v.e.handle(lv.Name),
		Name:       r[tagName],
		SourceID:   v.sourceID(r[tagSource]),
		SizeBytes:  requestedBytes(r, contentBytes(lv), v.metadata.ExtentBytes),
		CreatedAt:  r.created(),
		Class:      v.class(lv),
		FSType:     r[tagFS],
		Access:     AccessType(r[tagAccess]),
		Conditions: lvConditions(v.group.Name(), lv),
	}
	state := v.state(lv)
	if len(s.Conditions) == 0 && (state == StateInvalid || r[tagInvalid] != "") {
		s.Conditions = []Condition{snapshotLost(v.group.Name(), lv)}
	}
	s.Ready = state == StateCommitted && len(s.Conditions) == 0
	s.Object.Namespace, s.Object.Name = r.object()
	s.Object.ContentName = r[tagContent]
	return s, true
}

// class derives what an LV is from what LVM says, never from a tag.
func (v *view) class(lv lvm.LV) Class {
	if lv.Pool != "" {
		return Class{Type: TypeThin, VolumeGroup: v.group.Name(), ThinPool: lv.Pool}
	}
	return Class{Type: TypeThick, VolumeGroup: v.group.Name()}
}

// sourceID is the handle of the LV that a tag names as the source: it can only be this node's.
func (v *view) sourceID(lv string) string {
	if lv == "" {
		return ""
	}
	return v.e.handle(lv)
}

// sourceOf is what a volume was made from.
func (v *view) sourceOf(lv string) *Source {
	switch h, err := ParseHandle(v.sourceID(lv)); {
	case err != nil:
		return nil
	case h.IsSnapshot():
		return &Source{Kind: SourceSnapshot, ID: h.String()}
	default:
		return &Source{Kind: SourceVolume, ID: h.String()}
	}
}

// contentBytes is the size of what an LV shows: a COW snapshot's own size is that of its COW.
func contentBytes(lv lvm.LV) int64 {
	if lv.OriginBytes > 0 {
		return lv.OriginBytes
	}
	return lv.SizeBytes
}

// volumes are the LVs of this driver's volumes, as far as they have their content.
func (v *view) volumes() []lvm.LV {
	out := make([]lvm.LV, 0, len(v.lvs))
	for _, lv := range v.lvs {
		if _, ok := v.owned(lv, VolumeLV); ok && !v.fillOf(lv).unborn() {
			out = append(out, lv)
		}
	}
	return out
}

func byID[T any](id func(T) string) func(a, b T) int {
	return func(a, b T) int { return strings.Compare(id(a), id(b)) }
}
