package lvm_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

func contractNames(t *testing.T, f fixture) {
	for _, name := range []string{
		"csi-v-abcdefghijklmnopqrstuvwxyz", "a--b", "a-", "x+y", "under_score", ".dot", "tpool", strings.Repeat("n", 100),
	} {
		f.create(t, name, mib)
		f.must(t, f.client.Activate, name)
		f.write(t, name, name)
		if i := f.info(t, name); i.ReadOnly {
			t.Errorf("info of %s: %+v", name, i)
		}
		if got := f.read(t, name); got != name {
			t.Errorf("%s has %q", name, got)
		}
		f.must(t, f.client.Remove, name)
	}
}

func contractErrors(t *testing.T, f fixture) {
	ctx := t.Context()
	f.create(t, "v", mib)
	thin := func(name, pool string) error {
		return f.client.CreateThinVolume(ctx, lvm.ThinVolumeOptions{Name: name, Pool: pool, SizeBytes: mib})
	}
	snap := func(name, origin string) error {
		return f.client.CreateThinSnapshot(ctx, lvm.ThinSnapshotOptions{Name: name, Origin: origin})
	}
	wantError(t, "create a name that is there", thin("v", poolName), lvm.ErrExists)
	wantError(t, "create in a missing pool", thin("x", "nopool"), lvm.ErrNotFound)
	wantError(t, "snapshot with a name that is there", snap("v", "v"), lvm.ErrExists)
	wantError(t, "snapshot of nothing", snap("x", "gone"), lvm.ErrNotFound)
	wantError(t, "remove nothing", f.client.Remove(ctx, "gone"), lvm.ErrNotFound)
	wantError(t, "extend nothing", f.client.Extend(ctx, "gone", mib), lvm.ErrNotFound)
	wantError(t, "activate nothing", f.client.Activate(ctx, "gone"), lvm.ErrNotFound)
	wantError(t, "deactivate nothing", f.client.Deactivate(ctx, "gone"), lvm.ErrNotFound)
	wantError(t, "tag nothing", f.client.ChangeTags(ctx, "gone", nil, []string{"t"}), lvm.ErrNotFound)
	if got := len(f.lvs(t)); got != 2 {
		t.Errorf("%d volumes are there, want 2", got)
	}

	none := lvm.NewClient(f.exec, missingGroup)
	_, err := none.LVs(ctx)
	wantError(t, "list a missing group", err, lvm.ErrGroupNotFound)
	_, err = none.VG(ctx)
	wantError(t, "report a missing group", err, lvm.ErrGroupNotFound)
	wantError(t, "remove from a missing group", none.Remove(ctx, "v"), lvm.ErrGroupNotFound)
	wantError(t, "extend in a missing group", none.Extend(ctx, "v", mib), lvm.ErrGroupNotFound)
	wantError(t, "activate in a missing group", none.Activate(ctx, "v"), lvm.ErrGroupNotFound)
	wantError(t, "snapshot in a missing group",
		none.CreateThinSnapshot(ctx, lvm.ThinSnapshotOptions{Name: "x", Origin: "v"}), lvm.ErrGroupNotFound)
	wantError(t, "create in a missing group",
		none.CreateThinVolume(ctx, lvm.ThinVolumeOptions{Name: "x", Pool: poolName, SizeBytes: mib}), lvm.ErrGroupNotFound)
	if _, err := f.kernel.PoolStatus(ctx, missingGroup, poolName); !errors.Is(err, dm.ErrNoDevice) {
		t.Errorf("status of a missing pool: %v", err)
	}
	if _, err := f.kernel.PoolStatus(ctx, f.group, "v"); !errors.Is(err, dm.ErrNoDevice) {
		t.Errorf("pool status of a thin volume: %v", err)
	}
}

