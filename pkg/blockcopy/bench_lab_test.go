//go:build lab

package blockcopy

import (
	"slices"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// BenchmarkCopy copies from one disk to another beside dd with several block sizes, in one run and in turns; both have
// to be durable in the end. Ratios are medians of those within a round: ours/dd above 1 means faster than the dd that
// was best in that round.
//
// The sparse ones are larger: to look for zeroes touches every page of the buffers for the first time, which costs
// 0.2 to 0.3 ms each in User Mode Linux, 4096 times a Copy, and next to nothing elsewhere.
func BenchmarkCopy(b *testing.B) {
	for _, data := range []struct {
		name        string
		size, bytes int
	}{{"data=100%", 256 * mib, 256 * mib}, {"data=10%", 1024 * mib, 102 * mib}} {
		b.Run(data.name+"/onto=thick", func(b *testing.B) { benchmarkCopy(b, data.size, data.bytes, false) })
		b.Run(data.name+"/onto=thin", func(b *testing.B) { benchmarkCopy(b, data.size, data.bytes, true) })
	}
}

func benchmarkCopy(b *testing.B, size, dataBytes int, ontoThin bool) {
	from := labtest.VolumeGroup(b, labtest.Options{})
	to := labtest.VolumeGroup(b, labtest.Options{ThinPool: "pool", PoolSize: "2g", PoolMetadataSize: "8m", ChunkSize: "64k"})
	source := thick(b, from, "source", size)
	if _, err := Zero(b.Context(), source, Options{}); err != nil {
		b.Fatal(err)
	}
	fill(b, source, 0, dataBytes, 1)
	destination := to.Device("destination")
	timed := func(fn func()) time.Duration {
		if ontoThin { // new for everyone
			thin(b, to, "destination", size)
			defer labtest.Run(b, "lvremove", "-y", to.Name+"/destination")
		}
		start := time.Now()
		fn()
		return time.Since(start)
	}
	if !ontoThin {
		thick(b, to, "destination", size)
		fill(b, destination, 0, size, 2)
	}

	blocks := []string{"256k", "1M", "4M", "16M"}
	ours, dd := []time.Duration{}, make([][]time.Duration, len(blocks))
	var ratios []float64
	for b.Loop() {
		copied := timed(func() {
			req := Request{Source: source, Destination: destination, SizeBytes: int64(size), DestinationZeroed: ontoThin}
			if _, err := Copy(b.Context(), req, Options{}); err != nil {
				b.Fatal(err)
			}
		})
		ours = append(ours, copied)
		best := time.Duration(1<<63 - 1)
		for i, bs := range blocks {
			took := timed(func() {
				labtest.Run(b, "dd", "status=none", "if="+source, "of="+destination, "bs="+bs, "iflag=direct", "oflag=direct", "conv=fsync,notrunc")
			})
			dd[i], best = append(dd[i], took), min(best, took)
		}
		ratios = append(ratios, float64(best)/float64(copied))
	}
	rate := func(took []time.Duration) float64 { return float64(size) / 1e6 / median(took).Seconds() }
	b.ReportMetric(rate(ours), "copy-MB/s")
	for i, bs := range blocks {
		b.ReportMetric(rate(dd[i]), "dd-"+bs+"-MB/s")
	}
	b.ReportMetric(median(ratios), "ours/dd")
	b.ReportMetric(0, "ns/op") // the sum of five things means nothing
}

func median[T interface{ ~int64 | ~float64 }](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
