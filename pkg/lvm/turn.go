package lvm

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
)

// stillRunningError is the error for a command that goes on after its caller's context has ended. It says when the
// command really ends, so that nobody else gets the group's turn before.
type stillRunningError struct {
	command string
	cause   error
	ended   <-chan struct{}
}

func (e *stillRunningError) Error() string {
	return fmt.Sprintf("lvm %s: %v: %v", e.command, hostexec.ErrStillRunning, e.cause)
}

func (e *stillRunningError) Unwrap() []error { return []error{hostexec.ErrStillRunning, e.cause} }

// NewStillRunning is what an Executor returns when ctx ended before the command did: ended is closed when it has.
func NewStillRunning(ctx context.Context, args []string, ended <-chan struct{}) error {
	return &stillRunningError{command: commandName(args), cause: context.Cause(ctx), ended: ended}
}

// Busy is what has a group's turn.
type Busy struct {
	Purpose string // of the operation
	Since   time.Time
	Command string // that is running in it; empty when none is
	// CommandSince is when that command was started.
	CommandSince time.Time
}

// String says it for messages.
func (b Busy) String() string {
	held := fmt.Sprintf("%s has held it for %s", b.Purpose, age(b.Since))
	if b.Command == "" {
		return held
	}
	return fmt.Sprintf("%s; its command %s has been running for %s", held, b.Command, age(b.CommandSince))
}

func age(since time.Time) time.Duration { return time.Since(since).Round(time.Millisecond) }

// turn is one turn in a group: an operation and what it runs. A nil turn keeps no account.
type turn struct {
	mu      sync.Mutex
	busy    Busy
	outlive []<-chan struct{} // the ends of commands that go on after the operation
	changes bool              // a command was run that changes something
}

func (t *turn) begin(args []string) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy.Command, t.busy.CommandSince = commandName(args), time.Now()
	t.changes = t.changes || !reads(args[0])
}

func (t *turn) changed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changes
}

// end is told when a command has ended, or goes on without its caller.
func (t *turn) end(still *stillRunningError) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if still != nil {
		t.outlive = append(t.outlive, still.ended)
		return
	}
	t.busy.Command = ""
}

func (t *turn) commandsThatGoOn() []<-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.outlive)
}

// Busy says what has the group's turn, if anything does.
func (g *Group) Busy() (Busy, bool) {
	t := g.turn.Load()
	if t == nil {
		return Busy{}, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.busy, true
}

// take makes an operation the one that has the turn.
func (g *Group) take(purpose string) *turn {
	t := &turn{busy: Busy{Purpose: purpose, Since: time.Now()}}
	g.turn.Store(t)
	return t
}

// giveBack ends a turn: at once, or when the last command that was begun in it has ended, however long that takes.
// Another command beside one that is stuck would be stuck behind it, and unknown to those who ask what is going on.
func (g *Group) giveBack(ctx context.Context, t *turn) {
	left := t.commandsThatGoOn()
	end := func() {
		if g.client.reader != nil && t.changed() {
			g.client.reader.changes.Add(1)
		}
		g.turn.Store(nil)
		g.turns.Release(1)
	}
	if len(left) == 0 {
		end()
		return
	}
	klog.FromContext(ctx).Info("An LVM command outlives its operation; the volume group is closed until it ends",
		"volumeGroup", g.name, "busy", g.holder())
	go func() {
		for _, ended := range left {
			<-ended
		}
		klog.FromContext(ctx).Info("The LVM command has ended; the volume group is open again", "volumeGroup", g.name, "busy", g.holder())
		end()
	}()
}

func (g *Group) holder() string {
	if b, ok := g.Busy(); ok {
		return " (" + b.String() + ")"
	}
	return ""
}
