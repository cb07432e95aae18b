//go:build lab

package bench

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// BenchmarkCallers is what a node bears: so many callers at once, each cutting a snapshot of the same volume.
// op-ms is the time of all divided by their number; latencies are from the callers' point of view.
func BenchmarkCallers(b *testing.B) {
	for _, callers := range []int{1, 8, 32} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) { benchmarkCallers(b, callers) })
	}
}

func benchmarkCallers(b *testing.B, callers int) {
	vg := labtest.VolumeGroup(b, labtest.Options{ThinPool: "pool", PoolSize: "2g", PoolMetadataSize: "64m", MetadataSize: "16m"})
	d := driverproc.Start(b, driverproc.Options{Groups: []string{vg.Name}})
	ctx := context.Background()
	volume := createVolume(ctx, b, d)
	var perOperation, latencies []time.Duration
	for round := 0; b.Loop(); round++ {
		took := make([]time.Duration, callers)
		ids := make([]string, callers)
		errs := make([]error, callers)
		var all sync.WaitGroup
		wall := timed(func() {
			for i := range callers {
				all.Go(func() {
					took[i] = timed(func() {
						var res *csi.CreateSnapshotResponse
						res, errs[i] = d.Controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{
							Name: fmt.Sprint("s", round, "-", i), SourceVolumeId: volume,
						})
						ids[i] = res.GetSnapshot().GetSnapshotId()
					})
				})
			}
			all.Wait()
		})
		for i, err := range errs {
			if err == nil {
				_, err = d.Controller.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: ids[i]})
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		perOperation = append(perOperation, wall/time.Duration(callers))
		latencies = append(latencies, took...)
	}
	slices.Sort(latencies)
	milliseconds := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	b.ReportMetric(milliseconds(median(perOperation)), "op-ms")
	b.ReportMetric(milliseconds(median(latencies)), "latency-median-ms")
	b.ReportMetric(milliseconds(latencies[len(latencies)*99/100]), "latency-p99-ms")
	b.ReportMetric(0, "ns/op")
}
