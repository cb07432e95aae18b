package dm

import "testing"

func TestParseRAIDStatus(t *testing.T) {
	for status, want := range map[string]RAIDStatus{
		"raid1 2 AA 131072/131072 idle 0 0 -":     {"raid1", 2, 0, "idle", 64 << 20, 64 << 20},
		"raid1 2 aa 0/131072 resync 0 0 -":        {"raid1", 2, 0, "resync", 0, 64 << 20},
		"raid5_ls 3 ADA 65536/65536 idle 0 0 -":   {"raid5_ls", 3, 1, "idle", 32 << 20, 32 << 20},
		"raid10 4 A-AD 65536/65536 idle 0 0 -":    {"raid10", 4, 2, "idle", 32 << 20, 32 << 20},
		"raid5_ls 3 aAA 1024/65536 recover 0 0 -": {"raid5_ls", 3, 0, RAIDRecover, 512 << 10, 32 << 20},
		"raid4 5 AAAAA 2/490221568 init 0":        {"raid4", 5, 0, "init", 1 << 10, 490221568 << 9},
	} {
		if got, err := ParseRAIDStatus(status); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", status, got, err, want)
		}
	}
	for _, status := range []string{
		"", "raid1", "raid1 2 A 1/1 idle", "raid1 x AA 1/1 idle", "raid1 2 AA 1 idle", "raid1 2 AA 1/99999999999999999 idle",
	} {
		if got, err := ParseRAIDStatus(status); err == nil {
			t.Errorf("%q: %+v", status, got)
		}
	}
}
