//go:build lab

package bench

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// writePlan is how much of writing is measured.
type writePlan struct {
	rounds    int
	snapshots []int
	large     int // writes of 64 KiB, one after the other
	small     int // writes of 4 KiB, anywhere
}

var (
	fullWrites  = writePlan{rounds: 5, snapshots: []int{0, 1, 4, 8}, large: 2048, small: 2048}
	shortWrites = writePlan{rounds: 1, snapshots: []int{0, 1, 4, 8}, large: 256, small: 256}
)

const (
	writtenBytes = 256 << 20
	largeBytes   = 64 << 10
	typeRaw      = "raw"
)

// BenchmarkWrites measures what snapshots cost those who write to their volume, thin and thick, beside an LV that LVM made and
// that has none. Each write is the first one to its place since the snapshots were cut: that is what costs.
func BenchmarkWrites(b *testing.B) {
	p := fullWrites
	if *quick {
		p = shortWrites
	}
	vg := labtest.VolumeGroup(b, labtest.Options{ThinPool: "pool", PoolSize: "3g", PoolMetadataSize: "16m"})
	l := &lab{
		b: b, ctx: b.Context(), vg: vg, recorder: newRecorder(b),
		driver: driverproc.Start(b, driverproc.Options{Groups: []string{vg.Name}, Flags: []string{"-v=0"}}),
	}
	labtest.Run(b, "lvcreate", "--yes", "--name", typeRaw, "--size", fmt.Sprint(writtenBytes, "b"), vg.Name)
	b.Cleanup(func() { labtest.Run(b, "lvremove", "--yes", vg.Name+"/"+typeRaw) })
	volumes := []*written{{kind: typeRaw, device: vg.Device(typeRaw)}, l.written("thin"), l.written("thick")}
	for _, v := range volumes {
		l.ok(v.fill())
	}
	for round := range p.rounds {
		order := slices.Clone(volumes)
		if round%2 == 1 { // being the first or the last is no advantage
			slices.Reverse(order)
		}
		for _, v := range order {
			for _, n := range p.snapshots {
				if n > 0 && v.kind == typeRaw {
					continue
				}
				l.measureWrites(v, n, "sequential64k", p.large, largeBytes)
				l.measureWrites(v, n, "random4k", p.small, blockBytes)
			}
		}
	}
	for _, v := range volumes {
		if v.release != nil {
			v.release()
		}
	}
	b.ReportMetric(0, "ns/op")
}

// written is a volume that is written to.
type written struct {
	kind, id, device string
	release          func()
}

// written makes a volume and publishes it.
func (l *lab) written(kind string) *written {
	l.b.Helper()
	capability := &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
	req := &csi.CreateVolumeRequest{
		Name: "written-" + kind, CapacityRange: &csi.CapacityRange{RequiredBytes: writtenBytes},
		Parameters: map[string]string{"type": kind}, VolumeCapabilities: []*csi.VolumeCapability{capability},
	}
	res, err := l.driver.Controller.CreateVolume(l.ctx, req)
	for status.Code(err) == codes.Aborted { // it is being zeroed
		res, err = l.driver.Controller.CreateVolume(l.ctx, req)
	}
	l.ok(err)
	w := &written{kind: kind, id: res.GetVolume().GetVolumeId()}
	dir := l.b.TempDir()
	staging, target := filepath.Join(dir, "staging"), filepath.Join(dir, "target")
	_, err = l.driver.Node.NodeStageVolume(l.ctx, &csi.NodeStageVolumeRequest{VolumeId: w.id, StagingTargetPath: staging, VolumeCapability: capability})
	l.ok(err)
	_, err = l.driver.Node.NodePublishVolume(l.ctx, &csi.NodePublishVolumeRequest{
		VolumeId: w.id, StagingTargetPath: staging, TargetPath: target, VolumeCapability: capability,
	})
	l.ok(err)
	w.device = target
	w.release = func() {
		_, unpublish := l.driver.Node.NodeUnpublishVolume(l.ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: w.id, TargetPath: target})
		_, unstage := l.driver.Node.NodeUnstageVolume(l.ctx, &csi.NodeUnstageVolumeRequest{VolumeId: w.id, StagingTargetPath: staging})
		l.ok(errors.Join(unpublish, unstage, l.deleteVolume(w.id)))
	}
	return w
}

// fill gives the volume all of its blocks: what is measured is not the first use of a thin volume.
func (w *written) fill() error {
	offsets := make([]int64, writtenBytes/(1<<20))
	for i := range offsets {
		offsets[i] = int64(i) << 20
	}
	_, err := w.write(offsets, 1<<20)
	return err
}

// measureWrites cuts the snapshots, writes, and deletes them.
func (l *lab) measureWrites(w *written, snapshots int, op string, writes, bytes int) {
	l.b.Helper()
	var ids []string
	for i := range snapshots {
		id, err := l.createSnapshot(fmt.Sprint("written-", w.kind, "-", i), w.id)
		l.ok(err)
		ids = append(ids, id)
	}
	offsets := make([]int64, writes)
	for i := range offsets {
		offsets[i] = int64(i) * int64(bytes)
	}
	if op == "random4k" {
		places := rand.New(rand.NewPCG(1, uint64(snapshots))).Perm(writtenBytes / bytes) //nolint:gosec // the same for all types
		for i := range offsets {
			offsets[i] = int64(places[i]) * int64(bytes)
		}
	}
	took, err := w.write(offsets, bytes)
	l.ok(err)
	for _, id := range ids {
		l.ok(l.deleteSnapshot(id))
	}
	l.write(fmt.Sprintf("Write/op=%s/type=%s/snapshots=%d", op, w.kind, snapshots), writes,
		values{}.nanoseconds("ns/op", took/time.Duration(writes)).number("MB/s", float64(writes*bytes)/1e6/took.Seconds()))
}

// write writes one block after the other, past the page cache, and flushes the disk at the end.
func (w *written) write(offsets []int64, bytes int) (took time.Duration, err error) {
	f, err := os.OpenFile(w.device, os.O_WRONLY|unix.O_DIRECT, 0)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	// O_DIRECT wants aligned memory.
	block, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unix.Munmap(block)) }()
	for i := range block {
		block[i] = byte(i) // something else than zeroes
	}
	start := time.Now()
	for _, offset := range offsets {
		if _, err := f.WriteAt(block, offset); err != nil {
			return 0, err
		}
	}
	err = f.Sync()
	return time.Since(start), err
}
