// Package hostexec starts programs on the host. It is the only importer of os/exec in the product, so that
// one place decides how a program is started (never by a shell, always in its own process group, optionally
// in the host's mount namespace) and one seam can be replaced or made to fail in tests.
package hostexec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// ErrStillRunning is returned (joined with the context's error) when the context ended before the program
// did. The program was left alone and goes on: see Command.Interruptible.
var ErrStillRunning = errors.New("the command is still running")

// Command is one program and its arguments. Nothing in it is ever interpreted by a shell.
type Command struct {
	// Name of the program, looked up in PATH.
	Name string
	// Args after the name.
	Args []string
	// Env is added to the driver's own environment; LC_ALL=C is always set.
	Env []string
	// Stdin is fed to the program; nil is /dev/null.
	Stdin []byte
	// Interruptible says that the program may be killed when the context ends: set it for programs that
	// only read. Everything else outlives the context, because mkfs, fsck or lvcreate killed half way
	// leave something worse behind than a slow call (docs/adr/0003).
	Interruptible bool
}

// String is the command line for messages and logs.
func (c Command) String() string {
	return strings.Join(append([]string{c.Name}, c.Args...), " ")
}

// Result is what a finished program left.
type Result struct {
	Stdout, Stderr []byte
	ExitCode       int
}

// Runner starts programs. Host is the real one.
type Runner interface {
	// Run starts the command and waits. A non-zero exit code is reported in Result and is not an error;
	// an error means that the program could not be started or that ctx ended first.
	Run(ctx context.Context, cmd Command) (Result, error)
	// Start starts a long-lived program with pipes.
	Start(cmd Command) (*Process, error)
}

// Host runs programs on this machine.
type Host struct {
	// Namespace runs every program in the mount namespace of process 1 (by nsenter), for a driver in a
	// container that shares the host's PID namespace.
	Namespace bool
}

var _ Runner = Host{}

// nsenterPath is absolute because the program's PATH lookup must not happen in two namespaces.
const nsenterPath = "/usr/bin/nsenter"

func (h Host) command(c Command) *exec.Cmd {
	name, args := c.Name, c.Args
	if h.Namespace {
		args = append([]string{"--target", "1", "--mount", "--", name}, args...)
		name = nsenterPath
	}
	cmd := exec.Command(name, args...) //nolint:gosec // arguments are validated by the typed clients; no shell
	cmd.Env = append(append(os.Environ(), "LC_ALL=C"), c.Env...)
	// A process group of its own: a Ctrl-C or a kill aimed at the driver's group must not reach an lvcreate.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if c.Stdin != nil {
		cmd.Stdin = bytes.NewReader(c.Stdin)
	}
	return cmd
}

// Run implements Runner.
func (h Host) Run(ctx context.Context, c Command) (Result, error) {
	if err := ctx.Err(); err != nil {
		return Result{}, err
	}
	cmd := h.command(c)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		return Result{}, fmt.Errorf("start %s: %w", c.Name, err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		return finished(c, &stdout, &stderr, err)
	case <-ctx.Done():
	}
	if !c.Interruptible {
		return Result{}, fmt.Errorf("%s: %w: %w", c.Name, ErrStillRunning, context.Cause(ctx))
	}
	// The whole group: a program may have children that hold the output pipes open.
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	return Result{}, fmt.Errorf("%s: %w", c.Name, context.Cause(ctx))
}

func finished(c Command, stdout, stderr *bytes.Buffer, err error) (Result, error) {
	res := Result{Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return res, nil
	case errors.As(err, &exit):
		res.ExitCode = exit.ExitCode()
		if res.ExitCode < 0 {
			return res, fmt.Errorf("%s: %w", c.Name, err)
		}
		return res, nil
	default:
		return res, fmt.Errorf("%s: %w", c.Name, err)
	}
}

// Process is a program that is running, with pipes. It is never killed: close Stdin to ask it to end.
type Process struct {
	Stdin  io.WriteCloser
	Output io.ReadCloser // standard output and standard error, in the order in which they were written
	Report io.ReadCloser // what the program writes to file descriptor ReportFD
	PID    int
	wait   func() (exitCode int, err error)
}

// NewProcess makes a Process out of its ends, for fakes.
func NewProcess(stdin io.WriteCloser, output, report io.ReadCloser, wait func() (int, error)) *Process {
	return &Process{Stdin: stdin, Output: output, Report: report, wait: wait}
}

// Wait blocks until the program has ended and returns its exit code; an error means that it ended in another
// way, by a signal.
func (p *Process) Wait() (int, error) { return p.wait() }

// ReportFD is the file descriptor of Process.Report inside the program.
const ReportFD = 3

// Start implements Runner.
func (h Host) Start(c Command) (*Process, error) {
	cmd := h.command(c)
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	repR, repW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, outR.Close(), outW.Close())
	}
	cmd.Stdout, cmd.Stderr = outW, outW
	cmd.ExtraFiles = []*os.File{repW}
	stdin, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	// The child has its own copies; ours would keep the pipes open after its death.
	err = errors.Join(err, outW.Close(), repW.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", c.Name, err), outR.Close(), repR.Close())
	}
	wait := func() (int, error) {
		res, err := finished(c, new(bytes.Buffer), new(bytes.Buffer), cmd.Wait())
		return res.ExitCode, err
	}
	return &Process{Stdin: stdin, Output: outR, Report: repR, PID: cmd.Process.Pid, wait: wait}, nil
}
