package lvm

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// manyVolumes is the recorded group with so many thin snapshots more, as this driver makes them.
func manyVolumes(t testing.TB, n int) string {
	t.Helper()
	const before = "\n\tlogical_volumes {\n"
	head, tail, found := strings.Cut(string(recordedMetadata(t)), before)
	if !found {
		t.Fatal("no logical_volumes")
	}
	var b strings.Builder
	b.WriteString(head + before)
	for i := range n {
		fmt.Fprintf(&b, `
		csi-s-%026d {
			id = "GNtvVg-qdSD-I7bA-iG9z-tXdS-FESl-%06d"
			status = ["READ", "VISIBLE"]
			flags = ["ACTIVATION_SKIP"]
			creation_time = 1795232149	# 2026-11-21 03:35:49 +0000
			creation_host = "lab"
			tags = ["csi.lvmsnap.io", "csi.lvmsnap.io/name=snapshot-%d", "csi.lvmsnap.io/source=csi-v-x", "csi.lvmsnap.io/content=snapcontent-%[1]d", "csi.lvmsnap.io/size=67108864"]
			segment_count = 1

			segment1 {
				start_extent = 0
				extent_count = 16	# 64 Megabytes

				type = "thin"
				thin_pool = "pool"
				transaction_id = %[1]d
				device_id = %[1]d
			}
		}
`, i, i, i)
	}
	return b.String() + tail
}

// What is kept from one text to the next is never seen in what is read.
func TestParserKeepsNothingStale(t *testing.T) {
	first := manyVolumes(t, 3)
	p := new(metadataParser)
	for _, change := range []struct{ name, old, new string }{
		{"nothing", "", ""},
		{"a tag", `"t=1"`, `"t=2"`},
		{"a brace in a tag", `"t=1"`, `"t={}}# \" \\"`},
		{"a size", "extent_count = 16\t# 64 Megabytes\n\n\t\t\t\ttype = \"thin\"", "extent_count = 20\n\t\t\t\ttype = \"thin\""},
		{"an origin that is one no more", `origin = "lin"`, `origin = "s1"`},
		{"a COW that is another's", `cow_store = "cow"`, `cow_store = "r1"`},
		{"a name", "r1 {", "r2 {"},
		{"a volume is gone", "\t\ts1 {", "\t}\n\tothers {\n\t\ts1 {"},
		{"the size of extents", "extent_size = 8192", "extent_size = 4096"},
		{"the pool's transaction", "transaction_id = 4\n", "transaction_id = 5\n"},
	} {
		text := first
		if change.old != "" {
			text = strings.Replace(first, change.old, change.new, 1)
			if text == first {
				t.Fatalf("%s: nothing to change", change.name)
			}
		}
		for _, text := range []string{text, first} { // and back
			got, err := p.parse([]byte(text))
			if err != nil {
				t.Fatalf("%s: %v", change.name, err)
			}
			want, err := ParseMetadata([]byte(text))
			if err != nil {
				t.Fatalf("%s: %v", change.name, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s:\n%s", change.name, diff)
			}
		}
	}
}

// The volumes apart from the rest are those that the parser finds in the whole.
func FuzzSplitVolumes(f *testing.F) {
	f.Add(recordedMetadata(f))
	f.Add([]byte(`a { logical_volumes { b { c = "}" } } }`))
	f.Add([]byte("a { logical_volumes { b { # }\n } d = 1 } } }"))
	f.Fuzz(func(t *testing.T, text []byte) {
		whole, err := parseText(string(text))
		if err != nil {
			if m, err := ParseMetadata(text); err == nil {
				t.Errorf("the whole is no metadata, its parts are: %+v", m)
			}
			return
		}
		var want section
		for _, vg := range whole.children() {
			want = vg.child("logical_volumes")
			break
		}
		m, err := ParseMetadata(text)
		if err != nil {
			return
		}
		for _, lv := range m.LVs {
			if s := want.child(lv.Name); s.text("id") != lv.UUID {
				t.Errorf("%s: %+v in the whole, %+v in its part", lv.Name, s, lv)
			}
		}
	})
}

func BenchmarkParseMetadata(b *testing.B) {
	one, other := []byte(manyVolumes(b, 1000)), []byte(manyVolumes(b, 1001))
	for name, p := range map[string]*metadataParser{"anew": nil, "again": {}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				parser := p
				if parser == nil {
					parser = new(metadataParser)
				}
				text := one
				if i%2 > 0 {
					text = other
				}
				if _, err := parser.parse(text); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
