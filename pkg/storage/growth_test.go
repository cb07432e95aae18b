package storage_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thick"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
)

// newGrowingHost has a pool of 100 MiB in a group with so much more, and an engine that extends it at 80 % by 20 %.
func newGrowingHost(t *testing.T, freeBytes int64, names ...string) *host {
	t.Helper()
	if len(names) == 0 {
		names = []string{group}
	}
	fake := lvmtest.New()
	for _, name := range names {
		fake.AddGroup(name, 100*mib+2*16*mib+freeBytes)
		fake.AddPool(name, pool, 100*mib, 16*mib, 64<<10, true)
	}
	h := &host{LVM: fake}
	h.openGrowing(t, names...)
	return h
}

// openGrowing starts an engine, as after a restart.
func (h *host) openGrowing(t *testing.T, names ...string) {
	t.Helper()
	fake := h.LVM
	var groups []*lvm.Group
	for _, name := range names {
		g, err := lvm.NewGroup(name, lvm.GroupOptions{Executor: fake})
		must(t, err)
		groups = append(groups, g)
	}
	e, err := storage.New(t.Context(), storage.Options{
		Driver: "csi.lvmsnap.io", NodeID: node, Groups: groups, Kernel: fake, Fill: storage.FillOptions{Filler: fake},
		COW: storage.COWOptions{Interval: 2 * time.Millisecond},
		Backends: map[storage.Type]storage.Backend{
			storage.TypeThin: thin.New(thin.Options{
				Kernel: fake, DataReservePercent: 5, MetadataReservePercent: 10, OverprovisionRatio: 3,
				Growth: thin.Growth{ThresholdPercent: 80, ExtendPercent: 20},
			}),
			storage.TypeThick: thick.New(fake),
		},
	})
	must(t, err)
	t.Cleanup(e.Close)
	h.Engine = e
}

func (h *host) pool(t *testing.T) storage.Pool {
	t.Helper()
	pools, err := h.Pools(t.Context())
	must(t, err)
	if len(pools) != 1 {
		t.Fatalf("pools %+v", pools)
	}
	return pools[0]
}

// run runs the engine until the end of the test.
func (h *host) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Engine.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func has(p storage.Pool, reason string) bool {
	for _, c := range p.Conditions {
		if c.Reason == reason {
			return true
		}
	}
	return false
}

func grown(p storage.Pool, of, result string) int64 {
	return p.Growths[storage.Growth{Of: of, Result: result}]
}

// A pool grows before it is full, data and metadata, until the group has nothing left, and again when it has.
func TestPoolGrows(t *testing.T) {
	h := newGrowingHost(t, 80*mib)
	thickVolume, err := h.CreateVolume(t.Context(), storage.VolumeSpec{
		Name: "thick", RequiredBytes: 40 * mib, Access: storage.AccessBlock, Class: storage.Class{Type: storage.TypeThick},
	})
	must(t, err)
	h.SetPoolUsage(group, pool, 79*mib, 70)
	h.run(t)
	time.Sleep(10 * time.Millisecond)
	if p := h.pool(t); p.SizeBytes != 100*mib || len(p.Conditions) > 0 {
		t.Errorf("below the threshold: %+v", p)
	}
	h.SetPoolUsage(group, pool, 82*mib, 70)
	eventually(t, "growth of data", func() bool { return h.pool(t).SizeBytes == 120*mib })
	h.SetPoolUsage(group, pool, 82*mib, 76) // LVM refuses to create anything above 75 % of 16 MiB
	eventually(t, "growth of metadata", func() bool { return h.pool(t).MetadataBytes == 20*mib })
	// 12 MiB are left, of which the next growth of metadata takes 8, with the spare.
	h.SetPoolUsage(group, pool, 100*mib, 10)
	eventually(t, "the last growth", func() bool { return has(h.pool(t), "PoolCannotGrow") })
	p := h.pool(t)
	if p.SizeBytes != 124*mib || grown(p, "data", "ok") != 2 || grown(p, "metadata", "ok") != 1 {
		t.Errorf("without free extents: %+v", p)
	}
	eventually(t, "failed attempt", func() bool { return grown(h.pool(t), "data", "no_space") == 1 })
	v := h.volume(t, "v") // it is above the threshold, but not in the reserve
	h.SetPoolUsage(group, pool, 120*mib, 10)
	_, err = h.cut(t.Context(), "s", v)
	if !errors.Is(err, storage.ErrNoSpace) || !strings.Contains(err.Error(), "--pool-data-reserve") || !strings.Contains(err.Error(), "cannot be extended") {
		t.Errorf("in the reserve: %v", err)
	}
	must(t, h.DeleteVolume(t.Context(), thickVolume.ID))
	s, err := h.cut(t.Context(), "s", v) // the watch pauses, the call does not
	if err != nil || !s.Ready {
		t.Errorf("with extents again: %+v, %v", s, err)
	}
	if p := h.pool(t); p.SizeBytes < 124*mib+24*mib || len(p.Conditions) > 0 {
		t.Errorf("with extents again: %+v", p)
	}
}

