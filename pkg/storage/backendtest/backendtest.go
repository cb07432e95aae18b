// Package backendtest is the contract that every backend passes, through the engine: once on the fake LVM and
// once on the real one. What it asserts last is always data.
package backendtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// MiB is the unit of the sizes here; extents have four.
const MiB = int64(1) << 20

// Names of the fixture.
const (
	NodeID = "node-1"
	Driver = "csi.lvmsnap.io"
)

// Fixture is one machine with a volume group for a test.
type Fixture struct {
	Engine *storage.Engine
	Type   storage.Type
	Group  string
	Pool   string // empty: what is about pools is left out
	// Reopen makes an engine anew on the same group, as after a restart of the driver.
	Reopen func(t *testing.T) *storage.Engine
	// Admin runs LVM commands as an administrator would, behind the driver's back.
	Admin *lvm.Client
	// Write and Read access the content of an active volume, durably.
	Write func(t *testing.T, v storage.Volume, text string)
	Read  func(t *testing.T, v storage.Volume) string
	// Hold opens the volume's device until release is called.
	Hold func(t *testing.T, v storage.Volume) (release func())
	// FillPool makes the pool's data more than percent full; it is emptied again with the fixture.
	FillPool func(t *testing.T, percent float64)
}

// Run runs the contract; every test gets a fixture of its own.
func Run(t *testing.T, fixture func(t *testing.T) *Fixture) {
	run(t, fixture, map[string]func(*testing.T, *env){
		"OldBlocks":                testOldBlocks,
		"VolumeLifecycle":          testVolumeLifecycle,
		"VolumeConflicts":          testVolumeConflicts,
		"VolumeSizes":              testVolumeSizes,
		"Names":                    testNames,
		"SnapshotKeepsItsMoment":   testSnapshotKeepsItsMoment,
		"SnapshotIsIdempotent":     testSnapshotIsIdempotent,
		"SnapshotIsInactive":       testSnapshotIsInactive,
		"SnapshotErrors":           testSnapshotErrors,
		"RestoreOfARestore":        testRestoreOfARestore,
		"RestoreLarger":            testRestoreLarger,
		"RestoreErrors":            testRestoreErrors,
		"Clone":                    testClone,
		"DeletionsInAnyOrder":      testDeletionsInAnyOrder,
		"DeleteInUse":              testDeleteInUse,
		"OtherNode":                testOtherNode,
		"ForeignVolumes":           testForeignVolumes,
		"Initialization":           testInitialization,
		"Expand":                   testExpand,
		"Placement":                testPlacement,
		"ConcurrentCallsOneObject": testConcurrentCallsOneObject,
		"ConcurrentSnapshots":      testConcurrentSnapshots,
		"AbandonedCall":            testAbandonedCall,
		"Restart":                  testRestart,
	})
}

// RunPool is the rest of the contract, for backends whose volumes are in pools.
func RunPool(t *testing.T, fixture func(t *testing.T) *Fixture) {
	run(t, fixture, map[string]func(*testing.T, *env){
		"PoolCapacity": testPoolCapacity,
		"PoolReserve":  testPoolReserve,
		"PoolPromise":  testPoolPromise,
	})
}

func run(t *testing.T, fixture func(t *testing.T) *Fixture, tests map[string]func(*testing.T, *env)) {
	names := make([]string, 0, len(tests))
	for name := range tests {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			tests[name](t, &env{Fixture: fixture(t), ctx: t.Context()})
		})
	}
}

// env is a fixture with shorthands that fail the test.
type env struct {
	*Fixture
	ctx context.Context
}

func (e *env) volume(t *testing.T, name string, size int64) storage.Volume {
	t.Helper()
	return e.create(t, storage.VolumeSpec{Name: name, RequiredBytes: size, Access: storage.AccessBlock})
}

// createVolume is CreateVolume, of the fixture's type unless the spec or its source has one.
func (e *env) createVolume(spec storage.VolumeSpec) (storage.Volume, error) {
	if spec.Class.Type == "" && spec.Source == nil {
		spec.Class.Type = e.Type
	}
	return e.Engine.CreateVolume(e.ctx, spec)
}

