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
		text := rapid.StringN(0, -1, maxTextBytes)
		r := record{
			tagDriver: "csi.lvmsnap.io", tagName: text.Draw(t, "name"), tagObject: text.Draw(t, "object"), tagContent: text.Draw(t, "content"),
			tagSize: "1", tagCreated: "2", tagAccess: string(AccessMount), tagFS: "ext4", tagInit: string(InitClone),
			tagSource: Handle{NodeHash: NodeHash("n"), LV: VolumeLV("v")}.String(),
		}
		tags := r.tags()
		for _, tag := range tags {
			if err := lvm.ValidateTag(tag); err != nil {
				t.Fatal(err)
			}
		}
		for key, value := range r {
			if value == "" {
				delete(r, key)
			}
		}
		if diff := cmp.Diff(r, parseRecord(append(tags, "foreign", "lvmsnap.", "lvmsnap.x", "other.name=Zm9v"))); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add("lvmsnap.name=Zm9v,lvmsnap.size=9,lvmsnap.created=1,foreign")
	f.Add("lvmsnap.name=***,lvmsnap.size=-1,lvmsnap.object=YQ,lvmsnap.source=v1/x")
	f.Fuzz(func(t *testing.T, text string) {
		r := parseRecord(strings.Split(text, ","))
		if r.size() < 0 {
			t.Error("negative size")
		}
		_ = r.created()
		_, _ = r.object()
		_ = sourceOf(r[tagSource])
		lv := lvm.LV{Name: "csi-v-x", SizeBytes: 8, Tags: strings.Split(text, ",")}
		if _, ok := owned(lv, "csi.lvmsnap.io", VolumeLV); ok {
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
		if err := lvm.ValidateTag(tag(tagSource, id)); err != nil {
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
