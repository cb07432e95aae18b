package backendtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func testSnapshotKeepsItsMoment(t *testing.T, e *env) {
	v := e.volume(t, "v", 10*MiB)
	e.write(t, v, "v1")
	before := time.Now()
	s := e.snapshot(t, "s1", v)
	after := time.Now()
	e.write(t, v, "v2")
	if s.CreatedAt.Before(before) || s.CreatedAt.After(after) {
		t.Errorf("created at %s, cut between %s and %s", s.CreatedAt, before, after)
	}
	if s.SourceID != v.ID || s.SizeBytes != 10*MiB || s.Name != "s1" {
		t.Errorf("snapshot %s", describe(s))
	}
	r := e.create(t, restoreOf("r", s))
	if r.Source == nil || r.Source.ID != s.ID || r.SizeBytes != v.SizeBytes || r.RequestedBytes != 10*MiB {
		t.Errorf("restore %s", describe(r))
	}
	e.expect(t, r, "v1")
	e.expect(t, v, "v2")
	e.write(t, r, "v3") // a restore is writable, and alone
	e.expect(t, v, "v2")
	e.expect(t, e.create(t, restoreOf("r2", s)), "v1")
}

func testSnapshotIsIdempotent(t *testing.T, e *env) {
	v, other := e.volume(t, "v", 4*MiB), e.volume(t, "other", 4*MiB)
	e.write(t, v, "v1")
	spec := storage.SnapshotSpec{
		Name: "s", SourceID: v.ID, Object: storage.SnapshotObject{Namespace: "shop", Name: "nightly", ContentName: "snapcontent-1"},
	}
	s, err := e.Engine.CreateSnapshot(e.ctx, spec)
	e.must(t, err)
	if s.Object != spec.Object {
		t.Errorf("object %+v, want %+v", s.Object, spec.Object)
	}
	e.write(t, v, "v2")
	if again := e.snapshot(t, "s", v); again.ID != s.ID || !again.CreatedAt.Equal(s.CreatedAt) {
		t.Errorf("second call: %s, first: %s", describe(again), describe(s))
	}
	if _, err := e.Engine.CreateSnapshot(e.ctx, storage.SnapshotSpec{Name: "s", SourceID: other.ID}); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("same name, other source: %v", err)
	}
	// A retry must succeed after the source was deleted.
	e.must(t, e.Engine.DeleteVolume(e.ctx, v.ID))
	again := e.snapshot(t, "s", v)
	found, err := e.Engine.Snapshot(e.ctx, s.ID)
	e.must(t, err)
	for what, got := range map[string]storage.Snapshot{"retry": again, "found": found} {
		if diff := cmp.Diff(s, got); diff != "" {
			t.Errorf("%s differs:\n%s", what, diff)
		}
	}
	e.expect(t, e.create(t, restoreOf("r", s)), "v1")
}

func testSnapshotIsInactive(t *testing.T, e *env) {
	v := e.volume(t, "v", 4*MiB)
	_, err := e.Engine.Activate(e.ctx, v.ID)
	e.must(t, err)
	s := e.snapshot(t, "s", v)
	lvs := e.lvs(t)
	// A COW snapshot is active together with its origin.
	if a := lvs[lvOf(t, s.ID)].Attr; a.Active() != (e.Type == storage.TypeThick) || a.Writable() || !a.SkipActivation() {
		t.Errorf("snapshot has attr %s, want inactive (thick: active), read-only and skipped", a)
	}
	if a := lvs[lvOf(t, v.ID)].Attr; !a.Active() || !a.Writable() || a.Suspended() {
		t.Errorf("origin has attr %s, want active, writable and not suspended", a)
	}
	r := e.create(t, restoreOf("r", s))
	if a := e.lvs(t)[lvOf(t, r.ID)].Attr; a.Active() || !a.Writable() || !a.SkipActivation() {
		t.Errorf("restore has attr %s, want inactive, writable and skipped", a)
	}
	e.must(t, e.Engine.Deactivate(e.ctx, v.ID))
}

func testSnapshotErrors(t *testing.T, e *env) {
	v := e.volume(t, "v", 4*MiB)
	s := e.snapshot(t, "s", v)
	gone := e.volume(t, "gone", 4*MiB)
	e.must(t, e.Engine.DeleteVolume(e.ctx, gone.ID))
	for what, source := range map[string]string{"gone": gone.ID, "malformed": "nonsense", "a snapshot": s.ID} {
		if _, err := e.Engine.CreateSnapshot(e.ctx, storage.SnapshotSpec{Name: "x", SourceID: source}); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("source %s: %v", what, err)
		}
	}
	if _, err := e.Engine.Snapshot(e.ctx, v.ID); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("a volume as a snapshot: %v", err)
	}
	for _, id := range []string{"", "nonsense", v.ID} {
		if err := e.Engine.DeleteSnapshot(e.ctx, id); err != nil {
			t.Errorf("DeleteSnapshot(%q): %v", id, err)
		}
	}
	if got := e.volumeIDs(t); !slices.Equal(got, []string{v.ID}) {
		t.Errorf("volumes %v", got)
	}
}

