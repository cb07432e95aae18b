//go:build lab

package bench

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/blockcopy"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// ddBlocks are the block sizes of dd, the best of which counts.
var ddBlocks = []string{"256k", "1M", "4M", "16M"}

// BenchmarkCopy copies from one disk to another with pkg/blockcopy, which is what a restore of a thick snapshot waits for, beside
// dd with several block sizes, in turns; all have to be durable in the end.
//
// They are large, because there are costs of a copy that do not grow with it: dd has to be started, and to look for zeroes touches
// every page of the buffers for the first time, which takes 0.2 to 0.3 ms each in User Mode Linux, 4096 times a copy.
func BenchmarkCopy(b *testing.B) {
	rounds, bytes := 5, int64(1<<30)
	if *quick {
		rounds, bytes = 1, 128<<20
	}
	r := newRecorder(b)
	for _, percent := range []int{100, 10} {
		for _, onto := range []string{"thick", "thin"} {
			measureCopy(b, &r, rounds, percent, bytes, onto)
		}
	}
	b.ReportMetric(0, "ns/op")
}

func measureCopy(b *testing.B, r *recorder, rounds, percent int, bytes int64, onto string) {
	b.Run(fmt.Sprintf("onto=%s/data=%d", onto, percent), func(b *testing.B) {
		from := labtest.VolumeGroup(b, labtest.Options{})
		to := labtest.VolumeGroup(b, labtest.Options{ThinPool: "pool", PoolSize: "2g", PoolMetadataSize: "8m", ChunkSize: "64k"})
		size := fmt.Sprint(bytes, "b")
		labtest.Run(b, "lvcreate", "--yes", "--name", "source", "--size", size, from.Name)
		source, destination := from.Device("source"), to.Device("destination")
		fail := func(err error) {
			if err != nil {
				b.Fatal(err)
			}
		}
		_, err := blockcopy.Zero(b.Context(), source, blockcopy.Options{})
		fail(err)
		fail(writeNoise(source, bytes/100*int64(percent)))
		if onto == "thick" {
			labtest.Run(b, "lvcreate", "--yes", "--name", "destination", "--size", size, to.Name)
			fail(writeNoise(destination, bytes))
		}
		timed := func(via string, work func() error) {
			if onto == "thin" { // new for everyone
				labtest.Run(b, "lvcreate", "--yes", "--name", "destination", "--virtualsize", size, "--thinpool", "pool", to.Name)
				defer labtest.Run(b, "lvremove", "--yes", to.Name+"/destination")
			}
			start := time.Now()
			err := work()
			took := time.Since(start)
			fail(err)
			r.write(fmt.Sprintf("Copy/onto=%s/data=%d/via=%s", onto, percent, via), 1,
				values{}.nanoseconds("ns/op", took).number("MB/s", float64(bytes)/1e6/took.Seconds()))
		}
		for range rounds {
			timed("lvmsnap", func() error {
				_, err := blockcopy.Copy(b.Context(), blockcopy.Request{
					Source: source, Destination: destination, SizeBytes: bytes, DestinationZeroed: onto == "thin",
				}, blockcopy.Options{})
				return err
			})
			for _, bs := range ddBlocks {
				timed("dd-"+bs, func() error {
					labtest.Run(b, "dd", "status=none", "if="+source, "of="+destination, "bs="+bs, "iflag=direct", "oflag=direct", "conv=fsync,notrunc")
					return nil
				})
			}
		}
		b.ReportMetric(0, "ns/op")
	})
}

// writeNoise overwrites the begin of a device with what cannot be compressed.
func writeNoise(device string, bytes int64) error {
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyN(f, rand.NewChaCha8([32]byte{}), bytes); err != nil {
		return err
	}
	return f.Sync()
}
