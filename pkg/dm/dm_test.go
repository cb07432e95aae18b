package dm

import (
	"math"
	"strings"
	"testing"
	"unsafe"
)

const (
	poolTable   = "254:0 254:1 128 0 0 "
	poolTableNZ = "254:0 254:1 2048 0 2 skip_block_zeroing error_if_no_space "
)

// The lines are dmsetup's, without start, length and target: from the lab, or from dm-thin.c where it says so.
func TestParsePoolStatus(t *testing.T) {
	for name, c := range map[string]struct {
		status, table string
		want          PoolStatus
	}{
		"fresh": {"0 111/1024 0/8192 - rw no_discard_passdown queue_if_no_space - 256 ", poolTable, PoolStatus{
			UsedMetadataBlocks: 111, TotalMetadataBlocks: 1024, TotalDataBlocks: 8192, ChunkBytes: 64 << 10, Mode: PoolReadWrite,
		}},
		"in use": {"18446744073709551615 112/1024 3/8192 42 rw discard_passdown error_if_no_space - 1024 ", poolTableNZ, PoolStatus{
			TransactionID: 1<<64 - 1, UsedMetadataBlocks: 112, TotalMetadataBlocks: 1024, UsedDataBlocks: 3, TotalDataBlocks: 8192,
			ChunkBytes: 1 << 20, Mode: PoolReadWrite, ErrorIfNoSpace: true, SkipZeroing: true,
		}},
		"full": {"2 147/1024 8192/8192 - out_of_data_space no_discard_passdown error_if_no_space - 256 ", poolTable, PoolStatus{
			TransactionID: 2, UsedMetadataBlocks: 147, TotalMetadataBlocks: 1024, UsedDataBlocks: 8192, TotalDataBlocks: 8192,
			ChunkBytes: 64 << 10, Mode: PoolOutOfDataSpace, ErrorIfNoSpace: true,
		}},
		"read only, needs a check": {"2 1024/1024 9/8192 - ro discard_passdown queue_if_no_space needs_check 256 ", poolTable, PoolStatus{
			TransactionID: 2, UsedMetadataBlocks: 1024, TotalMetadataBlocks: 1024, UsedDataBlocks: 9, TotalDataBlocks: 8192,
			ChunkBytes: 64 << 10, Mode: PoolReadOnly, NeedsCheck: true,
		}},
		"old kernel": {"1 1/2 3/4 - rw discard_passdown queue_if_no_space", poolTable, PoolStatus{
			TransactionID: 1, UsedMetadataBlocks: 1, TotalMetadataBlocks: 2, UsedDataBlocks: 3, TotalDataBlocks: 4, ChunkBytes: 64 << 10, Mode: PoolReadWrite,
		}},
		"failed": {"Fail", poolTable, PoolStatus{Mode: PoolFailed}},    // pool_status(): get_pool_mode() == PM_FAIL
		"error":  {" Error ", poolTable, PoolStatus{Mode: PoolFailed}}, // pool_status(): metadata cannot be read
	} {
		got, err := ParsePoolStatus(c.status, c.table)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		}
	}
	const good = "0 111/1024 0/8192 - rw no_discard_passdown queue_if_no_space - 256 "
	for _, bad := range [][2]string{
		{"", poolTable},
		{"0 111/1024 0/8192 -", poolTable},
		{"x 111/1024 0/8192 - rw", poolTable},
		{"-1 111/1024 0/8192 - rw", poolTable},
		{"0 111 0/8192 - rw", poolTable},
		{"0 111/x 0/8192 - rw", poolTable},
		{"0 111/1024 -3/8192 - rw", poolTable},
		{good, ""},
		{good, "254:0 254:1"},
		{good, "254:0 254:1 0 0 0"},
		{good, "254:0 254:1 -128 0 0"},
		{good, "254:0 254:1 99999999999 0 0"},
		{good, "254:0 254:1 x 0 0"},
	} {
		if got, err := ParsePoolStatus(bad[0], bad[1]); err == nil {
			t.Errorf("%q was read as %+v", bad, got)
		}
	}
}

