package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

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

	removeStale()
	for retry := 1; ; retry++ {
		code, hung := runJob(mode, opts, signals)
		if !hung || retry > opts.hungRetries || len(signals) > 0 {
			return code
		}
		// hack/test-summary counts these lines.
		complain(fmt.Errorf("the machine hung and is started again (%d of %d)", retry, opts.hungRetries))
	}
}

// runJob runs the command once, and tells whether its machine was declared hung.
func runJob(mode string, opts *options, signals <-chan os.Signal) (code int, hung bool) {
	j, err := newJob(mode, opts)
	if err != nil {
		complain(err)
		return exitBroken, false
	}
	defer j.removeFiles()
	code, hung, err = j.runRunner(signals)
	if err != nil {
		complain(err)
	}
	return code, hung
}

// runRunner starts the runner, passes signals on to it and returns its exit code,
// and whether it declared the machine hung: a command may have that exit code, too.
func (j *job) runRunner(signals <-chan os.Signal) (code int, hung bool, err error) {
	lock, err := j.lock()
	if err != nil {
		return exitBroken, false, err
	}
	defer lock.Close()
	if err := j.save(); err != nil {
		return exitBroken, false, err
	}
	// The runner reads the end of this process as the end of the pipe.
	lifeline, ours, err := os.Pipe()
	if err != nil {
		return exitBroken, false, err
	}
	defer ours.Close()
	// And writes to this one should the machine hang.
	verdict, verdictEnd, err := os.Pipe()
	if err != nil {
		return exitBroken, false, err
	}
	defer verdict.Close()
	runner := &exec.Cmd{
		Path:        j.Executable,
		Args:        []string{roleRunner, j.PrivateDir},
		Env:         os.Environ(),
		Stdout:      os.Stdout,
		Stderr:      os.Stderr,
		ExtraFiles:  []*os.File{lifeline, lock, verdictEnd},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	err = runner.Start()
	lifeline.Close()
	verdictEnd.Close()
	if err != nil {
		return exitBroken, false, err
	}
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case sig := <-signals:
				_ = runner.Process.Signal(sig)
			case <-ended:
				return
			}
		}
	}()
	_ = runner.Wait()
	close(ended)
	status, ok := runner.ProcessState.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return exitSignal + int(status.Signal()), false, j.finishForRunner()
	}
	// Whoever inherited the other end must not be waited for: only the runner writes, and has ended.
	if err := verdict.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return exitBroken, false, err
	}
	n, _ := verdict.Read(make([]byte, 1))
	return runner.ProcessState.ExitCode(), n > 0, nil
}

// finishForRunner does the work of a runner that was killed.
func (j *job) finishForRunner() error {
	j.killMachine()
	if j.Mode != modeNative {
		return nil
	}
	return tearDownNative(j)
}

// newJob makes the directories of a job and everything in it that does not need
// the machine. On error, it leaves nothing behind.
func newJob(mode string, opts *options) (_ *job, err error) {
	j := &job{
		Mode:        mode,
		Argv:        opts.argv,
		Env:         os.Environ(),
		MemoryBytes: opts.memoryBytes,
		Timeout:     opts.timeout,
		HungAfter:   opts.hungAfter,
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
	for _, path := range []string{j.WorkDir, j.Executable} {
		if dir := hiddenBy(path); mode == modeUML && dir != "" {
			return nil, fmt.Errorf("%s cannot be seen inside the machine, which has a %s of its own", path, dir)
		}
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
	if err := os.Symlink(j.Executable, j.path(roleInit)); err != nil {
		return nil, err
	}
	if j.Network, err = networkSocket(mode, opts.network); err != nil {
		return nil, err
	}
	return j, j.makeDisks(opts)
}

// makeDisks makes the files of the disks, in memory if there is enough of it.
func (j *job) makeDisks(opts *options) error {
	parent := filepath.Dir(j.PrivateDir)
	if memoryFor(int64(opts.disks) * opts.diskSizeBytes / 2) {
		parent = memoryDir
	}
	if j.Mode == modeNative && len(opts.diskFiles) > 0 {
		return errors.New("--disk is for --mode uml: nothing has tested that a native machine gives such a disk back")
	}
	dir := filepath.Join(parent, filepath.Base(j.PrivateDir)+"-disks")
	err := os.Mkdir(dir, 0o700)
	if err != nil {
		return err
	}
	j.DiskDir = dir
	if j.Mode == modeUML {
		if err := j.makeBeatFiles(); err != nil {
			return err
		}
	}
	for _, name := range opts.diskFiles {
		if name, err = keptDisk(name, opts.diskSizeBytes); err != nil {
			return err
		}
		j.DiskFiles = append(j.DiskFiles, name)
	}
	for i := range opts.disks {
		name := filepath.Join(j.DiskDir, fmt.Sprintf("disk%d.img", i+1))
		if err := makeSparse(name, opts.diskSizeBytes); err != nil {
			return err
		}
		j.DiskFiles = append(j.DiskFiles, name)
	}
	if j.Mode == modeUML {
		for i := range j.DiskFiles {
			j.Disks = append(j.Disks, fmt.Sprintf("/dev/ubd%c", 'b'+i))
		}
	}
	return nil
}

// networkSocket is the full name of the socket that the machine's network is connected to, if it is to have one.
func networkSocket(mode, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	if mode == modeNative {
		return "", errors.New("--network is for --mode uml: a native machine has this one's")
	}
	name, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	if strings.ContainsAny(name, " ,=\t\n\"") || len(name) > maxSocketName {
		return "", fmt.Errorf("--network %q must have neither spaces, commas nor equals signs, and at most %d bytes", name, maxSocketName)
	}
	return name, nil
}

// maxSocketName is what the kernel has room for, without the final zero.
const maxSocketName = 107

// keptDisk is the full name of a disk of the user's own, which is made when it is not there.
func keptDisk(name string, size int64) (string, error) {
	name, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	if strings.ContainsAny(name, " ,\t\n\"") {
		return "", fmt.Errorf("--disk %q must have neither spaces nor commas in its name", name) // it goes into a kernel's command line
	}
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return name, makeSparse(name, size)
	case err == nil && !info.Mode().IsRegular():
		return "", fmt.Errorf("--disk %s is not a file", name)
	}
	return name, err
}

// hiddenBy tells which of the machine's own mounts hides a directory of the host.
func hiddenBy(dir string) string {
	for _, mount := range []string{"/proc", "/sys", "/dev", "/run"} {
		if dir == mount || strings.HasPrefix(dir, mount+"/") {
			return mount
		}
	}
	return ""
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

// memoryDir is where Linux systems have a file system in memory, which for
// disks is many times faster than a real one.
const memoryDir = "/dev/shm"

// memoryFor tells whether so many bytes of memory are free, for what the disks
// will probably hold: the half of their size.
func memoryFor(want int64) bool {
	var fs unix.Statfs_t
	if err := unix.Statfs(memoryDir, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC {
		return false
	}
	meminfo, err := os.ReadFile("/proc/meminfo")
	return err == nil && int64(fs.Bavail)*fs.Bsize >= want && availableBytes(string(meminfo)) >= want
}

// availableBytes is the memory which programs can have, caches included.
func availableBytes(meminfo string) int64 {
	_, rest, found := strings.Cut(meminfo, "MemAvailable:")
	fields := strings.Fields(rest)
	if !found || len(fields) == 0 {
		return 0
	}
	kib, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
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
