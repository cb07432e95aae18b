//go:build systemd

// Package systemd_test runs the Debian package's service under a real systemd, in the lab (make deb-test).
package systemd_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const (
	unit     = "lvmsnap.service"
	socket   = "/run/lvmsnap/csi.sock"
	defaults = "/etc/default/lvmsnap"
	envDeb   = "LVMSNAP_DEB"
	patience = 2 * time.Minute
	gib      = int64(1) << 30
)

func eventually(t *testing.T, fn func() (done bool, what string)) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		done, what := fn()
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// state is what systemd says of the unit.
type state struct {
	active, sub, result string
	pid, restarts       int
}

func show(t *testing.T) state {
	t.Helper()
	said := map[string]string{}
	for line := range strings.Lines(labtest.Run(t, "systemctl", "show", unit)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		said[key] = value
	}
	number := func(key string) int {
		n, err := strconv.Atoi(said[key])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return state{said["ActiveState"], said["SubState"], said["Result"], number("MainPID"), number("NRestarts")}
}

// wantRunning says that the unit is active, and with another process than before.
func wantRunning(t *testing.T, before int) state {
	t.Helper()
	s := show(t)
	if s.active != "active" || s.sub != "running" || s.pid == 0 || s.pid == before {
		t.Fatalf("%+v, and its process was %d", s, before)
	}
	return s
}

func configure(t *testing.T, arguments string) {
	t.Helper()
	if err := os.WriteFile(defaults, []byte(fmt.Sprintf("LVMSNAP_ARGS=%q\n", arguments)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// failing runs a command that must fail.
func failing(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err == nil {
		t.Fatalf("%v did not fail: %s", argv, out)
	}
}

var ext4 = &csi.VolumeCapability{
	AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
}

// client calls the service.
type client struct {
	*driverproc.Clients
	t *testing.T
}

func must[T any](c client, call func(context.Context) (T, error)) T {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rsp, err := call(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	return rsp
}

// mounted makes a volume, of a snapshot if there is one, and mounts it.
func (c client) mounted(name, snapshot string) (target string, id string) {
	c.t.Helper()
	req := &csi.CreateVolumeRequest{Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: gib}, VolumeCapabilities: []*csi.VolumeCapability{ext4}}
	if snapshot != "" {
		req.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: snapshot},
		}}
	}
	id = must(c, func(ctx context.Context) (*csi.CreateVolumeResponse, error) {
		return c.Controller.CreateVolume(ctx, req)
	}).GetVolume().GetVolumeId()
	staging := c.t.TempDir()
	target = filepath.Join(c.t.TempDir(), "target")
	must(c, func(ctx context.Context) (*csi.NodeStageVolumeResponse, error) {
		return c.Node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: staging, VolumeCapability: ext4})
	})
	must(c, func(ctx context.Context) (*csi.NodePublishVolumeResponse, error) {
		return c.Node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
			VolumeId: id, StagingTargetPath: staging, TargetPath: target, VolumeCapability: ext4,
		})
	})
	c.t.Cleanup(func() { _, _ = unix.Unmount(target, 0), unix.Unmount(staging, 0) })
	return target, id
}

func (c client) snapshot(name, volume string) string {
	c.t.Helper()
	return must(c, func(ctx context.Context) (*csi.CreateSnapshotResponse, error) {
		return c.Controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume})
	}).GetSnapshot().GetSnapshotId()
}

func write(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "orders"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	unix.Sync()
}

func wantText(t *testing.T, dir, want string) {
	t.Helper()
	if got, err := os.ReadFile(filepath.Join(dir, "orders")); err != nil || string(got) != want {
		t.Fatalf("%s has %q, %v, want %q", dir, got, err, want)
	}
}

// TestService: from the installation of the package to its removal.
func TestService(t *testing.T) {
	deb := os.Getenv(envDeb)
	if deb == "" {
		t.Fatal(envDeb + " is not set: make deb-test")
	}
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := exec.Command("journalctl", "--no-pager", "--lines", "100", "--unit", unit).CombinedOutput()
			t.Logf("the journal:\n%s", out)
		}
	})
	labtest.Run(t, "dpkg", "--install", deb)
	if s := show(t); s.active != "inactive" {
		t.Fatalf("after the installation: %+v", s)
	}

	// Told of no group: the command line is wrong, and trying again does not help.
	failing(t, "systemctl", "start", unit)
	if s := show(t); s.active != "failed" || s.restarts != 0 {
		t.Fatalf("with a wrong command line: %+v", s)
	}
	// A group that is not there yet: it is tried again until it is.
	configure(t, "--volume-group=later --node-id=node-1")
	failing(t, "systemctl", "start", unit)
	vg := labtest.VolumeGroup(t, labtest.Options{Name: "later", ThinPool: "pool"})
	eventually(t, func() (bool, string) {
		s := show(t)
		return s.active == "active", fmt.Sprintf("with a group that came later: %+v", s)
	})
	labtest.Run(t, "systemctl", "stop", unit)

	// start returns when the driver serves (Type=notify), and a call makes a snapshot of what is in use.
	labtest.Run(t, "systemctl", "enable", "--now", unit)
	first := wantRunning(t, 0)
	c := client{driverproc.Connect(t, socket), t}
	must(c, func(ctx context.Context) (*csi.ProbeResponse, error) {
		return c.Identity.Probe(ctx, &csi.ProbeRequest{})
	})
	orders, volume := c.mounted("orders", "")
	write(t, orders, "100 orders") // what it mounts, others see
	snapshot := c.snapshot("monday", volume)
	write(t, orders, "all gone")

	// A new process, the same volumes.
	labtest.Run(t, "systemctl", "restart", unit)
	second := wantRunning(t, first.pid)
	write(t, orders, "still there")
	restored, _ := c.mounted("restored", snapshot)
	wantText(t, restored, "100 orders")

	// Killed, it comes back by itself.
	if err := unix.Kill(second.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() (bool, string) {
		s := show(t)
		return s.active == "active" && s.pid != second.pid && s.restarts == 1, fmt.Sprintf("killed: %+v", s)
	})
	again, _ := c.mounted("restored-again", snapshot)
	wantText(t, again, "100 orders")

	// An update starts the new one.
	before := wantRunning(t, second.pid)
	labtest.Run(t, "dpkg", "--force-confold", "--install", deb)
	updated := wantRunning(t, before.pid)

	// Stopped, it leaves no socket and all volumes.
	labtest.Run(t, "systemctl", "stop", unit)
	if s := show(t); s.active != "inactive" || s.result != "success" {
		t.Fatalf("stopped: %+v, was %+v", s, updated)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Fatalf("%s: %v", socket, err)
	}
	wantText(t, orders, "still there")
	write(t, orders, "and written to")

	// Removed, too.
	labtest.Run(t, "systemctl", "start", unit)
	labtest.Run(t, "dpkg", "--remove", "lvmsnap")
	if s := show(t); s.active == "active" || s.pid != 0 {
		t.Fatalf("removed: %+v", s)
	}
	wantText(t, orders, "and written to")
	if lvs := labtest.Run(t, "lvs", "--noheadings", "-o", "lv_name", vg.Name); strings.Count(lvs, "csi-v-") != 3 || strings.Count(lvs, "csi-s-") != 1 {
		t.Fatalf("what is left: %s", lvs)
	}
}
