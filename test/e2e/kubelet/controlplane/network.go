package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/test/lab/labnet"
)

// network makes the interfaces of this network namespace, and a switch that connects the lab's machine with them.
func network(socket string) error {
	tap, err := openTap("e2e0")
	if err != nil {
		return fmt.Errorf("a tap device (as root, in a network namespace): %w", err)
	}
	for _, command := range []string{
		"link set lo up", "address add " + serviceAddress + "/32 dev lo",
		"address add " + hostAddress + " dev e2e0", "link set e2e0 up", "route add " + podNetwork + " via " + machineAddress,
	} {
		if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", command, err, out)
		}
	}
	if _, err := labnet.Listen(socket); err != nil {
		return err
	}
	port, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		return err
	}
	// Until this process ends.
	go pass(tap.Read, port.Write)
	go pass(port.Read, tap.Write)
	return nil
}

// pass passes on frames. Networks lose some: an error is of one frame only, other than that of an end.
func pass(read, write func([]byte) (int, error)) {
	frame := make([]byte, 64<<10)
	for {
		n, err := read(frame)
		if err != nil {
			return
		}
		_, _ = write(frame[:n])
	}
}

func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
