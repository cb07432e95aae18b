package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"pgregory.net/rapid"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

const (
	maxVolumes   = 6
	maxSnapshots = 6
	mostBytes    = 24 * mib
)

// drawSpec is a volume of some kind, from nothing.
func (m *machine) drawSpec(name string) storage.VolumeSpec {
	spec := storage.VolumeSpec{
		Name:          name,
		RequiredBytes: rapid.SampledFrom([]int64{4 * mib, 8 * mib, 5*mib + 1}).Draw(m.t, "size"),
		Access:        rapid.SampledFrom([]storage.AccessType{storage.AccessBlock, storage.AccessMount}).Draw(m.t, "access"),
	}
	spec.Class.Type = rapid.SampledFrom([]storage.Type{storage.TypeThin, storage.TypeThick}).Draw(m.t, "type")
	if len(m.w.groups) > 1 {
		spec.Class.VolumeGroup = rapid.SampledFrom(m.w.groups).Draw(m.t, "group")
	}
	return spec
}

func (m *machine) CreateVolume(t *rapid.T) {
	m.t = t
	m.create(&volume{spec: m.drawSpec(unused(m, m.volumes, "v", maxVolumes))})
}

// RestoreVolume makes one from a snapshot, of whatever kind both are.
func (m *machine) RestoreVolume(t *rapid.T) {
	m.t = t
	s := pick(m, m.snapshots, "snapshot", isCut)
	spec := m.drawSpec(unused(m, m.volumes, "v", maxVolumes))
	spec.RequiredBytes = s.size + rapid.SampledFrom([]int64{0, 0, 4 * mib}).Draw(t, "more")
	spec.Source = &storage.Source{Kind: storage.SourceSnapshot, ID: s.id}
	m.create(&volume{spec: spec, fromCut: s})
}

// CloneVolume makes one from another.
func (m *machine) CloneVolume(t *rapid.T) {
	m.t = t
	from := pick(m, m.volumes, "source", isSure)
	spec := m.drawSpec(unused(m, m.volumes, "v", maxVolumes))
	spec.RequiredBytes = from.requested + rapid.SampledFrom([]int64{0, 0, 4 * mib}).Draw(t, "more")
	spec.Source = &storage.Source{Kind: storage.SourceVolume, ID: from.id}
	m.create(&volume{spec: spec, from: from})
}

// create makes a volume, or tries again.
func (m *machine) create(v *volume) {
	m.t.Helper()
	name := v.spec.Name
	var got storage.Volume
	out := m.call("CreateVolume "+name, func(ctx context.Context) (err error) {
		got, err = m.d.CreateVolume(ctx, v.spec)
		return err
	})
	v.calls = append(v.calls, out.span)
	if out.faulty || v.doubt != sure {
		v.loosen()
	}
	switch {
	case out.err == nil:
		m.volumes[name] = v
		m.born(v, got)
	case out.open():
		if !out.faulty && v.doubt == sure {
			m.t.Fatalf("CreateVolume %s: %v, and nothing is in its way", name, out.err)
		}
		v.doubt = creating
		m.volumes[name] = v
	default:
		m.nothingLeft(v.lv(), fmt.Sprintf("CreateVolume %s ended with %q", name, out.err))
		delete(m.volumes, name)
		if !out.faulty && !m.sourceGone(v) && !v.wouldShowOld(out.err) {
			m.t.Fatalf("CreateVolume %s: %v", name, out.err)
		}
	}
}

// loosen: a copy activates what it reads, and nobody knows who else wants it when the copy was cut short.
func (v *volume) loosen() {
	if v.fromCut != nil {
		v.fromCut.of.loose = true
	}
	if v.from != nil {
		v.from.loose = true
	}
}

func (v *volume) isOfOld() bool {
	return v.fromCut != nil && v.fromCut.old || v.from != nil && v.from.old
}

// wouldShowOld says whether this is the refusal of a block volume made of old blocks, or of a copy that was begun before its source had any.
func (v *volume) wouldShowOld(err error) bool {
	return v.isOfOld() && (v.spec.Access == storage.AccessBlock && errors.Is(err, storage.ErrInvalid) || errors.Is(err, storage.ErrDamaged))
}

// sourceGone: what it was to be made from has grown since, or was deleted, or is about to be, and there may be another of its
// name.
func (m *machine) sourceGone(v *volume) bool {
	return v.fromCut != nil && (m.snapshots[v.fromCut.spec.Name] != v.fromCut || v.fromCut.doubt == deleting) ||
		v.from != nil && (m.volumes[v.from.spec.Name] != v.from || v.from.doubt == deleting || v.from.outgrew(v))
}

// outgrew: it was expanded, or may have been, since the copy was asked for.
func (v *volume) outgrew(copied *volume) bool {
	return max(v.size, roundUp(v.wanted)) > roundUp(copied.spec.RequiredBytes) || max(v.requested, v.wanted) > copied.spec.RequiredBytes
}

