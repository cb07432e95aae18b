package mounttest

import (
	"path/filepath"
	"strconv"
	"testing"
)

func TestFakeContract(t *testing.T) {
	Contract(t, func(t *testing.T) Machine {
		f := NewFake()
		n := 0
		newDevice := func(_ *testing.T, bytes int64) string {
			n++
			path := filepath.Join("/dev/fake", strconv.Itoa(n))
			f.AddDevice(path, bytes)
			return path
		}
		return Machine{
			Host: f, Dir: t.TempDir(), NewDevice: newDevice,
			Copy: func(t *testing.T, from string) string {
				to := newDevice(t, DeviceBytes)
				f.CopyDevice(from, to)
				return to
			},
			Resize: func(_ *testing.T, device string, to int64) { f.AddDevice(device, to) },
		}
	})
}
