//go:build lab

package torture_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/internal/workload"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

var (
	driverCalls = flag.Int("driver-calls", 50, "calls during which the driver is killed")
	driverSeed  = flag.Uint64("driver-seed", 0, "of the calls and the moments; 0: another each time")
)

// longestPause is how long a writer's fsync may take while the driver is killed and LVM suspends what it writes to.
const longestPause = 20 * time.Second

// The driver is killed at random moments of many mixed calls. Each time it is started again and, unasked, serves; what was reported
// is as it was reported, and what was not is there when it is asked for again. Now and then everything is compared.
func TestDriverKilled(t *testing.T) {
	seed := *driverSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	t.Logf("seed: -driver-seed=%d", seed)
	dir, err := os.MkdirTemp("", "killed")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	vg := labtest.VolumeGroup(t, labtest.Options{Disks: 2, ThinPool: "pool", PoolSize: "4g"})
	driver := driverproc.Start(t, driverproc.Options{Groups: []string{vg.Name}})
	var workers []*workload.Worker
	for i := range 3 {
		name := fmt.Sprint("w", i)
		workers = append(workers, workload.New(workload.Worker{
			Clients: driver.Connect(), Name: name, Group: vg.Name, Dir: filepath.Join(dir, name), Thick: true, Orphans: true,
		}, seed+uint64(i)))
	}
	host := &workload.Host{Clients: driver.Clients, Group: vg.Name, Pool: vg.ThinPool}
	w := startFSWriter(t, driver, dir)
	host.Foreign = []string{filepath.Base(w.id)}

	k := &driverKiller{rng: rand.New(rand.NewPCG(seed, 2)), driver: driver} //nolint:gosec // a test has to be repeatable
	broken := func() (n int) {
		for _, w := range workers {
			n += w.Broken
		}
		return n
	}
	const each = 25 // calls of each worker between two comparisons
	rounds := 0
	for done := 0; done < *driverCalls; done += each * len(workers) {
		stop := k.start()
		err := workload.Together(workers, func(w *workload.Worker) error { return w.Run(each) })
		stop()
		if err == nil {
			err = host.Verify(workers)
		}
		if err == nil {
			err = w.check()
		}
		if err != nil {
			t.Fatalf("seed %d, after %d calls and %d kills: %v\n%s", seed, done, k.kills, err, labtest.Run(t, "lvs", "-a", "-o+tags", vg.Name))
		}
		rounds++
	}
	t.Logf("%s; %d kills, which cut %d calls short; compared %d times; %d writes went on, the longest pause %s",
		counts(workers), k.kills, broken(), rounds, w.writes.Load(), time.Duration(w.longest.Load()))
	w.end(t)
	for _, w := range workers {
		if err := w.Release(); err != nil {
			t.Error(err)
		}
	}
	driver.Stop()
	if err := host.Check(); err != nil {
		t.Error(err)
	}
}

func counts(workers []*workload.Worker) string {
	sum := map[string]int{}
	total := 0
	for _, w := range workers {
		for what, n := range w.Counts {
			sum[what] += n
			total += n
		}
	}
	var out []string
	for _, what := range slices.Sorted(maps.Keys(sum)) {
		out = append(out, fmt.Sprintf("%s %d", what, sum[what]))
	}
	return fmt.Sprintf("%d calls: %s", total, strings.Join(out, ", "))
}

// driverKiller kills the driver at random moments, and starts it again.
type driverKiller struct {
	rng    *rand.Rand
	driver *driverproc.Driver
	kills  int
}

func (k *driverKiller) start() (stop func()) {
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-quit:
				return
			case <-time.After(time.Duration(k.rng.IntN(1200)) * time.Millisecond):
			}
			k.driver.Kill()
			k.kills++
			k.driver.Start()
		}
	}()
	return func() { close(quit); <-ended }
}

// fsWriter writes to a file system all the time, durably.
type fsWriter struct {
	*driverproc.Clients
	id, staging, target string
	writes, longest     atomic.Int64
	failed              atomic.Pointer[error]
	stop                context.CancelFunc
	done                chan struct{}
}

func startFSWriter(t *testing.T, driver *driverproc.Driver, dir string) *fsWriter {
	t.Helper()
	w := &fsWriter{Clients: driver.Clients, staging: filepath.Join(dir, "staging"), target: filepath.Join(dir, "target"), done: make(chan struct{})}
	if err := os.MkdirAll(w.staging, 0o755); err != nil {
		t.Fatal(err)
	}
	vc := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	res, err := w.Controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name: "writer", CapacityRange: &csi.CapacityRange{RequiredBytes: 64 << 20}, VolumeCapabilities: []*csi.VolumeCapability{vc},
	})
	w.id = res.GetVolume().GetVolumeId()
	if err == nil {
		_, err = w.Node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: w.id, StagingTargetPath: w.staging, VolumeCapability: vc})
	}
	if err == nil {
		_, err = w.Node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
			VolumeId: w.id, StagingTargetPath: w.staging, TargetPath: w.target, VolumeCapability: vc,
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, w.stop = context.WithCancel(context.Background())
	go w.run(ctx)
	return w
}

func (w *fsWriter) run(ctx context.Context) {
	defer close(w.done)
	for ctx.Err() == nil {
		begun := time.Now()
		if err := w.write(); err != nil {
			w.failed.Store(&err)
			return
		}
		w.writes.Add(1)
		w.longest.Store(max(w.longest.Load(), int64(time.Since(begun))))
		time.Sleep(20 * time.Millisecond)
	}
}

func (w *fsWriter) write() error {
	f, err := os.OpenFile(filepath.Join(w.target, "file"), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "%020d", w.writes.Load()); err != nil {
		return err
	}
	return f.Sync()
}

// check: it goes on, and has never waited for long.
func (w *fsWriter) check() error {
	if err := w.failed.Load(); err != nil {
		return fmt.Errorf("the writer: %w", *err)
	}
	for before, begun := w.writes.Load(), time.Now(); w.writes.Load() == before; time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > longestPause {
			return fmt.Errorf("the writer hangs since more than %s", longestPause)
		}
	}
	if longest := time.Duration(w.longest.Load()); longest > longestPause {
		return fmt.Errorf("a write took %s", longest)
	}
	return nil
}

func (w *fsWriter) end(t *testing.T) {
	t.Helper()
	w.stop()
	<-w.done
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := w.Node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: w.id, TargetPath: w.target})
	if err == nil {
		_, err = w.Node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: w.id, StagingTargetPath: w.staging})
	}
	if err != nil {
		t.Errorf("releasing the writer's volume: %v", err)
	}
}
