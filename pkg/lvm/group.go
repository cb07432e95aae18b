package lvm

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// Group is one volume group and the only way to it: callers take turns, first come first served. One writer is
// faster than several, which would only wait for LVM's own lock (measured: 32 callers in one queue 59 ms each,
// 32 parallel execs 433 ms each); an administrator's commands stay safe by that lock.
type Group struct {
	name   string
	client *Client
	turn   *semaphore.Weighted

	waiting atomic.Int64

	mu      sync.Mutex
	current string // what holds the turn, for messages
	since   time.Time
}

// maxWaiting bounds the queue: beyond it a caller is refused rather than kept.
const maxWaiting = 1000

// GroupOptions say how a volume group is reached.
type GroupOptions struct {
	Executor Executor           // how commands are run
	Reader   MetadataReader     // nil: LVM is asked what there is
	Locks    Locker             // nil: nobody else runs LVM
	Observe  func(CommandEvent) // nil: nobody is told of commands
}

// NewGroup makes the queue of a volume group.
func NewGroup(name string, o GroupOptions) (*Group, error) {
	if err := ValidateName(name); err != nil {
		return nil, err
	}
	return &Group{
		name: name, client: &Client{exec: o.Executor, group: name, reader: o.Reader, locks: o.Locks, on: o.Observe}, turn: semaphore.NewWeighted(1),
	}, nil
}

// Name of the volume group.
func (g *Group) Name() string { return g.name }

// Waiting is how many callers are in the queue.
func (g *Group) Waiting() int { return int(g.waiting.Load()) }

// Do runs fn when it is the caller's turn. The purpose is for messages to those who wait. Waiting ends with
// ctx; what fn gets does not: a command once begun outlives its caller (docs/adr/0003), up to limit.
func (g *Group) Do(ctx context.Context, purpose string, limit time.Duration, fn func(context.Context, *Client) error) error {
	if n := g.waiting.Add(1); n > maxWaiting {
		g.waiting.Add(-1)
		return fmt.Errorf("%w: %s: %d are waiting%s", ErrBusy, g.name, maxWaiting, g.holder())
	}
	err := g.turn.Acquire(ctx, 1)
	g.waiting.Add(-1)
	if err != nil {
		return fmt.Errorf("%s: waiting for volume group %s%s: %w", purpose, g.name, g.holder(), context.Cause(ctx))
	}
	defer g.turn.Release(1)
	g.hold(purpose)
	defer g.hold("")
	run, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	return fn(run, g.client)
}

// View is Client.View for those who only look. It waits for nobody's turn unless LVM itself must be asked.
func (g *Group) View(ctx context.Context, limit time.Duration) (m Metadata, err error) {
	if g.client.reader != nil {
		if m, err := g.client.reader.Metadata(g.name); err == nil {
			return m, nil
		}
	}
	err = g.Do(ctx, "look", limit, func(ctx context.Context, c *Client) error {
		m, err = c.View(ctx)
		return err
	})
	return m, err
}

func (g *Group) hold(purpose string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.current, g.since = purpose, time.Now()
}

// Current is what holds the turn and since when; empty when nobody does.
func (g *Group) Current() (purpose string, since time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.current, g.since
}

func (g *Group) holder() string {
	purpose, since := g.Current()
	if purpose == "" {
		return ""
	}
	return fmt.Sprintf(" (%s has held it for %s)", purpose, time.Since(since).Round(time.Millisecond))
}
