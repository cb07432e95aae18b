package lvm

import (
	"math"
	"strings"
	"testing"
)

func TestLayoutArgs(t *testing.T) {
	for _, c := range []struct {
		o    ThickVolumeOptions
		want string // empty: refused
	}{
		{ThickVolumeOptions{}, "--type linear"},
		{ThickVolumeOptions{Layout: LayoutLinear}, "--type linear"},
		{ThickVolumeOptions{Layout: LayoutStriped, Stripes: 2}, "--type striped --stripes 2"},
		{ThickVolumeOptions{Layout: LayoutStriped, Stripes: 4, StripeBytes: 256 << 10}, "--type striped --stripes 4 --stripesize 262144b"},
		{ThickVolumeOptions{Layout: LayoutRAID1, Mirrors: 1}, "--type raid1 --mirrors 1"},
		{ThickVolumeOptions{Layout: LayoutRAID5, Stripes: 2, StripeBytes: 4096}, "--type raid5 --stripes 2 --stripesize 4096b"},
		{ThickVolumeOptions{Layout: LayoutRAID10, Stripes: 2, Mirrors: 1}, "--type raid10 --stripes 2 --mirrors 1"},
		{ThickVolumeOptions{Layout: "raid0"}, ""},
		{ThickVolumeOptions{Stripes: 2}, ""},
		{ThickVolumeOptions{StripeBytes: 4096}, ""},
		{ThickVolumeOptions{Mirrors: 1}, ""},
		{ThickVolumeOptions{Layout: LayoutStriped}, ""},
		{ThickVolumeOptions{Layout: LayoutStriped, Stripes: 1}, ""},
		{ThickVolumeOptions{Layout: LayoutStriped, Stripes: 129}, ""},
		{ThickVolumeOptions{Layout: LayoutStriped, Stripes: 2, Mirrors: 1}, ""},
		{ThickVolumeOptions{Layout: LayoutStriped, Stripes: 2, StripeBytes: 2048}, ""},
		{ThickVolumeOptions{Layout: LayoutStriped, Stripes: 2, StripeBytes: 5 << 10}, ""},
		{ThickVolumeOptions{Layout: LayoutRAID1}, ""},
		{ThickVolumeOptions{Layout: LayoutRAID1, Mirrors: 10}, ""},
		{ThickVolumeOptions{Layout: LayoutRAID1, Mirrors: 1, Stripes: 2}, ""},
		{ThickVolumeOptions{Layout: LayoutRAID10, Stripes: 2}, ""},
	} {
		args, err := c.o.layoutArgs()
		if got := strings.Join(args, " "); got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%+v: %q, %v, want %q", c.o, got, err, c.want)
		}
	}
}

// The sizes are what `lvcreate --snapshot --extents 100%ORIGIN` took in the lab, in extents of 4 MiB.
func TestCOWMaxBytes(t *testing.T) {
	const mib, extent = 1 << 20, 4 << 20
	for origin, want := range map[int64]int64{
		4 * mib: 8388608, 64 * mib: 71303168, 1024 * mib: 1082130432, 4096 * mib: 4315938816, 7168 * mib: 7549747200,
	} {
		if got := RoundUp(COWMaxBytes(origin), extent); got != want {
			t.Errorf("origin of %d: %d, want %d", origin, got, want)
		}
	}
	for origin, want := range map[int64]int64{
		1:                   3 * 4096, // header, chunk, metadata
		255 * 4096:          (255 + 2) * 4096,
		256 * 4096:          (256 + 3) * 4096, // the empty metadata chunk behind a full one
		math.MaxInt64:       math.MaxInt64,
		math.MaxInt64/2 + 1: math.MaxInt64,
	} {
		if got := COWMaxBytes(origin); got != want {
			t.Errorf("origin of %d: %d, want %d", origin, got, want)
		}
	}
	if got := COWMaxBytes(math.MaxInt64 / 2); got < math.MaxInt64/2 {
		t.Errorf("the largest origin: %d", got)
	}
}
