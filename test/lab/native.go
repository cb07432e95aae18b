package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/test/lab/internal/release"
)

// nativeMachine is the host itself. The command has loop devices of its own, and
// a process and a mount namespace, so that neither processes nor mounts outlive it.
type nativeMachine struct {
	job   *job
	loops []*os.File
	cmd   *exec.Cmd
}

// The directories of a native machine.
func (j *job) nativeLVMDir() string  { return j.path("lvm") }
func (j *job) nativeLockDir() string { return j.path("lvm-lock") }
func (j *job) nativeTempDir() string { return filepath.Join(j.DiskDir, "tmp") }

func (m *nativeMachine) start() error {
	j := m.job
	// Where these are built in, or loaded, modprobe has nothing to say.
	_ = exec.Command("modprobe", append([]string{"-q", "-a"}, moduleNames...)...).Run()
	for _, file := range j.DiskFiles {
		loop, err := attachLoop(file)
		if err != nil {
			return err
		}
		m.loops = append(m.loops, loop)
		j.Disks = append(j.Disks, loop.Name())
	}
	for _, dir := range []string{j.nativeLVMDir(), j.nativeLockDir(), j.nativeTempDir()} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	var accept []string
	for _, disk := range j.Disks {
		accept = append(accept, "^"+disk+"$")
	}
	// Where udevd makes the device nodes, LVM must wait for it, or they both would.
	_, err := os.Stat("/run/udev/control")
	conf := lvmConf(accept, j.nativeLockDir(), err == nil)
	if err := os.WriteFile(filepath.Join(j.nativeLVMDir(), "lvm.conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	if err := j.save(); err != nil {
		return err
	}
	m.cmd = &exec.Cmd{
		Path:   j.Executable,
		Args:   []string{j.path(roleInit)},
		Env:    os.Environ(),
		Dir:    "/",
		Stdout: os.Stdout,
		Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Setpgid:    true,
			Pdeathsig:  unix.SIGKILL,
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS,
		},
	}
	if err := m.cmd.Start(); err != nil {
		return err
	}
	return j.recordMachine(m.cmd.Process.Pid)
}

func (m *nativeMachine) wait() (int, error) {
	err := m.cmd.Wait()
	if code := m.cmd.ProcessState.ExitCode(); code >= 0 {
		return code, nil
	}
	return exitBroken, fmt.Errorf("process 1 of the command's namespace: %w", err)
}

// beat: this machine is the host.
func (m *nativeMachine) beat() (string, bool) { return "", false }

func (m *nativeMachine) diagnose(io.Writer, <-chan struct{}) {}

// kill ends process 1, and with it the kernel ends all of its namespace.
func (m *nativeMachine) kill() { _ = m.cmd.Process.Kill() }

func (m *nativeMachine) tearDown() error {
	for _, loop := range m.loops {
		loop.Close()
	}
	return tearDownNative(m.job)
}

// tearDownNative frees and detaches every loop device with a file of the job,
// those which the command made in its TMPDIR included. It needs no memory of
// what was attached, so that it can do the work of a runner which was killed.
func tearDownNative(j *job) error {
	env := j.commandEnv(map[string]string{"LVM_SYSTEM_DIR": j.nativeLVMDir(), "LC_ALL": "C"})
	const attempts = 5
	var err error
	for attempt := range attempts {
		if attempt > 0 {
			// The kernel takes mount namespaces apart in the background.
			time.Sleep(time.Second)
		}
		if err = releaseLoops(j.DiskDir, env); err == nil {
			return nil
		}
	}
	return fmt.Errorf("taking down the lab's disks: %w", err)
}

func releaseLoops(dir string, env []string) error {
	loops, err := loopsIn(dir)
	if err != nil {
		return err
	}
	var problems []error
	for _, loop := range loops {
		if err := release.Disk(loop, env); err != nil {
			problems = append(problems, err)
			continue
		}
		if err := detachLoop(loop); err != nil {
			problems = append(problems, err)
		}
	}
	if err := errors.Join(problems...); err != nil {
		return err
	}
	if left, err := loopsIn(dir); err != nil || len(left) > 0 {
		return errors.Join(err, fmt.Errorf("still attached: %s", strings.Join(left, ", ")))
	}
	return nil
}

// nativeInit is process 1 of the command's namespaces.
func nativeInit(j *job) int {
	code, err := nativeCommand(j)
	if err != nil {
		complain(err)
	}
	return code // and all that the command left running ends
}

func nativeCommand(j *job) (int, error) {
	// Nothing that is mounted here may appear on the host; but among themselves, the
	// mounts propagate as on any machine with systemd.
	for _, flag := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", flag|unix.MS_REC, ""); err != nil {
			return exitBroken, fmt.Errorf("mount propagation: %w", err)
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return exitBroken, fmt.Errorf("mounting /proc: %w", err)
	}
	if err := os.Chmod(j.nativeTempDir(), 0o777|fs.ModeSticky); err != nil {
		return exitBroken, err
	}
	return runCommand(j, j.machineEnv(j.nativeLVMDir(), j.nativeTempDir(), systemPath(j.getenv("PATH"))), os.Stdout, os.Stderr)
}
