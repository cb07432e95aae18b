package lvm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
)

// Shell runs commands through one long-lived `lvm` process, which spares each of them LVM's start-up (measured:
// 363 ms for an lvcreate by exec, 40 ms through the shell). When the shell cannot be started, dies or writes
// what is not a report, commands run by Exec until it is started anew, shellRetry later.
//
// The process is never killed. It is in a process group of its own, so that nothing aimed at the driver hits
// it, and ends by itself when the driver's end of its standard input is closed, also by the driver's death:
// after the command that it is working on.
type Shell struct {
	exec Exec

	turn chan struct{} // holds one token: whoever has it talks to the shell

	mu      sync.Mutex // guards what follows
	proc    *shellProcess
	retryAt time.Time
	closed  bool
}

var _ Executor = (*Shell)(nil)

// shellRetry is how long commands go by exec after the shell failed.
const shellRetry = 10 * time.Second

// maxShellWords is below the 64 words that LVM's shell can split (MAX_ARGS in lvmcmdline.c).
const maxShellWords = 60

// pipeBuf is PIPE_BUF, limits.h: a write of so much to a pipe is accepted as a whole or not at all.
const pipeBuf = 4096

// NewShell makes a shell; the process is started by the first command.
func NewShell(runner hostexec.Runner, env []string) *Shell {
	s := &Shell{exec: Exec{Runner: runner, Env: env}, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

// shellProcess is one incarnation of the shell.
type shellProcess struct {
	*hostexec.Process
	report *bufio.Reader
	text   tail
	ended  chan struct{} // closed when the process is gone
}

// Run implements Executor. When ctx ends first the command goes on, and the shell takes the next one after it.
func (s *Shell) Run(ctx context.Context, args ...string) (Output, error) {
	line := strings.Join(args, " ") + "\n"
	// With --devices a shell of LVM 2.03.16 dies of a segmentation fault some commands later.
	if len(args) > maxShellWords || len(line) > pipeBuf || slices.Contains(args, optionDevices) {
		return s.exec.Run(ctx, args...)
	}
	select {
	case <-s.turn:
	case <-ctx.Done():
		return Output{}, context.Cause(ctx)
	}
	proc, err := s.process()
	if err != nil {
		s.turn <- struct{}{}
		return s.exec.Run(ctx, args...)
	}
	type answer struct {
		out Output
		err error
	}
	done, ended := make(chan answer, 1), make(chan struct{})
	go func() {
		defer close(ended)
		out, err := proc.run(commandName(args), line)
		if err != nil {
			s.abandon(proc, err)
		}
		s.turn <- struct{}{}
		done <- answer{out, err}
	}()
	select {
	case a := <-done:
		if errors.Is(a.err, errNotStarted) {
			return s.exec.Run(ctx, args...)
		}
		return a.out, a.err
	case <-ctx.Done():
		return Output{}, NewStillRunning(ctx, args, ended)
	}
}

// process returns the running shell, starting it when there is none; an error means: use exec.
func (s *Shell) process() (*shellProcess, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errors.New("the shell is closed")
	}
	if s.proc != nil {
		select {
		case <-s.proc.ended:
			klog.Background().Info("LVM shell has ended, starting it anew", "pid", s.proc.PID, "output", s.proc.text.String())
			_ = s.proc.Report.Close()
			s.proc = nil
		default:
			return s.proc, nil
		}
	}
	if time.Now().Before(s.retryAt) {
		return nil, errors.New("the shell failed a moment ago")
	}
	p, err := s.exec.Runner.Start(command(s.exec.Env))
	if err != nil {
		s.retryAt = time.Now().Add(shellRetry)
		klog.Background().Error(err, "LVM shell does not start, running commands by exec", "retryIn", shellRetry)
		return nil, err
	}
	proc := &shellProcess{Process: p, report: bufio.NewReaderSize(p.Report, 1<<16), ended: make(chan struct{})}
	go proc.reap()
	s.proc = proc
	return proc, nil
}

// reap drains the shell's terminal output, so that it never blocks, and notices its end.
func (p *shellProcess) reap() {
	_, _ = io.Copy(&p.text, p.Output)
	_, _ = p.Wait()
	close(p.ended)
	_ = p.Output.Close()
}

// retire closes the shell's input, so that it ends by itself after what it is doing. Until then its reports (the
// real one writes a last, empty one) are read to nowhere: neither a full pipe nor SIGPIPE may stop it half way.
func (p *shellProcess) retire() {
	_ = p.Stdin.Close()
	go func() {
		_, _ = io.Copy(io.Discard, p.report)
		_ = p.Report.Close()
	}()
}

// abandon gives a misbehaving shell up.
func (s *Shell) abandon(p *shellProcess, cause error) {
	p.retire()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == p {
		s.proc = nil
		s.retryAt = time.Now().Add(shellRetry)
	}
	klog.Background().Error(cause, "LVM shell given up, running commands by exec", "pid", p.PID, "retryIn", shellRetry, "output", p.text.String())
}

// errNotStarted: the shell was gone before it could have read the command.
var errNotStarted = errors.New("the shell ended before the command")

// run talks to the shell: one line out, one JSON document back.
func (p *shellProcess) run(name, line string) (Output, error) {
	p.text.reset()
	if _, err := io.WriteString(p.Stdin, line); err != nil {
		// A command is one write, not above PIPE_BUF: it was not accepted in part.
		return Output{}, fmt.Errorf("%w: %w", errNotStarted, err)
	}
	raw, err := p.readDocument()
	if err != nil {
		return Output{}, fmt.Errorf("%w: %s: %w%s", ErrOutcomeUnknown, name, err, p.text.suffix())
	}
	doc, err := ParseDocument(raw)
	if err != nil {
		return Output{}, fmt.Errorf("%w: %s: %w", ErrOutcomeUnknown, name, err)
	}
	return Output{Document: doc, ExitCode: doc.shellExitCode(), Text: p.text.String()}, nil
}

// readDocument reads up to the brace that closes the document: the first line that is a closing brace as far
// to the right as the opening one. How far that is depends on log/prefix; inner lines are further.
func (p *shellProcess) readDocument() ([]byte, error) {
	var raw []byte
	end := ""
	for {
		line, err := p.report.ReadString('\n')
		raw = append(raw, line...)
		if err != nil {
			return nil, err
		}
		if end == "" {
			indent, ok := strings.CutSuffix(line, "{\n")
			if !ok || strings.TrimLeft(indent, " ") != "" {
				return nil, fmt.Errorf("%q does not begin a report", line)
			}
			end = indent + "}\n"
		}
		if line == end {
			return raw, nil
		}
	}
}

// Close asks the shell to end and waits for it, at most until ctx ends. Commands after it go by exec.
func (s *Shell) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	select {
	case <-s.turn: // nobody is in the middle of a command
	case <-ctx.Done():
		return fmt.Errorf("LVM is still working: %w", context.Cause(ctx))
	}
	s.mu.Lock()
	p := s.proc
	s.proc = nil
	s.mu.Unlock()
	s.turn <- struct{}{}
	if p == nil {
		return nil
	}
	p.retire()
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("LVM shell (pid %d) does not end: %w", p.PID, context.Cause(ctx))
	}
}
