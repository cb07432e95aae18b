package simulation_test

import (
	"pgregory.net/rapid"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// half makes a copy that ends half way, unless it needs none or ends otherwise.
func (m *machine) half(v *volume) bool {
	m.t.Helper()
	m.next = fillFails
	m.create(v)
	return v.doubt == creating
}

// ReplaceSource deletes the snapshot that a copy, half done, is made from, and cuts another of its name and of another moment.
func (m *machine) ReplaceSource(t *rapid.T) {
	m.t = t
	was := pick(m, m.snapshots, "snapshot", func(s *snapshot) bool {
		of := m.volumes[s.of.spec.Name]
		return isCut(s) && of == s.of && isSure(of) && of.active
	})
	v := &volume{spec: m.drawSpec(unused(m, m.volumes, "v", maxVolumes)), fromCut: was}
	v.spec.RequiredBytes = was.size
	v.spec.Source = &storage.Source{Kind: storage.SourceSnapshot, ID: was.id}
	if !m.half(v) {
		return
	}
	m.removeCut(was)
	if m.snapshots[was.spec.Name] != nil {
		return
	}
	m.overwrite(was.of)
	m.cut(&snapshot{spec: was.spec, of: was.of})
	m.create(v)
}

// ReplaceClone deletes a clone that is half done, and makes one of its name from another volume, in whichever group.
func (m *machine) ReplaceClone(t *rapid.T) {
	m.t = t
	first := pick(m, m.volumes, "source", isSure)
	second := pick(m, m.volumes, "other source", func(v *volume) bool { return isSure(v) && v != first })
	clone := func(name string, from *volume) *volume {
		v := &volume{spec: m.drawSpec(name), from: from}
		v.spec.RequiredBytes = from.requested
		v.spec.Source = &storage.Source{Kind: storage.SourceVolume, ID: from.id}
		return v
	}
	v := clone(unused(m, m.volumes, "v", maxVolumes), first)
	if !m.half(v) {
		return
	}
	m.remove(v)
	if m.volumes[v.spec.Name] == nil {
		m.create(clone(v.spec.Name, second))
	}
}

// isBlock: neither it nor what it was made from has ever had a file system, which hides what others left on its extents.
func (v *volume) isBlock() bool {
	switch {
	case v.spec.Access == storage.AccessMount:
		return false
	case v.fromCut != nil:
		return v.fromCut.of.isBlock()
	case v.from != nil:
		return v.from.isBlock()
	default:
		return true
	}
}
