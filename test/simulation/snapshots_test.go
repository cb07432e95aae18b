package simulation_test

import (
	"context"
	"fmt"
	"time"

	"pgregory.net/rapid"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func (m *machine) CreateSnapshot(t *rapid.T) {
	m.t = t
	v := pick(m, m.volumes, "volume", isSure)
	name := unused(m, m.snapshots, "s", maxSnapshots)
	m.cut(&snapshot{spec: storage.SnapshotSpec{Name: name, SourceID: v.id}, of: v})
}

// cut cuts a snapshot, or tries again.
func (m *machine) cut(s *snapshot) {
	m.t.Helper()
	name := s.spec.Name
	var got storage.Snapshot
	out := m.call("CreateSnapshot "+name+" of "+s.of.spec.Name, func(ctx context.Context) (err error) {
		got, err = m.d.CreateSnapshot(ctx, s.spec)
		return err
	})
	s.calls = append(s.calls, out.span)
	switch {
	case out.err == nil:
		m.snapshots[name] = s
		m.ready(s, got)
	case out.open():
		if !out.faulty && s.doubt == sure {
			m.t.Fatalf("CreateSnapshot %s: %v, and nothing is in its way", name, out.err)
		}
		s.doubt = creating
		m.snapshots[name] = s
	default:
		m.nothingLeft(s.lv(), fmt.Sprintf("CreateSnapshot %s ended with %q", name, out.err))
		delete(m.snapshots, name)
		if gone := m.volumes[s.of.spec.Name]; !out.faulty && gone == s.of && isSure(gone) {
			m.t.Fatalf("CreateSnapshot %s: %v", name, out.err)
		}
	}
}

// ready takes over what was reported of a new snapshot: its time is within one of the calls, and it holds what its volume
// held then.
func (m *machine) ready(s *snapshot, got storage.Snapshot) {
	m.t.Helper()
	var during *span
	for i := range s.calls {
		if c := &s.calls[i]; !got.CreatedAt.Before(c.from) && !got.CreatedAt.After(c.to) {
			during = c
		}
	}
	if during == nil {
		m.t.Fatalf("snapshot %s was cut at %s, and asked for at %v", s.spec.Name, got.CreatedAt, s.calls)
	}
	if of := m.volumes[s.of.spec.Name]; of != nil && of != s.of && of.calls[0].from.Before(got.CreatedAt) {
		s.of = of // the same request means another volume of that name by now
	}
	allowed := s.of.texts(span{got.CreatedAt, during.to})
	s.doubt, s.id, s.created, s.fsType = sure, got.ID, got.CreatedAt, s.of.fsType
	s.size, s.bytes, s.old = got.SizeBytes, roundUp(got.SizeBytes), s.of.old
	m.sameCut(s, got, "CreateSnapshot")
	text, ok := m.readCut(s)
	if ok && !allowed[text] {
		m.t.Fatalf("snapshot %s of %s holds %q, want one of %v", s.spec.Name, s.of.spec.Name, text, allowed)
	}
	s.text = text
}

// sameCut compares a snapshot that was reported with the model.
func (m *machine) sameCut(s *snapshot, got storage.Snapshot, what string) {
	m.t.Helper()
	switch {
	case got.ID != s.id, got.Name != s.spec.Name, got.SourceID != s.spec.SourceID, !got.CreatedAt.Equal(s.created):
	case got.SizeBytes != s.size, !got.Ready, len(got.Conditions) > 0:
	default:
		return
	}
	m.t.Fatalf("%s: %+v\nwant %+v, size %d, created %s", what, got, s.spec, s.size, s.created)
}

func (m *machine) DeleteSnapshot(t *rapid.T) {
	m.t = t
	m.removeCut(pick(m, m.snapshots, "snapshot", func(*snapshot) bool { return true }))
}

func (m *machine) removeCut(s *snapshot) {
	m.t.Helper()
	id := storage.Handle{NodeHash: storage.NodeHash(nodeID), LV: s.lv()}.String()
	out := m.call("DeleteSnapshot "+s.spec.Name, func(ctx context.Context) error { return m.d.DeleteSnapshot(ctx, id) })
	if out.err != nil {
		s.doubt = deleting
		if !out.open() {
			m.must(out, "DeleteSnapshot "+s.spec.Name)
		}
		return
	}
	delete(m.snapshots, s.spec.Name)
	m.nothingLeft(s.lv(), "DeleteSnapshot "+s.spec.Name)
}

// RetrySnapshot asks again for what there is, with the same words and with another source.
func (m *machine) RetrySnapshot(t *rapid.T) {
	m.t = t
	s := pick(m, m.snapshots, "snapshot", isCut)
	spec := s.spec
	other := rapid.Bool().Draw(t, "other")
	if other {
		spec.SourceID = storage.Handle{NodeHash: storage.NodeHash(nodeID), LV: storage.VolumeLV("another")}.String()
	}
	var got storage.Snapshot
	out := m.call(fmt.Sprintf("CreateSnapshot %s again, with another source: %t", spec.Name, other), func(ctx context.Context) (err error) {
		got, err = m.d.CreateSnapshot(ctx, spec)
		return err
	})
	switch {
	case other:
		m.refused(out, storage.ErrConflict, "CreateSnapshot with another source")
	case out.err == nil:
		m.sameCut(s, got, "CreateSnapshot again")
	default:
		m.must(out, "CreateSnapshot again")
		m.notFinal(out, "CreateSnapshot "+spec.Name+" again")
	}
}

// Resolve makes one of the calls again that did not say what became of them.
func (m *machine) Resolve(t *rapid.T) {
	m.t = t
	if v := pickAny(m, m.volumes, func(v *volume) bool { return !isSure(v) }); v != nil {
		m.resolve(v)
		return
	}
	s := pick(m, m.snapshots, "doubtful", func(s *snapshot) bool { return !isCut(s) })
	m.resolveCut(s)
}

func pickAny(m *machine, all map[string]*volume, fits func(*volume) bool) *volume {
	for _, v := range all {
		if fits(v) {
			return pick(m, all, "doubtful", fits)
		}
	}
	return nil
}

func (m *machine) resolve(v *volume) {
	m.t.Helper()
	switch v.doubt {
	case creating:
		m.create(v)
	case deleting:
		m.remove(v)
	case growing:
		m.grow(v)
	case switching:
		m.turn(v, v.active)
	case sure:
	}
}

func (m *machine) resolveCut(s *snapshot) {
	m.t.Helper()
	if s.doubt == creating {
		m.cut(s)
		return
	}
	m.removeCut(s)
}

// Restart ends the driver in good order, or not, and starts it again.
func (m *machine) Restart(t *rapid.T) {
	m.t = t
	killed := rapid.Bool().Draw(t, "killed")
	t.Logf("restart, killed: %t", killed)
	m.d.end(killed)
	time.Sleep(time.Millisecond)
	m.start()
	m.w.quiet(m.d)
	m.stats.count("Restart", noFault, false)
}
