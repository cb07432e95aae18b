//go:build lab

package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const gone = "no_such_volume"

func labGroup(t *testing.T, args ...string) (*labtest.Group, *Control) {
	t.Helper()
	g := labtest.VolumeGroup(t, labtest.Options{
		ThinPool: "po-ol", PoolSize: "256m", PoolMetadataSize: "4m", ChunkSize: "64k", PoolArgs: args,
	})
	c := &Control{}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return g, c
}

// dmsetupPool is the pool's status in dmsetup's words, read by this package's parser, and its device.
func dmsetupPool(t *testing.T, g *labtest.Group) (PoolStatus, string) {
	t.Helper()
	for _, line := range strings.Split(labtest.Run(t, "dmsetup", "status", "--noflush", "--target", thinPoolTarget), "\n") {
		name, rest, ok := strings.Cut(line, ": ")
		if !ok || !strings.HasPrefix(name, mangle(g.Name)+"-") {
			continue
		}
		_, status, _ := strings.Cut(rest, thinPoolTarget+" ")
		_, table, _ := strings.Cut(labtest.Run(t, "dmsetup", "table", name), thinPoolTarget+" ")
		s, err := ParsePoolStatus(status, table)
		if err != nil {
			t.Fatal(err)
		}
		return s, name
	}
	t.Fatal("no thin pool is active")
	return PoolStatus{}, ""
}

func checkPool(t *testing.T, g *labtest.Group, c *Control, device string) PoolStatus {
	t.Helper()
	got, err := c.PoolStatus(t.Context(), g.Name, g.ThinPool)
	if err != nil {
		t.Fatal(err)
	}
	want, name := dmsetupPool(t, g)
	if got != want {
		t.Errorf("status %+v, dmsetup says %+v", got, want)
	}
	if name != DeviceName(g.Name, g.ThinPool)+device {
		t.Errorf("the thin-pool target is on %s", name)
	}
	return got
}

func TestLabPoolStatus(t *testing.T) {
	g, c := labGroup(t)
	fresh := checkPool(t, g, c, "") // a pool without volumes is its own device
	if fresh.Mode != PoolReadWrite || fresh.ChunkBytes != 64<<10 || fresh.TotalDataBlocks != 4096 || fresh.SkipZeroing || fresh.ErrorIfNoSpace || fresh.NeedsCheck {
		t.Errorf("fresh pool %+v", fresh)
	}
	labtest.Run(t, "lvcreate", "-V", "64m", "--thinpool", g.ThinPool, "-n", "v", g.Name)
	if s := checkPool(t, g, c, "-tpool"); s.TransactionID != 1 { // with volumes, it is hidden below
		t.Errorf("pool with a volume %+v", s)
	}
	labtest.Run(t, "dd", "if=/dev/urandom", "of="+g.Device("v"), "bs=1M", "count=8", "oflag=direct")
	if s := checkPool(t, g, c, "-tpool"); s.UsedDataBlocks != 128 || s.UsedBytes() != 8<<20 {
		t.Errorf("pool with data %+v", s)
	}
	labtest.Run(t, "lvchange", "--errorwhenfull", "y", g.Name+"/"+g.ThinPool)
	if s := checkPool(t, g, c, "-tpool"); !s.ErrorIfNoSpace {
		t.Errorf("pool with errorwhenfull %+v", s)
	}
	labtest.Run(t, "lvremove", "-y", g.Name+"/v")
	checkPool(t, g, c, "-tpool") // and stays so when the last volume goes
	labtest.Run(t, "lvchange", "-an", g.Name+"/"+g.ThinPool)
	if s, err := c.PoolStatus(t.Context(), g.Name, g.ThinPool); !errors.Is(err, ErrNoDevice) {
		t.Errorf("inactive pool: %+v, %v", s, err)
	}
	if s, err := c.PoolStatus(t.Context(), g.Name, gone); !errors.Is(err, ErrNoDevice) {
		t.Errorf("missing pool: %+v, %v", s, err)
	}
}

func TestLabPoolOptions(t *testing.T) {
	g, c := labGroup(t, "--zero", "n")
	if s := checkPool(t, g, c, ""); !s.SkipZeroing {
		t.Errorf("pool without zeroing %+v", s)
	}
	if s, err := c.PoolStatus(t.Context(), g.Name, "plain"); !errors.Is(err, ErrNoDevice) {
		t.Errorf("%+v, %v", s, err)
	}
	labtest.Run(t, "lvcreate", "-y", "-L", "8m", "-n", "plain", g.Name)
	if s, err := c.PoolStatus(t.Context(), g.Name, "plain"); !errors.Is(err, ErrNoDevice) {
		t.Errorf("pool status of a plain volume: %+v, %v", s, err)
	}
}

func TestLabInfo(t *testing.T) {
	g, c := labGroup(t)
	labtest.Run(t, "lvcreate", "-V", "64m", "--thinpool", g.ThinPool, "-n", "csi-v-a", g.Name)
	info := func(lv string) Info {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		i, err := c.Info(ctx, g.Name, lv)
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	i := info("csi-v-a")
	if want := strings.TrimSpace(labtest.Run(t, "dmsetup", "info", "-c", "--noheadings", "-o", "major,minor,open", DeviceName(g.Name, "csi-v-a"))); want != fmt.Sprintf("%d:%d:0", i.Major, i.Minor) || i.Suspended || i.ReadOnly {
		t.Errorf("info %+v, dmsetup says %s", i, want)
	}
	f, err := os.Open(g.Device("csi-v-a"))
	if err != nil {
		t.Fatal(err)
	}
	if got := info("csi-v-a").OpenCount; got != 1 {
		t.Errorf("open count %d, want 1", got)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	labtest.Run(t, "lvcreate", "-s", "-pr", "-kn", "-n", "s", g.Name+"/csi-v-a")
	labtest.Run(t, "lvchange", "-ay", g.Name+"/s")
	if !info("s").ReadOnly {
		t.Error("a read-only snapshot is not read-only")
	}

	// Nothing here waits for a suspended device.
	device := DeviceName(g.Name, "csi-v-a")
	labtest.Run(t, "dmsetup", "suspend", device)
	if !info("csi-v-a").Suspended {
		t.Error("a suspended device does not look so")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := c.PoolStatus(ctx, g.Name, g.ThinPool); err != nil {
		t.Errorf("pool status while a volume is suspended: %v", err)
	}
	labtest.Run(t, "dmsetup", "suspend", DeviceName(g.Name, g.ThinPool)+"-tpool")
	if _, err := c.PoolStatus(ctx, g.Name, g.ThinPool); err != nil {
		t.Errorf("pool status while the pool is suspended: %v", err)
	}
	labtest.Run(t, "dmsetup", "resume", DeviceName(g.Name, g.ThinPool)+"-tpool")
	labtest.Run(t, "dmsetup", "resume", device)
	if info("csi-v-a").Suspended {
		t.Error("a resumed device looks suspended")
	}
	if _, err := c.Info(t.Context(), g.Name, gone); !errors.Is(err, ErrNoDevice) {
		t.Errorf("missing volume: %v", err)
	}
	if err := c.Close(); err != nil { // it opens the node again by itself
		t.Error(err)
	}
	info("csi-v-a")
}

// TestLabConcurrent: one Control serves all, while it is closed in between.
func TestLabConcurrent(t *testing.T) {
	g, c := labGroup(t)
	results := make(chan error)
	for range 16 {
		go func() {
			var err error
			for range 20 {
				if _, e := c.PoolStatus(t.Context(), g.Name, g.ThinPool); e != nil {
					err = e
				}
			}
			results <- err
		}()
	}
	for range 16 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}
