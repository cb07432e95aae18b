package lvm_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// thickContract is the part of the contract that is about thick volumes and their COW snapshots.
var thickContract = []contractCase{
	{"ThickVolume", contractThickVolume},
	{"ThickErrors", contractThickErrors},
	{"COWInactive", contractCOWInactive},
	{"COWActive", contractCOWActive},
	{"COWOpen", contractCOWOpen},
	{"COWOverflow", contractCOWOverflow},
	{"COWMaximum", contractCOWMaximum},
	{"COWExtend", contractCOWExtend},
	{"COWRemove", contractCOWRemove},
	{"Rename", contractRename},
}

func (f fixture) thick(t *testing.T, name string, sizeBytes int64, tags ...string) {
	t.Helper()
	if err := f.client.CreateThickVolume(t.Context(), lvm.ThickVolumeOptions{Name: name, SizeBytes: sizeBytes, Tags: tags}); err != nil {
		t.Fatal(err)
	}
}

// cow cuts a snapshot of v.
func (f fixture) cow(t *testing.T, name string, cowBytes int64, tags ...string) {
	t.Helper()
	err := f.client.CreateCOWSnapshot(t.Context(), lvm.COWSnapshotOptions{Name: name, Origin: "v", COWBytes: cowBytes, Tags: tags})
	if err != nil {
		t.Fatal(err)
	}
}

