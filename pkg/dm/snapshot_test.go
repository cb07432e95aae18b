package dm

import "testing"

// The lines are dmsetup's, without start, length and target: from the lab, or from dm-snap.c where it says so.
func TestParseSnapshotStatus(t *testing.T) {
	for status, want := range map[string]SnapshotStatus{
		"16/32768 16":   {UsedBytes: 8 << 10, TotalBytes: 16 << 20, MetadataBytes: 8 << 10},
		" 2424/8192 24": {UsedBytes: 2424 * 512, TotalBytes: 4 << 20, MetadataBytes: 12 << 10},
		"Invalid":       {State: SnapshotInvalid},
		"Invalid ":      {State: SnapshotInvalid},
		"Overflow":      {State: SnapshotOverflow},    // snapshot_status(): snapshot_overflowed
		"Merge failed":  {State: SnapshotMergeFailed}, // snapshot_status(): merge_failed
		"Unknown":       {State: SnapshotUnknown},     // snapshot_status(): no usage()
	} {
		got, err := ParseSnapshotStatus(status)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", status, got, err, want)
		}
		if got.Valid() != (want.TotalBytes > 0) {
			t.Errorf("%q: valid %t", status, got.Valid())
		}
	}
	for _, bad := range []string{
		"", " ", "16", "16/32768", "16/32768 ", "x/32768 16", "16/-1 16", "16/32768 x", "invalid", "Merge", "32769/32768 16",
		"16/32768 17", "16/18446744073709551615 16", "16/32768 16 1",
	} {
		if got, err := ParseSnapshotStatus(bad); err == nil {
			t.Errorf("%q was read as %+v", bad, got)
		}
	}
}

func TestSnapshotPercent(t *testing.T) {
	for want, s := range map[float64]SnapshotStatus{
		25:  {UsedBytes: 1, TotalBytes: 4},
		100: {State: SnapshotInvalid}, // and would pass for one with room
	} {
		if got := s.Percent(); got != want {
			t.Errorf("%+v: %v %%, want %v", s, got, want)
		}
	}
}

func FuzzParseSnapshotStatus(f *testing.F) {
	f.Add("16/32768 16")
	f.Add("Invalid")
	f.Add("Merge failed")
	f.Fuzz(func(t *testing.T, status string) {
		s, err := ParseSnapshotStatus(status)
		if err != nil && s != (SnapshotStatus{}) {
			t.Errorf("%q: an error and %+v", status, s)
		}
		if p := s.Percent(); p < 0 || p > 100 || s.UsedBytes < 0 || s.MetadataBytes > s.UsedBytes {
			t.Errorf("%q: %+v, %v %%", status, s, p)
		}
	})
}
