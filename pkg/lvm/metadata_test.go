package lvm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func recordedMetadata(t testing.TB) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/vgcfgbackup.txt")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A group with a thin pool, a thin snapshot of a removed origin, a copy of that, and a thick origin with its COW.
func TestParseMetadata(t *testing.T) {
	m, err := ParseMetadata(recordedMetadata(t))
	if err != nil {
		t.Fatal(err)
	}
	if m.Group != "vg0" || m.Sequence != 16 || m.ExtentBytes != 4<<20 || len(m.PVs) != 2 {
		t.Errorf("group %+v", m)
	}
	const mib = 1 << 20
	want := map[string]LV{
		"pool": {SizeBytes: 1024 * mib, Attr: "twXXXXXzX-", SegType: "thin-pool", TransactionID: 4},
		"s1":   {SizeBytes: 64 * mib, Attr: "VrXXXX-XXk", SegType: "thin", Pool: "pool", Tags: []string{"t=1"}, TransactionID: 1, ThinID: 2},
		"r1":   {SizeBytes: 64 * mib, Attr: "VwXXXX-XX-", SegType: "thin", Pool: "pool", Origin: "s1", TransactionID: 2, ThinID: 3},
		"lin":  {SizeBytes: 64 * mib, Attr: "owXXXX-XX-", SegType: "striped"},
		"cow":  {SizeBytes: 16 * mib, Attr: "swXXXX-XX-", SegType: "striped", Origin: "lin", OriginBytes: 64 * mib},
	}
	got := map[string]LV{}
	for _, lv := range m.LVs {
		if lv.DataPercent != -1 || lv.MetadataPercent != -1 || len(lv.UUID) != 38 {
			t.Errorf("%s: %+v", lv.Name, lv)
		}
		name := lv.Name
		lv.Name, lv.UUID, lv.DataPercent, lv.MetadataPercent = "", "", 0, 0
		got[name] = lv
	}
	for name, lv := range got {
		w := want[name]
		if a, b := lv.Attr, w.Attr; a.Type() != b.Type() || a.Writable() != b.Writable() || a.Zero() != b.Zero() ||
			a.SkipActivation() != b.SkipActivation() || a.Active() {
			t.Errorf("%s: attr %q, want like %q", name, a, b)
		}
		lv.Attr, w.Attr = "", ""
		got[name], want[name] = lv, w
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What LVM has written down for a pool to do, and what nobody knows here.
func TestParsePoolMessages(t *testing.T) {
	const after = "zero_new_blocks = 1\n"
	text := recordedMetadata(t)
	if bytes.Count(text, []byte(after)) != 1 {
		t.Fatal("no pool")
	}
	m, err := ParseMetadata(bytes.Replace(text, []byte(after), []byte(after+`
message1 {
create = "s1"
}
message2 {
delete = 0
}
message3 {
trim = 7
}
`), 1))
	if err != nil {
		t.Fatal(err)
	}
	pool := m.LVs[slices.IndexFunc(m.LVs, func(lv LV) bool { return lv.Name == "pool" })]
	if diff := cmp.Diff([]PoolMessage{{Create: "s1"}, {Delete: 0}, {Unknown: true}}, pool.Queue); diff != "" {
		t.Error(diff)
	}
}

func TestParseMetadataErrors(t *testing.T) {
	good := string(recordedMetadata(t))
	for name, text := range map[string]string{
		"empty":           "",
		"another format":  strings.Replace(good, "Text Format Volume Group", "x", 1),
		"another version": strings.Replace(good, "version = 1", "version = 2", 1),
		"no seqno":        strings.Replace(good, "seqno =", "seqn =", 1),
		"cut":             good[:len(good)/2],
		"no segment":      strings.Replace(good, "segment1 {", "segment7 {", 1),
		"deep":            strings.Repeat("a {", 1000),
		"deep array":      "a = " + strings.Repeat("[", 1000),
		"open string":     `contents = "Text`,
	} {
		if m, err := ParseMetadata([]byte(text)); err == nil {
			t.Errorf("%s: parsed as %+v", name, m)
		}
	}
}

func FuzzParseMetadata(f *testing.F) {
	f.Add(recordedMetadata(f))
	f.Add([]byte(`contents = "Text Format Volume Group" version = 1 vg { seqno = 1 extent_size = 8192 }`))
	f.Add([]byte("a { b = [ \"\\\"\", 1.5 ] # c\n}\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseMetadata(text)
		if err == nil && (m.Sequence == 0 || m.ExtentBytes <= 0) {
			t.Errorf("%+v", m)
		}
	})
}

// ring is a metadata area in a file, laid out as LVM does, with its text at any place of the ring.
func ring(t *testing.T, text []byte, offset int64) (metadataArea, []byte) {
	t.Helper()
	const start, size = 4096, 64 << 10
	image := make([]byte, start+size)
	header := image[start : start+sectorBytes]
	le := binary.LittleEndian
	copy(header[4:], areaMagic)
	le.PutUint32(header[areaVersionAt:], 1)
	le.PutUint64(header[areaStartAt:], start)
	le.PutUint64(header[areaSizeAt:], size)
	le.PutUint64(header[areaLocationAt:], uint64(offset))
	le.PutUint64(header[areaLocationAt+8:], uint64(len(text)))
	le.PutUint32(header[areaLocationAt+16:], crc(text))
	le.PutUint32(header, crc(header[4:]))
	for i, b := range text {
		at := offset + int64(i)
		if at >= size {
			at += sectorBytes - size
		}
		image[start+at] = b
	}
	path := filepath.Join(t.TempDir(), "pv")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return metadataArea{file: file, start: start, size: size}, header
}

func TestReadRing(t *testing.T) {
	text := recordedMetadata(t)
	for name, offset := range map[string]int64{"in one piece": 512, "around the end": 64<<10 - 1024} {
		a, header := ring(t, text, offset)
		loc, err := parseHeader(header, a.size)
		if err != nil {
			t.Fatal(err)
		}
		got, err := a.readText(loc, new([]byte))
		if err != nil || string(got) != string(text) {
			t.Errorf("%s: %d of %d bytes, %v", name, len(got), len(text), err)
		}
		loc.checksum++
		if _, err := a.readText(loc, new([]byte)); !errors.Is(err, errChecksum) {
			t.Errorf("%s, with another checksum: %v", name, err)
		}
	}
}

func TestParseHeaderErrors(t *testing.T) {
	_, good := ring(t, recordedMetadata(t), 512)
	seal := func(h []byte) { binary.LittleEndian.PutUint32(h, crc(h[4:])) }
	for name, change := range map[string]func([]byte){
		"checksum":    func(h []byte) { h[100]++ },
		"magic":       func(h []byte) { h[5]++; seal(h) },
		"outside":     func(h []byte) { h[areaLocationAt+3] = 1; seal(h) },
		"too large":   func(h []byte) { h[areaLocationAt+15] = 1; seal(h) },
		"in a header": func(h []byte) { h[areaLocationAt], h[areaLocationAt+1] = 1, 0; seal(h) },
	} {
		h := append([]byte(nil), good...)
		change(h)
		if loc, err := parseHeader(h, 64<<10); err == nil {
			t.Errorf("%s: %+v", name, loc)
		}
	}
	h := append([]byte(nil), good...)
	clear(h[areaLocationAt : areaLocationAt+24])
	seal(h)
	if _, err := parseHeader(h, 64<<10); !errors.Is(err, errNoMetadata) {
		t.Errorf("empty area: %v", err)
	}
}

func FuzzParseLabel(f *testing.F) {
	head := make([]byte, labelSectors*sectorBytes)
	sector := head[sectorBytes:]
	copy(sector, labelMagic)
	binary.LittleEndian.PutUint32(sector[labelOffsetAt:], 32)
	copy(sector[labelTypeAt:], labelType)
	binary.LittleEndian.PutUint64(sector[72:], 9<<20) // a data area
	binary.LittleEndian.PutUint64(sector[104:], 4096) // a metadata area
	binary.LittleEndian.PutUint64(sector[112:], 1<<20)
	f.Add(head)
	f.Fuzz(func(t *testing.T, head []byte) {
		areas, err := parseLabel(head)
		for _, a := range areas {
			if err != nil || a.start <= 0 || a.size < 2*sectorBytes {
				t.Errorf("%+v, %v", a, err)
			}
		}
	})
}
