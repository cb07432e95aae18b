package simulation_test

import (
	"context"
	"errors"
	"sync"
	"time"

	"pgregory.net/rapid"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// DuplicateSnapshot asks for one snapshot several times at once, and for another of the same name, too.
func (m *machine) DuplicateSnapshot(t *rapid.T) {
	m.t = t
	v := pick(m, m.volumes, "volume", isSure)
	s := &snapshot{spec: storage.SnapshotSpec{Name: unused(m, m.snapshots, "s", maxSnapshots), SourceID: v.id}, of: v}
	other := pick(m, m.volumes, "other volume", isSure)
	specs := []storage.SnapshotSpec{s.spec, s.spec, s.spec, {Name: s.spec.Name, SourceID: other.id}}
	results := make([]storage.Snapshot, len(specs))
	errs := make([]error, len(specs))
	time.Sleep(time.Millisecond)
	from := time.Now()
	together(len(specs), func(i int) { results[i], errs[i] = m.d.CreateSnapshot(context.Background(), specs[i]) })
	time.Sleep(time.Millisecond)
	span := span{from, time.Now()}
	done := false
	for i, err := range errs {
		t.Logf("CreateSnapshot %s of %s among others: %v", specs[i].Name, specs[i].SourceID, err)
		switch {
		case err == nil && !done:
			done = true
			if specs[i].SourceID == other.id {
				s = &snapshot{spec: specs[i], of: other}
			}
			s.calls = append(s.calls, span)
			m.snapshots[s.spec.Name] = s
			m.ready(s, results[i])
		case err == nil:
			m.sameCut(s, results[i], "CreateSnapshot at the same time")
		case errors.Is(err, storage.ErrPending):
		case errors.Is(err, storage.ErrConflict) && v != other:
		default:
			t.Fatalf("CreateSnapshot %s at the same time: %v", s.spec.Name, err)
		}
	}
	if !done {
		t.Fatalf("of many calls for one snapshot none has ended well: %v", errs)
	}
	m.stats.count("DuplicateSnapshot", noFault, false)
}

// DuplicateVolume asks for one volume several times at once.
func (m *machine) DuplicateVolume(t *rapid.T) {
	m.t = t
	v := &volume{spec: m.drawSpec(unused(m, m.volumes, "v", maxVolumes))}
	const n = 3
	var results [n]storage.Volume
	var errs [n]error
	time.Sleep(time.Millisecond)
	from := time.Now()
	together(n, func(i int) { results[i], errs[i] = m.d.CreateVolume(context.Background(), v.spec) })
	v.calls = append(v.calls, span{from, time.Now()})
	done := false
	for i, err := range errs {
		t.Logf("CreateVolume %s among others: %v", v.spec.Name, err)
		switch {
		case err == nil && !done:
			done = true
			m.volumes[v.spec.Name] = v
			m.born(v, results[i])
		case err == nil:
			m.same(v, results[i], "CreateVolume at the same time")
		case !errors.Is(err, storage.ErrPending):
			t.Fatalf("CreateVolume %s at the same time: %v", v.spec.Name, err)
		}
	}
	if !done {
		t.Fatalf("of many calls for one volume none has ended well: %v", errs)
	}
	m.stats.count("DuplicateVolume", noFault, false)
}

// Together deletes a snapshot and cuts others of the same volume and of another at the same time.
func (m *machine) Together(t *rapid.T) {
	m.t = t
	one, two := pick(m, m.volumes, "volume", isSure), pick(m, m.volumes, "other volume", isSure)
	first := &snapshot{spec: storage.SnapshotSpec{Name: unused(m, m.snapshots, "s", maxSnapshots), SourceID: one.id}, of: one}
	m.snapshots[first.spec.Name] = first
	defer func() {
		if first.id == "" && m.snapshots[first.spec.Name] == first {
			delete(m.snapshots, first.spec.Name)
		}
	}()
	second := &snapshot{spec: storage.SnapshotSpec{Name: unused(m, m.snapshots, "s", maxSnapshots), SourceID: two.id}, of: two}
	old := pick(m, m.snapshots, "snapshot", func(s *snapshot) bool { return isCut(s) && s != first && !m.isSource(s) })
	var got [2]storage.Snapshot
	var errs [3]error
	time.Sleep(time.Millisecond)
	from := time.Now()
	together(3, func(i int) {
		switch i {
		case 0:
			got[0], errs[0] = m.d.CreateSnapshot(context.Background(), first.spec)
		case 1:
			got[1], errs[1] = m.d.CreateSnapshot(context.Background(), second.spec)
		default:
			errs[2] = m.d.DeleteSnapshot(context.Background(), old.id)
		}
	})
	time.Sleep(time.Millisecond)
	t.Logf("CreateSnapshot %s, %s and DeleteSnapshot %s together: %v", first.spec.Name, second.spec.Name, old.spec.Name, errs)
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	for i, s := range []*snapshot{first, second} {
		s.calls = append(s.calls, span{from, time.Now()})
		m.snapshots[s.spec.Name] = s
		m.ready(s, got[i])
	}
	delete(m.snapshots, old.spec.Name)
	m.nothingLeft(old.lv(), "DeleteSnapshot together with others")
	m.stats.count("Together", noFault, false)
}

// isSource: a volume is being made of it, perhaps.
func (m *machine) isSource(s *snapshot) bool {
	for _, v := range m.volumes {
		if v.doubt != sure && v.fromCut == s {
			return true
		}
	}
	return false
}

func together(n int, fn func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { fn(i) })
	}
	all.Wait()
}
