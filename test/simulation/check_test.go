package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// Check compares what must always hold.
func (m *machine) Check() {
	m.t.Helper()
	m.compareVolumes()
	m.compareSnapshots()
	for _, v := range m.volumes {
		if v.doubt == creating || v.doubt == deleting {
			continue
		}
		text, ok, err := m.w.text(v.group, v.lv(), v.size)
		if err != nil || ok && text != v.text() {
			m.t.Fatalf("volume %s holds %q, %v; want %q", v.spec.Name, text, err, v.text())
		}
		if v.doubt == sure && v.isBlock() && m.w.oldBlocks != nil && m.w.oldBlocks(v.group, v.lv()) {
			m.t.Fatalf("block volume %s shows what others left on its extents", v.spec.Name)
		}
	}
	for _, s := range m.snapshots {
		if s.doubt != sure {
			continue
		}
		text, ok, err := m.w.text(s.of.group, s.lv(), s.bytes)
		if err != nil || ok && text != s.text {
			m.t.Fatalf("snapshot %s holds %q, %v; want %q", s.spec.Name, text, err, s.text)
		}
	}
}

func (m *machine) compareVolumes() {
	m.t.Helper()
	list, err := m.d.Volumes(context.Background())
	if err != nil {
		m.t.Fatalf("Volumes: %v", err)
	}
	listed := map[string]bool{}
	for _, got := range list {
		v := m.volumes[got.Name]
		if v == nil || listed[got.Name] {
			m.t.Fatalf("Volumes has %+v", got)
		}
		listed[got.Name] = true
		if v.doubt != sure {
			continue
		}
		m.same(v, got, "Volumes")
		if v.loose {
			v.active = got.Active
		}
		if got.Active != v.active {
			m.t.Fatalf("volume %s is active: %t, want %t", got.Name, got.Active, v.active)
		}
	}
	for name, v := range m.volumes {
		if v.doubt != creating && v.doubt != deleting && !listed[name] {
			m.t.Fatalf("Volumes has no %s", name)
		}
	}
	if !slices.IsSortedFunc(list, func(a, b storage.Volume) int { return strings.Compare(a.ID, b.ID) }) {
		m.t.Fatalf("Volumes is not sorted")
	}
}

func (m *machine) compareSnapshots() {
	m.t.Helper()
	list, err := m.d.Snapshots(context.Background(), storage.SnapshotQuery{})
	if err != nil {
		m.t.Fatalf("Snapshots: %v", err)
	}
	listed := map[string]bool{}
	for _, got := range list {
		s := m.snapshots[got.Name]
		if s == nil || listed[got.Name] {
			m.t.Fatalf("Snapshots has %+v", got)
		}
		listed[got.Name] = true
		if s.doubt == sure {
			m.sameCut(s, got, "Snapshots")
		}
	}
	for name, s := range m.snapshots {
		if s.doubt == sure && !listed[name] {
			m.t.Fatalf("Snapshots has no %s", name)
		}
	}
	m.comparePages(list)
}

// comparePages lists in pages, and by source.
func (m *machine) comparePages(all []storage.Snapshot) {
	m.t.Helper()
	var paged []string
	q := storage.SnapshotQuery{Limit: 2}
	for {
		page, err := m.d.Snapshots(context.Background(), q)
		if err != nil || len(page) > q.Limit {
			m.t.Fatalf("Snapshots %+v: %d, %v", q, len(page), err)
		}
		for _, s := range page {
			paged = append(paged, s.ID)
			q.AfterID = s.ID
		}
		if len(page) < q.Limit {
			break
		}
	}
	bySource := map[string]int{}
	var want []string
	for _, s := range all {
		want = append(want, s.ID)
		bySource[s.SourceID]++
	}
	if !slices.Equal(paged, want) || !slices.IsSorted(want) {
		m.t.Fatalf("pages %v, want %v", paged, want)
	}
	for id, n := range bySource {
		list, err := m.d.Snapshots(context.Background(), storage.SnapshotQuery{SourceID: id})
		if err != nil || len(list) != n {
			m.t.Fatalf("snapshots of %s: %d, %v, want %d", id, len(list), err, n)
		}
	}
}

