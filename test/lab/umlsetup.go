package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// umlDir holds what the lab makes inside the machine. It lies in memory.
const umlDir = "/run/lab"

// moduleNames are loaded beforehand, for they are what LVM and tests ask for.
// Inside User Mode Linux, LVM asks /sbin/modprobe, which looks in the wrong place;
// the file systems need nothing, being built into Debian's kernel.
var moduleNames = []string{
	"dm-mod", "dm-thin-pool", "dm-snapshot", "dm-flakey", "dm-delay", "dm-log-writes", "dm-zero", "loop",
}

// umlMounts mounts what a booted machine has, and hides with it what of the
// host's file system must not change.
func umlMounts() error {
	for _, m := range []struct {
		kind, target, data string
		flags              uintptr
		optional           bool
	}{
		{kind: "proc", target: "/proc"},
		{kind: "sysfs", target: "/sys"},
		{kind: "devtmpfs", target: "/dev"},
		{kind: "devpts", target: "/dev/pts", data: "mode=0620,ptmxmode=0666"},
		{kind: "tmpfs", target: "/dev/shm"},
		{kind: "tmpfs", target: "/run", data: "mode=0755"},
		{kind: "cgroup2", target: "/sys/fs/cgroup", optional: true},
	} {
		if strings.HasPrefix(m.target, "/dev/") {
			if err := os.MkdirAll(m.target, 0o755); err != nil {
				return err
			}
		}
		err := unix.Mount(m.kind, m.target, m.kind, m.flags, m.data)
		if errors.Is(err, unix.EBUSY) {
			err = nil // the kernel has mounted it already
		}
		if err != nil && !m.optional {
			return fmt.Errorf("mounting %s: %w", m.target, err)
		}
	}
	for _, dir := range []string{"/run/lock", "/run/lvm", umlDir + "/bin", umlDir + "/lib", umlDir + "/lvm"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	// TMPDIR is not /tmp, where go test keeps the very programs that run here.
	if err := os.MkdirAll(umlDir+"/tmp", 0o755); err != nil {
		return err
	}
	if err := os.Chmod(umlDir+"/tmp", 0o777|os.ModeSticky); err != nil {
		return err
	}
	// As systemd does it; bind mounts of a CSI driver must propagate.
	return unix.Mount("", "/", "", unix.MS_SHARED|unix.MS_REC, "")
}

// umlSetUp makes the rest of the machine, and returns the command's environment.
func umlSetUp(j *job) ([]string, error) {
	for name, target := range map[string]string{
		"/dev/fd": "/proc/self/fd", "/dev/stdin": "fd/0", "/dev/stdout": "fd/1", "/dev/stderr": "fd/2",
	} {
		if err := os.Symlink(target, name); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, err
		}
	}
	if err := unix.Sethostname([]byte("lab")); err != nil {
		return nil, err
	}
	if err := loopbackUp(); err != nil {
		return nil, err
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 524288}); err != nil {
		return nil, err
	}
	path := umlDir + "/bin:" + systemPath(j.getenv("PATH"))
	if err := os.Setenv("PATH", path); err != nil {
		return nil, err
	}
	if err := setUpModules(j); err != nil {
		return nil, err
	}
	// Every loop device is of the machine's own making.
	conf := lvmConf([]string{"^/dev/ubd[b-p]", "^/dev/loop"}, "/run/lock/lvm", false)
	if err := os.WriteFile(umlDir+"/lvm/lvm.conf", []byte(conf), 0o644); err != nil {
		return nil, err
	}
	return j.machineEnv(umlDir+"/lvm", umlDir+"/tmp", path), nil
}

// setUpModules makes modprobe find the machine's modules, called by a command or
// by the kernel, and loads the usual ones.
func setUpModules(j *job) error {
	if err := os.Symlink(umlModules, umlDir+"/lib/modules"); err != nil {
		return err
	}
	modprobe := umlDir + "/bin/" + roleModprobe
	if err := os.Symlink(j.Executable, modprobe); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/sys/kernel/modprobe", []byte(modprobe), 0o644); err != nil {
		return err
	}
	out, err := exec.Command(modprobe, append([]string{"-a"}, moduleNames...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("loading modules: %w: %s", err, out)
	}
	return nil
}

// modprobeMain is modprobe inside the machine: the real one, told where the
// machine's modules are. Neither LVM nor the kernel could pass that argument.
func modprobeMain(args []string) int {
	argv := append([]string{roleModprobe, "-d", umlDir}, args[1:]...)
	var err error
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/"} {
		if err = unix.Exec(dir+roleModprobe, argv, os.Environ()); !errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	complain(err)
	return exitNotFound
}

// loopbackUp does `ip link set lo up`.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request); err != nil {
		return fmt.Errorf("loopback interface: %w", err)
	}
	request.SetUint16(request.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("loopback interface: %w", err)
	}
	return nil
}
