package lvm_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
)

// countingRunner counts the processes that are started.
type countingRunner struct {
	hostexec.Runner
	starts atomic.Int64
}

func (r *countingRunner) Start(c hostexec.Command) (*hostexec.Process, error) {
	r.starts.Add(1)
	return r.Runner.Start(c)
}

// scriptedRunner starts pretended LVM processes: shells that answer as the script says, and single commands
// that succeed.
type scriptedRunner struct {
	hostexec.Runner
	t *testing.T

	mu       sync.Mutex
	scripts  []func(c *conversation, line string)
	started  []string
	told     []string
	failures int
	current  *conversation
}

func newScriptedRunner(t *testing.T) *scriptedRunner {
	return &scriptedRunner{t: t}
}

// script says what the shell does with its next command; without, it succeeds.
func (r *scriptedRunner) script(f func(c *conversation, line string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.scripts = append(r.scripts, f)
}

func (r *scriptedRunner) failStarts(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = n
}

// commands is what was started, lines what the shells were told.
func (r *scriptedRunner) commands() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.started...)
}

func (r *scriptedRunner) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.told...)
}

func (r *scriptedRunner) kill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current.die()
}

// closeStdin is a shell that does not read any more, and has not ended either.
func (r *scriptedRunner) closeStdin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.current.stdin.CloseWithError(io.ErrClosedPipe)
}

// conversation is one pretended process.
type conversation struct {
	stdin        *io.PipeReader
	out, reports *io.PipeWriter
	ended        chan struct{}
	once         sync.Once
}

func (c *conversation) report(text string) { _, _ = io.WriteString(c.reports, text) }

func (c *conversation) die() {
	c.once.Do(func() {
		_ = c.stdin.Close()
		_ = c.out.Close()
		_ = c.reports.Close()
		close(c.ended)
	})
}

// Start implements hostexec.Runner.
func (r *scriptedRunner) Start(cmd hostexec.Command) (*hostexec.Process, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failures > 0 {
		r.failures--
		return nil, errors.New("start lvm: no such program")
	}
	r.started = append(r.started, strings.Join(append(cmd.Env, cmd.String()), " "))
	stdinR, stdinW := io.Pipe()
	outR, outW := io.Pipe()
	repR, repW := io.Pipe()
	c := &conversation{stdin: stdinR, out: outW, reports: repW, ended: make(chan struct{})}
	if len(cmd.Args) > 0 {
		go func() {
			c.report(fmt.Sprintf(goodDocument, "exec"))
			c.die()
		}()
	} else {
		r.current = c
		go r.shell(c)
	}
	return hostexec.NewProcess(stdinW, outR, repR, func() (int, error) { <-c.ended; return 0, nil }), nil
}

func (r *scriptedRunner) shell(c *conversation) {
	defer c.die()
	in := bufio.NewScanner(c.stdin)
	for in.Scan() {
		r.mu.Lock()
		r.told = append(r.told, in.Text())
		f := func(c *conversation, _ string) { c.report(fmt.Sprintf(goodDocument, "shell")) }
		if len(r.scripts) > 0 {
			f, r.scripts = r.scripts[0], r.scripts[1:]
		}
		r.mu.Unlock()
		f(c, in.Text())
	}
}
