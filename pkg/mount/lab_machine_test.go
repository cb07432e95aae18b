//go:build lab

package mount_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/mount"
	"github.com/lvmsnap/lvmsnap/pkg/mount/mounttest"
)

// scratch is where the images of the loop devices are: a file system on the lab's first disk, because the lab's
// memory is small.
var scratch string

func TestMain(m *testing.M) {
	code, err := withScratch(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		code = 1
	}
	os.Exit(code)
}

func withScratch(run func() int) (code int, err error) {
	disks := os.Getenv("LAB_DISKS")
	if disks == "" {
		return 1, errors.New("LAB_DISKS is not set: run this in the lab (go test -tags lab -exec \"lab --\")")
	}
	disk, _, _ := strings.Cut(disks, ",")
	if scratch, err = os.MkdirTemp("", "scratch"); err != nil {
		return 1, err
	}
	if _, err := program("mkfs.ext4", "-q", "-F", disk); err != nil {
		return 1, err
	}
	if err := unix.Mount(disk, scratch, "ext4", 0, ""); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, unix.Unmount(scratch, 0)) }()
	return run(), nil
}

func program(name string, args ...string) (string, error) {
	cmd := hostexec.Command{Name: name, Args: args}
	res, err := hostexec.Host{}.Run(context.Background(), cmd)
	if err == nil && res.ExitCode != 0 {
		err = fmt.Errorf("%s: exit code %d: %s%s", cmd, res.ExitCode, res.Stdout, res.Stderr)
	}
	return strings.TrimSpace(string(res.Stdout)), err
}

func mustProgram(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := program(name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// images are the image files by loop device.
var images = map[string]string{}

func attach(t *testing.T, image string) string {
	t.Helper()
	dev := mustProgram(t, "losetup", "-f", "--show", image)
	images[dev] = image
	t.Cleanup(func() {
		delete(images, dev)
		mustProgram(t, "losetup", "-d", dev)
		_ = os.Remove(image)
	})
	return dev
}

func newDevice(t *testing.T, size int64) string {
	t.Helper()
	f, err := os.CreateTemp(scratch, "image")
	if err == nil {
		err = errors.Join(f.Truncate(size), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return attach(t, f.Name())
}

// copyDevice copies a device as it is on the disk now, as a snapshot does that does not freeze.
func copyDevice(t *testing.T, from string) string {
	t.Helper()
	f, err := os.CreateTemp(scratch, "copy")
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	mustProgram(t, "cp", "--sparse=always", images[from], f.Name())
	return attach(t, f.Name())
}

func newMachine(t *testing.T) mounttest.Machine {
	t.Helper()
	host := mount.NewHost(hostexec.Host{}, "")
	dir := t.TempDir()
	return mounttest.Machine{
		Host: host, Dir: dir,
		// Cleanups run last in, first out: mounts go before the device that they are on.
		NewDevice: func(t *testing.T, size int64) string {
			dev := newDevice(t, size)
			t.Cleanup(func() { unmountAll(t, dir) })
			return dev
		},
		Copy: func(t *testing.T, from string) string {
			dev := copyDevice(t, from)
			t.Cleanup(func() { unmountAll(t, dir) })
			return dev
		},
		Resize: func(t *testing.T, dev string, to int64) {
			if err := os.Truncate(images[dev], to); err != nil {
				t.Fatal(err)
			}
			mustProgram(t, "losetup", "-c", dev)
		},
	}
}

func unmountAll(t *testing.T, dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		var err error
		for err == nil { // mounts may be stacked
			err = unix.Unmount(filepath.Join(dir, e.Name()), unix.UMOUNT_NOFOLLOW)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