// names are the LVs of a group but for its pool.
func (m *machine) names(group string) []string {
	m.t.Helper()
	list, err := m.w.admin(group).LVs(context.Background())
	if err != nil {
		m.t.Fatalf("lvs: %v", err)
	}
	var out []string
	for _, lv := range list {
		if lv.Name != poolName {
			out = append(out, lv.Name)
		}
	}
	slices.Sort(out)
	return out
}

func (m *machine) nothingLeft(lv, why string) {
	m.t.Helper()
	for _, g := range m.w.groups {
		if slices.Contains(m.names(g), lv) {
			m.t.Fatalf("%s, and %s/%s is there", why, g, lv)
		}
	}
}

// read reads a volume, through the driver if need be.
func (m *machine) read(v *volume) string {
	m.t.Helper()
	text, ok, err := m.w.text(v.group, v.lv(), v.size)
	if ok || err != nil {
		if err != nil {
			m.t.Fatalf("reading %s: %v", v.spec.Name, err)
		}
		return text
	}
	if _, err := m.d.Activate(context.Background(), v.id); err != nil {
		m.t.Fatalf("activating %s to read it: %v", v.spec.Name, err)
	}
	text, ok, err = m.w.text(v.group, v.lv(), v.size)
	if err != nil || !ok {
		m.t.Fatalf("reading %s: %t, %v", v.spec.Name, ok, err)
	}
	if err := m.d.Deactivate(context.Background(), v.id); err != nil {
		m.t.Fatalf("deactivating %s after it was read: %v", v.spec.Name, err)
	}
	return text
}

func (m *machine) readCut(s *snapshot) (string, bool) {
	m.t.Helper()
	defer m.w.reveal(s.of.group)()
	text, ok, err := m.w.text(s.of.group, s.lv(), s.bytes)
	if err != nil || !ok {
		m.t.Fatalf("reading snapshot %s: %t, %v", s.spec.Name, ok, err)
	}
	return text, ok
}

// settle ends all doubts, without further faults, and compares what is there to the last LV.
func (m *machine) settle() {
	m.t.Helper()
	faults := m.faults
	m.faults = false
	defer func() { m.faults = faults }()
	for range 20 {
		left := 0
		for _, name := range slices.Sorted(maps.Keys(m.volumes)) {
			if v := m.volumes[name]; v != nil && v.doubt != sure {
				m.resolve(v)
				left++
			}
		}
		for _, name := range slices.Sorted(maps.Keys(m.snapshots)) {
			if s := m.snapshots[name]; s != nil && s.doubt != sure {
				m.resolveCut(s)
				left++
			}
		}
		m.w.quiet(m.d)
		if left == 0 {
			m.compareLVs()
			m.dirty = false
			return
		}
	}
	m.t.Fatalf("doubts are left after 20 rounds without a fault: %s", m.describe())
}

