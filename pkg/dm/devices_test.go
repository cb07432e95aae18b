package dm

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

func nameList(names ...string) []byte {
	var buf bytes.Buffer
	buf.Write(make([]byte, headerBytes))
	for i, name := range names {
		entry := make([]byte, (nameAt+len(name)+1+7)/8*8)
		binary.NativeEndian.PutUint64(entry, 1)
		if i < len(names)-1 {
			binary.NativeEndian.PutUint32(entry[nameNextAt:], uint32(len(entry)))
		}
		copy(entry[nameAt:], name)
		buf.Write(entry)
	}
	buf.Write(make([]byte, 16))
	return buf.Bytes()
}

func TestParseNames(t *testing.T) {
	for _, want := range [][]string{nil, {"vg-a"}, {"vg-a", "vg-a-real", "vg--x-b"}} {
		got, err := parseNames(nameList(want...), headerBytes)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	for _, start := range []uint32{0, headerBytes - 1, 1 << 20, 1<<32 - 1} {
		if got, err := parseNames(nameList("vg-a"), start); err == nil {
			t.Errorf("from %d: %q", start, got)
		}
	}
}

func TestInGroup(t *testing.T) {
	for _, c := range []struct {
		device, group string
		want          bool
	}{
		{"vg-lv", "vg", true},
		{"vg-lv-real", "vg", true},
		{"vg-csi--v", "vg", true},
		{"vg--x-lv", "vg", false},
		{"vg--x-lv", "vg-x", true},
		{"vgx-lv", "vg", false},
		{"vg-", "vg", false},
		{"vg", "vg", false},
	} {
		if got := inGroup(c.device, c.group); got != c.want {
			t.Errorf("%s in %s: %t", c.device, c.group, got)
		}
	}
}

func FuzzParseNames(f *testing.F) {
	f.Add(nameList("vg-a", "vg-b"), uint32(headerBytes))
	f.Fuzz(func(t *testing.T, buf []byte, start uint32) {
		names, err := parseNames(buf, start)
		if err != nil && names != nil {
			t.Errorf("an error and %q", names)
		}
	})
}
