//go:build lab

// Package integration_test holds the tests of the real driver on real LVM: what they do they do through the
// driver's socket, as a container orchestrator would, and LVM's own commands are only used to look, or where
// the administrator is a part of the test.
package integration_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const (
	mib = int64(1) << 20
	gib = int64(1) << 30
	// volumeBytes is enough for every file system (xfs: 300 MB).
	volumeBytes = 512 * mib
	callTimeout = 60 * time.Second
)

// kind is what a volume is used as.
type kind struct {
	name  string
	block bool
}

func (k kind) capability(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	vc := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode}}
	if k.block {
		vc.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	} else {
		vc.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: k.name}}
	}
	return vc
}

var (
	block = kind{name: "block", block: true}
	ext4  = kind{name: "ext4"}
	kinds = []kind{ext4, {name: "xfs"}, {name: "btrfs"}, block}
)

const writer = csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER

// co does what a container orchestrator does, for one test. All calls must succeed but those whose errors it
// returns.
type co struct {
	*driverproc.Clients
	t      *testing.T
	vg     *labtest.Group
	driver *driverproc.Driver
	dir    string
	prefix string // of the names of its objects
}

var places atomic.Int64 // numbers staging and target directories

// newCO makes a volume group with a thin pool, and starts a driver on it.
func newCO(t *testing.T, flags ...string) *co {
	t.Helper()
	return newCOWith(t, labtest.Options{ThinPool: "pool"}, driverproc.Options{Flags: flags})
}

func newCOWith(t *testing.T, vg labtest.Options, opts driverproc.Options) *co {
	t.Helper()
	dir, err := os.MkdirTemp("", "co")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	group := labtest.VolumeGroup(t, vg)
	opts.Groups = append([]string{group.Name}, opts.Groups...)
	driver := driverproc.Start(t, opts)
	return &co{Clients: driver.Clients, t: t, vg: group, driver: driver, dir: dir}
}

// in is c for a subtest, whose objects have names of their own.
func (c *co) in(t *testing.T) *co {
	sub := *c
	sub.t, sub.prefix = t, t.Name()+"/"
	return &sub
}

func (c *co) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	c.t.Cleanup(cancel)
	return ctx
}

func (c *co) ok(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// fails checks an error's code, and that its message has all the words.
func (c *co) fails(what string, err error, code codes.Code, words ...string) {
	c.t.Helper()
	if status.Code(err) != code {
		c.t.Errorf("%s: %v, want %s", what, err, code)
		return
	}
	for _, word := range words {
		if !strings.Contains(status.Convert(err).Message(), word) {
			c.t.Errorf("%s: the message does not name %q: %v", what, word, err)
		}
	}
}

// volumeRequest is a request for a volume, which options change.
func (c *co) volumeRequest(name string, k kind, options ...func(*csi.CreateVolumeRequest)) *csi.CreateVolumeRequest {
	req := &csi.CreateVolumeRequest{
		Name:               c.prefix + name,
		CapacityRange:      &csi.CapacityRange{RequiredBytes: volumeBytes},
		VolumeCapabilities: []*csi.VolumeCapability{k.capability(writer)},
	}
	for _, option := range options {
		option(req)
	}
	return req
}

func fromSnapshot(s *csi.Snapshot) func(*csi.CreateVolumeRequest) {
	return func(req *csi.CreateVolumeRequest) {
		req.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: s.GetSnapshotId()},
		}}
		req.CapacityRange.RequiredBytes = s.GetSizeBytes()
	}
}

func fromVolume(v *csi.Volume) func(*csi.CreateVolumeRequest) {
	return func(req *csi.CreateVolumeRequest) {
		req.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: v.GetVolumeId()},
		}}
		req.CapacityRange.RequiredBytes = v.GetCapacityBytes()
	}
}

func ofSize(n int64) func(*csi.CreateVolumeRequest) {
	return func(req *csi.CreateVolumeRequest) { req.CapacityRange.RequiredBytes = n }
}

// volume makes a volume.
func (c *co) volume(name string, k kind, options ...func(*csi.CreateVolumeRequest)) *csi.Volume {
	c.t.Helper()
	res, err := c.Controller.CreateVolume(c.context(), c.volumeRequest(name, k, options...))
	c.ok(err)
	return res.GetVolume()
}

func (c *co) trySnapshot(name, volumeID string) (*csi.Snapshot, error) {
	res, err := c.Controller.CreateSnapshot(c.context(), &csi.CreateSnapshotRequest{Name: c.prefix + name, SourceVolumeId: volumeID})
	return res.GetSnapshot(), err
}

// snapshot cuts a snapshot, which must be ready.
func (c *co) snapshot(name string, v *csi.Volume) *csi.Snapshot {
	c.t.Helper()
	s, err := c.trySnapshot(name, v.GetVolumeId())
	c.ok(err)
	if !s.GetReadyToUse() || s.GetCreationTime() == nil {
		c.t.Errorf("snapshot %s is not ready: %v", name, s)
	}
	return s
}

func (c *co) deleteVolume(v *csi.Volume) {
	c.t.Helper()
	_, err := c.Controller.DeleteVolume(c.context(), &csi.DeleteVolumeRequest{VolumeId: v.GetVolumeId()})
	c.ok(err)
}

func (c *co) deleteSnapshot(s *csi.Snapshot) {
	c.t.Helper()
	_, err := c.Controller.DeleteSnapshot(c.context(), &csi.DeleteSnapshotRequest{SnapshotId: s.GetSnapshotId()})
	c.ok(err)
}

// deleteAll deletes everything that the driver lists.
func (c *co) deleteAll() { c.deleteAllBut() }

// deleteAllBut deletes everything that the driver lists, which must be all but the foreign LVs.
func (c *co) deleteAllBut(foreign ...string) {
	c.t.Helper()
	volumes, err := c.Controller.ListVolumes(c.context(), &csi.ListVolumesRequest{})
	c.ok(err)
	for _, entry := range volumes.GetEntries() {
		c.deleteVolume(entry.GetVolume())
	}
	snapshots, err := c.Controller.ListSnapshots(c.context(), &csi.ListSnapshotsRequest{})
	c.ok(err)
	for _, entry := range snapshots.GetEntries() {
		c.deleteSnapshot(entry.GetSnapshot())
	}
	slices.Sort(foreign)
	if left := c.lvs(); !slices.Equal(left, foreign) {
		c.t.Errorf("everything is deleted, and these LVs are left: %v, want %v", left, foreign)
	}
}

// lvs lists the logical volumes of the group but for its pool, as LVM knows them.
func (c *co) lvs() []string {
	c.t.Helper()
	names := strings.Fields(labtest.Run(c.t, "lvs", "--noheadings", "-o", "lv_name", c.vg.Name))
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool { return name == c.vg.ThinPool })
}

// lvOf is the logical volume behind an id; docs/adr/0001.
func lvOf(id string) string { return filepath.Base(id) }

// place is a new directory for a volume's staging and target paths.
func (c *co) place() string {
	c.t.Helper()
	dir := filepath.Join(c.dir, fmt.Sprint(places.Add(1)))
	c.ok(os.MkdirAll(filepath.Join(dir, "staging"), 0o755))
	return dir
}
