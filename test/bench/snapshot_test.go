//go:build lab

// Package bench measures the driver beside the raw commands, in one run and in turns: what the machine does
// meanwhile hits both. Ratios travel between machines, milliseconds do not.
package bench

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const volumeBytes = 64 << 20

// BenchmarkCreateSnapshot compares CreateSnapshot and DeleteSnapshot through gRPC with `lvcreate -s` and
// `lvremove` by exec, with few and many snapshots in the group.
func BenchmarkCreateSnapshot(b *testing.B) {
	for _, present := range []int{0, 100} {
		b.Run(fmt.Sprintf("snapshots=%d", present), func(b *testing.B) { benchmarkSnapshots(b, present) })
	}
}

func benchmarkSnapshots(b *testing.B, present int) {
	vg := labtest.VolumeGroup(b, labtest.Options{ThinPool: "pool", PoolSize: "2g", PoolMetadataSize: "64m", MetadataSize: "16m"})
	d := driverproc.Start(b, driverproc.Options{Groups: []string{vg.Name}})
	ctx := context.Background()
	volume := createVolume(ctx, b, d)
	cut := func(name string) string {
		res, err := d.Controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume})
		if err != nil {
			b.Fatal(err)
		}
		return res.GetSnapshot().GetSnapshotId()
	}
	for i := range present {
		cut(fmt.Sprint("present-", i))
	}
	labtest.Run(b, "lvcreate", "--type", "thin", "--virtualsize", "64m", "--name", "raw", "--thinpool", vg.Name+"/pool")
	var grpcCreate, execCreate, grpcDelete, execDelete []time.Duration
	for i := 0; b.Loop(); i++ {
		name, raw := fmt.Sprint("s", i), fmt.Sprintf("%s/raw%d", vg.Name, i)
		var id string
		grpcCreate = append(grpcCreate, timed(func() { id = cut(name) }))
		execCreate = append(execCreate, timed(func() {
			labtest.Run(b, "lvcreate", "--snapshot", "--name", fmt.Sprint("raw", i), "--permission", "r", vg.Name+"/raw")
		}))
		grpcDelete = append(grpcDelete, timed(func() {
			if _, err := d.Controller.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: id}); err != nil {
				b.Fatal(err)
			}
		}))
		execDelete = append(execDelete, timed(func() { labtest.Run(b, "lvremove", "--yes", raw) }))
	}
	report(b, "create", grpcCreate, execCreate)
	report(b, "delete", grpcDelete, execDelete)
	b.ReportMetric(0, "ns/op") // the sum of four things means nothing
}

func createVolume(ctx context.Context, b *testing.B, d *driverproc.Driver) string {
	res, err := d.Controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name: "v", CapacityRange: &csi.CapacityRange{RequiredBytes: volumeBytes},
		VolumeCapabilities: []*csi.VolumeCapability{{
			AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		}},
	})
	if err != nil {
		b.Fatal(err)
	}
	return res.GetVolume().GetVolumeId()
}

func timed(fn func()) time.Duration {
	start := time.Now()
	fn()
	return time.Since(start)
}

// report gives medians, and the median of the ratios of what was measured side by side.
func report(b *testing.B, what string, ours, theirs []time.Duration) {
	ratios := make([]float64, len(ours))
	for i := range ours {
		ratios[i] = float64(ours[i]) / float64(theirs[i])
	}
	b.ReportMetric(float64(median(ours).Microseconds())/1000, what+"-grpc-ms")
	b.ReportMetric(float64(median(theirs).Microseconds())/1000, what+"-exec-ms")
	b.ReportMetric(median(ratios), what+"-ratio")
}

func median[T interface{ ~int64 | ~float64 }](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
