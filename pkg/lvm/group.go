package lvm

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/semaphore"
)

// Group is one volume group and the only way to it: callers take turns, first come first served. One writer is
// faster than several, which would only wait for LVM's own lock (measured: 32 callers in one queue 59 ms each,
// 32 parallel execs 433 ms each); an administrator's commands stay safe by that lock.
type Group struct {
	name   string
	client *Client
	turns  *semaphore.Weighted
	waited func(WaitEvent)

	waiting atomic.Int64
	turn    atomic.Pointer[turn] // nil: nobody has it

	unflushed atomic.Bool // something may have been changed that the disks have not made durable
}

// maxWaiting bounds the queue: beyond it a caller is refused rather than kept.
const maxWaiting = 1000

// GroupOptions say how a volume group is reached.
type GroupOptions struct {
	Executor Executor           // how commands are run
	Reader   MetadataReader     // nil: LVM is asked what there is
	Locks    Locker             // nil: nobody else runs LVM
	Observe  func(CommandEvent) // nil: nobody is told of commands
	Waited   func(WaitEvent)    // nil: nobody is told of those who waited
	Tracer   trace.Tracer       // nil: no spans of commands and waits
	// Neighbors are the driver's other groups, whose disks may hang; nil: LVM is kept from none of them.
	Neighbors *Neighbors
}

// WaitEvent tells an observer (metrics) that a caller got its turn, or gave up.
type WaitEvent struct {
	Group    string
	Duration time.Duration
	Err      error
}

// NewGroup makes the queue of a volume group.
func NewGroup(name string, o GroupOptions) (*Group, error) {
	if err := ValidateName(name); err != nil {
		return nil, err
	}
	client := &Client{exec: o.Executor, group: name, locks: o.Locks, on: o.Observe, tracer: o.Tracer}
	if o.Reader != nil {
		client.reader = newBoundedReader(o.Reader)
	}
	if disks, ok := o.Reader.(DiskLister); ok && o.Neighbors != nil {
		client.neighbors = o.Neighbors
		o.Neighbors.join(name, disks)
	}
	g := &Group{name: name, client: client, turns: semaphore.NewWeighted(1), waited: o.Waited}
	g.unflushed.Store(true)
	return g, nil
}

// Name of the volume group.
func (g *Group) Name() string { return g.name }

// Waiting is how many callers are in the queue.
func (g *Group) Waiting() int { return int(g.waiting.Load()) }

// Do runs fn when it is the caller's turn. The purpose is for messages to those who wait. Waiting ends with
// ctx; what fn gets does not: a command once begun outlives its caller (docs/adr/0003), up to limit. One that goes
// on even then keeps the turn until it has ended.
func (g *Group) Do(ctx context.Context, purpose string, limit time.Duration, fn func(context.Context, *Client) error) error {
	if n := g.waiting.Add(1); n > maxWaiting {
		g.waiting.Add(-1)
		return fmt.Errorf("%w: %s: %d are waiting%s", ErrBusy, g.name, maxWaiting, g.holder())
	}
	began, endSpan := time.Now(), traceWait(ctx, g.client.tracer, g.name)
	err := g.turns.Acquire(ctx, 1)
	g.waiting.Add(-1)
	endSpan(err)
	if g.waited != nil {
		g.waited(WaitEvent{g.name, time.Since(began), err})
	}
	if err != nil {
		return fmt.Errorf("%s: waiting for volume group %s%s: %w", purpose, g.name, g.holder(), context.Cause(ctx))
	}
	t := g.take(purpose)
	defer g.giveBack(ctx, t)
	run, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	client := *g.client
	client.turn = t
	err = fn(run, &client)
	if t.changed() {
		g.unflushed.Store(true)
	}
	if err == nil {
		err = g.flush(run, &client)
	}
	return err
}

// View is Client.View for those who only look. It waits for nobody's turn unless LVM itself must be asked.
func (g *Group) View(ctx context.Context, limit time.Duration) (m Metadata, err error) {
	if g.client.reader != nil {
		// LVM would hang on a disk that does not answer, and keep the group from those who need no disk.
		if m, err := g.client.reader.Metadata(g.name); err == nil || errors.Is(err, ErrStuck) {
			return m, err
		}
	}
	err = g.Do(ctx, "look", limit, func(ctx context.Context, c *Client) error {
		m, err = c.View(ctx)
		return err
	})
	return m, err
}

// Peek is View for those who would rather not know than run an LVM command: metrics, which are asked for all the time.
// LVM is asked only where nothing else can be.
func (g *Group) Peek(ctx context.Context, limit time.Duration) (Metadata, error) {
	if g.client.reader == nil {
		return g.View(ctx, limit)
	}
	return g.client.reader.Metadata(g.name)
}
