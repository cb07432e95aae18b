package backendtest

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func testVolumeLifecycle(t *testing.T, e *env) {
	spec := storage.VolumeSpec{
		Name: "pvc-1", RequiredBytes: 310 * MiB, Access: storage.AccessMount, FSType: "xfs",
		Claim: storage.Claim{Namespace: "shop", Name: "db, main", VolumeName: "pvc-1"},
	}
	v := e.create(t, spec)
	if v.RequestedBytes != 310*MiB || v.SizeBytes != 312*MiB || v.Name != spec.Name || v.Access != spec.Access ||
		v.FSType != "xfs" || v.Claim != spec.Claim || v.Init != storage.InitFormat || v.Active || v.Source != nil {
		t.Errorf("created %s", describe(v))
	}
	again := e.create(t, spec)
	if diff := cmp.Diff(v, again); diff != "" {
		t.Errorf("second call differs:\n%s", diff)
	}
	got, err := e.Engine.Volume(e.ctx, v.ID)
	e.must(t, err)
	if diff := cmp.Diff(v, got); diff != "" {
		t.Errorf("found differs from created:\n%s", diff)
	}
	lv := e.lvs(t)[lvOf(t, v.ID)]
	if lv.SizeBytes != 312*MiB || lv.Attr.Active() || !lv.Attr.SkipActivation() {
		t.Errorf("LVM has %s", describe(lv))
	}
	other := e.volume(t, "pvc-2", 8*MiB)
	want := []string{v.ID, other.ID}
	slices.Sort(want)
	if got := e.volumeIDs(t); !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	e.must(t, e.Engine.DeleteVolume(e.ctx, v.ID))
	e.must(t, e.Engine.DeleteVolume(e.ctx, v.ID)) // gone is fine
	if _, err := e.Engine.Volume(e.ctx, v.ID); !errors.Is(err, storage.ErrNotFound) {
		t.Errorf("after deletion: %v", err)
	}
	if got := e.volumeIDs(t); !slices.Equal(got, []string{other.ID}) {
		t.Errorf("listed %v after deletion", got)
	}
	for _, id := range []string{"", "nonsense", "v1/x/y", v.ID + "\n"} {
		if err := e.Engine.DeleteVolume(e.ctx, id); err != nil {
			t.Errorf("DeleteVolume(%q): %v", id, err)
		}
	}
}

// A tenant never reads what another left on the disk.
func testOldBlocks(t *testing.T, e *env) {
	for range 3 {
		v := e.volume(t, "v", 4*MiB)
		e.expect(t, v, "")
		e.write(t, v, "secret")
		e.must(t, e.Engine.DeleteVolume(e.ctx, v.ID))
	}
}

func testVolumeConflicts(t *testing.T, e *env) {
	source := e.volume(t, "source", 8*MiB)
	base := storage.VolumeSpec{Name: "v", RequiredBytes: 8 * MiB, Access: storage.AccessMount, FSType: "ext4"}
	e.create(t, base)
	tests := map[string]func(*storage.VolumeSpec){
		"larger":      func(s *storage.VolumeSpec) { s.RequiredBytes = 16 * MiB },
		"limit":       func(s *storage.VolumeSpec) { s.RequiredBytes, s.LimitBytes = 0, 4*MiB },
		"access type": func(s *storage.VolumeSpec) { s.Access, s.FSType = storage.AccessBlock, "" },
		"file system": func(s *storage.VolumeSpec) { s.FSType = "xfs" },
		"source": func(s *storage.VolumeSpec) {
			s.Source = &storage.Source{Kind: storage.SourceVolume, ID: source.ID}
		},
	}
	for name, change := range tests {
		spec := base
		change(&spec)
		if _, err := e.createVolume(spec); !errors.Is(err, storage.ErrConflict) {
			t.Errorf("%s: %v", name, err)
		}
	}
	compatible := base
	compatible.FSType, compatible.RequiredBytes, compatible.LimitBytes = "", 4*MiB, 100*MiB
	e.create(t, compatible)
	if n := e.ours(t); n != 2 {
		t.Errorf("%d LVs, want 2", n)
	}
}

