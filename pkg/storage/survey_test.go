package storage_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thick"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
)

// onDisks reads the fake's metadata as from disks: LVM is not asked.
type onDisks struct{ *lvmtest.LVM }

func (d onDisks) Metadata(group string) (lvm.Metadata, error) {
	return lvm.NewClient(d.LVM, group).View(context.Background())
}

func (onDisks) Locate(context.Context, *lvm.Client) error { return nil }

func (h *host) survey(t *testing.T) storage.Survey {
	t.Helper()
	s, err := h.Survey(t.Context(), group)
	must(t, err)
	return s
}

// nonzero are the counts that are not 0.
func nonzero(counts map[storage.Count]int) map[storage.Count]int {
	out := map[storage.Count]int{}
	for c, n := range counts {
		if n != 0 {
			out[c] = n
		}
	}
	return out
}

// What a group holds is counted by type and state, and nothing in it is one volume's or snapshot's.
func TestSurvey(t *testing.T) {
	h := newHost(t)
	ctx := t.Context()
	empty := h.survey(t)
	if len(nonzero(empty.Volumes))+len(nonzero(empty.Snapshots))+len(empty.Cuts) != 0 || empty.COW != (storage.COWTotals{}) {
		t.Errorf("nothing is there: %+v", empty)
	}
	if len(empty.Volumes) != 8 || len(empty.Snapshots) != 6 {
		t.Errorf("all states have a number from the begin: %v, %v", empty.Volumes, empty.Snapshots)
	}

	used, other := h.volume(t, "used"), h.volume(t, "unused")
	_, err := h.Activate(ctx, used.ID)
	must(t, err)
	var cuts []time.Time
	for _, name := range []string{"s1", "s2", "s3"} {
		s, err := h.cut(ctx, name, other)
		must(t, err)
		cuts = append(cuts, s.CreatedAt)
	}
	spec := thickSpec("thick")
	spec.RequiredBytes = 100 * mib
	origin, err := h.CreateVolume(ctx, spec)
	must(t, err)
	_, err = h.Activate(ctx, origin.ID)
	must(t, err)
	whole, err := h.cut(ctx, "whole", origin)
	must(t, err)
	var part []storage.Snapshot
	for _, name := range []string{"part", "nearly", "lost"} {
		s, err := h.CreateSnapshot(ctx, storage.SnapshotSpec{Name: name, SourceID: origin.ID, COW: storage.COWSize{Percent: 20}})
		must(t, err)
		part = append(part, s)
	}
	h.SetCOWUsage(group, lvName(t, whole.ID), 96*mib) // cannot overflow, however full it is
	h.SetCOWUsage(group, lvName(t, part[0].ID), 5*mib)
	h.SetCOWUsage(group, lvName(t, part[1].ID), 15*mib)
	h.SetCOWUsage(group, lvName(t, part[2].ID), 21*mib)

	got := h.survey(t)
	count := func(t storage.Type, s storage.CountState) storage.Count { return storage.Count{Type: t, State: s} }
	if diff := cmp.Diff(map[storage.Count]int{
		count(storage.TypeThin, storage.CountActive):   1,
		count(storage.TypeThin, storage.CountInactive): 1,
		count(storage.TypeThick, storage.CountActive):  1,
	}, nonzero(got.Volumes)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[storage.Count]int{
		count(storage.TypeThin, storage.CountReady):  3,
		count(storage.TypeThick, storage.CountReady): 3,
		count(storage.TypeThick, storage.CountLost):  1,
	}, nonzero(got.Snapshots)); diff != "" {
		t.Error(diff)
	}
	if c := got.Cuts[storage.TypeThin]; !c.Oldest.Equal(cuts[0]) || !c.Newest.Equal(cuts[2]) {
		t.Errorf("cut from %s to %s, want %s to %s", c.Oldest, c.Newest, cuts[0], cuts[2])
	}
	want := storage.COWTotals{SizeBytes: (104 + 20 + 20) * mib}
	for _, s := range []storage.Snapshot{whole, part[0], part[1]} {
		st, err := h.SnapshotStatus(ctx, group, lvName(t, s.ID))
		must(t, err)
		want.UsedBytes += st.UsedBytes
		want.Fullest = st.Percent() / 100 // of the last
	}
	if got.COW != want || want.Fullest < 0.75 || want.Fullest > 0.76 {
		t.Errorf("COWs %+v, want %+v", got.COW, want)
	}
	if got.Group.Name != group || len(got.Pools) != 1 || got.Pools[0].Name != pool {
		t.Errorf("group %+v, pools %+v", got.Group, got.Pools)
	}
	if names := h.GroupNames(); !slices.Equal(names, []string{group}) {
		t.Errorf("groups %v", names)
	}
}

