//go:build lab

// Package torture_test kills LVM before every system call that changes something, and looks whether the driver recovers by itself.
package torture_test

import (
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

var (
	all    = flag.Bool("all", false, "try every point; else the few of each operation that leave different things")
	keys   = flag.Bool("keys", false, "with -all: only the calls by which a device, a pool or the group's metadata changes")
	every  = flag.Int("every", 1, "with -all: every nth point only")
	first  = flag.Int("first", 1, "with -all: begin at this point, to reproduce a failure")
	points = flag.Int("points", 0, "with -all: at most so many points of each operation; 0: all")
	shard  = flag.Int("shard", 1, "with -all and -shards: which part of the points this run tries")
	shards = flag.Int("shards", 1, "with -all: so many runs, each on a machine of its own, share the points")
)

// operation is what is killed, again and again. Its functions fail the test.
type operation struct {
	name string
	// prepare makes what run needs, before anything is killed.
	prepare func()
	// run is the call whose LVM is killed. It is called again until it has succeeded.
	run func() error
	// check looks at what it was to achieve, and undoes it.
	check func()
	// on is written to all the time
	on *writer
	// lvs are those that are there before prepare and after check
	lvs []string
	// short are the points of every day
	short []order
	// broken, when set, is where the call's LVM is killed; then it is the recovery from that which is tortured
	broken *order
}

func TestTorture(t *testing.T) {
	w := newWorld(t)
	for _, o := range w.operations() {
		t.Run(o.name, func(t *testing.T) {
			outer := w.t
			w.t = t
			defer func() { w.t = outer }()
			w.writesOnly(o.on)
			r := &rounds{
				world: w, operation: o, tried: map[string]int{}, recovered: map[storage.RecoveryKind]int64{}, began: time.Now(),
				spent: map[string]time.Duration{},
			}
			defer r.report()
			if *all {
				r.everyPoint()
			} else {
				r.shortForm()
			}
		})
	}
}

// rounds of one operation.
type rounds struct {
	*world
	operation
	n         int
	tried     map[string]int
	recovered map[storage.RecoveryKind]int64
	began     time.Time
	spent     map[string]time.Duration
}

// misses is how often in a row nothing is killed until there are no more points: one time an operation makes some calls more than another.
const misses = 3

// everyPoint tries one point after the other until the operation makes no more calls.
func (r *rounds) everyPoint() {
	missed := 0
	for nth := *first + (*shard-1)**every; missed < misses && (*points == 0 || r.n < *points); nth += *every * *shards {
		missed++
		if r.try(order{Nth: nth, Keys: *keys}, nth%2 == 0) {
			missed = 0
		}
	}
}

func (r *rounds) shortForm() {
	for i, o := range r.short {
		if !r.try(o, i%2 == 1) {
			r.t.Logf("there is no %+v", o)
		}
	}
	if r.n == 0 {
		r.t.Error("nothing was killed")
	}
}

// try is one round: false says that nothing was killed.
func (r *rounds) try(o order, restarts bool) bool {
	r.t.Helper()
	r.timed("prepare", r.prepare)
	var out outcome
	var err error
	r.timed("call", func() {
		if r.broken != nil {
			out, err = r.whileTwiceKilled(*r.broken, o, r.run)
		} else {
			out, err = r.whileKilled(o, r.run)
		}
	})
	if r.broken == nil && !out.Killed {
		r.ok(err)
		r.check()
		return false
	}
	if restarts {
		r.timed("restart", r.restart)
	}
	r.timed("writer", func() { r.goesOn(r.on) }) // before anybody calls again
	r.timed("retry", func() { r.persist(r.name, r.run) })
	if !restarts {
		r.timed("restart", r.restart) // with a shell of its own, which is faster than one program for each command
	}
	r.timed("check", r.check)
	r.timed("expect", func() { r.expect(r.lvs...) })
	if out.Killed {
		r.n++
		r.tried[out.Call]++
	}
	if r.t.Failed() {
		r.t.Fatalf("killed before %+v, %s, the driver restarted: %t, its error: %v; reproduce one of -all: make torture RUN='%s$' ARGS='-all -keys=%t -first=%d -points=1'",
			o, out.Call, restarts, err, r.t.Name(), o.Keys, o.Nth)
	}
	return out.Killed
}

func (r *rounds) timed(what string, do func()) {
	began := time.Now()
	do()
	r.spent[what] += time.Since(began)
}

// restart starts another engine, having written down what this one recovered from.
func (r *rounds) restart() {
	r.t.Helper()
	for kind, count := range r.engine.Stats().Recoveries {
		if count > 0 {
			r.recovered[kind] += count
		}
	}
	r.reopen()
}

func (r *rounds) report() {
	if !r.t.Failed() {
		r.restart() // for what the last engine recovered from
	}
	var lines strings.Builder
	for _, call := range slices.Sorted(maps.Keys(r.tried)) {
		fmt.Fprintf(&lines, "\n%5d  %s", r.tried[call], call)
	}
	var times []string
	for _, what := range slices.Sorted(maps.Keys(r.spent)) {
		times = append(times, fmt.Sprintf("%s %.1fs", what, r.spent[what].Seconds()))
	}
	took := time.Since(r.began).Round(time.Second)
	r.t.Logf("%d points in %s (%s); recoveries: %v; killed before%s", r.n, took, strings.Join(times, ", "), r.recovered, lines.String())
	fmt.Printf("torture: %s: %d points in %s, recoveries %v\n", r.name, r.n, took, r.recovered)
}

// operations are those of the two types of volumes.
func (w *world) operations() []operation {
	var out []operation
	thin, onThin := w.volume("thin", storage.Class{Type: storage.TypeThin})
	thick, onThick := w.volume("thick", storage.Class{Type: storage.TypeThick})
	grown, onGrown := w.volume("grown", storage.Class{Type: storage.TypeThick}) // LVM does not grow an active origin
	kept := w.snapshot("kept", thin)
	keptCOW := w.snapshot("keptcow", thick)
	lvs := []string{w.lvOf(thin.ID), w.lvOf(thick.ID), w.lvOf(grown.ID), w.lvOf(kept.ID), w.lvOf(keptCOW.ID)}
	for _, c := range []struct {
		volume, grows storage.Volume
		on, onGrows   *writer
		kept          storage.Snapshot
	}{{thin, thin, onThin, onThin, kept}, {thick, grown, onThick, onGrown, keptCOW}} {
		out = append(out,
			w.creation(c.volume, c.on, lvs), w.deletion(c.volume, c.on, lvs),
			w.restore(c.volume, c.kept, c.on, lvs), w.expansion(c.grows, c.onGrows, lvs))
	}
	for i := range out {
		out[i].short = shortForms[out[i].name]
	}
	for _, r := range []struct {
		name          string
		of            operation
		broken, short order
	}{
		{"recovery from a phantom", out[0], order{Call: message, Nth: 1}, order{Call: commit, Nth: 2}},
		{"recovery of a pool", out[3], order{Call: suspend, Nth: 4}, order{Call: suspend, Nth: 2}},
		{"recovery from half a COW snapshot", out[4], order{Call: suspend, Nth: 4}, order{Call: suspend, Nth: 1}},
	} {
		r.of.name, r.of.broken, r.of.short = r.name, &r.broken, []order{r.short}
		out = append(out, r.of)
	}
	return out
}

const (
	suspend = "ioctl DM_DEV_SUSPEND" // or resume
	load    = "ioctl DM_TABLE_LOAD"
	message = "ioctl DM_TARGET_MSG"
	commit  = "write to /dev/"
)

// shortForms are the points that leave different things, with LVM 2.03.16.
var shortForms = map[string][]order{
	"create snapshot thin": {
		{Call: suspend, Nth: 1}, // a phantom
		{Call: message, Nth: 1}, // and its origin is suspended
		{Call: message, Nth: 2}, // a jam, and so is its origin
		{Call: suspend, Nth: 2}, // all is committed, and so is its origin
	},
	"delete snapshot thin":  {{Call: message, Nth: 1}, {Call: message, Nth: 2}},
	"restore thin":          {{Call: message, Nth: 1}, {Call: message, Nth: 2}, {Call: commit, Nth: 7}},
	"expand thin":           {{Call: suspend, Nth: 2}, {Call: suspend, Nth: 5}},
	"create snapshot thick": {{Call: load, Nth: 1}, {Call: suspend, Nth: 2}, {Call: suspend, Nth: 6}},
	"delete snapshot thick": {{Call: suspend, Nth: 2}, {Call: commit, Nth: 4}},
	"restore thick":         {{Call: commit, Nth: 3}, {Call: load, Nth: 1}},
	"expand thick":          {{Call: suspend, Nth: 2}, {Call: commit, Nth: 3}},
}

func (w *world) snapshot(name string, v storage.Volume) storage.Snapshot {
	w.t.Helper()
	var s storage.Snapshot
	w.persist("snapshot "+name, func() (err error) {
		s, err = w.engine.CreateSnapshot(w.t.Context(), storage.SnapshotSpec{Name: name, SourceID: v.ID})
		return err
	})
	return s
}

func opName(what string, v storage.Volume) string { return what + " " + string(v.Class.Type) }

// creation: of the name there is one snapshot in the end, of a moment between the first call and the answer.
func (w *world) creation(v storage.Volume, on *writer, lvs []string) operation {
	var s storage.Snapshot
	var from, to uint64
	return operation{
		name: opName("create snapshot", v), on: on, lvs: lvs,
		prepare: func() { from = on.done.Load() },
		run: func() (err error) {
			s, err = w.engine.CreateSnapshot(w.t.Context(), storage.SnapshotSpec{Name: "s", SourceID: v.ID})
			to = on.begun.Load()
			return err
		},
		check: func() {
			lv := w.lvOf(s.ID)
			w.expect(append([]string{lv}, lvs...)...)
			w.goesOn(on)
			if err := isOneMoment(w.snapshotMoment(lv, v.Class), from, to); err != nil {
				w.t.Errorf("the snapshot: %v", err)
			}
			w.persist("delete", func() error { return w.engine.DeleteSnapshot(w.t.Context(), s.ID) })
		},
	}
}

// deletion: it is gone in the end, and nothing else is.
func (w *world) deletion(v storage.Volume, on *writer, lvs []string) operation {
	var s storage.Snapshot
	return operation{
		name: opName("delete snapshot", v), on: on, lvs: lvs,
		prepare: func() { s = w.snapshot("s", v) },
		run:     func() error { return w.engine.DeleteSnapshot(w.t.Context(), s.ID) },
		check: func() {
			if found, err := w.engine.Snapshot(w.t.Context(), s.ID); err == nil {
				w.t.Errorf("it is still there: %+v", found)
			}
		},
	}
}

// restore, into a larger volume: it has what the snapshot has.
func (w *world) restore(v storage.Volume, s storage.Snapshot, on *writer, lvs []string) operation {
	lv := w.lvOf(s.ID)
	want := w.snapshotMoment(lv, v.Class)
	var r storage.Volume
	return operation{
		name: opName("restore", v), on: on, lvs: lvs,
		prepare: func() {},
		run: func() (err error) {
			r, err = w.engine.CreateVolume(w.t.Context(), storage.VolumeSpec{
				Name: "restored", RequiredBytes: 2 * volumeSize, Access: storage.AccessMount, FSType: "ext4",
				Source: &storage.Source{Kind: storage.SourceSnapshot, ID: s.ID},
			})
			return err
		},
		check: func() {
			var err error
			w.persist("activate", func() error { r, err = w.engine.Activate(w.t.Context(), r.ID); return err })
			if got := w.moment(w.lvOf(r.ID)); string(got) != string(want) {
				w.t.Errorf("the restored volume has %x, want %x", sha256.Sum256(got), sha256.Sum256(want))
			}
			if got := w.deviceBytes(r); got != 2*volumeSize || r.SizeBytes != got {
				w.t.Errorf("the restored volume has %d bytes, and is reported with %d", got, r.SizeBytes)
			}
			if got := w.snapshotMoment(lv, v.Class); string(got) != string(want) {
				w.t.Errorf("the snapshot has changed")
			}
			w.persist("deactivate", func() error { return w.engine.Deactivate(w.t.Context(), r.ID) })
			w.persist("delete", func() error { return w.engine.DeleteVolume(w.t.Context(), r.ID) })
		},
	}
}

// expansion, of a mounted volume: the device has the size that is reported.
func (w *world) expansion(v storage.Volume, on *writer, lvs []string) operation {
	size := v.SizeBytes
	return operation{
		name: opName("expand", v), on: on, lvs: lvs,
		prepare: func() { size += 4 * mib },
		run: func() error {
			got, err := w.engine.ExpandVolume(w.t.Context(), v.ID, size, 0)
			if err == nil && got.SizeBytes != size {
				w.t.Errorf("expanded to %d, want %d", got.SizeBytes, size)
			}
			return err
		},
		check: func() {
			if got := w.deviceBytes(v); got != size {
				w.t.Errorf("the device has %d bytes, want %d", got, size)
			}
			w.goesOn(on)
		},
	}
}

func (w *world) deviceBytes(v storage.Volume) int64 {
	w.t.Helper()
	f, err := os.Open(v.DevicePath)
	w.ok(err)
	defer f.Close()
	n, err := f.Seek(0, io.SeekEnd)
	w.ok(err)
	return n
}
