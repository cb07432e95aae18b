package lvm_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

const (
	mib = 1 << 20
	// The pool of every fixture.
	poolName     = "pool"
	poolBytes    = 512 * mib
	poolMetadata = 4 * mib
	poolChunk    = 64 << 10
	extent       = 4 * mib
	missingGroup = "no_such_group"
)

// fixture is a volume group of a test's own, with an active thin pool that zeroes, and nothing else in it.
type fixture struct {
	exec   lvm.Executor
	client *lvm.Client
	kernel dm.Kernel
	group  string
	// write and read go to the device of an active volume.
	write func(t *testing.T, lv, data string)
	read  func(t *testing.T, lv string) string
	// overwrite writes so many bytes to an active volume, from its begin on.
	overwrite func(t *testing.T, lv string, bytes int)
	// open holds an active volume open, until the returned function is called.
	open func(t *testing.T, lv string) (release func())
	// plain makes an active linear volume, as an administrator would.
	plain func(t *testing.T, lv string, sizeBytes int64)
	// fill takes all of the pool's data space, through a volume that is made for it.
	fill func(t *testing.T)
}

type contractCase struct {
	name string
	run  func(t *testing.T, f fixture)
}

// RunContract is what the driver relies on of LVM. It runs on the fake and, in the lab, on the real one, by
// exec and through the shell, so that the fake cannot drift away.
func RunContract(t *testing.T, newGroup func(t *testing.T) fixture) {
	for _, c := range append([]contractCase{
		{"Empty", contractEmpty},
		{"ThinVolume", contractThinVolume},
		{"Snapshot", contractSnapshot},
		{"OriginRemoved", contractOriginRemoved},
		{"Activation", contractActivation},
		{"Open", contractOpen},
		{"Tags", contractTags},
		{"Extend", contractExtend},
		{"Names", contractNames},
		{"Errors", contractErrors},
		{"Refusals", contractRefusals},
		{"Data", contractData},
		{"PoolInactive", contractPoolInactive},
		{"FullPool", contractFullPool},
		{"MetadataFull", contractMetadataFull},
		{"PoolGrowth", contractPoolGrowth},
	}, thickContract...) {
		t.Run(c.name, func(t *testing.T) { c.run(t, newGroup(t)) })
	}
}

func (f fixture) lvs(t *testing.T) map[string]lvm.LV {
	t.Helper()
	list, err := f.client.LVs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]lvm.LV{}
	for _, v := range list {
		out[v.Name] = v
	}
	return out
}

func (f fixture) lv(t *testing.T, name string) lvm.LV {
	t.Helper()
	v, ok := f.lvs(t)[name]
	if !ok {
		t.Fatalf("there is no %s", name)
	}
	return v
}

func (f fixture) create(t *testing.T, name string, sizeBytes int64, tags ...string) {
	t.Helper()
	err := f.client.CreateThinVolume(t.Context(), lvm.ThinVolumeOptions{Name: name, Pool: poolName, SizeBytes: sizeBytes, Tags: tags})
	if err != nil {
		t.Fatal(err)
	}
}

func (f fixture) snapshot(t *testing.T, name, origin string, writable bool, tags ...string) {
	t.Helper()
	err := f.client.CreateThinSnapshot(t.Context(), lvm.ThinSnapshotOptions{Name: name, Origin: origin, Writable: writable, Tags: tags})
	if err != nil {
		t.Fatal(err)
	}
}