// born takes over what was reported of a new volume, as far as it can be right.
func (m *machine) born(v *volume, got storage.Volume) {
	m.t.Helper()
	v.doubt, v.id, v.group, v.class, v.old = sure, got.ID, got.Class.VolumeGroup, v.spec.Class.Type, v.isOfOld()
	v.requested, v.size = v.spec.RequiredBytes, roundUp(v.spec.RequiredBytes)
	if v.fromCut != nil {
		v.size = max(v.size, v.fromCut.bytes)
	}
	if v.from != nil || m.sourceGone(v) {
		v.size = max(v.size, got.SizeBytes) // the source may have grown between the calls
	}
	if v.size != roundUp(v.requested) {
		v.requested = v.size // what does not fit the size is not believed
	}
	if v.fsType = v.fs(); m.sourceGone(v) {
		v.fsType = got.FSType
	}
	m.same(v, got, "CreateVolume")
	allowed := map[string]bool{"": true}
	now := time.Now()
	switch {
	case v.fromCut != nil:
		allowed = map[string]bool{v.fromCut.text: true}
		if s := m.snapshots[v.fromCut.spec.Name]; s != nil && m.sourceGone(v) {
			allowed[s.text] = true
			if s.doubt == creating { // nobody has read it yet
				maps.Copy(allowed, s.of.texts(span{s.calls[0].from, now}))
			}
		}
	case v.from != nil:
		allowed = v.from.texts(span{v.calls[0].from, now})
		if from := m.volumes[v.from.spec.Name]; from != nil && m.sourceGone(v) {
			maps.Copy(allowed, from.texts(span{v.calls[0].from, now}))
		}
	}
	text := m.read(v)
	if !allowed[text] {
		m.t.Fatalf("new volume %s holds %q, want one of %v", v.spec.Name, text, allowed)
	}
	v.past = []moment{{v.calls[0].from, text}}
}

// fs is the file system of a volume: a copy for mounting has its source's.
func (v *volume) fs() string {
	switch {
	case v.spec.Access != storage.AccessMount:
		return ""
	case v.fromCut != nil:
		return v.fromCut.fsType
	case v.from != nil:
		return v.from.fsType
	default:
		return "ext4"
	}
}

// same compares a volume that was reported with the model.
func (m *machine) same(v *volume, got storage.Volume, what string) {
	m.t.Helper()
	group := v.spec.Class.VolumeGroup
	if group == "" {
		group = m.w.groups[0]
	}
	switch {
	case got.ID != v.id, got.Name != v.spec.Name, got.Class.VolumeGroup != group, got.Class.Type != v.spec.Class.Type:
	case got.SizeBytes != v.size, got.RequestedBytes != v.requested, got.Access != v.spec.Access, got.FSType != v.fsType:
	case (got.Source == nil) != (v.spec.Source == nil), got.Source != nil && *got.Source != *v.spec.Source:
	case len(got.Conditions) > 0:
	default:
		return
	}
	m.t.Fatalf("%s: %+v\nwant %+v, requested %d, size %d", what, got, v.spec, v.requested, v.size)
}

func (m *machine) DeleteVolume(t *rapid.T) {
	m.t = t
	m.remove(pick(m, m.volumes, "volume", func(*volume) bool { return true }))
}

func (m *machine) remove(v *volume) {
	m.t.Helper()
	id := storage.Handle{NodeHash: storage.NodeHash(nodeID), LV: v.lv()}.String()
	out := m.call("DeleteVolume "+v.spec.Name, func(ctx context.Context) error { return m.d.DeleteVolume(ctx, id) })
	if out.err != nil {
		v.doubt = deleting
		if !out.open() {
			m.must(out, "DeleteVolume "+v.spec.Name)
		}
		return
	}
	delete(m.volumes, v.spec.Name)
	m.nothingLeft(v.lv(), "DeleteVolume "+v.spec.Name)
}

// ExpandVolume grows one, by nothing as well.
func (m *machine) ExpandVolume(t *rapid.T) {
	m.t = t
	v := pick(m, m.volumes, "volume", func(v *volume) bool { return isSure(v) && v.size < mostBytes })
	v.wanted = v.size + rapid.SampledFrom([]int64{4 * mib, -1, 0, 1, 6 * mib}).Draw(t, "more")
	m.grow(v)
}

func (m *machine) grow(v *volume) {
	m.t.Helper()
	v.old = v.old || v.class == storage.TypeThick && v.spec.Access == storage.AccessMount && roundUp(v.wanted) > v.size
	var got storage.Volume
	out := m.call("ExpandVolume "+v.spec.Name, func(ctx context.Context) (err error) {
		got, err = m.d.ExpandVolume(ctx, v.id, v.wanted, 0)
		return err
	})
	size := max(v.size, roundUp(v.wanted))
	if size > v.size && v.active && v.class == storage.TypeThick && m.hasSnapshots(v) {
		switch {
		case out.err == nil && !m.isOrigin(v):
			m.grown(v, got)
			return
		case out.faulty && out.err != nil:
			v.doubt = growing
			return
		}
		m.refused(out, storage.ErrInUse, "ExpandVolume of an active origin")
		v.doubt = sure // as it was
		return
	}
	if out.err != nil {
		v.doubt = growing
		if errors.Is(out.err, storage.ErrInUse) && v.class == storage.TypeThick && (v.loose || m.isBeingCloned(v)) {
			v.doubt = sure // a copy that is not finished has a snapshot of it, and has it active
			return
		}
		if !out.open() {
			m.must(out, "ExpandVolume "+v.spec.Name)
		}
		return
	}
	m.grown(v, got)
}

