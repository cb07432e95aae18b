package lvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
)

// Executor runs one LVM command, given as argv without the leading "lvm": the seam that a fake LVM
// (lvmtest) stands in for (docs/adr/0004).
type Executor interface {
	// Run returns what LVM wrote and its exit code. An error means that LVM could not be run, that its answer
	// is unknown (ErrOutcomeUnknown), or that ctx ended while the command goes on (NewStillRunning).
	Run(ctx context.Context, args ...string) (Output, error)
}

// Output is the outcome of one command.
type Output struct {
	Document
	ExitCode int
	Text     string // the end of what went to standard output and standard error
}

// Exec runs every command as a process of its own.
type Exec struct {
	Runner hostexec.Runner
	Env    []string // LVM_SYSTEM_DIR; see Config
}

var _ Executor = Exec{}

// command is how LVM is always started.
func command(env []string, args ...string) hostexec.Command {
	return hostexec.Command{
		Name: "lvm", Args: args,
		Env: append([]string{
			fmt.Sprintf("LVM_REPORT_FD=%d", hostexec.ReportFD), "LVM_SUPPRESS_FD_WARNINGS=1",
			// A home that cannot be written to: LVM's shell would write its whole history to ~/.lvm_history with every
			// command, root's own on the host (measured: 5 of 50 ms).
			"HOME=/dev/null",
			// glibc keeps what a command has used for the next one (mallopt(3)). LVM takes and gives back 8 MiB for every
			// scan, and locks them in memory: without this they are faulted in page by page again (measured: 44 and 38 ms
			// for a CreateSnapshot, and now and then a shell that needs 50 ms more for each).
			"MALLOC_MMAP_THRESHOLD_=33554432", "MALLOC_TRIM_THRESHOLD_=268435456",
		}, env...),
	}
}

// Run implements Executor. The process is never killed; it outlives ctx.
//
// Outside of its shell LVM 2.03.16 dies of a segmentation fault, before it does anything, when it has to select what to
// change and to log what it did; so there is no log then, and what it says is in Output.Text.
func (e Exec) Run(ctx context.Context, args ...string) (Output, error) {
	if err := ctx.Err(); err != nil {
		return Output{}, err
	}
	if slices.Contains(args, "--select") {
		args = slices.Insert(slices.Clone(args), 1, "--config", "log/report_command_log=0")
	}
	proc, err := e.Runner.Start(command(e.Env, args...))
	if err != nil {
		return Output{}, err
	}
	type answer struct {
		out Output
		err error
	}
	done, ended := make(chan answer, 1), make(chan struct{})
	go func() {
		defer close(ended)
		out, err := collect(proc)
		done <- answer{out, err}
	}()
	select {
	case a := <-done:
		return a.out, a.err
	case <-ctx.Done():
		return Output{}, NewStillRunning(ctx, args, ended)
	}
}

// collect reads a process to its end.
func collect(proc *hostexec.Process) (Output, error) {
	_ = proc.Stdin.Close()
	var text tail
	var copied sync.WaitGroup
	copied.Go(func() {
		_, _ = io.Copy(&text, proc.Output)
		_ = proc.Output.Close()
	})
	report, readErr := io.ReadAll(proc.Report)
	copied.Wait()
	code, err := proc.Wait()
	if err = errors.Join(err, readErr, proc.Report.Close()); err != nil {
		return Output{}, fmt.Errorf("%w: %w%s", ErrOutcomeUnknown, err, text.suffix())
	}
	doc, err := ParseDocument(report)
	if err != nil {
		return Output{}, fmt.Errorf("%w: %w%s", ErrOutcomeUnknown, err, text.suffix())
	}
	return Output{Document: doc, ExitCode: code, Text: text.String()}, nil
}

// tail keeps the end of what is written to it. Safe for concurrent use.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

const tailBytes = 8 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if extra := len(t.buf) - tailBytes; extra > 0 {
		t.buf = append(t.buf[:0], t.buf[extra:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}

// suffix is the text for the end of a message, where there is any.
func (t *tail) suffix() string {
	if s := strings.TrimSpace(t.String()); s != "" {
		return ": " + s
	}
	return ""
}

func (t *tail) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = t.buf[:0]
}
