//go:build monitoring

package monitoring_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// recorded is how long TestRecording records. Prometheus needs the time, not the driver.
const recorded = 4 * time.Minute

// TestRecording makes what the picture of docs/how-to/monitor.md shows (make screenshot): four minutes of a database that is
// written to and snapshotted, with a pool that fills and grows, old snapshots that are deleted, a volume that is zeroed, a copy,
// and a COW that grows. MONITORING_KEEP says where to.
func TestRecording(t *testing.T) {
	if os.Getenv(envKeep) == "" {
		t.Fatal(envKeep + " is not set: make screenshot")
	}
	vg := labtest.VolumeGroup(t, labtest.Options{Name: "data", ThinPool: "pool", PoolSize: "320m", PoolMetadataSize: "8m"})
	n := node{driverproc.Start(t, driverproc.Options{Groups: []string{vg.Name}, Flags: []string{
		"--metrics-address", driverAddress, "--pool-autoextend-threshold=80", "--copy-rate-limit=4Mi", "--overprovision-ratio=20",
	}}), t}
	startPrometheus(t)
	story := &story{n: n, vg: vg.Name, begin: time.Now()}

	var together sync.WaitGroup
	defer together.Wait()
	thin := n.staged("orders", 512*mib, map[string]string{"thinPool": "pool"})
	together.Go(func() { story.database(thin) })
	together.Go(story.archive)
	story.until(recorded)
}

// story is what happens, and when.
type story struct {
	n     node
	vg    string
	begin time.Time
}

// until waits for a moment of the story.
func (s *story) until(at time.Duration) { time.Sleep(time.Until(s.begin.Add(at))) }

func (s *story) write(volume string, megabytes, offset int) {
	out := "of=/dev/" + s.vg + "/" + filepath.Base(volume)
	labtest.Run(s.n.t, "dd", "if=/dev/urandom", out, "bs=1M", fmt.Sprintf("count=%d", megabytes), fmt.Sprintf("seek=%d", offset), "conv=fsync,notrunc", "status=none")
}

// database writes 12 MiB and takes a snapshot every 8 s, and restores one now and then; in the middle the older of the
// snapshots are deleted.
func (s *story) database(volume string) {
	var snapshots []string
	for i := 0; time.Since(s.begin) < recorded-12*time.Second; i++ {
		s.write(volume, 12, i*12%480)
		snapshots = append(snapshots, s.cut(fmt.Sprintf("hourly-%d", i), volume, nil))
		if i%9 == 8 {
			s.restore(fmt.Sprintf("test-%d", i), snapshots[len(snapshots)-1], 512*mib)
		}
		if i == 18 {
			for _, old := range snapshots[:12] {
				s.remove(old)
			}
			snapshots = snapshots[12:]
		}
		s.until(time.Duration(i+1) * 8 * time.Second)
	}
}

// archive is a thick volume: zeroed, snapshotted with a small COW that grows as it is written to, and copied to a thin one.
func (s *story) archive() {
	s.until(10 * time.Second)
	thick := s.n.staged("archive", 160*mib, map[string]string{"type": "thick"})
	s.write(thick, 160, 0)
	snapshot := s.cut("archive-monday", thick, map[string]string{"cowSize": "20%"})
	for i := range 4 {
		s.write(thick, 8, i*8)
	}
	s.until(100 * time.Second)
	s.restore("archive-restored", snapshot, 160*mib)
}

// restore into the pool; what is not there yet is asked for again, as a provisioner does it.
func (s *story) restore(name, snapshot string, bytes int64) {
	eventually(s.n.t, func() (bool, string) {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, err := s.n.Controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
			Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: bytes}, Parameters: map[string]string{"type": "thin", "thinPool": "pool"},
			VolumeCapabilities: []*csi.VolumeCapability{blockVolume},
			VolumeContentSource: &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
				Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: snapshot},
			}},
		})
		if err != nil && status.Code(err) != codes.Aborted {
			s.n.t.Error(err)
			return true, ""
		}
		return err == nil, fmt.Sprint(err)
	})
}

func (s *story) cut(name, volume string, parameters map[string]string) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rsp, err := s.n.Controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume, Parameters: parameters})
	if err != nil {
		s.n.t.Error(err)
	}
	return rsp.GetSnapshot().GetSnapshotId()
}

func (s *story) remove(snapshot string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := s.n.Controller.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: snapshot}); err != nil {
		s.n.t.Error(err)
	}
}