// contractRefusals are failures of no class of their own.
func contractRefusals(t *testing.T, f fixture) {
	ctx := t.Context()
	f.plain(t, "plain", 8*mib)
	f.create(t, "v", mib)
	plain := f.lv(t, "plain")
	wantAttr(t, plain, "-wi-a-----")
	if plain.SegType != "linear" || plain.Pool != "" || plain.SizeBytes != 8*mib || plain.Attr.Type() != lvm.TypeLinear {
		t.Errorf("plain volume %+v", plain)
	}
	for what, err := range map[string]error{
		"a thin snapshot of a plain volume":  f.client.CreateThinSnapshot(ctx, lvm.ThinSnapshotOptions{Name: "x", Origin: "plain"}),
		"a thin snapshot of a pool":          f.client.CreateThinSnapshot(ctx, lvm.ThinSnapshotOptions{Name: "x", Origin: poolName}),
		"a thin volume with its pool's name": f.client.CreateThinVolume(ctx, lvm.ThinVolumeOptions{Name: poolName, Pool: poolName, SizeBytes: mib}),
		"a thin volume in a thin volume":     f.client.CreateThinVolume(ctx, lvm.ThinVolumeOptions{Name: "x", Pool: "v", SizeBytes: mib}),
	} {
		var failed *lvm.CommandError
		if !errors.As(err, &failed) || (failed.ExitCode != 5 && failed.ExitCode != 3) || failed.Text == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, args := range [][]string{
		{"lvcreate", "--bogus", f.group},
		{"lvchange", f.group + "/v"},
		{"lvextend", "--size", "1000b", f.group + "/v"},
	} {
		out, err := f.exec.Run(ctx, args...)
		if err != nil || out.ExitCode != 3 {
			t.Errorf("%v: exit code %d, want 3 (%v)", args, out.ExitCode, err)
		}
	}
	if out, err := f.exec.Run(ctx, "lvbogus", f.group); err != nil || out.ExitCode != 2 {
		t.Errorf("lvbogus: exit code %d, want 2 (%v)", out.ExitCode, err)
	}
	vg, err := f.client.VG(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, "extend a plain volume beyond the group", f.client.Extend(ctx, "plain", vg.SizeBytes), lvm.ErrNoSpace)
	if got := len(f.lvs(t)); got != 3 {
		t.Errorf("%d volumes are there, want 3", got)
	}
	f.must(t, f.client.Remove, "plain")
}

func contractData(t *testing.T, f fixture) {
	f.create(t, "v", 16*mib)
	f.must(t, f.client.Activate, "v")
	if got := f.read(t, "v"); got != "" {
		t.Errorf("a new volume has %q", got)
	}
	f.write(t, "v", "one")
	f.snapshot(t, "s", "v", false)
	f.write(t, "v", "two")
	f.snapshot(t, "restored", "s", true)
	f.must(t, f.client.Activate, "s")
	f.must(t, f.client.Activate, "restored")
	f.write(t, "restored", "three")
	for name, want := range map[string]string{"v": "two", "s": "one", "restored": "three"} {
		if got := f.read(t, name); got != want {
			t.Errorf("%s has %q, want %q", name, got, want)
		}
	}
	if got := f.pool(t).UsedDataBlocks; got != 3 {
		t.Errorf("%d blocks are in use, want 3", got)
	}
	if pool := f.lv(t, poolName); pool.DataPercent != 0.04 { // 3 of 8192 blocks
		t.Errorf("the pool's data_percent is %v", pool.DataPercent)
	}
	if v := f.lv(t, "v"); v.DataPercent != 0.39 { // 1 of 256 blocks
		t.Errorf("the volume's data_percent is %v", v.DataPercent)
	}
	for _, name := range []string{"v", "s", "restored"} {
		f.must(t, f.client.Remove, name)
	}
	if got := f.pool(t).UsedDataBlocks; got != 0 {
		t.Errorf("%d blocks are in use, want none", got)
	}
}

// contractPoolInactive: LVM activates the pool for as long as it needs it.
func contractPoolInactive(t *testing.T, f fixture) {
	f.must(t, f.client.Deactivate, poolName)
	if _, err := f.kernel.PoolStatus(t.Context(), f.group, poolName); !errors.Is(err, dm.ErrNoDevice) {
		t.Errorf("status of an inactive pool: %v", err)
	}
	f.create(t, "v", mib)
	f.snapshot(t, "s", "v", false)
	pool := f.lv(t, poolName)
	wantAttr(t, pool, "twi---tz--")
	if pool.TransactionID != 2 || pool.DataPercent != -1 || pool.MetadataPercent != -1 {
		t.Errorf("inactive pool %+v", pool)
	}
	f.must(t, f.client.Activate, "v") // brings up the hidden device, not the pool's own
	pool = f.lv(t, poolName)
	wantAttr(t, pool, "twi---tz--")
	if status := f.pool(t); status.TransactionID != 2 || pool.DataPercent != 0 {
		t.Errorf("pool %+v, status %+v", pool, status)
	}
	f.must(t, f.client.Deactivate, "v")
	if _, err := f.kernel.PoolStatus(t.Context(), f.group, poolName); !errors.Is(err, dm.ErrNoDevice) {
		t.Errorf("status of a pool without active volumes: %v", err)
	}
	f.must(t, f.client.Activate, poolName)
	wantAttr(t, f.lv(t, poolName), "twi-aotz--")
}

func contractFullPool(t *testing.T, f fixture) {
	ctx := t.Context()
	f.create(t, "v", mib)
	f.fill(t)
	s := f.pool(t)
	if s.Mode != dm.PoolOutOfDataSpace || s.UsedDataBlocks != s.TotalDataBlocks || s.DataPercent() != 100 {
		t.Errorf("status of a full pool %+v", s)
	}
	pool := f.lv(t, poolName)
	wantAttr(t, pool, "twi-aotzD-")
	if pool.DataPercent != 100 || pool.Attr.Health() != 'D' {
		t.Errorf("full pool %+v", pool)
	}
	wantError(t, "create in a full pool",
		f.client.CreateThinVolume(ctx, lvm.ThinVolumeOptions{Name: "x", Pool: poolName, SizeBytes: mib}), lvm.ErrNoSpace)
	wantError(t, "snapshot in a full pool", f.client.CreateThinSnapshot(ctx, lvm.ThinSnapshotOptions{Name: "x", Origin: "v"}), lvm.ErrNoSpace)
	if err := f.client.Extend(ctx, "v", 8*mib); err != nil {
		t.Errorf("extend in a full pool: %v", err)
	}
	if err := f.client.ChangeTags(ctx, "v", nil, []string{"t"}); err != nil {
		t.Errorf("tag in a full pool: %v", err)
	}
	f.must(t, f.client.Remove, "v")
}

// contractMetadataFull: the volume group's text, with its tags, outgrows its area; what exists stays usable.
func contractMetadataFull(t *testing.T, f fixture) {
	ctx := t.Context()
	tags := make([]string, 25)
	for i := range tags {
		tags[i] = fmt.Sprintf("%02d%s", i, strings.Repeat("t", 1020))
	}
	var err error
	var made []string
	for i := 0; err == nil && i < 40; i++ {
		name := fmt.Sprintf("v%02d", i)
		err = f.client.CreateThinVolume(ctx, lvm.ThinVolumeOptions{Name: name, Pool: poolName, SizeBytes: mib, Tags: tags})
		made = append(made, name)
	}
	wantError(t, fmt.Sprintf("lvcreate %d", len(made)), err, lvm.ErrMetadataFull)
	more := []string{}
	for i := range 24 {
		more = append(more, fmt.Sprintf("more%02d%s", i, strings.Repeat("t", 1018)))
	}
	wantError(t, "tag", f.client.ChangeTags(ctx, "v00", nil, more), lvm.ErrMetadataFull)
	lvs := f.lvs(t)
	if len(lvs) != len(made) || len(lvs["v00"].Tags) != len(tags) { // with the pool, without the last
		t.Errorf("%d volumes are there after %d attempts, v00 with %d tags", len(lvs), len(made), len(lvs["v00"].Tags))
	}
	if pool, status := lvs[poolName], f.pool(t); pool.TransactionID != status.TransactionID {
		t.Errorf("transaction id %d in LVM, %d in the pool", pool.TransactionID, status.TransactionID)
	}
	f.must(t, f.client.Remove, made[0])
	f.create(t, "after", mib, "t")
}