func (f fixture) free(t *testing.T) int64 {
	t.Helper()
	vg, err := f.client.VG(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return vg.FreeBytes
}

func (f fixture) snapshotStatus(t *testing.T, name string) dm.SnapshotStatus {
	t.Helper()
	s, err := f.kernel.SnapshotStatus(t.Context(), f.group, name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f fixture) wantAttrs(t *testing.T, want map[string]string) {
	t.Helper()
	lvs := f.lvs(t)
	for name, attr := range want {
		wantAttr(t, lvs[name], attr)
	}
}

func contractThickVolume(t *testing.T, f fixture) {
	free := f.free(t)
	f.thick(t, "a", 5*mib+1, "one", "two=2")
	f.thick(t, "b", 4*mib)
	a := f.lv(t, "a")
	wantAttr(t, a, "-wi------k")
	if a.SizeBytes != 8*mib || a.SegType != "linear" || a.Pool != "" || a.Origin != "" || a.OriginBytes != 0 || a.DataPercent != -1 ||
		a.TransactionID != 0 || !slices.Equal(a.Tags, []string{"one", "two=2"}) {
		t.Errorf("volume %+v", a)
	}
	if got := f.free(t); got != free-12*mib {
		t.Errorf("%d bytes are free, want %d", got, free-12*mib)
	}
	out, err := f.exec.Run(t.Context(), "lvchange", "--activate", "y", f.group+"/a")
	if err != nil || out.ExitCode != 0 {
		t.Errorf("lvchange -ay: %v, exit code %d, %s", err, out.ExitCode, out.Text)
	}
	wantAttr(t, f.lv(t, "a"), "-wi------k")
	f.must(t, f.client.Activate, "a")
	f.write(t, "a", "data")
	if err := f.client.Extend(t.Context(), "a", 16*mib); err != nil { // around b: a second segment
		t.Fatal(err)
	}
	list, err := f.client.LVs(t.Context())
	if err != nil || len(list) != 3 {
		t.Errorf("%d volumes are there, want 3 (%v)", len(list), err)
	}
	a = f.lv(t, "a")
	wantAttr(t, a, "-wi-a----k")
	if a.SizeBytes != 16*mib || f.free(t) != free-20*mib || f.read(t, "a") != "data" {
		t.Errorf("extended volume %+v, %d free", a, f.free(t))
	}
	f.must(t, f.client.Refresh, "a")
	f.must(t, f.client.Remove, "a") // active, not open
	f.must(t, f.client.Remove, "b")
	if got := f.free(t); got != free {
		t.Errorf("%d bytes are free, want %d", got, free)
	}
}

func contractThickErrors(t *testing.T, f fixture) {
	ctx := t.Context()
	f.thick(t, "v", 4*mib)
	f.cow(t, "s", 4*mib)
	thick := func(name string, bytes int64) error {
		return f.client.CreateThickVolume(ctx, lvm.ThickVolumeOptions{Name: name, SizeBytes: bytes})
	}
	cow := func(name, origin string) error {
		return f.client.CreateCOWSnapshot(ctx, lvm.COWSnapshotOptions{Name: name, Origin: origin, COWBytes: 4 * mib})
	}
	free := f.free(t)
	wantError(t, "create a name that is there", thick("v", mib), lvm.ErrExists)
	wantError(t, "create what does not fit", thick("x", free+mib), lvm.ErrNoSpace)
	wantError(t, "snapshot with a name that is there", cow("s", "v"), lvm.ErrExists)
	wantError(t, "snapshot of nothing", cow("x", "gone"), lvm.ErrNotFound)
	wantError(t, "refresh nothing", f.client.Refresh(ctx, "gone"), lvm.ErrNotFound)
	var failed *lvm.CommandError
	if err := cow("x", "s"); !errors.As(err, &failed) || failed.ExitCode != 5 {
		t.Errorf("a snapshot of a snapshot: %v", err)
	}
	f.thick(t, "rest", free)
	wantError(t, "snapshot in a full group", cow("x", "v"), lvm.ErrNoSpace)
	wantError(t, "extend a COW in a full group", f.client.Extend(ctx, "s", 8*mib), lvm.ErrNoSpace)
	f.must(t, f.client.Remove, "rest")

	none := lvm.NewClient(f.exec, missingGroup)
	wantError(t, "create in a missing group", none.CreateThickVolume(ctx, lvm.ThickVolumeOptions{Name: "x", SizeBytes: mib}), lvm.ErrGroupNotFound)
	wantError(t, "snapshot in a missing group",
		none.CreateCOWSnapshot(ctx, lvm.COWSnapshotOptions{Name: "x", Origin: "v", COWBytes: mib}), lvm.ErrGroupNotFound)
	wantError(t, "rename in a missing group", none.Rename(ctx, "v", "w"), lvm.ErrGroupNotFound)
	for _, name := range []string{"v", "s", "gone"} {
		if _, err := f.kernel.SnapshotStatus(ctx, f.group, name); !errors.Is(err, dm.ErrNoDevice) {
			t.Errorf("snapshot status of %s: %v", name, err)
		}
	}
	f.must(t, f.client.Activate, "v")
	if _, err := f.kernel.SnapshotStatus(ctx, f.group, "v"); !errors.Is(err, dm.ErrNoDevice) {
		t.Errorf("snapshot status of an origin: %v", err)
	}
}

// contractCOWInactive: a snapshot of an inactive origin is inactive; they become active together, and the origin's skip flag
// is the one that counts.
func contractCOWInactive(t *testing.T, f fixture) {
	free := f.free(t)
	f.thick(t, "v", 16*mib)
	f.cow(t, "s1", 8*mib, "snap")
	f.cow(t, "s2", 4*mib)
	s := f.lv(t, "s1")
	if s.SizeBytes != 8*mib || s.OriginBytes != 16*mib || s.Origin != "v" || s.Pool != "" || s.SegType != "linear" || s.DataPercent != -1 ||
		!slices.Equal(s.Tags, []string{"snap"}) || s.Attr.Type() != lvm.TypeSnapshot {
		t.Errorf("snapshot %+v", s)
	}
	if got := f.free(t); got != free-28*mib {
		t.Errorf("%d bytes are free, want %d", got, free-28*mib)
	}
	inactive := map[string]string{"v": "owi---s--k", "s1": "sri---s--k", "s2": "sri---s--k"}
	active := map[string]string{"v": "owi-a-s--k", "s1": "sri-a-s--k", "s2": "sri-a-s--k"}
	f.wantAttrs(t, inactive)
	if out, err := f.exec.Run(t.Context(), "lvchange", "--activate", "y", f.group+"/v"); err != nil || out.ExitCode != 0 {
		t.Errorf("lvchange -ay: %v, exit code %d, %s", err, out.ExitCode, out.Text)
	}
	f.wantAttrs(t, inactive)
	for range 2 {
		f.must(t, f.client.Activate, "v")
		f.wantAttrs(t, active)
	}
	if !f.info(t, "s1").ReadOnly || f.info(t, "v").ReadOnly {
		t.Errorf("s1 %+v, v %+v", f.info(t, "s1"), f.info(t, "v"))
	}
	for range 2 {
		f.must(t, f.client.Deactivate, "v")
		f.wantAttrs(t, inactive)
	}
	f.must(t, f.client.Activate, "s2") // whichever is named
	f.wantAttrs(t, active)
	f.must(t, f.client.Deactivate, "s1")
	f.wantAttrs(t, inactive)
}

func contractCOWActive(t *testing.T, f fixture) {
	f.thick(t, "v", 16*mib)
	f.must(t, f.client.Activate, "v")
	f.write(t, "v", "one")
	f.cow(t, "s1", 8*mib)
	f.wantAttrs(t, map[string]string{"v": "owi-a-s--k", "s1": "sri-a-s--k"})
	fresh := f.snapshotStatus(t, "s1")
	if want := (dm.SnapshotStatus{UsedBytes: 8 << 10, TotalBytes: 8 * mib, MetadataBytes: 8 << 10}); fresh != want {
		t.Errorf("a new snapshot's status is %+v, want %+v", fresh, want)
	}
	if s := f.lv(t, "s1"); s.DataPercent != 0 {
		t.Errorf("a new snapshot: %+v", s)
	}
	f.write(t, "v", "two")
	f.cow(t, "s2", 8*mib)
	f.write(t, "v", "three")
	for name, want := range map[string]string{"v": "three", "s1": "one", "s2": "two"} {
		if got := f.read(t, name); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	if got := f.snapshotStatus(t, "s1"); got.UsedBytes != 12<<10 || got.MetadataBytes != 8<<10 || !got.Valid() {
		t.Errorf("status after a write %+v", got)
	}
	if s := f.lv(t, "s1"); s.DataPercent != 0.15 {
		t.Errorf("after a write: %+v", s)
	}
	f.must(t, f.client.Remove, "s1")
	f.must(t, f.client.Deactivate, "v")
	f.must(t, f.client.Activate, "v")
	if got := f.read(t, "s2") + f.read(t, "v"); got != "twothree" {
		t.Errorf("after a deactivation: %s", got)
	}
	f.must(t, f.client.Remove, "s2")
	wantAttr(t, f.lv(t, "v"), "-wi-a----k")
	if got := f.read(t, "v"); got != "three" {
		t.Errorf("v has %q", got)
	}
}

func contractCOWOpen(t *testing.T, f fixture) {
	f.thick(t, "v", 4*mib)
	f.cow(t, "s", 4*mib)
	f.must(t, f.client.Activate, "v")
	release := f.open(t, "s")
	f.wantAttrs(t, map[string]string{"v": "owi-a-s--k", "s": "sri-aos--k"})
	wantError(t, "deactivate the origin", f.client.Deactivate(t.Context(), "v"), lvm.ErrInUse)
	wantError(t, "remove", f.client.Remove(t.Context(), "s"), lvm.ErrInUse)
	f.wantAttrs(t, map[string]string{"v": "owi-a-s--k", "s": "sri-aos--k"})
	release()
	release = f.open(t, "v")
	f.cow(t, "s2", 4*mib) // an open origin is no obstacle
	f.must(t, f.client.Remove, "s2")
	f.must(t, f.client.Remove, "s")
	release()
	f.must(t, f.client.Deactivate, "v")
}

func contractCOWOverflow(t *testing.T, f fixture) {
	f.thick(t, "v", 16*mib)
	f.must(t, f.client.Activate, "v")
	f.cow(t, "s", 4*mib, "t")
	f.cow(t, "large", 12*mib)
	f.overwrite(t, "v", 1200<<10)
	if s := f.snapshotStatus(t, "s"); s.UsedBytes != (1+300+2)*4096 || s.MetadataBytes != 3*4096 {
		t.Errorf("status %+v", s)
	}
	if s := f.lv(t, "s"); s.DataPercent != 29.59 {
		t.Errorf("snapshot %+v", s)
	}
	f.overwrite(t, "v", 5*mib) // the origin's write succeeds
	lost := func(when string) {
		t.Helper()
		if s := f.snapshotStatus(t, "s"); s.Valid() || s.State != dm.SnapshotInvalid || s.Percent() != 100 {
			t.Errorf("%s: status %+v", when, s)
		}
		s := f.lv(t, "s")
		wantAttr(t, s, "sri-I-s--k")
		if s.DataPercent != 100 || s.OriginBytes != 16*mib || !s.Attr.Active() || !s.Attr.InvalidSnapshot() {
			t.Errorf("%s: snapshot %+v", when, s)
		}
	}
	lost("full")
	if s := f.snapshotStatus(t, "large"); !s.Valid() {
		t.Errorf("the larger one's status is %+v", s)
	}
	f.must(t, f.client.Deactivate, "v")
	wantAttr(t, f.lv(t, "s"), "sri---s--k") // only the kernel knows
	if err := f.client.Extend(t.Context(), "s", 8*mib); err != nil {
		t.Error(err)
	}
	f.must(t, f.client.Activate, "v")
	lost("extended and activated again")
	f.must(t, f.client.Remove, "s")
}

// contractCOWMaximum: a COW of COWMaxBytes does not overflow, and LVM makes none that is larger.
func contractCOWMaximum(t *testing.T, f fixture) {
	for _, size := range []int64{4 * mib, 16 * mib} {
		f.thick(t, "v", size)
		f.must(t, f.client.Activate, "v")
		f.cow(t, "exact", lvm.COWMaxBytes(size))
		f.cow(t, "reduced", 1024*mib)
		f.cow(t, "grown", 4*mib)
		for range 2 {
			if err := f.client.Extend(t.Context(), "grown", 1024*mib); err != nil {
				t.Error(err)
			}
		}
		f.overwrite(t, "v", int(size))
		for _, name := range []string{"exact", "reduced", "grown"} {
			s, status := f.lv(t, name), f.snapshotStatus(t, name)
			if s.SizeBytes != size+4*mib || s.SizeBytes != status.TotalBytes || !status.Valid() {
				t.Errorf("%s of %d: %+v, %+v", name, size, s, status)
			}
			if status.UsedBytes != lvm.COWMaxBytes(size) {
				t.Errorf("%s of %d: %d bytes are used, the maximum is %d", name, size, status.UsedBytes, lvm.COWMaxBytes(size))
			}
			f.must(t, f.client.Remove, name)
		}
		f.must(t, f.client.Remove, "v")
	}
}

func contractCOWExtend(t *testing.T, f fixture) {
	ctx := t.Context()
	f.thick(t, "v", 16*mib)
	f.cow(t, "s", 4*mib)
	f.must(t, f.client.Activate, "v")
	wantError(t, "extend an active origin", f.client.Extend(ctx, "v", 32*mib), lvm.ErrOriginActive)
	if err := f.client.Extend(ctx, "s", 8*mib); err != nil {
		t.Errorf("extend an active COW: %v", err)
	}
	if got := f.snapshotStatus(t, "s").TotalBytes; got != 8*mib {
		t.Errorf("the COW has %d bytes", got)
	}
	f.must(t, f.client.Deactivate, "v")
	if err := f.client.Extend(ctx, "v", 32*mib); err != nil {
		t.Errorf("extend an inactive origin: %v", err)
	}
	if v, s := f.lv(t, "v"), f.lv(t, "s"); v.SizeBytes != 32*mib || s.OriginBytes != 16*mib || s.SizeBytes != 8*mib {
		t.Errorf("origin %+v, snapshot %+v", v, s)
	}
	if err := f.client.ChangeTags(ctx, "s", nil, []string{"t"}); err != nil {
		t.Errorf("tag a snapshot: %v", err)
	}
}

func contractCOWRemove(t *testing.T, f fixture) {
	ctx := t.Context()
	f.thick(t, "v", 4*mib)
	f.cow(t, "s", 4*mib)
	for _, prepare := range []func() error{
		func() error { return nil },
		func() error { return f.client.Activate(ctx, "s") },
	} {
		if err := prepare(); err != nil {
			t.Fatal(err)
		}
		wantError(t, "remove an origin", f.client.RemoveThick(ctx, "v"), lvm.ErrHasSnapshots)
		if got := len(f.lvs(t)); got != 3 {
			t.Fatalf("%d volumes are there, want 3", got)
		}
	}
	f.must(t, f.client.RemoveThick, "s")
	f.must(t, f.client.RemoveThick, "v")
	wantError(t, "remove again", f.client.RemoveThick(ctx, "v"), lvm.ErrNotFound)
}

func contractRename(t *testing.T, f fixture) {
	ctx := t.Context()
	f.thick(t, "v", 4*mib, "t")
	f.cow(t, "s", 4*mib)
	f.must(t, f.client.Activate, "v")
	f.write(t, "v", "data")
	before, minor := f.lv(t, "v"), f.info(t, "v").Minor
	release := f.open(t, "v")
	if err := f.client.Rename(ctx, "v", "w-1"); err != nil {
		t.Fatal(err)
	}
	if err := f.client.Rename(ctx, "s", "s.2"); err != nil {
		t.Fatal(err)
	}
	after := f.lv(t, "w-1")
	wantAttr(t, after, "owi-aos--k")
	if after.UUID != before.UUID || !slices.Equal(after.Tags, before.Tags) || f.info(t, "w-1").Minor != minor {
		t.Errorf("renamed from %+v to %+v", before, after)
	}
	if s := f.lv(t, "s.2"); s.Origin != "w-1" || s.OriginBytes != 4*mib {
		t.Errorf("snapshot %+v", s)
	}
	if _, err := f.kernel.Info(ctx, f.group, "v"); !errors.Is(err, dm.ErrNoDevice) {
		t.Errorf("the old name has a device: %v", err)
	}
	release()
	wantError(t, "rename to a name that is there", f.client.Rename(ctx, "w-1", "s.2"), lvm.ErrExists)
	wantError(t, "rename nothing", f.client.Rename(ctx, "v", "x"), lvm.ErrNotFound)
	if f.client.Rename(ctx, "w-1", "w-1") == nil {
		t.Error("a volume was renamed to its own name")
	}
	if got := f.read(t, "w-1"); got != "data" {
		t.Errorf("it has %q", got)
	}
	f.must(t, f.client.Deactivate, "w-1")
	if err := f.client.Rename(ctx, "w-1", "v"); err != nil {
		t.Error(err)
	}
}