func testVolumeSizes(t *testing.T, e *env) {
	tests := []struct {
		name            string
		required, limit int64
		requested, size int64
		err             error
	}{
		{name: "default", requested: 1024 * MiB, size: 1024 * MiB},
		{name: "default below limit", limit: 10 * MiB, requested: 8 * MiB, size: 8 * MiB},
		{name: "one byte", required: 1, requested: 1, size: 4 * MiB},
		{name: "rounded", required: 4*MiB + 1, requested: 4*MiB + 1, size: 8 * MiB},
		{name: "exact limit", required: 8 * MiB, limit: 8 * MiB, requested: 8 * MiB, size: 8 * MiB},
		{name: "no extent between", required: 5 * MiB, limit: 6 * MiB, err: storage.ErrSizeRange},
		{name: "limit below an extent", limit: 1, err: storage.ErrSizeRange},
		{name: "huge", required: math.MaxInt64, err: storage.ErrSizeRange},
		{name: "larger than the pool", required: 1 << 50, err: storage.ErrNoSpace},
	}
	for _, tt := range tests {
		v, err := e.createVolume(storage.VolumeSpec{
			Name: tt.name, RequiredBytes: tt.required, LimitBytes: tt.limit, Access: storage.AccessBlock,
		})
		if !errors.Is(err, tt.err) || (err == nil && (v.RequestedBytes != tt.requested || v.SizeBytes != tt.size)) {
			t.Errorf("%s: %+v, %v", tt.name, v, err)
		}
	}
}

func testNames(t *testing.T, e *env) {
	names := []string{
		strings.Repeat("n", 128), strings.Repeat("é", 64), "a/b/../c", "-rf", "--name", "vg0/lv", "snapshot-1", "with space, comma",
		"日本語のボリューム", "quote'\"`$(x)", "tab\there", "!#&=", "A", "a", "pvmove0", ".", "..",
	}
	ids := map[string]string{}
	for _, name := range names {
		v := e.volume(t, name, 4*MiB)
		s := e.snapshot(t, name, v)
		if v.Name != name || s.Name != name || len(v.ID) > 128 {
			t.Errorf("%q came back as %q and %q", name, v.Name, s.Name)
		}
		if other, taken := ids[v.ID]; taken {
			t.Errorf("%q and %q have one id", name, other)
		}
		ids[v.ID] = name
	}
	list, err := e.Engine.Volumes(e.ctx)
	e.must(t, err)
	if len(list) != len(names) {
		t.Errorf("%d volumes listed, want %d", len(list), len(names))
	}
	for _, v := range list {
		if ids[v.ID] != v.Name {
			t.Errorf("listed %q as %q", ids[v.ID], v.Name)
		}
	}
}

func testOtherNode(t *testing.T, e *env) {
	v := e.volume(t, "v", 4*MiB)
	s := e.snapshot(t, "s", v)
	move := func(id string) string {
		return strings.Replace(id, storage.NodeHash(NodeID), storage.NodeHash("node-2"), 1)
	}
	far, farSnapshot := move(v.ID), move(s.ID)
	_, volumeErr := e.Engine.Volume(e.ctx, far)
	_, snapshotErr := e.Engine.Snapshot(e.ctx, farSnapshot)
	_, activateErr := e.Engine.Activate(e.ctx, far)
	for what, err := range map[string]error{
		"Volume": volumeErr, "Snapshot": snapshotErr, "Activate": activateErr,
		"DeleteVolume":   e.Engine.DeleteVolume(e.ctx, far),
		"DeleteSnapshot": e.Engine.DeleteSnapshot(e.ctx, farSnapshot),
	} {
		if !errors.Is(err, storage.ErrOtherNode) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// NoSpace makes the scheduler look elsewhere; NotFound would keep it here.
	restore := restoreOf("r", s)
	restore.Source.ID = farSnapshot
	if _, err := e.createVolume(restore); !errors.Is(err, storage.ErrNoSpace) || !errors.Is(err, storage.ErrOtherNode) {
		t.Errorf("restore: %v", err)
	} else if !strings.Contains(err.Error(), storage.NodeHash("node-2")+", and this is "+NodeID) {
		t.Errorf("restore: %q does not say whose it is and who this is", err)
	}
	if n := e.ours(t); n != 2 {
		t.Errorf("%d LVs, want 2", n)
	}
}

// Nothing without our tag is ever touched, however much it looks like ours.
func testForeignVolumes(t *testing.T, e *env) {
	v := e.volume(t, "v", 4*MiB)
	type lookalike struct {
		Name string
		Tags []string
	}
	lookalikes := []lookalike{
		{Name: storage.VolumeLV("foreign")},                                                                     // our name, no tag
		{Name: storage.SnapshotLV("foreign")},                                                                   //
		{Name: storage.VolumeLV("half"), Tags: []string{"lvmsnap.driver=" + Driver}},                            // no CSI name
		{Name: "data", Tags: []string{"lvmsnap.driver=" + Driver, "lvmsnap.name=foo"}},                          // our tags, another name
		{Name: storage.VolumeLV("foo"), Tags: []string{"lvmsnap.driver=other.example.com", "lvmsnap.name=foo"}}, // another driver's
	}
	for _, o := range lookalikes {
		if e.Type == storage.TypeThick {
			e.must(t, e.Admin.CreateThickVolume(e.ctx, lvm.ThickVolumeOptions{Name: o.Name, SizeBytes: 4 * MiB, Tags: o.Tags}))
			continue
		}
		e.must(t, e.Admin.CreateThinVolume(e.ctx, lvm.ThinVolumeOptions{Name: o.Name, SizeBytes: 4 * MiB, Tags: o.Tags, Pool: e.Pool}))
	}
	before := e.lvs(t)
	if got := e.volumeIDs(t); !slices.Equal(got, []string{v.ID}) {
		t.Errorf("listed %v, want only %s", got, v.ID)
	}
	if got := e.snapshotIDs(t); len(got) > 0 {
		t.Errorf("listed snapshots %v", got)
	}
	handle := func(lv string) string { return storage.Handle{NodeHash: storage.NodeHash(NodeID), LV: lv}.String() }
	for _, o := range lookalikes {
		id := handle(o.Name)
		e.must(t, e.Engine.DeleteVolume(e.ctx, id))
		e.must(t, e.Engine.DeleteSnapshot(e.ctx, id))
		e.must(t, e.Engine.Deactivate(e.ctx, id))
		if _, err := e.Engine.Activate(e.ctx, id); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("Activate %s: %v", o.Name, err)
		}
		if _, err := e.Engine.ExpandVolume(e.ctx, id, 64*MiB, 0); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("ExpandVolume %s: %v", o.Name, err)
		}
		if _, err := e.Engine.CreateSnapshot(e.ctx, storage.SnapshotSpec{Name: "s", SourceID: id}); !errors.Is(err, storage.ErrNotFound) {
			t.Errorf("CreateSnapshot of %s: %v", o.Name, err)
		}
	}
	for _, name := range []string{"foreign", "half", "foo"} {
		_, err := e.createVolume(storage.VolumeSpec{Name: name, RequiredBytes: 4 * MiB, Access: storage.AccessBlock})
		if !errors.Is(err, storage.ErrConflict) {
			t.Errorf("CreateVolume in the way of a foreign one: %v", err)
		}
	}
	if _, err := e.Engine.CreateSnapshot(e.ctx, storage.SnapshotSpec{Name: "foreign", SourceID: v.ID}); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("CreateSnapshot in the way of a foreign one: %v", err)
	}
	if diff := cmp.Diff(before, e.lvs(t)); diff != "" {
		t.Errorf("LVs changed:\n%s", diff)
	}
}

