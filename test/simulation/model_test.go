package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// doubt is what a call wanted that did not say what became of it. Only the same call again, or a deletion, ends it.
type doubt string

const (
	sure      doubt = ""
	creating  doubt = "creating"
	deleting  doubt = "deleting"
	growing   doubt = "growing"
	switching doubt = "switching"
)

// span is the time of one call.
type span struct{ from, to time.Time }

// moment is since when a volume has held a text.
type moment struct {
	at   time.Time
	text string
}

// volume is what must be true of one.
type volume struct {
	spec      storage.VolumeSpec
	doubt     doubt
	calls     []span // that tried to make it
	id        string
	group     string
	class     storage.Type
	requested int64
	size      int64
	wanted    int64 // while growing
	active    bool
	loose     bool // a copy that went wrong may have left it active
	old       bool // where a thick file system grew, it or what it was made of, there may be old blocks
	fsType    string
	past      []moment
	fromCut   *snapshot
	from      *volume
}

func (v *volume) lv() string { return storage.VolumeLV(v.spec.Name) }

func (v *volume) text() string { return v.past[len(v.past)-1].text }

// texts are all that it held in a time.
func (v *volume) texts(s span) map[string]bool {
	out := map[string]bool{}
	for i, m := range v.past {
		if m.at.After(s.to) || i+1 < len(v.past) && v.past[i+1].at.Before(s.from) {
			continue
		}
		out[m.text] = true
	}
	return out
}

// snapshot is what must be true of one.
type snapshot struct {
	spec    storage.SnapshotSpec
	of      *volume
	doubt   doubt
	calls   []span
	id      string
	created time.Time
	text    string
	fsType  string
	size    int64
	bytes   int64 // of the device
	old     bool  // see volume
}

func (s *snapshot) lv() string { return storage.SnapshotLV(s.spec.Name) }

// machine is a driver on a host, and the model of both.
type machine struct {
	t         *rapid.T
	w         *world
	d         *driver
	faults    bool
	volumes   map[string]*volume   // by CSI name; those in doubt, too
	snapshots map[string]*snapshot // likewise
	writes    int
	next      faultKind // is what goes wrong with the next call, whatever would be drawn
	dirty     bool      // something went wrong since all was last compared
	stats     *stats
}

func newMachine(t *rapid.T, w *world, st *stats) *machine {
	m := &machine{t: t, w: w, faults: true, volumes: map[string]*volume{}, snapshots: map[string]*snapshot{}, stats: st}
	m.start()
	return m
}

func (m *machine) start() {
	d, err := m.w.start(context.Background())
	if err != nil {
		m.t.Fatalf("the driver does not start: %v", err)
	}
	m.d = d
}

// outcome is what became of a call.
type outcome struct {
	err    error
	faulty bool // something went wrong below
	died   bool // and with it the driver
	span
}

// open: nobody knows yet whether it was done.
func (o outcome) open() bool {
	return o.err != nil && (o.died || errors.Is(o.err, storage.ErrPending) || errors.Is(o.err, context.Canceled))
}

// call makes one call, in which something may go wrong.
func (m *machine) call(what string, fn func(context.Context) error) outcome {
	m.t.Helper()
	kind, after := noFault, 0
	if m.next != "" {
		kind, m.next = m.next, ""
	} else if m.faults && rapid.IntRange(0, 2).Draw(m.t, "trouble") == 2 {
		kinds := faultKinds
		if m.w.dieNext != nil {
			kinds = append(slices.Clone(kinds), commandDies, commandJams)
		}
		kind = rapid.SampledFrom(kinds).Draw(m.t, "fault")
		after = rapid.IntRange(0, 4).Draw(m.t, "after")
	}
	time.Sleep(time.Millisecond)
	out := outcome{span: span{from: time.Now()}}
	m.d.seam.arm(kind, after)
	fired := func() bool { return false }
	switch kind {
	case commandHangs:
		out.err = m.hanging(fn)
	case commandDies, commandJams:
		fired = m.w.dieNext(kind, after)
		fallthrough
	default:
		out.err = fn(context.Background())
	}
	if m.w.patient && kind == noFault {
		for range 300 {
			if !errors.Is(out.err, storage.ErrPending) {
				break
			}
			time.Sleep(100 * time.Millisecond)
			out.err = fn(context.Background())
		}
	}
	out.faulty = m.d.seam.disarm()
	out.faulty = fired() || out.faulty
	m.stats.count(what, kind, out.faulty)
	m.dirty = m.dirty || out.faulty
	if m.d.seam.isDead() {
		out.died = true
		m.t.Logf("%s: %s (%v), and it is started again", what, kind, out.err)
		m.d.end(true)
		m.start()
	} else if out.faulty {
		m.t.Logf("%s: %s: %v", what, kind, out.err)
	} else {
		m.t.Logf("%s: %v", what, out.err)
	}
	if out.faulty {
		m.w.quiet(m.d)
	}
	time.Sleep(time.Millisecond)
	out.to = time.Now()
	return out
}

// hanging makes a call whose caller gives up while LVM hangs: meanwhile the same call is refused, and then it is done.
func (m *machine) hanging(fn func(context.Context) error) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- fn(ctx) }()
	begun := m.d.seam.begun
	select {
	case err := <-done:
		return err
	case <-begun:
	case <-time.After(time.Minute):
		m.t.Fatalf("neither done nor hanging after a minute")
	}
	cancel()
	err := <-done
	if err == nil {
		m.t.Fatalf("a call whose command hangs has ended well")
	}
	if errors.Is(err, context.Canceled) && m.w.strict {
		// The hanging command may be a job's own, and then the call waits only for that.
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
		if again := fn(ctx); again == nil {
			m.t.Fatalf("the same call meanwhile has ended well")
		}
		cancel()
	}
	close(m.d.seam.released)
	m.w.quiet(m.d)
	return err
}

// must is for what has no excuse.
func (m *machine) must(out outcome, what string) {
	m.t.Helper()
	if out.err != nil && !out.faulty {
		m.t.Fatalf("%s: %v", what, out.err)
	}
}

// refused is for calls that are wrong: with nothing in their way they end with want.
func (m *machine) refused(out outcome, want error, what string) {
	m.t.Helper()
	if out.err == nil || !out.faulty && !errors.Is(out.err, want) {
		m.t.Fatalf("%s: %v, want %v", what, out.err, want)
	}
}

// pick draws one of those of a map that fit; the action does nothing when there is none.
func pick[T any](m *machine, all map[string]*T, label string, fits func(*T) bool) *T {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if fits(all[name]) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		m.t.Skip("no " + label)
	}
	return all[rapid.SampledFrom(names).Draw(m.t, label)]
}

func isSure(v *volume) bool { return v.doubt == sure }

func isCut(s *snapshot) bool { return s.doubt == sure }

// unused draws a name that nothing has.
func unused[T any](m *machine, all map[string]*T, prefix string, n int) string {
	var names []string
	for i := range n {
		if name := fmt.Sprint(prefix, i); all[name] == nil {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		m.t.Skip("all names are taken")
	}
	return rapid.SampledFrom(names).Draw(m.t, "name")
}

func roundUp(n int64) int64 { return (n + 4*mib - 1) / (4 * mib) * (4 * mib) }
