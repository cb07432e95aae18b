//go:build lab

package integration_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const metricsAddress = "127.0.0.1:9097"

func growing(flags ...string) driverproc.Options {
	return driverproc.Options{Flags: append([]string{
		"--pool-autoextend-threshold=70", "--pool-autoextend-percent=20", "--metrics-address=" + metricsAddress,
	}, flags...)}
}

// pour is flood at 80 MiB/s or less: what doubles a small pool within a second cannot be kept up with.
func (u *use) pour(from, to int64) error {
	const step = 8 * mib
	for at := from; at < to; at += step {
		if err := u.flood(at, min(at+step, to)); err != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

// metric is the value of a series of the group's, as text; empty: there is none.
func (c *co) metric(name string, labels ...string) string {
	c.t.Helper()
	return c.series(name, append(labels, `volume_group="`+c.vg.Name+`"`)...)
}

// metrics are all of the driver's.
func (c *co) metrics() string {
	c.t.Helper()
	res, err := http.Get("http://" + metricsAddress + "/metrics")
	c.ok(err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	c.ok(err)
	return string(body)
}

// series is the value of the first series of a metric with these labels.
func (c *co) series(name string, labels ...string) string {
	c.t.Helper()
	for line := range strings.Lines(c.metrics()) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		found := strings.HasPrefix(series, name+"{")
		for _, label := range labels {
			found = found && strings.Contains(series, label)
		}
		if found {
			return value
		}
	}
	return ""
}

// shows checks that a metric has the value that LVM reports for the field.
func (c *co) shows(metric string, lvs ...string) {
	c.t.Helper()
	argv := append([]string{lvs[0], "--noheadings", "--units", "b", "--nosuffix", "-o"}, lvs[1:]...)
	want := strings.TrimSpace(labtest.Run(c.t, argv...))
	var got, wanted float64
	_, err := fmt.Sscan(c.metric(metric), &got)
	_, err2 := fmt.Sscan(want, &wanted)
	if err != nil || err2 != nil || got != wanted {
		c.t.Errorf("%s is %v, and %v says %s", metric, got, lvs, want)
	}
}

// A writer fills a small pool twice over: it grows before it is full, and nobody waits or is refused. When the group has no
// extents left that is said, and when it has, the pool goes on growing by itself.
func TestPoolAutoextend(t *testing.T) {
	c := newCOWith(t, labtest.Options{ThinPool: "pool", PoolSize: "256m", PoolMetadataSize: "4m", ChunkSize: "64k"}, growing())
	keep := c.volume("keep", block)
	u := c.use(keep, block)
	u.write("v1")
	s := c.snapshot("s", keep)
	u.write("v2")
	hose := c.use(c.volume("hose", block, ofSize(2*gib)), block) // of a pool that can become as large as the group
	done := make(chan error, 1)
	go func() { done <- hose.pour(0, 512*mib) }()
	snapshots, ended := 0, false
	for !ended {
		c.snapshot(fmt.Sprint("meanwhile ", snapshots), keep)
		snapshots++
		select {
		case err := <-done:
			c.ok(err)
			ended = true
		default:
		}
	}
	c.until("below the threshold", func() bool { return used(c.poolStatus()[2]) <= 70 })
	t.Logf("%d snapshots; grown %s times to %s bytes", snapshots, c.metric("lvmsnap_pool_autoextends_total", `of="data"`, `result="ok"`), c.metric("lvmsnap_pool_data_size_bytes"))
	pool := c.vg.Name + "/pool"
	c.shows("lvmsnap_pool_data_size_bytes", "lvs", "lv_size", pool)
	c.shows("lvmsnap_pool_metadata_size_bytes", "lvs", "lv_metadata_size", pool)
	c.shows("lvmsnap_volume_group_free_bytes", "vgs", "vg_free", c.vg.Name)
	c.shows("lvmsnap_volume_group_size_bytes", "vgs", "vg_size", c.vg.Name)
	if text := c.health(keep); text != "" || strings.Contains(c.driver.Log(), "A pool needs care") {
		t.Errorf("it was not in time: %q", text)
	}

	thick := c.patient("thick", block, ofType("thick"), ofSize(16*mib))
	// An LV of the administrator's takes all but 200 MiB.
	free := strings.TrimSpace(labtest.Run(t, "vgs", "--noheadings", "--units", "m", "--nosuffix", "-o", "vg_free", c.vg.Name))
	var freeMiB float64
	_, err := fmt.Sscan(free, &freeMiB)
	c.ok(err)
	labtest.Run(t, "lvcreate", "--yes", "--wipesignatures", "n", "-n", "theirs", "-L", fmt.Sprintf("%dm", int(freeMiB)-200), c.vg.Name)
	at := 512 * mib
	cannotGrow := func() bool { return c.metric("lvmsnap_pool_condition", `reason="PoolCannotGrow"`) != "" }
	for !cannotGrow() && at < 2*gib {
		c.ok(hose.flood(at, at+16*mib))
		at += 16 * mib
		c.until("growth, or no room for it", func() bool { return used(c.poolStatus()[2]) <= 70 || cannotGrow() })
	}
	c.until("a failed attempt", func() bool { return c.metric("lvmsnap_pool_autoextends_total", `of="data"`, `result="no_space"`) > "0" })
	c.says("health", c.health(keep), "PoolCannotGrow", "vgextend "+c.vg.Name, "data 7")
	if n := strings.Count(c.driver.Log(), "PoolCannotGrow"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
	c.snapshot("above the threshold", keep) // and out of the reserve
	_, err = c.Controller.CreateVolume(c.context(), c.volumeRequest("another", block, ofType("thick")))
	c.fails("a thick volume", err, codes.ResourceExhausted, "a volume of 512 MiB takes", "has 8.0 MiB free", "vgextend")
	_, err = c.trySnapshot("cow", thick.GetVolumeId())
	c.fails("a COW snapshot", err, codes.ResourceExhausted, "the COW of a snapshot of 16 MiB takes", "has 8.0 MiB free", "vgextend")
	labtest.Run(t, "lvremove", "--yes", c.vg.Name+"/theirs")
	c.until("growth with extents again", func() bool { return used(c.poolStatus()[2]) <= 70 })
	c.until("recovery", func() bool {
		return c.health(keep) == "" && strings.Contains(c.driver.Log(), "thin pool "+c.vg.Name+"/pool: PoolCannotGrow is over")
	})
	c.snapshot("cow", thick)
	r := c.use(c.volume("restored", block, fromSnapshot(s)), block)
	r.holdsOnDisk("v1")
	u.holdsOnDisk("v2")
	for _, x := range []*use{u, r, hose} {
		x.release()
	}
	c.poolIsSound()
}

// Metadata grows, too. (When it is full already: TestReadOnlyPoolGrows.)
func TestPoolMetadataAutoextend(t *testing.T) {
	c := newCOWith(t, labtest.Options{ThinPool: "pool", PoolSize: "1g", ChunkSize: "64k", ExtentSize: "1m", PoolMetadataSize: "2m"},
		growing("--overprovision-ratio=20"))
	ofPool := func(req *csi.CreateVolumeRequest) { req.CapacityRange.RequiredBytes = 700 * mib }
	keep := c.volume("keep", block, ofPool)
	u := c.use(keep, block)
	c.ok(u.flood(0, 600*mib))
	for i := range 10 {
		x := c.use(c.volume(fmt.Sprint("clone ", i), block, ofPool, fromVolume(keep), ofPool), block)
		c.ok(x.scatter())
		x.release()
	}
	c.until("below the threshold", func() bool { return used(c.poolStatus()[1]) <= 70 })
	c.snapshot("s", keep)
	if grown := c.metric("lvmsnap_pool_autoextends_total", `of="metadata"`, `result="ok"`); grown < "1" {
		t.Errorf("grown %q times", grown)
	}
	u.release()
	c.poolIsSound()
}

// With dmeventd on the host, whoever comes first extends, and the other finds nothing to do.
func TestPoolAutoextendBesideDmeventd(t *testing.T) {
	c := newCOWith(t, labtest.Options{ThinPool: "pool", PoolSize: "256m", ChunkSize: "64k"}, growing())
	text, err := os.ReadFile(filepath.Join(os.Getenv("LVM_SYSTEM_DIR"), "lvm.conf"))
	c.ok(err)
	dir := t.TempDir()
	monitored := strings.Replace(string(text), "monitoring = 0", "monitoring = 1\nthin_pool_autoextend_threshold = 70\nthin_pool_autoextend_percent = 20", 1)
	c.ok(os.WriteFile(filepath.Join(dir, "lvm.conf"), []byte(monitored), 0o600))
	lvm := func(argv ...string) string {
		t.Helper()
		return labtest.Run(t, append([]string{"env", "LVM_SYSTEM_DIR=" + dir}, argv...)...)
	}
	daemon := exec.Command("dmeventd", "-f")
	daemon.Env = append(os.Environ(), "LVM_SYSTEM_DIR="+dir)
	c.ok(daemon.Start())
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	c.until("dmeventd", func() bool {
		_, err := os.Stat("/run/dmeventd-server")
		return err == nil
	})
	lvm("lvchange", "--monitor", "y", c.vg.Name+"/pool")
	keep := c.volume("keep", block)
	u := c.use(keep, block)
	c.ok(u.pour(0, 320*mib))
	c.snapshot("s", keep)
	c.until("below the threshold", func() bool { return used(c.poolStatus()[2]) <= 70 })
	if got := lvm("lvs", "--noheadings", "-o", "seg_monitor", c.vg.Name+"/pool"); !strings.Contains(got, "monitored") || strings.Contains(got, "not") {
		t.Errorf("dmeventd watches no more: %q", got)
	}
	size := strings.TrimSpace(labtest.Run(t, "lvs", "--noheadings", "--units", "m", "--nosuffix", "-o", "lv_size", c.vg.Name+"/pool"))
	t.Logf("the pool has %s MiB; the driver has extended it %s times", size, c.metric("lvmsnap_pool_autoextends_total", `of="data"`, `result="ok"`))
	var mibs float64
	if _, err := fmt.Sscan(size, &mibs); err != nil || mibs > 800 {
		t.Errorf("two that extend: %s MiB for 320", size)
	}
	if failed := c.metric("lvmsnap_pool_autoextends_total", `of="data"`, `result="error"`); failed != "0" {
		t.Errorf("%s failed", failed)
	}
	lvm("lvchange", "--monitor", "n", c.vg.Name+"/pool")
	u.release()
	c.poolIsSound()
}