// A scrape runs no LVM command, not even where the disks cannot be read: it is told that nobody knows.
func TestSurveyRunsNoCommand(t *testing.T) {
	h := newHost(t)
	h.volume(t, "v")
	reader := &failing{MetadataReader: onDisks{h.LVM}}
	asked := &counting{Executor: h.LVM}
	g, err := lvm.NewGroup(group, lvm.GroupOptions{Executor: asked, Reader: reader})
	must(t, err)
	e, err := storage.New(t.Context(), storage.Options{
		Driver: "csi.lvmsnap.io", NodeID: node, Groups: []*lvm.Group{g}, Kernel: h.LVM, Fill: storage.FillOptions{Filler: h.LVM},
		Backends: map[storage.Type]storage.Backend{storage.TypeThin: thin.New(thin.Options{Kernel: h.LVM}), storage.TypeThick: thick.New(h.LVM)},
	})
	must(t, err)
	t.Cleanup(e.Close)
	asked.commands = 0
	s, err := e.Survey(t.Context(), group)
	if err != nil || s.Volumes[storage.Count{Type: storage.TypeThin, State: storage.CountInactive}] != 1 {
		t.Errorf("%+v, %v", s.Volumes, err)
	}
	reader.err = lvm.ErrStuck
	if _, err := e.Survey(t.Context(), group); err == nil {
		t.Error("nothing was read, and it is no error")
	}
	reader.err = context.DeadlineExceeded // any other
	if _, err := e.Survey(t.Context(), group); err == nil {
		t.Error("nothing was read, and it is no error")
	}
	if asked.commands != 0 {
		t.Errorf("%d LVM commands", asked.commands)
	}
}

type failing struct {
	lvm.MetadataReader
	err error
}

func (f *failing) Metadata(group string) (lvm.Metadata, error) {
	if f.err != nil {
		return lvm.Metadata{}, f.err
	}
	return f.MetadataReader.Metadata(group)
}

type counting struct {
	lvm.Executor
	commands int
}

func (c *counting) Run(ctx context.Context, args ...string) (lvm.Output, error) {
	c.commands++
	return c.Executor.Run(ctx, args...)
}

// What was zeroed and copied is counted in bytes and by how it ended.
func TestFillCounts(t *testing.T) {
	h := newHost(t)
	ctx := t.Context()
	spec := thickSpec("v")
	spec.RequiredBytes = 100 * mib
	v, err := h.CreateVolume(ctx, spec)
	must(t, err)
	s, err := h.cut(ctx, "s", v)
	must(t, err)
	spec.Name, spec.Source = "copy", &storage.Source{Kind: storage.SourceSnapshot, ID: s.ID}
	_, err = h.CreateVolume(ctx, spec)
	must(t, err)
	stats := h.Stats()
	for _, kind := range []string{"zero", "copy"} {
		if n := stats.FillsEnded[storage.FillEnd{Kind: kind, Result: storage.FillDone}]; n != 1 {
			t.Errorf("%s: %d", kind, n)
		}
		if n := stats.FilledBytes[kind]; n != 50*mib { // the fake's one checkpoint is half way
			t.Errorf("%s: %d bytes", kind, n)
		}
	}
	if n := len(stats.FillsEnded); n != 9 || stats.FillsWaiting != 0 || len(stats.Fills) != 0 {
		t.Errorf("%+v", stats)
	}
}
