package main

import (
	"errors"
	"testing"
	"unsafe"
)

func TestChooseMode(t *testing.T) {
	errNone := errors.New("no device-mapper")
	for _, tc := range []struct {
		name, flag string
		uid        int
		probe      error
		want       string
	}{
		{"root and device-mapper", modeAuto, 0, nil, modeNative},
		{"root without device-mapper", modeAuto, 0, errNone, modeUML},
		{"a user", modeAuto, 1000, nil, modeUML},
		{"uml though native would do", modeUML, 0, nil, modeUML},
		{"native", modeNative, 0, nil, modeNative},
		{"native without device-mapper", modeNative, 0, errNone, ""},
		{"native without root", modeNative, 1000, nil, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := chooseMode(tc.flag, tc.uid, func() ([3]uint32, error) { return [3]uint32{4, 47, 0}, tc.probe })
			if got != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("got %q, error %v; want %q", got, err, tc.want)
			}
		})
	}
}

// The ioctl's number contains the size, 312 bytes.
func TestDMIoctlLayout(t *testing.T) {
	if size := unsafe.Sizeof(dmIoctl{}); size != 312 {
		t.Errorf("struct dm_ioctl has %d bytes, want 312", size)
	}
}
