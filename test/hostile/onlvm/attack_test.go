//go:build lab

// Package onlvm_test sends the requests of test/hostile to the real driver on real LVM, and looks at every command line that comes of them.
package onlvm_test

import (
	"context"
	"crypto/sha256"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/internal/requests"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

var (
	calls = flag.Int("calls", 300, "how many requests")
	seed  = flag.Uint64("seed", 1, "of the requests; 0: another each time")
)

const (
	mib            = int64(1) << 20
	metricsAddress = "127.0.0.1:9471"
	callTimeout    = 20 * time.Second
	patience       = 2 * time.Minute
)

// attack is the driver, with something in its group that must survive.
type attack struct {
	*testing.T
	vg      *labtest.Group
	driver  *driverproc.Driver
	conn    *grpc.ClientConn
	spy     *spy
	dir     string // kubelet's
	strings []string
	right   []proto.Message
	seen    map[codes.Code]int
}

// TestRandomRequests: nothing panics, LVM and other programs are given nothing of a request that was not validated, what is not the
// driver's survives, nothing is mounted outside of kubelet's directory, and in the end the group is as it was.
func TestRandomRequests(t *testing.T) {
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano()) % 1_000_000_000
	}
	fmt.Printf("seed: -seed=%d\n", *seed)
	a := newAttack(t)
	lvs, mounts, theirs := a.lvs(), a.mounts(false), a.theirs()
	a.prepare()
	a.spy.take() // what a start does

	began, n := time.Now(), 0
	for s := *seed; n < *calls; s++ {
		m := requests.Maker{Data: requests.RandomBytes(s), Strings: a.strings, Right: a.right}
		for ; n < *calls; n++ {
			method, req, ok := m.Next(requests.Methods())
			if !ok {
				break
			}
			ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
			err := requests.Call(ctx, a.conn, method, req)
			cancel()
			a.seen[status.Code(err)]++
			if n%200 == 199 {
				fmt.Printf("%d requests, seed %d, %s: %v\n", n+1, s, time.Since(began).Round(time.Second), a.seen)
			}
			if code := status.Code(err); code == codes.Unknown || code == codes.Internal && !strings.Contains(err.Error(), "mount ") {
				t.Errorf("seed %d, %s %v: %v", s, method.Name(), req, err)
			}
			for _, err := range a.spy.check(a.vg.Name, a.dir) {
				t.Errorf("seed %d, %s %v: %v", s, method.Name(), req, err)
			}
		}
	}
	took := time.Since(began)
	a.noPanic()
	a.putBack()
	for _, err := range a.spy.check(a.vg.Name, a.dir) {
		t.Errorf("afterwards: %v", err)
	}
	if got := a.mounts(false); !slices.Equal(got, mounts) {
		t.Errorf("mounts outside of kubelet's directory: %q, and before %q", got, mounts)
	}
	if got := a.theirs(); got != theirs {
		t.Errorf("the content of what is not the driver's has changed: %s, and before %s", got, theirs)
	}
	a.eventually("the group is as it was", func() error {
		if got := a.lvs(); !slices.Equal(got, lvs) {
			return fmt.Errorf("LVs: %v, and before %v", got, lvs)
		}
		return nil
	})
	labtest.Run(t, "vgck", a.vg.Name)
	if strings.Contains(labtest.Run(t, "dmsetup", "info", "--columns", "--noheadings", "-o", "suspended"), "Suspended") {
		t.Error("a device is suspended")
	}
	t.Logf("%d requests in %s from seed %d, %d LVM commands, %d other programs; answers: %v", n, took.Round(time.Second), *seed, a.spy.commands, a.spy.programs, a.seen)
	if a.seen[codes.OK] == 0 || a.seen[codes.InvalidArgument] == 0 || a.spy.commands == 0 {
		t.Error("the requests do not get far")
	}
}

