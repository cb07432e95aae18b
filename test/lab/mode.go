package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"unsafe"

	"golang.org/x/sys/unix"
)

const dmControl = "/dev/mapper/control"

// dmIoctl is struct dm_ioctl of <linux/dm-ioctl.h>, without its data.
type dmIoctl struct {
	version     [3]uint32
	dataSize    uint32
	dataStart   uint32
	targetCount uint32
	openCount   int32
	flags       uint32
	eventNr     uint32
	_           uint32
	dev         uint64
	name        [128]byte
	uuid        [129]byte
	_           [7]byte
}

// chooseMode turns auto into a machine: native needs root, and a kernel whose
// device-mapper really answers.
func chooseMode(mode string, uid int, probe func() ([3]uint32, error)) (string, error) {
	switch mode {
	case modeUML:
		return modeUML, nil
	case modeNative:
		if uid != 0 {
			return "", errors.New("--mode native needs root; --mode uml does not")
		}
		if _, err := probe(); err != nil {
			return "", fmt.Errorf("--mode native needs device-mapper in this kernel; --mode uml brings its own: %w", err)
		}
		return modeNative, nil
	}
	if uid == 0 {
		if _, err := probe(); err == nil {
			return modeNative, nil
		}
	}
	return modeUML, nil
}

// deviceMapperVersion asks the kernel for the version of its device-mapper. The
// node alone proves nothing: it may be there when the driver is not.
func deviceMapperVersion() ([3]uint32, error) {
	version, err := dmVersionIoctl()
	if err == nil || os.Geteuid() != 0 {
		return version, err
	}
	// Without the node, or without a driver behind it, loading the module may help.
	modprobe, lookErr := exec.LookPath("modprobe")
	if lookErr != nil || exec.Command(modprobe, "-q", "dm-mod").Run() != nil {
		return version, err
	}
	return dmVersionIoctl()
}

func dmVersionIoctl() ([3]uint32, error) {
	control, err := os.OpenFile(dmControl, os.O_RDWR, 0)
	if err != nil {
		return [3]uint32{}, err
	}
	defer control.Close()

	req := dmIoctl{version: [3]uint32{4, 0, 0}, dataSize: uint32(unsafe.Sizeof(dmIoctl{}))}
	// DM_VERSION is _IOWR(0xfd, 0, struct dm_ioctl).
	const dmVersion = 0xc138fd00
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), dmVersion, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return [3]uint32{}, fmt.Errorf("%s: DM_VERSION: %w", dmControl, errno)
	}
	return req.version, nil
}
