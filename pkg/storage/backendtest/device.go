package backendtest

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

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