func newAttack(t *testing.T) *attack {
	dir, err := os.MkdirTemp("", "kubelet")
	a := &attack{T: t, dir: dir, spy: newSpy(t), seen: map[codes.Code]int{}}
	a.ok(err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	a.vg = labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool", PoolSize: "1g"})
	labtest.Run(t, "lvcreate", "--yes", "--name", "theirs", "--size", "4m", a.vg.Name)
	labtest.Run(t, "lvcreate", "--yes", "--type", "thin", "--thinpool", "pool", "--name", "csi-v-theirs", "--virtualsize", "8m", a.vg.Name)
	for _, name := range []string{"theirs", "csi-v-theirs"} {
		labtest.Run(t, "dd", "if=/dev/urandom", "of="+a.vg.Device(name), "bs=1M", "count=4", "conv=fsync", "status=none")
	}
	a.driver = driverproc.Start(t, driverproc.Options{
		Groups: []string{a.vg.Name}, Env: []string{"PATH=" + a.spy.dir + ":" + os.Getenv("PATH")},
		Flags: []string{"--kubelet-dir", dir, "--metrics-address", metricsAddress},
	})
	a.conn, err = grpc.NewClient("unix://"+a.driver.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	a.ok(err)
	t.Cleanup(func() { _ = a.conn.Close() })
	return a
}

func (a *attack) ok(err error) {
	a.Helper()
	if err != nil {
		a.Fatal(err)
	}
}

// prepare makes what the requests can name.
func (a *attack) prepare() {
	a.Helper()
	ctx, cancel := context.WithTimeout(a.Context(), time.Minute)
	defer cancel()
	ext4 := &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
	rsp, err := a.driver.Controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name: "v", CapacityRange: &csi.CapacityRange{RequiredBytes: 16 * mib}, VolumeCapabilities: []*csi.VolumeCapability{ext4},
	})
	a.ok(err)
	volume := rsp.GetVolume().GetVolumeId()
	cut, err := a.driver.Controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: volume})
	a.ok(err)
	a.right = requests.Objects{Volume: volume, Snapshot: cut.GetSnapshot().GetSnapshotId(), Dir: a.dir, Capability: ext4}.Right()
	a.ok(os.Mkdir(a.dir+"/staging", 0o750))
	a.strings = slices.Concat(requests.Nasty, requests.Known, requests.Volumes(volume), []string{a.vg.Name, driverproc.NodeID})
	for range 8 { // they are to be met
		a.strings = append(a.strings, volume, cut.GetSnapshot().GetSnapshotId(), a.dir+"/staging", a.dir+"/target", "v", "s")
	}
}

func (a *attack) lvs() []string {
	a.Helper()
	return strings.Fields(labtest.Run(a.T, "lvs", "--all", "--noheadings", "--options", "lv_name", "--sort", "lv_name", a.vg.Name))
}

// theirs is what is in the LVs that are not the driver's.
func (a *attack) theirs() string {
	a.Helper()
	out := ""
	for _, name := range []string{"theirs", "csi-v-theirs"} {
		content, err := os.ReadFile(a.vg.Device(name))
		a.ok(err)
		out += fmt.Sprintf("%x ", sha256.Sum256(content))
	}
	return out
}

// mounts are the places where something is mounted, in kubelet's directory or outside.
func (a *attack) mounts(inside bool) []string {
	a.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	a.ok(err)
	var out []string
	for line := range strings.Lines(string(table)) {
		if path := strings.Fields(line)[4]; strings.HasPrefix(path, a.dir+"/") == inside {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out
}

func (a *attack) noPanic() {
	a.Helper()
	res, err := http.Get("http://" + metricsAddress + "/metrics")
	a.ok(err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	a.ok(err)
	if !strings.Contains(string(text), "\nlvmsnap_panics_total 0\n") {
		a.Errorf("a handler panicked:\n%s", a.driver.Log())
	}
}

func (a *attack) eventually(what string, check func() error) {
	a.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			a.Fatalf("%s: %v", what, err)
		}
	}
}

// putBack deletes all that there is, as a CO would.
func (a *attack) putBack() {
	a.Helper()
	c := a.driver.Clients
	a.eventually("all is deleted", func() error {
		ctx, cancel := context.WithTimeout(a.Context(), callTimeout)
		defer cancel()
		snapshots, err := c.Controller.ListSnapshots(ctx, &csi.ListSnapshotsRequest{})
		if err != nil {
			return err
		}
		for _, e := range snapshots.GetEntries() {
			if _, err := c.Controller.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: e.GetSnapshot().GetSnapshotId()}); err != nil {
				return err
			}
		}
		volumes, err := c.Controller.ListVolumes(ctx, &csi.ListVolumesRequest{})
		if err != nil {
			return err
		}
		for _, e := range volumes.GetEntries() {
			if err := a.release(ctx, e.GetVolume().GetVolumeId()); err != nil {
				return err
			}
		}
		if left := a.mounts(true); len(left) > 0 {
			return fmt.Errorf("still mounted: %v", left)
		}
		return nil
	})
}

func (a *attack) release(ctx context.Context, id string) error {
	node := a.driver.Node
	for _, path := range a.mounts(true) {
		if filepath.Base(path) == "staging" {
			continue
		}
		if _, err := node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: path}); err != nil {
			return err
		}
	}
	for _, path := range []string{a.dir + "/staging", a.dir + "/target"} {
		if _, err := node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: path}); err != nil {
			return err
		}
	}
	_, err := a.driver.Controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
	return err
}
