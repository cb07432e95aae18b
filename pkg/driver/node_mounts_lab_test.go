//go:build lab

package driver

import (
	"bufio"
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// The kernel shows some flags with the mount, some with its file system, and some not at all.
func TestLabNodeStagesTwiceWithFlags(t *testing.T) {
	for _, fsType := range fsTypes {
		t.Run(fsType, func(t *testing.T) {
			r := newLabRig(t)
			v := r.addLoop(storage.Volume{Name: "flags", FSType: fsType, Init: storage.InitFormat}, "", 512<<20)
			c := nodeCap(modeSNMW, "", "noatime", "nodiratime", "nosuid", "nodev", "noexec", "sync", "dirsync", "lazytime")
			for range 2 {
				r.ok(r.stage(v.ID, c))
			}
			r.ok(r.unstage(v.ID))
		})
	}
}

// holdMounts keeps what is mounted now in a mount namespace of its own, as an agent does that started meanwhile.
func holdMounts(t *testing.T) (release func()) {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "unshare", "--mount", "--propagation", "private", "cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Write([]byte("there?\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := in.Close(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestLabNodeMountedInAnotherNamespace(t *testing.T) {
	for _, fsType := range fsTypes {
		t.Run(fsType, func(t *testing.T) {
			r := newLabRig(t)
			v := r.addLoop(storage.Volume{Name: "held", FSType: fsType, Init: storage.InitFormat}, "", 512<<20)
			c := nodeCap(modeSNMW, "")
			r.ok(r.stage(v.ID, c))
			r.ok(r.publish(v.ID, "pod", c, false))
			r.ok(r.write(r.target("pod/file"), "precious"))
			release := holdMounts(t)
			defer release()
			r.ok(r.unpublish(v.ID, "pod"))
			r.ok(unix.Unmount(r.staging, 0))
			r.ok(r.stage(v.ID, c))
			r.ok(r.publish(v.ID, "pod", c, false))
			r.wantFile(r.target("pod/file"), "precious")
			r.ok(r.unpublish(v.ID, "pod"))
			r.ok(r.unstage(v.ID))
		})
	}
}

// kubelet binds the block volumes of every driver where this one sees them.
func TestLabNodeBesideADeviceThatDoesNotOpen(t *testing.T) {
	r := newLabRig(t)
	other := r.addLoop(storage.Volume{Name: "other", Access: storage.AccessBlock}, "", 64<<20)
	node := filepath.Join(r.dir, "other-drivers-volume")
	r.ok(r.write(node, ""))
	r.run("mount", "--bind", other.DevicePath, node)
	t.Cleanup(func() { r.ok(unix.Unmount(node, 0)) })
	r.run("mount", "-o", "remount,bind,nodev", node)
	if fd, err := unix.Open(node, unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
		t.Fatalf("%s opens (%v): nothing is tested", node, unix.Close(fd))
	}

	v := r.addLoop(storage.Volume{Name: "ours", Init: storage.InitFormat}, "", 64<<20)
	c := nodeCap(modeSNMW, "")
	r.ok(r.stage(v.ID, c))
	r.ok(r.publish(v.ID, "pod", c, false))
	r.wantHealth(v.ID, "")
	_, err := r.stats(v.ID, r.target("pod"))
	r.ok(err)
	r.ok(r.unpublish(v.ID, "pod"))
	r.ok(r.unstage(v.ID))
}
