package lvmtest_test

import (
	"errors"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
)

func createThick(t *testing.T, c *lvm.Client, name string) {
	t.Helper()
	if err := c.CreateThickVolume(t.Context(), lvm.ThickVolumeOptions{Name: name, SizeBytes: 64 << 20}); err != nil {
		t.Fatal(err)
	}
}

// cow cuts the snapshot s.
func cow(t *testing.T, c *lvm.Client, origin string) error {
	t.Helper()
	return c.CreateCOWSnapshot(t.Context(), lvm.COWSnapshotOptions{Name: "s", Origin: origin, COWBytes: 8 << 20, Tags: []string{"t"}})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What takes which room was measured on real LVM by TestThickMetadata.
func TestLayouts(t *testing.T) {
	_, c := newHost(t)
	for _, o := range []lvm.ThickVolumeOptions{
		{Name: "linear", SizeBytes: 20 << 20},
		{Name: "striped", SizeBytes: 20 << 20, Layout: lvm.LayoutStriped, Stripes: 3},
		{Name: "raid1", SizeBytes: 20 << 20, Layout: lvm.LayoutRAID1, Mirrors: 2},
		{Name: "raid5", SizeBytes: 20 << 20, Layout: lvm.LayoutRAID5, Stripes: 3, StripeBytes: 64 << 10},
		{Name: "raid10", SizeBytes: 20 << 20, Layout: lvm.LayoutRAID10, Stripes: 2, Mirrors: 1},
	} {
		before, err := c.VG(t.Context())
		must(t, err)
		must(t, c.CreateThickVolume(t.Context(), o))
		after, err := c.VG(t.Context())
		must(t, err)
		if took, want := before.FreeBytes-after.FreeBytes, o.AllocatedBytes(4<<20); took != want {
			t.Errorf("%s took %d bytes, want %d", o.Name, took, want)
		}
		if v := find(t, c, o.Name); v.SegType != o.Name {
			t.Errorf("%s: %+v", o.Name, v)
		}
	}
	must(t, cow(t, c, "raid1"))
	if v := find(t, c, "raid1"); v.Attr != "owi---r--k" {
		t.Errorf("an origin of raid1: %+v", v)
	}
}

// TestCOWPhantom: what lvcreate leaves when it dies between its two commits. Removed as it is, it leaves a device behind
// that is in the way of the next snapshot of that name; activated first, it does not.
func TestCOWPhantom(t *testing.T) {
	for _, activated := range []bool{false, true} {
		host, c := newHost(t)
		createThick(t, c, "v")
		must(t, c.Activate(t.Context(), "v"))
		must(t, host.Write("vg0", "v", "one"))
		host.PhantomNext(lvmtest.Verb("lvcreate", "--snapshot"))
		if err := cow(t, c, "v"); !errors.Is(err, lvm.ErrOutcomeUnknown) {
			t.Fatalf("phantom: %v", err)
		}
		if s := find(t, c, "s"); s.Attr != "-wi------k" || s.Origin != "" || len(s.Tags) != 1 || s.SizeBytes != 8<<20 {
			t.Errorf("phantom %+v", s)
		}
		if v := find(t, c, "v"); v.Attr != "-wi-a----k" {
			t.Errorf("its origin %+v", v)
		}
		if err := cow(t, c, "v"); !errors.Is(err, lvm.ErrExists) {
			t.Errorf("again: %v", err)
		}
		if activated {
			must(t, c.Activate(t.Context(), "s"))
		}
		must(t, c.Remove(t.Context(), "s"))
		if err := cow(t, c, "v"); (err == nil) != activated {
			t.Errorf("after its removal, activated %t: %v", activated, err)
		}
	}
}

func TestCOWFaults(t *testing.T) {
	host, c := newHost(t)
	createThick(t, c, "v")
	host.FailNext(lvmtest.Verb("lvcreate", "--snapshot"), "insufficient free space", 5)
	if err := cow(t, c, "v"); !errors.Is(err, lvm.ErrNoSpace) {
		t.Errorf("fail: %v", err)
	}
	for _, carriedOut := range []bool{false, true} {
		host.CrashNext(lvmtest.Changes, carriedOut)
		if err := cow(t, c, "v"); !errors.Is(err, lvm.ErrOutcomeUnknown) {
			t.Errorf("crash: %v", err)
		}
		if got := len(host.Names("vg0")) == 3; got != carriedOut {
			t.Errorf("carried out %t, volumes %v", carriedOut, host.Names("vg0"))
		}
	}
	must(t, c.Activate(t.Context(), "v"))
	host.SetSuspended("vg0", "v", true) // as a crash after the second commit leaves it
	must(t, c.Refresh(t.Context(), "v"))
	if v := find(t, c, "v"); v.Attr != "owi-a-s--k" {
		t.Errorf("refreshed %+v", v)
	}
	host.SetCOWUsage("vg0", "s", 4<<20)
	if s := find(t, c, "s"); s.DataPercent < 50 || s.DataPercent > 51 || s.Attr.InvalidSnapshot() {
		t.Errorf("half full: %+v", s)
	}
	host.SetCOWUsage("vg0", "s", 8<<20)
	if s := find(t, c, "s"); !s.Attr.InvalidSnapshot() {
		t.Errorf("overflown: %+v", s)
	}
	if data, err := host.Read("vg0", "s"); err == nil {
		t.Errorf("an invalid snapshot is read: %q", data)
	}
	host.Reboot()
	if v, s := find(t, c, "v"), find(t, c, "s"); v.Attr != "owi---s--k" || s.Attr != "sri---s--k" {
		t.Errorf("after a reboot: %+v, %+v", v, s)
	}
}
