package lvmtest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
)

const gib = 1 << 30

func newHost(t *testing.T) (*lvmtest.LVM, *lvm.Client) {
	t.Helper()
	host := lvmtest.New()
	host.AddGroup("vg0", 10*gib)
	host.AddPool("vg0", "pool", 4*gib, 8<<20, 64<<10, true)
	return host, lvm.NewClient(host, "vg0")
}

func create(t *testing.T, c *lvm.Client, name string) {
	t.Helper()
	if err := c.CreateThinVolume(t.Context(), lvm.ThinVolumeOptions{Name: name, Pool: "pool", SizeBytes: gib}); err != nil {
		t.Fatal(err)
	}
}

func find(t *testing.T, c *lvm.Client, name string) lvm.LV {
	t.Helper()
	lvs, err := c.LVs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range lvs {
		if v.Name == name {
			return v
		}
	}
	t.Fatalf("no %s in %v", name, lvs)
	return lvm.LV{}
}

func TestFailNext(t *testing.T) {
	host, c := newHost(t)
	host.FailNext(lvmtest.Nth(2, lvmtest.Verb("lvcreate")), "insufficient free space", 5)
	create(t, c, "a")
	err := c.CreateThinVolume(t.Context(), lvm.ThinVolumeOptions{Name: "b", Pool: "pool", SizeBytes: gib})
	if !errors.Is(err, lvm.ErrNoSpace) {
		t.Fatalf("second lvcreate: %v", err)
	}
	create(t, c, "b")
	if got := len(host.Commands()); got != 3 {
		t.Errorf("%d commands, want 3: %v", got, host.CommandLines())
	}
}

func TestCrash(t *testing.T) {
	host, c := newHost(t)
	for _, carriedOut := range []bool{false, true} {
		host.CrashNext(lvmtest.Changes, carriedOut)
		err := c.CreateThinVolume(t.Context(), lvm.ThinVolumeOptions{Name: "a", Pool: "pool", SizeBytes: gib})
		if !errors.Is(err, lvm.ErrOutcomeUnknown) {
			t.Fatalf("crash: %v", err)
		}
		if got := len(host.Names("vg0")) == 2; got != carriedOut {
			t.Errorf("carried out %t, volumes %v", carriedOut, host.Names("vg0"))
		}
	}
	host.CrashNext(lvmtest.Verb("lvs"), true)
	find(t, c, "a") // a question is asked twice
}

func TestHang(t *testing.T) {
	host, c := newHost(t)
	hang := host.HangNext(lvmtest.Verb("lvcreate"))
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() {
		result <- c.CreateThinVolume(ctx, lvm.ThinVolumeOptions{Name: "a", Pool: "pool", SizeBytes: gib})
	}()
	<-hang.Begun()
	cancel()
	if err := <-result; !errors.Is(err, hostexec.ErrStillRunning) || !errors.Is(err, context.Canceled) {
		t.Fatalf("hang: %v", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := c.LVs(ctx); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, hostexec.ErrStillRunning) {
		t.Fatalf("the group is not busy: %v", err)
	}
	hang.Release()
	find(t, c, "a")
}

func TestPhantom(t *testing.T) {
	host, c := newHost(t)
	create(t, c, "v")
	if err := c.Activate(t.Context(), "v"); err != nil {
		t.Fatal(err)
	}
	snapshot := func(name string) error {
		return c.CreateThinSnapshot(t.Context(), lvm.ThinSnapshotOptions{Name: name, Origin: "v", Tags: []string{"t"}})
	}
	write := func(s string) {
		if err := host.Write("vg0", "v", s); err != nil {
			t.Fatal(err)
		}
	}
	write("one")
	host.PhantomNext(lvmtest.Verb("lvcreate", "--snapshot"))
	if err := snapshot("s1"); !errors.Is(err, lvm.ErrOutcomeUnknown) {
		t.Fatalf("phantom: %v", err)
	}
	status, err := host.PoolStatus(t.Context(), "vg0", "pool")
	if err != nil {
		t.Fatal(err)
	}
	if s1 := find(t, c, "s1"); s1.TransactionID != status.TransactionID {
		t.Errorf("the phantom has transaction id %d, the pool %d", s1.TransactionID, status.TransactionID)
	}
	if err := snapshot("s1"); !errors.Is(err, lvm.ErrExists) {
		t.Errorf("again: %v", err)
	}
	write("two")
	if err := snapshot("s2"); err != nil {
		t.Fatal(err)
	}
	if got := host.Content("vg0", "s1"); got != "two" {
		t.Errorf("the phantom was made with %q, want the later content", got)
	}
}