func (m *machine) describe() string {
	var out []string
	for name, v := range m.volumes {
		out = append(out, fmt.Sprintf("%s %s", name, v.doubt))
	}
	for name, s := range m.snapshots {
		out = append(out, fmt.Sprintf("%s %s", name, s.doubt))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// compareLVs: every LV is accounted for, and so is the room that they take.
func (m *machine) compareLVs() {
	m.t.Helper()
	ctx := context.Background()
	for _, g := range m.w.groups {
		// Any change removes leftovers, and this one changes nothing else.
		probe := storage.VolumeSpec{
			Name: "probe", RequiredBytes: 4 * mib, Access: storage.AccessBlock, Class: storage.Class{Type: storage.TypeThin, VolumeGroup: g},
		}
		v, err := m.d.CreateVolume(ctx, probe)
		if err == nil {
			err = m.d.DeleteVolume(ctx, v.ID)
		}
		if err != nil {
			m.t.Fatalf("a volume that is made and deleted: %v", err)
		}
		m.compareGroup(g)
		m.compareCapacity(g)
	}
}

func (m *machine) compareGroup(g string) {
	m.t.Helper()
	want := map[string]bool{}
	for _, v := range m.volumes {
		if v.group == g {
			want[v.lv()] = true
		}
	}
	aside := map[*volume]bool{}
	for _, s := range m.snapshots {
		if s.of.group != g {
			continue
		}
		want[s.lv()] = true
		if s.of.class == storage.TypeThick && m.volumes[s.of.spec.Name] != s.of {
			aside[s.of] = true
		}
	}
	asides := 0
	for _, name := range m.names(g) {
		switch {
		case want[name]:
			delete(want, name)
		case strings.HasPrefix(name, "csi-d-"):
			asides++
		default:
			m.t.Fatalf("LV %s/%s is nobody's; the model has %s", g, name, m.describe())
		}
	}
	if len(want) > 0 || asides != len(aside) {
		m.t.Fatalf("group %s: missing %v; %d volumes are set aside, want %d", g, want, asides, len(aside))
	}
	list, err := m.w.admin(g).LVs(context.Background())
	if err != nil {
		m.t.Fatal(err)
	}
	for _, lv := range list {
		if info, err := m.w.kernel.Info(context.Background(), g, lv.Name); err == nil && info.Suspended {
			m.t.Fatalf("%s/%s is suspended", g, lv.Name)
		}
	}
}

func (m *machine) compareCapacity(g string) {
	m.t.Helper()
	vg, err := m.w.admin(g).VG(context.Background())
	if err != nil {
		m.t.Fatal(err)
	}
	got, err := m.d.Capacity(context.Background(), storage.Class{Type: storage.TypeThick, VolumeGroup: g})
	if err != nil || got.AvailableBytes != vg.FreeBytes || got.MaximumBytes != vg.FreeBytes {
		m.t.Fatalf("capacity for thick volumes in %s: %+v, %v; %d bytes are free", g, got, err, vg.FreeBytes)
	}
	thin, err := m.d.Capacity(context.Background(), storage.Class{Type: storage.TypeThin, VolumeGroup: g})
	if err != nil || thin.AvailableBytes <= 0 || thin.AvailableBytes > thin.MaximumBytes {
		m.t.Fatalf("capacity for thin volumes in %s: %+v, %v", g, thin, err)
	}
}

// unknown asks for what does not exist.
func (m *machine) unknown() {
	m.t.Helper()
	ctx := context.Background()
	v := storage.Handle{NodeHash: storage.NodeHash(nodeID), LV: storage.VolumeLV("never made")}.String()
	s := storage.Handle{NodeHash: storage.NodeHash(nodeID), LV: storage.SnapshotLV("never made")}.String()
	_, volumeErr := m.d.Volume(ctx, v)
	_, snapshotErr := m.d.Snapshot(ctx, s)
	_, sourceErr := m.d.CreateSnapshot(ctx, storage.SnapshotSpec{Name: "of nothing", SourceID: v})
	_, restoreErr := m.d.CreateVolume(ctx, storage.VolumeSpec{
		Name: "from nothing", Access: storage.AccessBlock, Source: &storage.Source{Kind: storage.SourceSnapshot, ID: s},
	})
	for _, err := range []error{volumeErr, snapshotErr, sourceErr, restoreErr} {
		if !errors.Is(err, storage.ErrNotFound) {
			m.t.Fatalf("of what does not exist: %v", err)
		}
	}
	if err := errors.Join(m.d.DeleteVolume(ctx, v), m.d.DeleteSnapshot(ctx, s), m.d.Deactivate(ctx, v)); err != nil {
		m.t.Fatalf("deletions of what does not exist: %v", err)
	}
	time.Sleep(time.Millisecond)
}