func testRestoreOfARestore(t *testing.T, e *env) {
	v := e.volume(t, "v0", 4*MiB)
	for i := range 4 {
		e.write(t, v, fmt.Sprint("generation ", i))
		s := e.snapshot(t, fmt.Sprint("s", i), v)
		e.write(t, v, "overwritten")
		v = e.create(t, restoreOf(fmt.Sprint("v", i+1), s))
		e.expect(t, v, fmt.Sprint("generation ", i))
	}
}

func testRestoreLarger(t *testing.T, e *env) {
	v := e.volume(t, "v", 4*MiB)
	e.write(t, v, "kept")
	s := e.snapshot(t, "s", v)
	spec := restoreOf("r", s)
	spec.RequiredBytes, spec.LimitBytes = 15*MiB, 16*MiB
	for range 2 {
		if r := e.create(t, spec); r.SizeBytes != 16*MiB || r.RequestedBytes != 15*MiB {
			t.Errorf("restored as %s", describe(r))
		}
	}
	r := e.create(t, spec)
	e.expect(t, r, "kept")
	if got := e.lvs(t)[lvOf(t, r.ID)].SizeBytes; got != 16*MiB {
		t.Errorf("LVM has %d bytes", got)
	}
}

func testRestoreErrors(t *testing.T, e *env) {
	v := e.create(t, storage.VolumeSpec{Name: "v", RequiredBytes: 8 * MiB, Access: storage.AccessMount, FSType: "ext4"})
	e.must(t, e.Engine.Initialized(e.ctx, v.ID))
	s := e.snapshot(t, "s", v)
	deleted := e.snapshot(t, "deleted", v)
	e.must(t, e.Engine.DeleteSnapshot(e.ctx, deleted.ID))
	tests := map[string]struct {
		change func(*storage.VolumeSpec)
		err    error
	}{
		"smaller":      {func(s *storage.VolumeSpec) { s.RequiredBytes = 4 * MiB }, storage.ErrSizeRange},
		"limit":        {func(s *storage.VolumeSpec) { s.LimitBytes = 4 * MiB }, storage.ErrSizeRange},
		"gone":         {func(s *storage.VolumeSpec) { s.Source.ID = deleted.ID }, storage.ErrNotFound},
		"malformed":    {func(s *storage.VolumeSpec) { s.Source.ID = "nonsense" }, storage.ErrNotFound},
		"not a volume": {func(s *storage.VolumeSpec) { s.Source.Kind = storage.SourceVolume }, storage.ErrNotFound},
		"file system": {func(s *storage.VolumeSpec) {
			s.Access, s.FSType = storage.AccessMount, "xfs"
		}, storage.ErrInvalid},
		"group": {func(s *storage.VolumeSpec) { s.Class.VolumeGroup = "elsewhere" }, storage.ErrInvalid},
		"pool":  {func(s *storage.VolumeSpec) { s.Class.ThinPool = "elsewhere" }, storage.ErrInvalid},
	}
	for name, tt := range tests {
		spec := restoreOf("r", s)
		tt.change(&spec)
		if _, err := e.createVolume(spec); !errors.Is(err, tt.err) {
			t.Errorf("%s: %v, want %v", name, err, tt.err)
		}
	}
	if n := e.ours(t); n != 2 {
		t.Errorf("%d LVs, want 2", n)
	}
	r := e.create(t, restoreOf("r", s))
	other := restoreOf("r", e.snapshot(t, "s2", v))
	if _, err := e.createVolume(other); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("%s again, from another snapshot: %v", r.Name, err)
	}
}

func testClone(t *testing.T, e *env) {
	v := e.volume(t, "v", 4*MiB)
	e.write(t, v, "v1")
	active, err := e.Engine.Activate(e.ctx, v.ID)
	e.must(t, err)
	c := e.create(t, cloneOf("c", v)) // of a volume in use
	e.Write(t, active, "v2")
	e.must(t, e.Engine.Deactivate(e.ctx, v.ID))
	if c.Source == nil || *c.Source != (storage.Source{Kind: storage.SourceVolume, ID: v.ID}) {
		t.Errorf("clone %s", describe(c))
	}
	e.expect(t, c, "v1")
	e.expect(t, v, "v2")
	e.must(t, e.Engine.DeleteVolume(e.ctx, v.ID))
	e.expect(t, c, "v1")
	if again := e.create(t, cloneOf("c", v)); again.ID != c.ID {
		t.Errorf("retry after the source was deleted: %s", describe(again))
	}
}