func TestPoolArithmetic(t *testing.T) {
	s := PoolStatus{UsedDataBlocks: 3, TotalDataBlocks: 12, UsedMetadataBlocks: 1, TotalMetadataBlocks: 10, ChunkBytes: 64 << 10}
	if s.DataPercent() != 25 || s.MetadataPercent() != 10 || s.SizeBytes() != 12*64<<10 || s.UsedBytes() != 3*64<<10 {
		t.Errorf("%+v: %v %% data, %v %% metadata, %d of %d bytes", s, s.DataPercent(), s.MetadataPercent(), s.UsedBytes(), s.SizeBytes())
	}
	if failed := (PoolStatus{Mode: PoolFailed}); failed.DataPercent() != 100 || failed.MetadataPercent() != 100 {
		t.Error("a failed pool looks empty") // and would pass for one with room
	}
}

func TestDeviceName(t *testing.T) {
	for _, c := range [][3]string{
		{"vg0", "lv", "vg0-lv"},
		{"vg-0", "csi-v-a", "vg--0-csi--v--a"},
		{"a", "-", "a---"},
		{"vg", "a.b+c_d", "vg-a.b+c_d"},
	} {
		if got := DeviceName(c[0], c[1]); got != c[2] {
			t.Errorf("%s/%s: %s, want %s", c[0], c[1], got, c[2])
		}
	}
	if got := strings.Join(poolDeviceNames("v-g", "p-1"), " "); got != "v--g-p--1-tpool v--g-p--1" {
		t.Errorf("pool devices %s", got)
	}
}

// FuzzDeviceName: no two volumes share a device name.
func FuzzDeviceName(f *testing.F) {
	f.Add("vg", "lv", "vg-", "lv")
	f.Add("a-b", "c", "a", "b-c")
	f.Add("a-", "b", "a", "-b")
	f.Fuzz(func(t *testing.T, g1, l1, g2, l2 string) {
		for _, s := range []string{g1, l1, g2, l2} {
			if s == "" || s[0] == '-' { // never the name of a group or a volume
				return
			}
		}
		if DeviceName(g1, l1) == DeviceName(g2, l2) && (g1 != g2 || l1 != l2) {
			t.Errorf("%s/%s and %s/%s are both %s", g1, l1, g2, l2, DeviceName(g1, l1))
		}
	})
}

func FuzzParsePoolStatus(f *testing.F) {
	f.Add("0 111/1024 0/8192 - rw no_discard_passdown queue_if_no_space - 256 ", poolTable)
	f.Add("Fail", poolTableNZ)
	f.Add("2 1024/1024 9/8192 - ro discard_passdown queue_if_no_space needs_check 256 ", "")
	f.Fuzz(func(t *testing.T, status, table string) {
		s, err := ParsePoolStatus(status, table)
		if err != nil {
			return
		}
		if s.Mode == "" || (s.Mode != PoolFailed && s.ChunkBytes < sectorBytes) {
			t.Errorf("%q, %q: %+v", status, table, s)
		}
		if p := s.DataPercent(); math.IsNaN(p) || p < 0 {
			t.Errorf("%q: data percent %v", status, p)
		}
	})
}

// TestLayout: the structs are linux/dm-ioctl.h's.
func TestLayout(t *testing.T) {
	var h header
	if unsafe.Sizeof(h) != headerBytes || unsafe.Offsetof(h.Dev) != 40 || unsafe.Offsetof(h.Name) != 48 || unsafe.Offsetof(h.UUID) != 176 {
		t.Errorf("struct dm_ioctl: %d bytes, dev at %d, name at %d, uuid at %d",
			unsafe.Sizeof(h), unsafe.Offsetof(h.Dev), unsafe.Offsetof(h.Name), unsafe.Offsetof(h.UUID))
	}
	if got := request(cmdTableStatus); got != 0xc138fd0c { // DM_TABLE_STATUS, as strace shows it
		t.Errorf("DM_TABLE_STATUS is %#x", got)
	}
}

func TestNoDeviceMapper(t *testing.T) {
	var c Control
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Info(t.Context(), "vg0", strings.Repeat("x", 200)); err == nil {
		t.Error("a name that device-mapper cannot have")
	}
}