// One who writes fast gets more.
func TestPoolGrowsAtThePace(t *testing.T) {
	h := newGrowingHost(t, 400*mib)
	h.run(t)
	for used := int64(0); used <= 70; used += 14 {
		h.SetPoolUsage(group, pool, used*mib, 10)
		time.Sleep(5 * time.Millisecond)
	}
	eventually(t, "growth", func() bool { return h.pool(t).SizeBytes > 100*mib })
}

// What somebody else has extended meanwhile is not extended again, and nothing shrinks.
func TestPoolGrownByAnother(t *testing.T) {
	h := newGrowingHost(t, 400*mib)
	admin := lvm.NewClient(h.LVM, group)
	h.SetPoolUsage(group, pool, 90*mib, 10)
	must(t, admin.Extend(t.Context(), pool, 300*mib))
	h.run(t)
	time.Sleep(20 * time.Millisecond)
	if p := h.pool(t); p.SizeBytes != 300*mib || grown(p, "data", "ok") != 0 {
		t.Errorf("%+v", p)
	}
}

// A failure is tried again later, and one that has to be repaired not at all.
func TestPoolThatCannotBeExtended(t *testing.T) {
	h := newGrowingHost(t, 400*mib)
	h.SetPoolMode(group, pool, "ro", true)
	h.SetPoolUsage(group, pool, 99*mib, 10)
	h.run(t)
	time.Sleep(20 * time.Millisecond)
	if got := h.changes(); len(got) > 0 {
		t.Errorf("commands on a pool that needs a check: %q", got)
	}
	h.FailNext(lvmtest.Verb("lvextend"), "device-mapper: reload ioctl failed", 5)
	h.SetPoolMode(group, pool, "", false)
	eventually(t, "attempt", func() bool { return grown(h.pool(t), "data", "error") == 1 })
	time.Sleep(20 * time.Millisecond)
	if got := h.changes(); len(got) != 1 {
		t.Errorf("it was not left in peace: %q", got)
	}
}

// What the pool can become counts as what it has.
func TestCapacityOfAPoolThatGrows(t *testing.T) {
	h := newGrowingHost(t, 208*mib) // 8 MiB are kept for metadata
	c, err := h.Capacity(t.Context(), storage.Class{})
	must(t, err)
	if c.MaximumBytes != 300*mib || c.AvailableBytes != 284*mib { // 300 less 5 %, in extents
		t.Errorf("%+v", c)
	}
	v, err := h.CreateVolume(t.Context(), storage.VolumeSpec{Name: "v", RequiredBytes: 300 * mib, Access: storage.AccessBlock})
	must(t, err)
	h.SetPoolUsage(group, pool, 99*mib, 10)
	if c, err = h.Capacity(t.Context(), storage.Class{}); err != nil || c.AvailableBytes != 184*mib {
		t.Errorf("full, but it can grow: %+v, %v", c, err)
	}
	s, err := h.cut(t.Context(), "s", v)
	if err != nil {
		t.Fatalf("full, but it can grow: %v", err)
	}
	// A restore may be larger than the pool is now, and a volume may become so.
	if r, err := h.restore(t.Context(), s.ID, 300*mib); err != nil || r.SizeBytes != 300*mib {
		t.Errorf("restore: %+v, %v", r, err)
	}
	small := h.volume(t, "small")
	if _, err := h.ExpandVolume(t.Context(), small.ID, 200*mib, 0); err != nil {
		t.Errorf("expansion: %v", err)
	}
	if _, err := h.ExpandVolume(t.Context(), small.ID, 304*mib, 0); !errors.Is(err, storage.ErrNoSpace) {
		t.Errorf("expansion beyond what the pool can become: %v", err)
	}
}