func testDeletionsInAnyOrder(t *testing.T, e *env) {
	orders := [][]string{
		{"v", "s", "r"},
		{"v", "r", "s"},
		{"s", "v", "r"},
		{"s", "r", "v"},
		{"r", "v", "s"},
		{"r", "s", "v"},
	}
	for _, order := range orders {
		v := e.volume(t, "v", 4*MiB)
		e.write(t, v, "v1")
		s := e.snapshot(t, "s", v)
		r := e.create(t, restoreOf("r", s))
		left := map[string]func(){
			"v": func() { e.expect(t, v, "v1") },
			"r": func() { e.expect(t, r, "v1") },
			"s": func() {
				again := e.create(t, restoreOf("probe", s))
				e.expect(t, again, "v1")
				e.must(t, e.Engine.DeleteVolume(e.ctx, again.ID))
			},
		}
		remove := map[string]func() error{
			"v": func() error { return e.Engine.DeleteVolume(e.ctx, v.ID) },
			"r": func() error { return e.Engine.DeleteVolume(e.ctx, r.ID) },
			"s": func() error { return e.Engine.DeleteSnapshot(e.ctx, s.ID) },
		}
		for _, what := range order {
			e.must(t, remove[what]())
			delete(left, what)
			for _, check := range left {
				check()
			}
		}
		if n := e.ours(t); n != 0 {
			t.Errorf("order %v: %d LVs left behind", order, n)
		}
	}
}

// Whoever comes while another call works on the same object is told so, and nobody makes a second one.
func testConcurrentCallsOneObject(t *testing.T, e *env) {
	v := e.volume(t, "v", 4*MiB)
	const callers = 8
	results := make([]storage.Snapshot, callers)
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			results[i], errs[i] = e.Engine.CreateSnapshot(e.ctx, storage.SnapshotSpec{Name: "s", SourceID: v.ID})
		})
	}
	wg.Wait()
	s := e.snapshot(t, "s", v)
	won := 0
	for i := range callers {
		switch {
		case errs[i] == nil && results[i].ID == s.ID && results[i].CreatedAt.Equal(s.CreatedAt):
			won++
		case errors.Is(errs[i], storage.ErrPending):
		default:
			t.Errorf("caller %d: %s, %v", i, describe(results[i]), errs[i])
		}
	}
	if won == 0 {
		t.Error("no caller got the snapshot")
	}
	if got := e.snapshotIDs(t); !slices.Equal(got, []string{s.ID}) {
		t.Errorf("snapshots %v", got)
	}
}

func testConcurrentSnapshots(t *testing.T, e *env) {
	v := e.volume(t, "v", 4*MiB)
	e.write(t, v, "v1")
	const callers = 16
	errs := make([]error, callers)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			_, errs[i] = e.Engine.CreateSnapshot(e.ctx, storage.SnapshotSpec{Name: fmt.Sprint("s", i), SourceID: v.ID})
		})
	}
	wg.Wait()
	e.must(t, errors.Join(errs...))
	list, err := e.Engine.Snapshots(e.ctx, storage.SnapshotQuery{})
	e.must(t, err)
	if len(list) != callers {
		t.Fatalf("%d snapshots, want %d", len(list), callers)
	}
	if !slices.IsSortedFunc(list, func(a, b storage.Snapshot) int { return len(a.ID) - len(b.ID) }) {
		t.Error("not sorted")
	}
	for _, s := range list {
		if !s.Ready {
			t.Errorf("%s is not ready", s.Name)
		}
	}
	e.expect(t, e.create(t, restoreOf("r", list[0])), "v1")
}

// A client that gives up interrupts nothing: its retry gets ErrPending until the first attempt is done, then
// the result.
func testAbandonedCall(t *testing.T, e *env) {
	v := e.volume(t, "v", 4*MiB)
	ctx, cancel := context.WithCancel(e.ctx)
	started := make(chan struct{})
	go func() {
		<-started
		cancel()
	}()
	close(started)
	_, err := e.Engine.CreateSnapshot(ctx, storage.SnapshotSpec{Name: "s", SourceID: v.ID})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatalf("abandoned call: %v", err)
	}
	eventually(t, "retry", func() (bool, string) {
		s, err := e.Engine.CreateSnapshot(e.ctx, storage.SnapshotSpec{Name: "s", SourceID: v.ID})
		if err != nil && !errors.Is(err, storage.ErrPending) {
			t.Fatalf("retry: %v", err)
		}
		return err == nil && s.Ready, fmt.Sprint(err)
	})
	if n := e.ours(t); n != 2 {
		t.Errorf("%d LVs, want 2", n)
	}
}

// LVM's metadata is the only record: nothing is lost with the process.
func testRestart(t *testing.T, e *env) {
	v := e.create(t, storage.VolumeSpec{
		Name: "v", RequiredBytes: 117 * MiB, Access: storage.AccessMount, FSType: "btrfs", Claim: storage.Claim{Namespace: "a", Name: "b", VolumeName: "c"},
	})
	s := e.snapshot(t, "s", v)
	e.Engine = e.Reopen(t)
	foundVolume, err := e.Engine.Volume(e.ctx, v.ID)
	e.must(t, err)
	foundSnapshot, err := e.Engine.Snapshot(e.ctx, s.ID)
	e.must(t, err)
	if diff := cmp.Diff(v, foundVolume) + cmp.Diff(s, foundSnapshot); diff != "" {
		t.Errorf("after a restart:\n%s", diff)
	}
	if again := e.snapshot(t, "s", v); again.ID != s.ID || !again.CreatedAt.Equal(s.CreatedAt) {
		t.Errorf("retry after a restart: %s", describe(again))
	}
}
