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
	keys   = flag.Bool("keys", true, "only the calls by which a device, a pool or the group's metadata changes; else all")
	every  = flag.Int("every", 1, "try every nth point only")
	first  = flag.Int("first", 1, "begin at this point: to reproduce a failure")
	points = flag.Int("points", 0, "at most so many points of each operation; 0: all")
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
	// on is written to all the time; nil: nothing is
	on *writer
	// lvs are those that are there before prepare and after check
	lvs []string
}

// TestTorture is the form for every day, and with -keys=false the whole.
func TestTorture(t *testing.T) {
	w := newWorld(t)
	for _, o := range w.operations() {
		t.Run(o.name, func(t *testing.T) { w.torture(t, o) })
	}
}

// torture tries one point after the other until the operation makes no more calls. The driver dies with every other LVM.
func (w *world) torture(t *testing.T, o operation) {
	outer := w.t
	w.t = t
	defer func() { w.t = outer }()
	tried := map[string]int{}
	n, began := 0, time.Now()
	before := w.engine.Stats().Recoveries
	recovered := map[storage.RecoveryKind]int64{}
	sum := func() {
		for kind, count := range w.engine.Stats().Recoveries {
			recovered[kind] += count - before[kind]
		}
	}
	for nth := *first; *points == 0 || n < *points; nth += *every {
		o.prepare()
		out, err := w.whileKilled(order{Nth: nth, Keys: *keys}, o.run)
		if !out.Killed {
			w.ok(err)
			o.check()
			break
		}
		restarts := nth%2 == 0
		if restarts {
			sum()
			before = nil
			w.reopen()
		}
		if o.on != nil {
			w.goesOn(o.on) // before anybody calls again
		}
		w.persist(o.name, o.run)
		sum()
		before = nil
		w.reopen() // with a shell of its own, which is faster than one program for each command
		o.check()
		w.expect(o.lvs...)
		n++
		tried[out.Call]++
		if t.Failed() {
			t.Fatalf("reproduce: make torture RUN='TestTorture/%s$' ARGS='-keys=%t -first=%d -points=1': killed before call %d, %s, the driver restarted: %t, its error: %v",
				strings.ReplaceAll(o.name, " ", "_"), *keys, nth, nth, out.Call, restarts, err)
		}
		sum()
		before = w.engine.Stats().Recoveries
	}
	var lines strings.Builder
	for _, call := range slices.Sorted(maps.Keys(tried)) {
		fmt.Fprintf(&lines, "\n%5d  %s", tried[call], call)
	}
	maps.DeleteFunc(recovered, func(_ storage.RecoveryKind, n int64) bool { return n == 0 })
	t.Logf("%d points in %s; recoveries: %v; killed before%s", n, time.Since(began).Round(time.Second), recovered, lines.String())
	fmt.Printf("torture: %s: %d points\n", o.name, n)
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
	return out
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