func testExpand(t *testing.T, e *env) {
	// With a file system, the new extents of a thick volume are no danger, and it grows online.
	v := e.create(t, storage.VolumeSpec{Name: "v", RequiredBytes: 4 * MiB, Access: storage.AccessMount})
	e.write(t, v, "kept")
	grow := func(required, limit int64) (storage.Volume, error) {
		return e.Engine.ExpandVolume(e.ctx, v.ID, required, limit)
	}
	bigger, err := grow(9*MiB, 0)
	e.must(t, err)
	if bigger.SizeBytes != 12*MiB || bigger.RequestedBytes != 9*MiB {
		t.Errorf("expanded to %s", describe(bigger))
	}
	for _, required := range []int64{9 * MiB, 4 * MiB, 0} {
		same, err := grow(required, 0)
		e.must(t, err)
		if same.SizeBytes != 12*MiB || same.RequestedBytes != 9*MiB {
			t.Errorf("expanding to %d again: %s", required, describe(same))
		}
	}
	if _, err := grow(13*MiB, 15*MiB); !errors.Is(err, storage.ErrSizeRange) {
		t.Errorf("no extent between required and limit: %v", err)
	}
	if _, err := grow(4*MiB, 8*MiB); !errors.Is(err, storage.ErrSizeRange) {
		t.Errorf("limit below the present size: %v", err)
	}
	if _, err := grow(1<<50, 0); !errors.Is(err, storage.ErrNoSpace) {
		t.Errorf("larger than the pool: %v", err)
	}
	s := e.snapshot(t, "s", v)
	if s.SizeBytes != 9*MiB {
		t.Errorf("snapshot after the expansion has %d bytes, want the requested %d", s.SizeBytes, 9*MiB)
	}
	// Online: while somebody holds it.
	active, err := e.Engine.Activate(e.ctx, v.ID)
	e.must(t, err)
	release := e.Hold(t, active)
	if e.Type == storage.TypeThick {
		// LVM resizes the origin of COW snapshots only while it is inactive.
		if _, err := grow(20*MiB, 20*MiB); !errors.Is(err, storage.ErrInUse) || !strings.Contains(err.Error(), "delete its snapshots") {
			t.Errorf("with a COW snapshot, while active: %v, want ErrInUse with the cure", err)
		}
		e.must(t, e.Engine.DeleteSnapshot(e.ctx, s.ID))
	}
	_, err = grow(20*MiB, 20*MiB)
	release()
	e.must(t, err)
	e.must(t, e.Engine.Deactivate(e.ctx, v.ID))
	e.expect(t, v, "kept")
	if got := e.lvs(t)[lvOf(t, v.ID)].SizeBytes; got != 20*MiB {
		t.Errorf("LVM has %d bytes, want %d", got, 20*MiB)
	}
	// An administrator's own lvextend counts, too.
	e.must(t, e.Admin.Extend(e.ctx, lvOf(t, v.ID), 24*MiB))
	found, err := e.Engine.Volume(e.ctx, v.ID)
	e.must(t, err)
	if found.SizeBytes != 24*MiB || found.RequestedBytes != 24*MiB {
		t.Errorf("after lvextend: %s", describe(found))
	}
}

