// Package lvmtest is a fake LVM with behavior. It understands the same argv as the real one, keeps volume
// groups, pools, volumes, tags, transaction ids and a toy content per volume, answers with the same JSON
// documents, messages and exit codes as LVM 2.03.16, and can be made to fail, hang and crash. What it promises
// to do like the real one is checked by the contract in pkg/lvm, which runs on both.
package lvmtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// LVM is a fake host: LVM by argv, and the kernel's device-mapper. Safe for concurrent use.
type LVM struct {
	mu       sync.Mutex // guards what follows; never held while a command hangs
	groups   map[string]*group
	turns    map[string]chan struct{}
	commands [][]string
	faults   []*fault
	hook     func(args []string)
	fillHook func(ctx context.Context, device string) error
	silent   map[string]chan struct{} // pools that do not answer, by group/name
	serial   int                      // for UUIDs, device minors and blocks
}

var (
	_ lvm.Executor = (*LVM)(nil)
	_ dm.Kernel    = (*LVM)(nil)
)

// New makes a host without volume groups.
func New() *LVM {
	return &LVM{groups: map[string]*group{}, turns: map[string]chan struct{}{}, silent: map[string]chan struct{}{}}
}

// Commands is every command that was begun, in order, as argv without "lvm".
func (l *LVM) Commands() [][]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([][]string, len(l.commands))
	for i, c := range l.commands {
		out[i] = slices.Clone(c)
	}
	return out
}

// CommandLines is Commands as text, for messages and comparisons.
func (l *LVM) CommandLines() []string {
	var out []string
	for _, c := range l.Commands() {
		out = append(out, strings.Join(c, " "))
	}
	return out
}

// ResetCommands forgets the commands so far.
func (l *LVM) ResetCommands() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.commands = nil
}

// OnCommand calls hook at the begin of every command, before it takes effect and without any lock held: it may
// block, and look at or change the fake. This is the place to provoke races. Nil takes the hook away.
func (l *LVM) OnCommand(hook func(args []string)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hook = hook
}

// Run implements lvm.Executor in the manner of lvm.Shell: commands on one group take turns; a command that was
// begun is carried out whatever becomes of ctx.
func (l *LVM) Run(ctx context.Context, args ...string) (lvm.Output, error) {
	if err := ctx.Err(); err != nil {
		return lvm.Output{}, context.Cause(ctx)
	}
	turn := l.turn(args)
	select {
	case <-turn:
	case <-ctx.Done():
		return lvm.Output{}, context.Cause(ctx)
	}
	type answer struct {
		out lvm.Output
		err error
	}
	done, ended := make(chan answer, 1), make(chan struct{})
	go func() {
		defer close(ended)
		out, err := l.command(args)
		turn <- struct{}{}
		done <- answer{out, err}
	}()
	select {
	case a := <-done:
		return a.out, a.err
	case <-ctx.Done():
		return lvm.Output{}, lvm.NewStillRunning(ctx, args, ended)
	}
}

// turn is the lock of the group that a command works on: every verb names it in the last argument, before physical volumes.
func (l *LVM) turn(args []string) chan struct{} {
	name := ""
	for _, arg := range slices.Backward(args) {
		if !strings.HasPrefix(arg, "/") {
			name, _, _ = strings.Cut(arg, "/")
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	turn := l.turns[name]
	if turn == nil {
		turn = make(chan struct{}, 1)
		turn <- struct{}{}
		l.turns[name] = turn
	}
	return turn
}

// command carries a command out, or does what a fault says instead.
func (l *LVM) command(args []string) (lvm.Output, error) {
	l.mu.Lock()
	l.commands = append(l.commands, slices.Clone(args))
	f := l.takeFault(args)
	hook := l.hook
	l.mu.Unlock()
	if hook != nil {
		hook(slices.Clone(args))
	}
	switch f.kind {
	case faultFail:
		return failure(f.exitCode, f.text).output()
	case faultCrashBefore:
		return lvm.Output{}, fmt.Errorf("%w: crash before %s", lvm.ErrOutcomeUnknown, strings.Join(args, " "))
	case faultHang:
		close(f.hang.begun)
		<-f.hang.released
	case faultNone, faultCrashAfter, faultDies:
	}
	l.mu.Lock()
	out, err := l.execute(args, f.dies).output()
	l.mu.Unlock()
	if f.kind == faultCrashAfter || f.kind == faultDies {
		return lvm.Output{}, fmt.Errorf("%w: crash in %s", lvm.ErrOutcomeUnknown, strings.Join(args, " "))
	}
	return out, err
}

func (l *LVM) next() int {
	l.serial++
	return l.serial
}

// uuid is unique and looks like LVM's.
func (l *LVM) uuid() string {
	return fmt.Sprintf("Fake00-0000-0000-0000-0000-0000-%06d", l.next())
}
