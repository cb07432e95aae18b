package storage_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thick"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	mib   = int64(1) << 20
	node  = "node-1"
	group = "vg0"
	pool  = "pool"
)

// host is a fake LVM and an engine on it.
type host struct {
	*lvmtest.LVM
	*storage.Engine
}

func newHost(t *testing.T, groups ...string) *host {
	t.Helper()
	if len(groups) == 0 {
		groups = []string{group}
	}
	fake := lvmtest.New()
	for _, g := range groups {
		fake.AddGroup(g, 100<<30)
		fake.AddPool(g, pool, 1<<30, 16*mib, 64<<10, true)
	}
	e, err := open(t, fake, groups...)
	if err != nil {
		t.Fatal(err)
	}
	fake.ResetCommands()
	return &host{fake, e}
}

func open(t *testing.T, fake *lvmtest.LVM, names ...string) (*storage.Engine, error) {
	t.Helper()
	return openWith(t.Context(), t, fake, nil, names...)
}

// openWith has an option more, or another.
func openWith(ctx context.Context, t *testing.T, fake *lvmtest.LVM, change func(*storage.Options), names ...string) (*storage.Engine, error) {
	t.Helper()
	var groups []*lvm.Group
	for _, name := range names {
		g, err := lvm.NewGroup(name, lvm.GroupOptions{Executor: fake})
		if err != nil {
			t.Fatal(err)
		}
		groups = append(groups, g)
	}
	o := storage.Options{
		Driver: "csi.lvmsnap.io", NodeID: node, Groups: groups, Kernel: fake, Fill: storage.FillOptions{Filler: fake, Wait: time.Second, Checkpoint: time.Nanosecond},
		COW: storage.COWOptions{Interval: 5 * time.Millisecond, ThresholdPercent: 70, ExtendPercent: 20},
		Backends: map[storage.Type]storage.Backend{
			storage.TypeThin:  thin.New(thin.Options{Kernel: fake, DataReservePercent: 5, MetadataReservePercent: 10}),
			storage.TypeThick: thick.New(fake),
		},
	}
	if change != nil {
		change(&o)
	}
	e, err := storage.New(ctx, o)
	if err == nil {
		t.Cleanup(e.Close)
	}
	return e, err
}

func (h *host) volume(t *testing.T, name string) storage.Volume {
	t.Helper()
	v, err := h.CreateVolume(t.Context(), storage.VolumeSpec{Name: name, RequiredBytes: 8 * mib, Access: storage.AccessBlock})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (h *host) cut(ctx context.Context, name string, v storage.Volume) (storage.Snapshot, error) {
	return h.CreateSnapshot(ctx, storage.SnapshotSpec{Name: name, SourceID: v.ID})
}

// restore makes the volume "r".
func (h *host) restore(ctx context.Context, snapshotID string, size int64) (storage.Volume, error) {
	return h.CreateVolume(ctx, storage.VolumeSpec{
		Name: "r", RequiredBytes: size, Access: storage.AccessBlock,
		Source: &storage.Source{Kind: storage.SourceSnapshot, ID: snapshotID},
	})
}

// content of a volume, through its device.
func (h *host) content(t *testing.T, v storage.Volume) string {
	t.Helper()
	v, err := h.Activate(t.Context(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	text, err := h.Read(v.Class.VolumeGroup, lvName(t, v.ID))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (h *host) write(t *testing.T, v storage.Volume, text string) {
	t.Helper()
	v, err := h.Activate(t.Context(), v.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Write(v.Class.VolumeGroup, lvName(t, v.ID), text); err != nil {
		t.Fatal(err)
	}
}

func lvName(t *testing.T, id string) string {
	t.Helper()
	h, err := storage.ParseHandle(id)
	if err != nil {
		t.Fatal(err)
	}
	return h.LV
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// changes are the commands so far that were not questions.
func (h *host) changes() []string {
	var out []string
	for _, c := range h.Commands() {
		if lvmtest.Changes(c) && c[0] != "vgmknodes" { // which changes /dev, and not the group
			out = append(out, strings.Join(c, " "))
		}
	}
	return out
}
