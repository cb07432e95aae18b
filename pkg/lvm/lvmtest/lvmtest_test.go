package lvmtest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
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

// TestPhantomCures: what real LVM was seen to do with a phantom (an lvcreate killed between the two commits).
func TestPhantomCures(t *testing.T) {
	for name, c := range map[string]struct {
		cure func(t *testing.T, host *lvmtest.LVM, c *lvm.Client) error
		// what is there afterwards
		snapshot bool
		txID     uint64
	}{
		"removed": {func(t *testing.T, _ *lvmtest.LVM, c *lvm.Client) error { return c.Remove(t.Context(), "s1") }, false, 4},
		"another removed": { // in the transaction that the phantom began
			func(t *testing.T, _ *lvmtest.LVM, c *lvm.Client) error { return c.Remove(t.Context(), "w") }, true, 3,
		},
		"another made": {func(t *testing.T, _ *lvmtest.LVM, c *lvm.Client) error {
			return c.CreateThinSnapshot(t.Context(), lvm.ThinSnapshotOptions{Name: "s2", Origin: "v"})
		}, true, 4},
	} {
		t.Run(name, func(t *testing.T) {
			host, client := newHost(t)
			create(t, client, "v")
			create(t, client, "w")
			host.PhantomNext(lvmtest.Verb("lvcreate"))
			if err := client.CreateThinSnapshot(t.Context(), lvm.ThinSnapshotOptions{Name: "s1", Origin: "v"}); !errors.Is(err, lvm.ErrOutcomeUnknown) {
				t.Fatal(err)
			}
			if err := client.Activate(t.Context(), "s1"); err == nil {
				t.Error("a phantom was activated")
			}
			if err := client.Activate(t.Context(), "v"); err != nil { // which does not commit it
				t.Error(err)
			}
			if err := c.cure(t, host, client); err != nil {
				t.Fatal(err)
			}
			status, err := host.PoolStatus(t.Context(), "vg0", "pool")
			if err != nil {
				t.Fatal(err)
			}
			if pool := find(t, client, "pool"); status.TransactionID != c.txID || pool.TransactionID != c.txID {
				t.Errorf("transaction id %d in the pool, %d in LVM, want %d", status.TransactionID, pool.TransactionID, c.txID)
			}
			if got := slices.Contains(host.Names("vg0"), "s1"); got != c.snapshot {
				t.Errorf("volumes %v", host.Names("vg0"))
			}
			if c.snapshot {
				if err := client.Activate(t.Context(), "s1"); err != nil {
					t.Errorf("the snapshot that came later: %v", err)
				}
			}
		})
	}
}

func TestOnCommand(t *testing.T) {
	host, c := newHost(t)
	create(t, c, "v")
	host.OnCommand(func(args []string) { // an administrator is faster
		if lvmtest.Verb("lvremove")(args) {
			host.AddForeignLV("vg0", lvmtest.ForeignLV{Name: "theirs", SizeBytes: gib, Pool: "pool", Origin: "v"})
		}
	})
	if err := c.Remove(t.Context(), "v"); err != nil {
		t.Fatal(err)
	}
	host.OnCommand(nil)
	if v := find(t, c, "theirs"); v.Origin != "" || v.ThinID != 2 || v.Attr != "Vwi---tz--" {
		t.Errorf("theirs is %+v", v)
	}
	if lines := host.CommandLines(); len(lines) != 3 || lines[1] != "lvremove --yes --select lv_role!=thickorigin vg0/v" {
		t.Errorf("commands %q", lines)
	}
	host.ResetCommands()
	if got := host.Commands(); len(got) != 0 {
		t.Errorf("commands %q", got)
	}
}

// TestConcurrent is for the race detector, and for the ids.
func TestConcurrent(t *testing.T) {
	host, c := newHost(t)
	const n = 50
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := c.CreateThinVolume(t.Context(), lvm.ThinVolumeOptions{Name: fmt.Sprint("v", i), Pool: "pool", SizeBytes: gib}); err != nil {
				t.Error(err)
			}
			if _, err := host.PoolStatus(t.Context(), "vg0", "pool"); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	lvs, err := c.LVs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ids := map[uint32]bool{}
	for _, v := range lvs {
		ids[v.ThinID] = true
	}
	if len(lvs) != n+1 || len(ids) != n+1 {
		t.Errorf("%d volumes, %d ids", len(lvs), len(ids))
	}
}

func TestPoolStates(t *testing.T) {
	host, c := newHost(t)
	create(t, c, "v")
	for _, s := range []struct {
		set  func()
		mode dm.PoolMode
		attr lvm.Attr
	}{
		{func() {}, dm.PoolReadWrite, "twi-aotz--"},
		{func() { host.SetPoolUsage("vg0", "pool", 4*gib, 10) }, dm.PoolOutOfDataSpace, "twi-aotzD-"},
		{func() { host.SetPoolUsage("vg0", "pool", 0, 100) }, dm.PoolReadOnly, "twi-aotzM-"},
		{func() { host.SetPoolMode("vg0", "pool", "Fail", false) }, dm.PoolFailed, "twi-aotzF-"},
	} {
		s.set()
		status, err := host.PoolStatus(t.Context(), "vg0", "pool")
		if err != nil || status.Mode != s.mode {
			t.Errorf("mode %s, %v, want %s", status.Mode, err, s.mode)
		}
		if got := find(t, c, "pool").Attr; got != s.attr {
			t.Errorf("attr %s, want %s", got, s.attr)
		}
	}
	host.SetPoolMode("vg0", "pool", "", false)
	host.SetPoolUsage("vg0", "pool", 0, 80) // 25 % of a small metadata volume stay free
	err := c.CreateThinVolume(t.Context(), lvm.ThinVolumeOptions{Name: "w", Pool: "pool", SizeBytes: gib})
	if !errors.Is(err, lvm.ErrNoSpace) {
		t.Errorf("with 80 %% of the pool's metadata in use: %v", err)
	}
	host.SetPoolUsage("vg0", "pool", 0, 10)
	host.SetPoolJammed("vg0", "pool", true)
	if err := c.Remove(t.Context(), "v"); !errors.Is(err, lvm.ErrPoolJammed) {
		t.Errorf("a jammed pool: %v", err)
	}
}