func testDeleteInUse(t *testing.T, e *env) {
	v, err := e.Engine.Activate(e.ctx, e.volume(t, "v", 4*MiB).ID)
	e.must(t, err)
	release := e.Hold(t, v)
	if err := e.Engine.Deactivate(e.ctx, v.ID); !errors.Is(err, storage.ErrInUse) {
		t.Errorf("Deactivate while open: %v", err)
	}
	if err := e.Engine.DeleteVolume(e.ctx, v.ID); !errors.Is(err, storage.ErrInUse) {
		t.Errorf("DeleteVolume while open: %v", err)
	}
	release()
	e.must(t, e.Engine.Deactivate(e.ctx, v.ID))
	e.must(t, e.Engine.Deactivate(e.ctx, v.ID))
	if e.lvs(t)[lvOf(t, v.ID)].Attr.Active() {
		t.Error("still active")
	}
	e.must(t, e.Engine.DeleteVolume(e.ctx, v.ID))
	e.must(t, e.Engine.Deactivate(e.ctx, v.ID)) // gone is fine
}

func testInitialization(t *testing.T, e *env) {
	v := e.create(t, storage.VolumeSpec{Name: "v", RequiredBytes: 4 * MiB, Access: storage.AccessMount})
	if v.Init != storage.InitFormat || v.FSType != "ext4" {
		t.Fatalf("new volume: %s", describe(v))
	}
	// A copy of what was never formatted has to be formatted, too.
	blank := e.snapshot(t, "blank", v)
	mount := func(spec storage.VolumeSpec) storage.VolumeSpec { spec.Access = storage.AccessMount; return spec }
	if r := e.create(t, mount(restoreOf("r1", blank))); r.Init != storage.InitFormat {
		t.Errorf("restore of a blank volume: init %q", r.Init)
	}
	e.must(t, e.Engine.Initialized(e.ctx, v.ID))
	e.must(t, e.Engine.Initialized(e.ctx, v.ID))
	staged, err := e.Engine.Activate(e.ctx, v.ID)
	e.must(t, err)
	if staged.Init != storage.InitDone {
		t.Errorf("initialized volume: init %q", staged.Init)
	}
	full := e.snapshot(t, "full", v)
	r := e.create(t, mount(restoreOf("r2", full)))
	if r.Init != storage.InitClone || r.FSType != "ext4" {
		t.Errorf("restore of a formatted volume: %s", describe(r))
	}
	if r := e.create(t, restoreOf("r3", full)); r.Init != storage.InitDone {
		t.Errorf("restore as a block device: init %q", r.Init)
	}
	e.must(t, e.Engine.Initialized(e.ctx, r.ID))
	if found, err := e.Engine.Volume(e.ctx, r.ID); err != nil || found.Init != storage.InitDone {
		t.Errorf("after Initialized: %s, %v", describe(found), err)
	}
}

func testPlacement(t *testing.T, e *env) {
	for _, class := range []storage.Class{
		{VolumeGroup: "elsewhere"}, {ThinPool: "nosuch"}, {Type: "tape"},
	} {
		_, err := e.createVolume(storage.VolumeSpec{Name: "v", RequiredBytes: 4 * MiB, Access: storage.AccessBlock, Class: class})
		if !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("%+v: %v", class, err)
		}
	}
	class := storage.Class{Type: e.Type, VolumeGroup: e.Group, ThinPool: e.Pool}
	v := e.create(t, storage.VolumeSpec{Name: "v", RequiredBytes: 4 * MiB, Access: storage.AccessBlock, Class: class})
	if v.Class != class {
		t.Errorf("class %+v, want %+v", v.Class, class)
	}
	if v := e.volume(t, "default", 4*MiB); v.Class != class {
		t.Errorf("default class %+v, want %+v", v.Class, class)
	}
}

// What may be made is what Capacity has offered, to the extent.
