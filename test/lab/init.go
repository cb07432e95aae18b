package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// initMain is process 1 of the machine. It finds its job beside the link by which
// it was started.
func initMain(self string) int {
	if os.Getpid() != 1 {
		complain(fmt.Errorf("%s must be process 1 of a machine", self))
		return exitUsage
	}
	j, err := loadJob(filepath.Dir(self))
	if err != nil {
		complain(err)
		return exitBroken
	}
	if j.Mode == modeNative {
		return nativeInit(j)
	}
	if err := umlInit(j); err != nil {
		// No exit code: the host shows the console, where this line ends up.
		complain(err)
	}
	unix.Sync()
	// Does not return.
	err = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	complain(err)
	return exitBroken
}

// umlInit makes the machine and runs the command.
func umlInit(j *job) error {
	// These lie on the host's file system, and must be open before something is
	// mounted over their directory.
	private, err := os.Open(j.PrivateDir)
	if err != nil {
		return err
	}
	defer private.Close()
	if err := os.WriteFile(j.path(startedFile), nil, 0o600); err != nil {
		return err
	}
	out, err := openOutput(j)
	if err != nil {
		return err
	}
	if err := umlMounts(); err != nil {
		return err
	}
	stopBeating, err := startBeating(private)
	if err != nil {
		return err
	}
	env, err := umlSetUp(j)
	if err != nil {
		return err
	}
	code, err := runCommand(j, env, out.stdout, out.stderr)
	if err != nil {
		if _, lost := fmt.Fprintf(out.stderr, "lab: %v\n", err); lost != nil {
			complain(err)
		}
	}
	// A machine that cannot end hangs, too.
	stopBeating()
	// All that the command left running ends here, and its output with it.
	_ = unix.Kill(-1, unix.SIGKILL)
	if err := out.close(); err != nil {
		return fmt.Errorf("writing the command's output: %w", err)
	}
	unix.Sync()
	return writeExitCode(private, code)
}

// writeExitCode makes the exit code appear whole or not at all.
func writeExitCode(private *os.File, code int) error {
	dir := int(private.Fd())
	temp := exitFile + ".new"
	fd, err := unix.Openat(dir, temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(fd), temp)
	if _, err := file.WriteString(strconv.Itoa(code)); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return unix.Renameat(dir, temp, dir, exitFile)
}
