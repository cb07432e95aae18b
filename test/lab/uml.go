package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// powerOffLimit is how long a machine may take to end after it wrote the exit
// code; it needs next to nothing.
const powerOffLimit = 10 * time.Second

// umlID names the machine's directory of sockets.
const umlID = "machine"

// umlMachine is a User Mode Linux on the host's file system.
type umlMachine struct {
	job *job

	cmd     *exec.Cmd
	console *console
	done    chan struct{}
	tails   sync.WaitGroup

	mu      sync.Mutex
	tailErr error
}

func (m *umlMachine) start() error {
	kernel, err := exec.LookPath("linux.uml")
	if err != nil {
		return err
	}
	for _, name := range []string{stdoutFile, stderrFile} {
		if err := os.WriteFile(m.job.path(name), nil, 0o600); err != nil {
			return err
		}
	}
	// A kernel that panics dumps core; nobody wants a gigabyte of it.
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return err
	}
	m.console = &console{}
	if m.job.Verbose {
		m.console.echo = os.Stderr
	}
	m.done = make(chan struct{})
	if err := onOneCPU(func() error { return m.startKernel(kernel) }); err != nil {
		return err
	}
	m.follow(stdoutFile, os.Stdout)
	m.follow(stderrFile, os.Stderr)
	go m.endAfterExit()
	return m.job.recordMachine(m.cmd.Process.Pid)
}

// startKernel starts linux.uml in a process namespace of its own where that is
// allowed, and else in a process group.
func (m *umlMachine) startKernel(kernel string) error {
	argv := append([]string{kernel}, m.kernelArgs()...)
	if os.Geteuid() == 0 {
		m.cmd = m.hostCommand(m.job.Executable, append([]string{roleWarden, m.job.PrivateDir}, argv...))
		m.cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWPID
		if err := m.cmd.Start(); !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	m.cmd = m.hostCommand(kernel, argv)
	if err := m.cmd.Start(); err != nil {
		return err
	}
	go keepTimer(m.cmd.Process.Pid, m.job.path(startedFile), m.done)
	return nil
}

func (m *umlMachine) hostCommand(path string, argv []string) *exec.Cmd {
	return &exec.Cmd{
		Path:        path,
		Args:        argv,
		Env:         os.Environ(),
		Dir:         "/",
		Stdout:      m.console,
		Stderr:      m.console,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL},
		// Children of a killed kernel hold its console open.
		WaitDelay: time.Second,
	}
}

func (m *umlMachine) kernelArgs() []string {
	args := []string{
		fmt.Sprintf("mem=%dM", m.job.MemoryBytes>>20),
		"rootfstype=hostfs", "rootflags=/", "rw",
		"init=" + m.job.path(roleInit),
		"con=null", "con0=fd:0,fd:1", "ssl=null",
		// TMPDIR may be on /dev/shm: the init must be found before it mounts /dev.
		"devtmpfs.mount=0",
		// 512 terminals that no other machine has, and every LVM command looks at all of /dev.
		"pty.legacy_count=0",
		// The machine's own directory of sockets, else it would be ~/.uml.
		"uml_dir=" + m.job.PrivateDir + "/", "umid=" + umlID,
		"ubd0=" + m.job.beatDisk(),
	}
	if m.job.Network != "" {
		args = append(args, "vec0:transport=bess,dst="+m.job.Network)
	}
	for i, file := range m.job.DiskFiles {
		args = append(args, fmt.Sprintf("ubd%d=%s", i+1, file))
	}
	return args
}

// follow passes on one stream of the command's output while it is written.
func (m *umlMachine) follow(name string, dst *os.File) {
	m.tails.Add(1)
	go func() {
		defer m.tails.Done()
		if err := follow(m.job.path(name), dst, m.done); err != nil {
			m.mu.Lock()
			m.tailErr = errors.Join(m.tailErr, err)
			m.mu.Unlock()
			m.kill()
		}
	}()
}

// endAfterExit ends a machine that has said its exit code but does not power off.
func (m *umlMachine) endAfterExit() {
	for {
		select {
		case <-m.done:
			return
		case <-time.After(100 * time.Millisecond):
		}
		if _, err := os.Stat(m.job.path(exitFile)); err == nil {
			break
		}
	}
	select {
	case <-m.done:
	case <-time.After(powerOffLimit):
		m.kill()
	}
}

func (m *umlMachine) wait() (int, error) {
	// The exit status of linux.uml says nothing about the command.
	_ = m.cmd.Wait()
	m.kill()
	close(m.done)
	m.tails.Wait()
	if m.tailErr != nil {
		if errors.Is(m.tailErr, unix.EPIPE) {
			return exitSignal + int(unix.SIGPIPE), nil
		}
		return exitBroken, m.tailErr
	}
	text, err := os.ReadFile(m.job.path(exitFile))
	if errors.Is(err, fs.ErrNotExist) {
		return exitBroken, fmt.Errorf("the machine died without an exit code; the end of its console:\n%s",
			strings.TrimRight(m.console.tail(), "\n"))
	}
	if err != nil {
		return exitBroken, err
	}
	return strconv.Atoi(string(text))
}

// kill ends the whole process group: a killed kernel leaves its children behind.
func (m *umlMachine) kill() {
	_ = unix.Kill(-m.cmd.Process.Pid, unix.SIGKILL)
}

func (m *umlMachine) tearDown() error { return nil }

func (m *umlMachine) beat() (string, bool) {
	if _, err := os.Stat(m.job.path(exitFile)); err == nil {
		return "", false // endAfterExit has it
	}
	return lastBeat(m.job.beatDisk()), true
}