func (f fixture) must(t *testing.T, verb func(context.Context, string) error, name string) {
	t.Helper()
	if err := verb(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

func (f fixture) pool(t *testing.T) dm.PoolStatus {
	t.Helper()
	s, err := f.kernel.PoolStatus(t.Context(), f.group, poolName)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f fixture) info(t *testing.T, name string) dm.Info {
	t.Helper()
	i, err := f.kernel.Info(t.Context(), f.group, name)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// wantError checks the class of an error.
func wantError(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}

func wantAttr(t *testing.T, v lvm.LV, want string) {
	t.Helper()
	if string(v.Attr) != want {
		t.Errorf("%s has attr %s, want %s", v.Name, v.Attr, want)
	}
}

func contractEmpty(t *testing.T, f fixture) {
	lvs := f.lvs(t)
	if len(lvs) != 1 {
		t.Fatalf("volumes %v, want only the pool", lvs)
	}
	pool := lvs[poolName]
	wantAttr(t, pool, "twi-a-tz--")
	if pool.SizeBytes != poolBytes || pool.SegType != "thin-pool" || pool.TransactionID != 0 || pool.UUID == "" ||
		pool.DataPercent != 0 || pool.MetadataPercent <= 0 || len(pool.Tags) != 0 || pool.Pool != "" {
		t.Errorf("pool %+v", pool)
	}
	vg, err := f.client.VG(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if vg.Name != f.group || vg.ExtentBytes != extent || vg.MissingPVs != 0 || vg.UUID == "" || len(vg.Tags) != 0 || vg.SizeBytes%extent != 0 {
		t.Errorf("group %+v", vg)
	}
	if want := vg.SizeBytes - poolBytes - 2*poolMetadata; vg.FreeBytes != want { // and the spare
		t.Errorf("%d bytes are free, want %d", vg.FreeBytes, want)
	}
	if vg.MetadataSizeBytes < 1000_000 || vg.MetadataFreeBytes <= 0 || vg.MetadataFreeBytes >= vg.MetadataSizeBytes {
		t.Errorf("metadata area: %d of %d bytes free", vg.MetadataFreeBytes, vg.MetadataSizeBytes)
	}
	s := f.pool(t)
	want := dm.PoolStatus{
		Mode: dm.PoolReadWrite, ChunkBytes: poolChunk, TotalDataBlocks: poolBytes / poolChunk,
		TotalMetadataBlocks: poolMetadata / dm.MetadataBlockBytes, UsedMetadataBlocks: s.UsedMetadataBlocks,
	}
	if s != want || s.UsedMetadataBlocks == 0 || s.UsedMetadataBlocks > 200 {
		t.Errorf("pool status %+v, want %+v", s, want)
	}
	f.create(t, "v", mib)
	after, err := f.client.VG(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if after.Sequence <= vg.Sequence || after.MetadataFreeBytes > vg.MetadataFreeBytes {
		t.Errorf("a volume later the group is %+v", after)
	}
}

func contractThinVolume(t *testing.T, f fixture) {
	f.create(t, "a", 5*mib+1, "one", "two=2")
	v := f.lv(t, "a")
	wantAttr(t, v, "Vwi---tz-k")
	if v.SizeBytes != 8*mib || v.Pool != poolName || v.Origin != "" || v.SegType != "thin" || v.ThinID == 0 || v.UUID == "" ||
		v.DataPercent != -1 || v.MetadataPercent != -1 || !slices.Equal(v.Tags, []string{"one", "two=2"}) {
		t.Errorf("volume %+v", v)
	}
	if v.Attr.Active() || !v.Attr.Writable() || !v.Attr.SkipActivation() || v.Attr.Type() != lvm.TypeThinVolume || !v.Attr.Zero() {
		t.Errorf("attr %s is read wrongly", v.Attr)
	}
	wantAttr(t, f.lv(t, poolName), "twi-aotz--")
	f.create(t, "b", mib)
	b, pool, status := f.lv(t, "b"), f.lv(t, poolName), f.pool(t)
	if b.ThinID == v.ThinID || b.UUID == v.UUID || len(b.Tags) != 0 {
		t.Errorf("volume b %+v", b)
	}
	if v.TransactionID != 0 || b.TransactionID != 1 || pool.TransactionID != 2 || status.TransactionID != 2 {
		t.Errorf("transaction ids: a %d, b %d, pool %d, kernel %d", v.TransactionID, b.TransactionID, pool.TransactionID, status.TransactionID)
	}
	f.must(t, f.client.Remove, "a")
	pool, status = f.lv(t, poolName), f.pool(t)
	if pool.TransactionID != 3 || status.TransactionID != 3 {
		t.Errorf("after a removal: pool %d, kernel %d", pool.TransactionID, status.TransactionID)
	}
	f.create(t, "a", mib) // the name is free again
	if again := f.lv(t, "a"); again.UUID == v.UUID || again.TransactionID != 3 {
		t.Errorf("a again: %+v", again)
	}
}

func contractSnapshot(t *testing.T, f fixture) {
	f.create(t, "v", 16*mib, "origin")
	f.snapshot(t, "s", "v", false, "snap")
	f.snapshot(t, "w", "v", true)
	f.snapshot(t, "restored", "s", true, "r")
	lvs, status := f.lvs(t), f.pool(t)
	for name, want := range map[string]struct{ attr, origin, tag string }{
		"v":        {"Vwi---tz-k", "", "origin"},
		"s":        {"Vri---tz-k", "v", "snap"},
		"w":        {"Vwi---tz-k", "v", ""},
		"restored": {"Vwi---tz-k", "s", "r"},
	} {
		v := lvs[name]
		wantAttr(t, v, want.attr)
		if v.Origin != want.origin || v.Pool != poolName || v.SegType != "thin" || v.SizeBytes != 16*mib || strings.Join(v.Tags, ",") != want.tag {
			t.Errorf("%s: %+v", name, v)
		}
		if v.TransactionID >= status.TransactionID {
			t.Errorf("%s is committed, but its transaction id %d is not below the pool's %d", name, v.TransactionID, status.TransactionID)
		}
	}
	if ids := []uint32{lvs["v"].ThinID, lvs["s"].ThinID, lvs["w"].ThinID, lvs["restored"].ThinID}; len(slices.Compact(slices.Sorted(slices.Values(ids)))) != 4 {
		t.Errorf("thin ids %v", ids)
	}
}

func contractOriginRemoved(t *testing.T, f fixture) {
	f.create(t, "v", mib)
	f.must(t, f.client.Activate, "v")
	f.write(t, "v", "kept")
	f.snapshot(t, "s", "v", false, "t")
	f.snapshot(t, "s2", "s", false)
	before := f.lv(t, "s")
	f.must(t, f.client.Remove, "v") // active, not open
	after := f.lv(t, "s")
	if after.Origin != "" {
		t.Errorf("the origin is gone, and reported as %q", after.Origin)
	}
	if after.UUID != before.UUID || after.ThinID != before.ThinID || after.TransactionID != before.TransactionID ||
		after.Attr != before.Attr || after.Pool != poolName || !slices.Equal(after.Tags, before.Tags) {
		t.Errorf("the snapshot of a removed origin changed from %+v to %+v", before, after)
	}
	if got := f.lv(t, "s2").Origin; got != "s" {
		t.Errorf("s2 has origin %q", got)
	}
	f.must(t, f.client.Activate, "s2")
	if got := f.read(t, "s2"); got != "kept" {
		t.Errorf("s2 has %q", got)
	}
	f.create(t, "v", mib) // a new volume of that name is not the origin
	if got := f.lv(t, "s").Origin; got != "" {
		t.Errorf("the new volume is reported as the origin: %q", got)
	}
}

func contractActivation(t *testing.T, f fixture) {
	f.create(t, "v", mib)
	f.snapshot(t, "s", "v", false)
	if _, err := f.kernel.Info(t.Context(), f.group, "v"); !errors.Is(err, dm.ErrNoDevice) {
		t.Errorf("Info of an inactive volume: %v", err)
	}
	// What skips activation stays inactive, as at boot.
	out, err := f.exec.Run(t.Context(), "lvchange", "--activate", "y", f.group+"/v")
	if err != nil || out.ExitCode != 0 {
		t.Errorf("lvchange -ay: %v, exit code %d, %s", err, out.ExitCode, out.Text)
	}
	wantAttr(t, f.lv(t, "v"), "Vwi---tz-k")
	for range 2 { // again is no error
		f.must(t, f.client.Activate, "v")
		f.must(t, f.client.Activate, "s")
	}
	v, s := f.lv(t, "v"), f.lv(t, "s")
	wantAttr(t, v, "Vwi-a-tz-k")
	wantAttr(t, s, "Vri-a-tz-k")
	if v.DataPercent != 0 || !v.Attr.Active() || v.Attr.Open() {
		t.Errorf("active volume %+v", v)
	}
	vi, si := f.info(t, "v"), f.info(t, "s")
	if vi.OpenCount != 0 || vi.Suspended || vi.ReadOnly || vi.Major == 0 {
		t.Errorf("info of v: %+v", vi)
	}
	if !si.ReadOnly || si.Major != vi.Major || si.Minor == vi.Minor {
		t.Errorf("info of s: %+v, of v: %+v", si, vi)
	}
	for range 2 {
		f.must(t, f.client.Deactivate, "v")
	}
	wantAttr(t, f.lv(t, "v"), "Vwi---tz-k")
	if _, err := f.kernel.Info(t.Context(), f.group, "v"); !errors.Is(err, dm.ErrNoDevice) {
		t.Errorf("Info of a deactivated volume: %v", err)
	}
}

func contractOpen(t *testing.T, f fixture) {
	f.create(t, "v", mib)
	f.must(t, f.client.Activate, "v")
	release := f.open(t, "v")
	wantAttr(t, f.lv(t, "v"), "Vwi-aotz-k")
	if got := f.info(t, "v").OpenCount; got != 1 {
		t.Errorf("open count %d, want 1", got)
	}
	wantError(t, "deactivate", f.client.Deactivate(t.Context(), "v"), lvm.ErrInUse)
	wantError(t, "remove", f.client.Remove(t.Context(), "v"), lvm.ErrInUse)
	f.snapshot(t, "s", "v", false) // an open origin is no obstacle
	if err := f.client.Extend(t.Context(), "v", 8*mib); err != nil {
		t.Errorf("extend an open volume: %v", err)
	}
	if err := f.client.ChangeTags(t.Context(), "v", nil, []string{"t"}); err != nil {
		t.Errorf("tag an open volume: %v", err)
	}
	release()
	f.must(t, f.client.Deactivate, "v")
	f.must(t, f.client.Remove, "v")
	if _, there := f.lvs(t)["v"]; there {
		t.Error("v was removed and is still there")
	}
}

func contractTags(t *testing.T, f fixture) {
	var tags []string
	for i := range 18 { // the shell takes 60 words
		tags = append(tags, fmt.Sprintf("lvmsnap.io/key%02d=&:+_-./%s", i, strings.Repeat("x", 100)))
	}
	f.create(t, "v", mib, tags...)
	f.snapshot(t, "s", "v", false, tags...)
	for _, name := range []string{"v", "s"} {
		if got := f.lv(t, name).Tags; !slices.Equal(slices.Sorted(slices.Values(got)), tags) {
			t.Errorf("%s has tags %q, want %q", name, got, tags)
		}
	}
	longest := strings.Repeat("y", 1024)
	if err := f.client.ChangeTags(t.Context(), "v", append([]string{"not-there"}, tags[1:]...), []string{longest, tags[0]}); err != nil {
		t.Fatal(err)
	}
	got := slices.Sorted(slices.Values(f.lv(t, "v").Tags))
	if want := []string{tags[0], longest}; !slices.Equal(got, want) {
		t.Errorf("tags %q, want %q", got, want)
	}
	if err := f.client.ChangeTags(t.Context(), "v", []string{tags[0], longest}, nil); err != nil {
		t.Fatal(err)
	}
	if got := f.lv(t, "v").Tags; len(got) != 0 {
		t.Errorf("tags %q, want none", got)
	}
	if got := f.lv(t, "s").Tags; len(got) != len(tags) {
		t.Errorf("the snapshot has %d tags, want %d", len(got), len(tags))
	}
}

func contractExtend(t *testing.T, f fixture) {
	f.create(t, "v", 8*mib)
	for _, c := range []struct{ ask, want int64 }{
		{8 * mib, 8 * mib},       // no change is no error
		{5 * mib, 8 * mib},       // rounded up to the same
		{1 * mib, 8 * mib},       // never smaller
		{8*mib + 1, 12 * mib},    // rounded up to sectors, then to extents
		{64 * mib, 64 * mib},     //
		{1024 * mib, 1024 * mib}, // beyond the pool: thin
	} {
		if err := f.client.Extend(t.Context(), "v", c.ask); err != nil {
			t.Errorf("extend to %d: %v", c.ask, err)
		}
		if got := f.lv(t, "v").SizeBytes; got != c.want {
			t.Errorf("extended to %d, it has %d bytes, want %d", c.ask, got, c.want)
		}
	}
	f.snapshot(t, "s", "v", false)
	if err := f.client.Extend(t.Context(), "v", 1028*mib); err != nil {
		t.Fatal(err)
	}
	if got := f.lv(t, "s").SizeBytes; got != 1024*mib {
		t.Errorf("the snapshot grew with its origin, to %d", got)
	}
}