func (m *machine) grown(v *volume, got storage.Volume) {
	m.t.Helper()
	size := max(v.size, roundUp(v.wanted))
	if size > v.size || roundUp(v.wanted) == v.size && v.wanted > v.requested {
		v.requested = v.wanted
	}
	v.size, v.doubt = size, sure
	m.same(v, got, "ExpandVolume")
}

// isBeingCloned: there may be a snapshot of it for a clone that is not complete, or not deleted.
func (m *machine) isBeingCloned(v *volume) bool {
	for _, other := range m.volumes {
		if other.from == v && (other.doubt == creating || other.doubt == deleting) {
			return true
		}
	}
	return false
}

// isOrigin: it has a snapshot for sure.
func (m *machine) isOrigin(v *volume) bool {
	for _, s := range m.snapshots {
		if s.of == v && s.doubt == sure {
			return true
		}
	}
	return false
}

// hasSnapshots: COW snapshots that need it, or may.
func (m *machine) hasSnapshots(v *volume) bool {
	for _, s := range m.snapshots {
		if s.of == v {
			return true
		}
	}
	return false
}

func (m *machine) SwitchVolume(t *rapid.T) {
	m.t = t
	v := pick(m, m.volumes, "volume", isSure)
	m.turn(v, !v.active)
}

// turn activates or deactivates a volume, which may be so already.
func (m *machine) turn(v *volume, active bool) {
	m.t.Helper()
	what := map[bool]string{true: "Activate ", false: "Deactivate "}[active] + v.spec.Name
	out := m.call(what, func(ctx context.Context) error {
		if !active {
			return m.d.Deactivate(ctx, v.id)
		}
		got, err := m.d.Activate(ctx, v.id)
		if err == nil && !got.Active {
			return errors.New("it is not active")
		}
		return err
	})
	v.active, v.loose = active, false
	if out.err != nil {
		v.doubt = switching
		if !out.open() {
			m.must(out, what)
		}
		return
	}
	v.doubt = sure
}

// Write overwrites what an active volume holds.
func (m *machine) Write(t *rapid.T) {
	m.t = t
	m.overwrite(pick(m, m.volumes, "volume", func(v *volume) bool { return isSure(v) && v.active }))
}

func (m *machine) overwrite(v *volume) {
	m.t.Helper()
	m.writes++
	text := fmt.Sprintf("%s, write %d", v.spec.Name, m.writes)
	time.Sleep(time.Millisecond)
	if err := m.w.write(v.group, v.lv(), text); err != nil {
		m.t.Fatalf("writing to %s: %v", v.spec.Name, err)
	}
	v.past = append(v.past, moment{time.Now(), text})
	time.Sleep(time.Millisecond)
	m.stats.count("Write", noFault, false)
}

// RetryVolume asks again for what there is, with the same words and with others.
func (m *machine) RetryVolume(t *rapid.T) {
	m.t = t
	v := pick(m, m.volumes, "volume", isSure)
	spec := v.spec
	other := rapid.SampledFrom([]string{"", "size", "access", "type", "source"}).Draw(t, "other")
	switch other {
	case "size":
		spec.RequiredBytes = v.size + 1
	case "access":
		spec.Access = map[storage.AccessType]storage.AccessType{
			storage.AccessBlock: storage.AccessMount, storage.AccessMount: storage.AccessBlock,
		}[spec.Access]
	case "type":
		spec.Class.Type = map[storage.Type]storage.Type{storage.TypeThin: storage.TypeThick, storage.TypeThick: storage.TypeThin}[spec.Class.Type]
	case "source":
		spec.Source = &storage.Source{Kind: storage.SourceVolume, ID: v.id}
	}
	var got storage.Volume
	out := m.call("CreateVolume "+spec.Name+" again, with another "+other, func(ctx context.Context) (err error) {
		got, err = m.d.CreateVolume(ctx, spec)
		return err
	})
	switch {
	case other != "":
		m.refused(out, storage.ErrConflict, "CreateVolume with another "+other)
	case out.err == nil:
		m.same(v, got, "CreateVolume again")
	default:
		m.must(out, "CreateVolume again")
		m.notFinal(out, "CreateVolume "+spec.Name+" again")
	}
}

// notFinal: of what exists, no answer may say that nothing was left behind.
func (m *machine) notFinal(out outcome, what string) {
	m.t.Helper()
	if !out.open() {
		m.t.Fatalf("%s: %v: this error is final, and the object exists", what, out.err)
	}
}
