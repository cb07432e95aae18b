package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// endingSignals end the lab. SIGQUIT is among them since go test sends it to a
// test that hangs.
var endingSignals = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT}

// runFront runs the job in a runner of its own session, which a Ctrl-C at the
// terminal or a SIGKILL of this process does not reach, and cleans up after it.
func runFront(mode string, opts *options) int {
	signals := make(chan os.Signal, len(endingSignals))
	signal.Notify(signals, endingSignals...)

	j, err := newJob(mode, opts)
	if err != nil {
		complain(err)
		return exitBroken
	}
	defer j.removeFiles()
	if err := j.save(); err != nil {
		complain(err)
		return exitBroken
	}
	// The runner reads the end of this process as the end of the pipe.
	lifeline, ours, err := os.Pipe()
	if err != nil {
		complain(err)
		return exitBroken
	}
	defer ours.Close()
	runner := &exec.Cmd{
		Path:        j.Executable,
		Args:        []string{roleRunner, j.PrivateDir},
		Env:         os.Environ(),
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
		ExtraFiles:  []*os.File{lifeline},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if err := runner.Start(); err != nil {
		complain(err)
		return exitBroken
	}
	lifeline.Close()
	go func() {
		for sig := range signals {
			_ = runner.Process.Signal(sig)
		}
	}()
	_ = runner.Wait()
	status, ok := runner.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return runner.ProcessState.ExitCode()
	}
	// The runner could not clean up: do its work.
	j.killMachine()
	if j.Mode == modeNative {
		if err := tearDownNative(j); err != nil {
			complain(err)
		}
	}
	return exitSignal + int(status.Signal())
}

// newJob makes the directories of a job and everything in it that does not need
// the machine. On error, it leaves nothing behind.
func newJob(mode string, opts *options) (j *job, err error) {
	j = &job{
		Mode:        mode,
		Argv:        opts.argv,
		Env:         os.Environ(),
		DiskBytes:   opts.diskSizeBytes,
		MemoryBytes: opts.memoryBytes,
		Timeout:     opts.timeout,
		Verbose:     opts.verbose,
		OneStream:   sameFile(os.Stdout, os.Stderr),
	}
	defer func() {
		if err != nil {
			j.removeFiles()
		}
	}()
	if j.Executable, err = os.Executable(); err != nil {
		return nil, err
	}
	if j.WorkDir, err = os.Getwd(); err != nil {
		return nil, err
	}
	if j.PrivateDir, err = os.MkdirTemp("", "lab-"); err != nil {
		return nil, err
	}
	if j.PrivateDir, err = filepath.Abs(j.PrivateDir); err != nil {
		return nil, err
	}
	if strings.ContainsAny(j.PrivateDir, " ,\t\n\"") {
		// The name goes into a kernel's command line.
		return nil, fmt.Errorf("TMPDIR %q must have neither spaces nor commas in its name", os.TempDir())
	}
	if j.DiskDir, err = os.MkdirTemp(diskParent(opts), "lab-disks-"); err != nil {
		return nil, err
	}
	if err := os.Symlink(j.Executable, j.path(roleInit)); err != nil {
		return nil, err
	}
	for i := range opts.disks {
		name := filepath.Join(j.DiskDir, fmt.Sprintf("disk%d.img", i+1))
		if err := makeSparse(name, opts.diskSizeBytes); err != nil {
			return nil, err
		}
		j.DiskFiles = append(j.DiskFiles, name)
		if mode == modeUML {
			j.Disks = append(j.Disks, fmt.Sprintf("/dev/ubd%c", 'b'+i))
		}
	}
	return j, nil
}

func (j *job) removeFiles() {
	for _, dir := range []string{j.PrivateDir, j.DiskDir} {
		if dir == "" {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			complain(err)
		}
	}
}

// killMachine ends the process group of a machine whose runner was killed.
func (j *job) killMachine() {
	text, err := os.ReadFile(j.path(machineFile))
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(string(text)); err == nil && pid > 1 {
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
}

// diskParent is the directory for the disks: memory is many times faster, but is
// taken only where half of what the disks could grow to is free.
func diskParent(opts *options) string {
	const memory = "/dev/shm"
	var fs unix.Statfs_t
	if err := unix.Statfs(memory, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return ""
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return ""
	}
	want := uint64(opts.disks) * uint64(opts.diskSizeBytes) / 2
	if fs.Bavail*uint64(fs.Bsize) < want || (info.Freeram+info.Bufferram)*uint64(info.Unit) < want {
		return ""
	}
	return memory
}

func makeSparse(name string, size int64) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(file.Truncate(size), file.Close())
}

func sameFile(a, b *os.File) bool {
	infoA, errA := a.Stat()
	infoB, errB := b.Stat()
	return errA == nil && errB == nil && os.SameFile(infoA, infoB)
}
