//go:build lab

package dm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// TestLabSnapshotStatus fills a COW until it overflows.
func TestLabSnapshotStatus(t *testing.T) {
	g := labtest.VolumeGroup(t, labtest.Options{})
	c := &Control{}
	defer c.Close()
	labtest.Run(t, "lvcreate", "-y", "-L", "16m", "-n", "csi-v-a", g.Name)
	labtest.Run(t, "lvcreate", "-s", "-pr", "-L", "4m", "-n", "csi-s-a", g.Name+"/csi-v-a")
	check := func(when string) SnapshotStatus {
		t.Helper()
		got, err := c.SnapshotStatus(t.Context(), g.Name, "csi-s-a")
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(labtest.Run(t, "dmsetup", "status", DeviceName(g.Name, "csi-s-a")), snapshotTarget+" ")
		if want, err := ParseSnapshotStatus(text); err != nil || got != want {
			t.Errorf("%s: status %+v, dmsetup says %q (%v)", when, got, text, err)
		}
		return got
	}
	if s := check("fresh"); s.TotalBytes != 4<<20 || s.UsedBytes != s.MetadataBytes || !s.Valid() {
		t.Errorf("a fresh snapshot %+v", s)
	}
	for block := range 16 {
		labtest.Run(t, "dd", "if=/dev/urandom", "of="+g.Device("csi-v-a"), "bs=512k", "count=1", fmt.Sprint("seek=", block), "oflag=direct")
		s := check(fmt.Sprint("block ", block))
		// 128 chunks a block, in a COW of 1024, of which 2 hold a header and metadata, and later 4 more metadata.
		if fits := block < 7; s.Valid() != fits || fits && s.UsedBytes-s.MetadataBytes != int64(block+1)<<19 {
			t.Errorf("after block %d: %+v", block, s)
		}
	}
	labtest.Run(t, "dmsetup", "suspend", DeviceName(g.Name, "csi-v-a"))
	if s := check("suspended"); s.State != SnapshotInvalid {
		t.Errorf("at the end: %+v", s)
	}
	devices := func() string {
		t.Helper()
		list, err := c.Devices(t.Context(), g.Name)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, d := range list {
			name, _ := strings.CutPrefix(d.Name, g.Name+"-")
			if d.Suspended {
				name += "!"
			}
			out = append(out, name)
		}
		return strings.Join(out, " ")
	}
	if got := devices(); got != "csi--s--a csi--s--a-cow csi--v--a! csi--v--a-real" {
		t.Errorf("devices %s", got)
	}
	labtest.Run(t, "lvchange", "--refresh", g.Name+"/csi-v-a")
	labtest.Run(t, "lvchange", "-an", g.Name+"/csi-v-a")
	if got := devices(); got != "" {
		t.Errorf("devices of an inactive group: %s", got)
	}
	for _, lv := range []string{"csi-s-a", "csi-v-a", gone} {
		if s, err := c.SnapshotStatus(t.Context(), g.Name, lv); !errors.Is(err, ErrNoDevice) {
			t.Errorf("%s: %+v, %v", lv, s, err)
		}
	}
}

// TestLabManyDevices: the list of devices is larger than the first buffer.
func TestLabManyDevices(t *testing.T) {
	g := labtest.VolumeGroup(t, labtest.Options{})
	c := &Control{}
	defer c.Close()
	const n = 200
	long := strings.Repeat("x", 100)
	want := make([]string, n)
	for i := range want {
		want[i] = fmt.Sprintf("%s-%s%03d", mangle(g.Name), long, i)
		labtest.Run(t, "dmsetup", "create", want[i], "--notable")
	}
	t.Cleanup(func() { labtest.Run(t, append([]string{"dmsetup", "remove"}, want...)...) })
	list, err := c.Devices(t.Context(), g.Name)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]string, len(list))
	for i, d := range list {
		got[i] = d.Name
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d devices, want %d: %q", len(got), n, got)
	}
}
