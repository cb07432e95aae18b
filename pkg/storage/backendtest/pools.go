package backendtest

import (
	"errors"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func testPoolCapacity(t *testing.T, e *env) {
	c, err := e.Engine.Capacity(e.ctx, storage.Class{Type: e.Type})
	e.must(t, err)
	pool := e.lvs(t)[e.Pool].SizeBytes
	if c.AvailableBytes <= 0 || c.AvailableBytes > pool || c.MaximumBytes != pool || c.MinimumBytes != 4*MiB {
		t.Errorf("capacity %+v of a pool of %d", c, pool)
	}
	for _, class := range []storage.Class{{VolumeGroup: "elsewhere"}, {ThinPool: "nosuch"}} {
		if c, err := e.Engine.Capacity(e.ctx, class); err != nil || c.AvailableBytes != 0 || c.MaximumBytes != 0 {
			t.Errorf("%+v: %+v, %v", class, c, err)
		}
	}
	e.create(t, storage.VolumeSpec{Name: "max", RequiredBytes: c.MaximumBytes, Access: storage.AccessBlock})
	e.FillPool(t, 40)
	less, err := e.Engine.Capacity(e.ctx, storage.Class{Type: e.Type})
	e.must(t, err)
	if less.AvailableBytes >= c.AvailableBytes || less.AvailableBytes <= 0 {
		t.Errorf("available %d, after writing %d", c.AvailableBytes, less.AvailableBytes)
	}
}

func testPoolReserve(t *testing.T, e *env) {
	v := e.volume(t, "v", 4*MiB)
	s := e.snapshot(t, "s", v)
	e.FillPool(t, 96) // the fixture's reserve is 5 %
	before := e.ours(t)
	_, volumeErr := e.createVolume(storage.VolumeSpec{Name: "v2", RequiredBytes: 4 * MiB, Access: storage.AccessBlock})
	_, restoreErr := e.createVolume(restoreOf("r", s))
	_, snapshotErr := e.Engine.CreateSnapshot(e.ctx, storage.SnapshotSpec{Name: "s2", SourceID: v.ID})
	for what, err := range map[string]error{"CreateVolume": volumeErr, "restore": restoreErr, "CreateSnapshot": snapshotErr} {
		if !errors.Is(err, storage.ErrNoSpace) || !strings.Contains(err.Error(), "%") || !strings.Contains(err.Error(), e.Pool) {
			t.Errorf("%s: %v, want ErrNoSpace with the pool and the numbers", what, err)
		}
	}
	if n := e.ours(t); n != before {
		t.Errorf("%d LVs, want %d: something was left behind", n, before)
	}
	if c, err := e.Engine.Capacity(e.ctx, storage.Class{Type: e.Type}); err != nil || c.AvailableBytes != 0 {
		t.Errorf("capacity %+v, %v", c, err)
	}
	pools, err := e.Engine.Pools(e.ctx)
	e.must(t, err)
	if len(pools) != 1 || len(pools[0].Conditions) == 0 || pools[0].DataPercent < 95 {
		t.Errorf("pools %+v", pools)
	}
	// What exists is still answered, and deletion still works.
	e.snapshot(t, "s", v)
	e.must(t, e.Engine.DeleteSnapshot(e.ctx, s.ID))
}

func testPoolPromise(t *testing.T, e *env) {
	class := storage.Class{Type: e.Type, OverprovisionRatio: 1.5}
	capacity := func() storage.Capacity {
		t.Helper()
		c, err := e.Engine.Capacity(e.ctx, class)
		e.must(t, err)
		return c
	}
	create := func(name string, bytes int64, source *storage.Source) error {
		_, err := e.createVolume(storage.VolumeSpec{Name: name, RequiredBytes: bytes, Access: storage.AccessBlock, Class: class, Source: source})
		return err
	}
	pool := e.lvs(t)[e.Pool].SizeBytes
	c := capacity()
	if c.MaximumBytes != pool || c.AvailableBytes > pool*95/100 || c.AvailableBytes < pool*94/100 {
		t.Errorf("an empty pool of %d offers %+v", pool, c)
	}
	e.must(t, create("first", pool*3/4, nil))
	if c = capacity(); c.MaximumBytes != pool*3/4 {
		t.Errorf("with 3/4 promised of 1.5 times %d: %+v", pool, c)
	}
	first := e.volume(t, "first", pool*3/4)
	s := e.snapshot(t, "s", first)
	if again := capacity(); again != c {
		t.Errorf("a snapshot is charged: %+v, before %+v", again, c)
	}
	tooMuch := create("second", c.MaximumBytes+1, nil)
	e.must(t, create("second", c.MaximumBytes, nil))
	refused := create("restore", 0, &storage.Source{Kind: storage.SourceSnapshot, ID: s.ID})
	for what, err := range map[string]error{"more than is offered": tooMuch, "a restore": refused} {
		if !errors.Is(err, storage.ErrNoSpace) || !strings.Contains(err.Error(), "overprovisionRatio") || !strings.Contains(err.Error(), "1.5 times") {
			t.Errorf("%s: %v, want ErrNoSpace with the numbers", what, err)
		}
	}
	if c := capacity(); c.MaximumBytes != 0 || c.AvailableBytes == 0 {
		t.Errorf("with all promised: %+v", c)
	}
	// Another class may promise more, and what is used counts.
	class.OverprovisionRatio = 5
	e.FillPool(t, 80) // less the reserve, 15 % are left
	c = capacity()
	if most := pool * 15 / 100 * 5; c.MaximumBytes > most || c.MaximumBytes < most*95/100 {
		t.Errorf("with 80 %% of %d used: %+v, want nearly %d", pool, c, most)
	}
	if err := create("third", c.MaximumBytes+4*MiB, nil); !errors.Is(err, storage.ErrNoSpace) || !strings.Contains(err.Error(), "free above its reserve") {
		t.Errorf("more than is free: %v", err)
	}
	e.must(t, create("third", c.MaximumBytes, nil))
}