func (e *env) create(t *testing.T, spec storage.VolumeSpec) storage.Volume {
	t.Helper()
	v, err := e.createVolume(spec)
	if err != nil {
		t.Fatalf("CreateVolume %q: %v", spec.Name, err)
	}
	return v
}

func (e *env) snapshot(t *testing.T, name string, v storage.Volume) storage.Snapshot {
	t.Helper()
	s, err := e.Engine.CreateSnapshot(e.ctx, storage.SnapshotSpec{Name: name, SourceID: v.ID})
	if err != nil {
		t.Fatalf("CreateSnapshot %q: %v", name, err)
	}
	if !s.Ready {
		t.Fatalf("snapshot %q is not ready: %+v", name, s)
	}
	return s
}

func restoreOf(name string, s storage.Snapshot) storage.VolumeSpec {
	return storage.VolumeSpec{
		Name: name, Access: storage.AccessBlock, Source: &storage.Source{Kind: storage.SourceSnapshot, ID: s.ID},
	}
}

func cloneOf(name string, v storage.Volume) storage.VolumeSpec {
	return storage.VolumeSpec{
		Name: name, Access: storage.AccessBlock, Source: &storage.Source{Kind: storage.SourceVolume, ID: v.ID},
	}
}

// write stages, writes and unstages.
func (e *env) write(t *testing.T, v storage.Volume, text string) {
	t.Helper()
	e.active(t, v, func(v storage.Volume) { e.Write(t, v, text) })
}

func (e *env) read(t *testing.T, v storage.Volume) (text string) {
	t.Helper()
	e.active(t, v, func(v storage.Volume) { text = e.Read(t, v) })
	return text
}

func (e *env) active(t *testing.T, v storage.Volume, fn func(storage.Volume)) {
	t.Helper()
	v, err := e.Engine.Activate(e.ctx, v.ID)
	if err != nil {
		t.Fatalf("Activate: %v", err)
	}
	fn(v)
	if err := e.Engine.Deactivate(e.ctx, v.ID); err != nil {
		t.Fatalf("Deactivate: %v", err)
	}
}

func (e *env) expect(t *testing.T, v storage.Volume, want string) {
	t.Helper()
	if got := e.read(t, v); got != want {
		t.Errorf("volume %q reads %q, want %q", v.Name, got, want)
	}
}

func (e *env) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lvs is what an administrator sees, by name.
func (e *env) lvs(t *testing.T) map[string]lvm.LV {
	t.Helper()
	list, err := e.Admin.LVs(e.ctx)
	e.must(t, err)
	out := map[string]lvm.LV{}
	for _, lv := range list {
		out[lv.Name] = lv
	}
	return out
}

// ours counts the LVs that have the driver's names.
func (e *env) ours(t *testing.T) int {
	t.Helper()
	n := 0
	for name := range e.lvs(t) {
		if strings.HasPrefix(name, "csi-") {
			n++
		}
	}
	return n
}

func (e *env) volumeIDs(t *testing.T) []string {
	t.Helper()
	list, err := e.Engine.Volumes(e.ctx)
	e.must(t, err)
	ids := make([]string, len(list))
	for i, v := range list {
		ids[i] = v.ID
	}
	return ids
}

func (e *env) snapshotIDs(t *testing.T) []string {
	t.Helper()
	list, err := e.Engine.Snapshots(e.ctx, storage.SnapshotQuery{})
	e.must(t, err)
	ids := make([]string, len(list))
	for i, s := range list {
		ids[i] = s.ID
	}
	return ids
}

// eventually tries until fn is content, for at most ten seconds.
func eventually(t *testing.T, what string, fn func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		ok, state := fn()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: still %s", what, state)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func lvOf(t *testing.T, id string) string {
	t.Helper()
	h, err := storage.ParseHandle(id)
	if err != nil {
		t.Fatal(err)
	}
	return h.LV
}

func describe(v any) string { return fmt.Sprintf("%+v", v) }
