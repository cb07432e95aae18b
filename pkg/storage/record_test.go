package storage

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// Whatever text a record holds, LVM takes its tags, and they read back.
func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, -1, 300)
		r := record{
			tagDriver: "csi.lvmsnap.io", tagName: text.Draw(t, "name"), tagObject: text.Draw(t, "object"), tagContent: text.Draw(t, "content"),
			tagSize: "1", tagCreated: "2", tagInit: string(InitClone), tagSource: VolumeLV("v"),
			tagAccess: rapid.SampledFrom([]string{string(AccessMount), string(AccessBlock)}).Draw(t, "access"),
			tagFS:     rapid.SampledFrom([]string{"", "ext4"}).Draw(t, "fs"),
		}
		tags := r.tags()
		for _, tag := range tags {
			if err := lvm.ValidateTag(tag); err != nil {
				t.Fatal(err)
			}
		}
		if r[tagContent] == "" {
			r[tagContent] = r.usualContent()
		}
		for key, value := range r {
			if value == "" {
				delete(r, key)
			}
		}
		if diff := cmp.Diff(r, parseRecord(append(tags, "foreign", "lvmsnap.", "lvmsnap.x", "other.name=foo"))); diff != "" {
			t.Fatal(diff)
		}
	})
}

// What is stored on disks must never change its meaning, and is short.
func TestRecordOfKubernetes(t *testing.T) {
	const uid = "0a1b2c3d-0000-1111-2222-333344445555"
	snapshot := record{
		tagDriver: "csi.lvmsnap.io", tagName: "snapshot-" + uid, tagSize: "10737418240", tagCreated: "1763705555123456789",
		tagSource: VolumeLV("pvc-1"), tagAccess: string(AccessMount), tagFS: "xfs", tagObject: "shop/data 1~",
		tagContent: "snapcontent-" + uid,
	}
	volume := record{
		tagDriver: "csi.lvmsnap.io", tagName: "pvc-1", tagSize: "1", tagAccess: string(AccessBlock), tagObject: "shop/data",
		tagContent: "pvc-1",
	}
	for _, tt := range []struct {
		record record
		tags   []string
	}{
		{snapshot, []string{
			"lvmsnap.driver=csi.lvmsnap.io", "lvmsnap.name=snapshot-" + uid, "lvmsnap.size=10737418240",
			"lvmsnap.created=1763705555123456789", "lvmsnap.source=csi-v-6kdi4gvhzk3gsul43h22wg3zk7", "lvmsnap.fs=xfs",
			"lvmsnap.object=shop/data+1=7E",
		}},
		{volume, []string{"lvmsnap.driver=csi.lvmsnap.io", "lvmsnap.name=pvc-1", "lvmsnap.size=1", "lvmsnap.object=shop/data"}},
	} {
		if diff := cmp.Diff(tt.tags, tt.record.tags()); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(tt.record, parseRecord(tt.tags)); diff != "" {
			t.Error(diff)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add("lvmsnap.name=foo,lvmsnap.size=9,lvmsnap.created=1,foreign")
	f.Add("lvmsnap.name=f=XX,lvmsnap.size=-1,lvmsnap.object=a,lvmsnap.source=x")
	f.Fuzz(func(t *testing.T, text string) {
		r := parseRecord(strings.Split(text, ","))
		if r.size() < 0 {
			t.Error("negative size")
		}
		_ = r.created()
		_, _ = r.object()
		_ = (&view{e: &Engine{}}).sourceOf(r[tagSource])
		lv := lvm.LV{Name: "csi-v-x", SizeBytes: 8, Tags: strings.Split(text, ",")}
		if r.owns(lv.Name, "csi.lvmsnap.io", VolumeLV) {
			t.Error("no name hashes to this LV's")
		}
		if n := requestedBytes(r, 8, 4); n < 5 || n > 8 {
			t.Errorf("requested %d bytes of an LV of 8 in extents of 4", n)
		}
	})
}

func FuzzParseHandle(f *testing.F) {
	f.Add(Handle{NodeHash: NodeHash("node-1"), LV: VolumeLV("pvc-1")}.String())
	f.Add("v1/../csi-v-x")
	f.Add("v2/aaaaaaaaaaaaa/csi-v-aaaaaaaaaaaaaaaaaaaaaaaaaa")
	f.Fuzz(func(t *testing.T, id string) {
		h, err := ParseHandle(id)
		if err != nil {
			return
		}
		if h.String() != id {
			t.Errorf("%q reads back as %q", id, h)
		}
		if err := lvm.ValidateName(h.LV); err != nil {
			t.Error(err)
		}
		if err := lvm.ValidateTag(tag(tagSource, h.LV)); err != nil {
			t.Error(err)
		}
		if h.IsVolume() == h.IsSnapshot() {
			t.Errorf("%q is both or neither", id)
		}
	})
}

func TestHandles(t *testing.T) {
	h := Handle{NodeHash: NodeHash("node-1"), LV: SnapshotLV("snapshot-1")}
	if len(h.String()) > 128 {
		t.Errorf("%q is longer than CSI allows", h)
	}
	if VolumeLV("a") == VolumeLV("b") || NodeHash("a") == NodeHash("b") {
		t.Error("names share a hash")
	}
	// These are stored in clusters and on disks: they must never change.
	if got, want := h.String(), "v1/"+NodeHash("node-1")+"/csi-s-"+hash("snapshot-1", 26); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	const golden = "csi-v-6kdi4gvhzk3gsul43h22wg3zk7"
	if got := VolumeLV("pvc-1"); got != golden {
		t.Errorf("VolumeLV(pvc-1) is %q, was %q when it was first released", got, golden)
	}
}

func TestRequestedBytes(t *testing.T) {
	for _, tt := range []struct{ recorded, lv, want int64 }{
		{recorded: 5, lv: 8, want: 5},
		{recorded: 8, lv: 8, want: 8},
		{recorded: 5, lv: 12, want: 12}, // grown behind our back
		{recorded: 20, lv: 8, want: 8},  // never grown
		{recorded: 0, lv: 8, want: 8},
	} {
		r := record{tagSize: strconv.FormatInt(tt.recorded, 10)}
		if got := requestedBytes(r, tt.lv, 4); got != tt.want {
			t.Errorf("recorded %d, LV %d: %d, want %d", tt.recorded, tt.lv, got, tt.want)
		}
	}
}
