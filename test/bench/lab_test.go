//go:build lab

package bench

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/uuid"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"golang.org/x/sync/errgroup"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const (
	volumes     = 10 // the snapshots in the group are of so many
	volumeBytes = 64 << 20
)

// lab is the group that is measured, and the driver on it.
type lab struct {
	b         testing.TB
	ctx       context.Context
	vg        *labtest.Group
	driver    *driverproc.Driver
	metrics   string   // the URL
	volumes   []string // CSI ids
	snapshots []string
	stockLVM  string // LVM_SYSTEM_DIR of the commands that the driver is compared with
	recorder
}

func newLab(b testing.TB) *lab {
	b.Helper()
	vg := labtest.VolumeGroup(b, labtest.Options{
		// Room for the texts and the mappings of a thousand snapshots and more.
		ThinPool: "pool", PoolSize: "6g", PoolMetadataSize: "128m", MetadataSize: "32m",
	})
	address := freeAddress(b)
	l := &lab{
		b: b, ctx: b.Context(), vg: vg, metrics: "http://" + address + "/metrics", recorder: newRecorder(b),
		driver: driverproc.Start(b, driverproc.Options{
			Groups: []string{vg.Name},
			Flags:  []string{"--metrics-address", address, "-v=0"}, // as it is when it is installed
		}),
		stockLVM: b.TempDir(),
	}
	l.ok(writeStockLVM(l.stockLVM))
	for i := range volumes {
		id, err := l.createVolume(fmt.Sprint("volume-", i), nil)
		l.ok(err)
		l.volumes = append(l.volumes, id)
	}
	return l
}

func (l *lab) ok(err error) {
	l.b.Helper()
	if err != nil {
		l.b.Fatal(err)
	}
}

// freeAddress is one that nobody listens on.
func freeAddress(b testing.TB) string {
	b.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}

// growTo cuts snapshots of the volumes in turns until there are so many.
func (l *lab) growTo(size int) {
	l.b.Helper()
	have := len(l.snapshots)
	l.snapshots = append(l.snapshots, make([]string, size-have)...)
	var calls errgroup.Group
	calls.SetLimit(32)
	for i := have; i < size; i++ {
		calls.Go(func() (err error) {
			l.snapshots[i], err = l.createSnapshot(fmt.Sprint("snapshot-", i), l.volumes[i%volumes])
			return err
		})
	}
	l.ok(calls.Wait())
}

func (l *lab) createSnapshot(name, volume string) (id string, err error) {
	uid := uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)).String()
	res, err := l.driver.Controller.CreateSnapshot(l.ctx, &csi.CreateSnapshotRequest{
		// As external-snapshotter does it (--extra-create-metadata).
		Name: "snapshot-" + uid, SourceVolumeId: volume, Parameters: map[string]string{
			"csi.storage.k8s.io/volumesnapshot/name": name, "csi.storage.k8s.io/volumesnapshot/namespace": "benchmark",
			"csi.storage.k8s.io/volumesnapshotcontent/name": "snapcontent-" + uid,
		},
	})
	return res.GetSnapshot().GetSnapshotId(), err
}

func (l *lab) deleteSnapshot(id string) error {
	_, err := l.driver.Controller.DeleteSnapshot(l.ctx, &csi.DeleteSnapshotRequest{SnapshotId: id})
	return err
}

func (l *lab) createVolume(name string, from *csi.VolumeContentSource) (id string, err error) {
	res, err := l.driver.Controller.CreateVolume(l.ctx, &csi.CreateVolumeRequest{
		Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: volumeBytes}, VolumeContentSource: from,
		VolumeCapabilities: []*csi.VolumeCapability{{
			AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		}},
	})
	return res.GetVolume().GetVolumeId(), err
}

func (l *lab) deleteVolume(id string) error {
	_, err := l.driver.Controller.DeleteVolume(l.ctx, &csi.DeleteVolumeRequest{VolumeId: id})
	return err
}

// lv is the LV of a CSI id, as LVM's commands want it.
func (l *lab) lv(id string) string { return l.vg.Name + "/" + path.Base(id) }

// commands is how many LVM commands the driver has run, and for how long.
func (l *lab) commands() (n uint64, took time.Duration) {
	l.b.Helper()
	req, err := http.NewRequestWithContext(l.ctx, http.MethodGet, l.metrics, http.NoBody)
	l.ok(err)
	res, err := http.DefaultClient.Do(req)
	l.ok(err)
	defer res.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(res.Body)
	l.ok(err)
	for _, m := range families["lvmsnap_lvm_command_duration_seconds"].GetMetric() {
		n += m.GetHistogram().GetSampleCount()
		took += time.Duration(m.GetHistogram().GetSampleSum() * float64(time.Second))
	}
	return n, took
}

// commits is how often LVM has committed metadata of the group.
func (l *lab) commits() uint64 {
	l.b.Helper()
	n, err := strconv.ParseUint(strings.TrimSpace(labtest.Run(l.b, "vgs", "--noheadings", "-o", "vg_seqno", l.vg.Name)), 10, 64)
	l.ok(err)
	return n
}