// A pool whose metadata is full takes no changes, and is left as it is until it has more.
func TestPoolWithFullMetadata(t *testing.T) {
	h := newHost(t) // which does not extend pools
	v := h.volume(t, "v")
	s, err := h.cut(t.Context(), "s", v)
	must(t, err)
	h.ResetCommands()
	h.SetPoolUsage(group, pool, 0, 100)
	_, err = h.cut(t.Context(), "late", v)
	if !errors.Is(err, storage.ErrNoSpace) || !strings.Contains(err.Error(), "lvextend --poolmetadatasize") {
		t.Errorf("snapshot: %v", err)
	}
	err = h.DeleteSnapshot(t.Context(), s.ID)
	if !errors.Is(err, storage.ErrDamaged) || !strings.Contains(err.Error(), "lvextend --poolmetadatasize") {
		t.Errorf("deletion: %v", err)
	}
	if got := h.changes(); len(got) > 0 {
		t.Errorf("commands: %q", got)
	}
	must(t, lvm.NewClient(h.LVM, group).ExtendPoolMetadata(t.Context(), pool, 32*mib))
	_, err = h.cut(t.Context(), "late", v)
	must(t, err)
	must(t, h.DeleteSnapshot(t.Context(), s.ID))
}

// LVM was killed in the middle of a growth. Whether it had done it or not, the next engine does what is left to do.
func TestPoolGrowthInterrupted(t *testing.T) {
	for _, carriedOut := range []bool{true, false} {
		h := newGrowingHost(t, 400*mib)
		h.SetPoolUsage(group, pool, 85*mib, 10)
		h.CrashNext(lvmtest.Verb("lvextend"), carriedOut)
		h.run(t)
		eventually(t, "attempt", func() bool { return grown(h.pool(t), "data", "error") == 1 })
		h.openGrowing(t, group)
		h.run(t)
		eventually(t, "growth", func() bool { return h.pool(t).SizeBytes == 120*mib })
		time.Sleep(10 * time.Millisecond)
		if p := h.pool(t); p.SizeBytes != 120*mib || grown(p, "data", "ok") != map[bool]int64{true: 0, false: 1}[carriedOut] {
			t.Errorf("carried out %t: %+v", carriedOut, p)
		}
	}
}

// A group that hangs does not keep the pools of others from growing.
func TestPoolsOfOtherGroupsGrow(t *testing.T) {
	h := newGrowingHost(t, 400*mib, "vg-a", "vg-b")
	hang := h.HangNext(lvmtest.Verb("lvextend"))
	h.SetPoolUsage("vg-a", pool, 85*mib, 10)
	h.run(t)
	<-hang.Begun()
	h.SetPoolUsage("vg-b", pool, 85*mib, 10)
	size := func(group string) int64 {
		st, err := h.PoolStatus(t.Context(), group, pool)
		must(t, err)
		return st.SizeBytes()
	}
	eventually(t, "growth", func() bool { return size("vg-b") > 100*mib })
	if got := size("vg-a"); got != 100*mib {
		t.Errorf("the one that hangs has %d bytes", got)
	}
	hang.Release()
	eventually(t, "growth", func() bool { return size("vg-a") > 100*mib })
}
