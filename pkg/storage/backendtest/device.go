package backendtest

import (
	"bytes"
	"context"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// OpenGroup opens a real volume group as in production, through LVM's shell and with its metadata read from the disks, until the
// end of the test.
func OpenGroup(t *testing.T, name string, env []string) *lvm.Group {
	t.Helper()
	shell := lvm.NewShell(hostexec.Host{}, env)
	t.Cleanup(func() {
		if err := shell.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	reader := &lvm.DiskReader{}
	t.Cleanup(func() { _ = reader.Close() })
	locks, err := lvm.LockingDir(t.Context(), hostexec.Host{}, env)
	if err != nil {
		t.Fatal(err)
	}
	group, err := lvm.NewGroup(name, lvm.GroupOptions{Executor: shell, Reader: reader, Locks: lvm.FileLocks{Dir: locks}})
	if err != nil {
		t.Fatal(err)
	}
	return group
}

const textBytes = 4096

func openDevice(t *testing.T, v storage.Volume, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(v.DevicePath, flags, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// WriteDevice is Fixture.Write for real devices.
func WriteDevice(t *testing.T, v storage.Volume, text string) {
	t.Helper()
	f := openDevice(t, v, os.O_WRONLY|unix.O_SYNC)
	buf := make([]byte, textBytes)
	copy(buf, text)
	if _, err := f.WriteAt(buf, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// ReadDevice is Fixture.Read for real devices.
func ReadDevice(t *testing.T, v storage.Volume) string {
	t.Helper()
	f := openDevice(t, v, os.O_RDONLY)
	buf := make([]byte, textBytes)
	if _, err := f.ReadAt(buf, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimRight(buf, "\x00"))
}

// HoldDevice is Fixture.Hold for real devices.
func HoldDevice(t *testing.T, v storage.Volume) func() {
	t.Helper()
	f := openDevice(t, v, os.O_RDONLY)
	return func() { _ = f.Close() }
}
