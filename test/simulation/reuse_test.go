package simulation_test

import (
	"pgregory.net/rapid"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// ReplaceSource deletes the snapshot that a copy, half done, is made from, and cuts another of its name and of another moment.
func (m *machine) ReplaceSource(t *rapid.T) {
	m.t = t
	v := pick(m, m.volumes, "half a copy", func(v *volume) bool {
		if v.doubt != creating || v.fromCut == nil || m.sourceGone(v) || v.fromCut.doubt != sure {
			return false
		}
		of := m.volumes[v.fromCut.of.spec.Name]
		return of == v.fromCut.of && isSure(of) && of.active
	})
	was := v.fromCut
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
	was := pick(m, m.volumes, "half a clone", func(v *volume) bool { return v.doubt == creating && v.from != nil })
	from := pick(m, m.volumes, "source", func(v *volume) bool { return isSure(v) && v != was.from })
	m.remove(was)
	if m.volumes[was.spec.Name] != nil {
		return
	}
	spec := m.drawSpec(was.spec.Name)
	spec.RequiredBytes = from.requested
	spec.Source = &storage.Source{Kind: storage.SourceVolume, ID: from.id}
	m.create(&volume{spec: spec, from: from})
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
