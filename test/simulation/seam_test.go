package simulation_test

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/blockcopy"
	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// faultKind is what goes wrong, once.
type faultKind string

const (
	noFault       faultKind = "none"
	commandFails  faultKind = "a command fails"
	commandLost   faultKind = "LVM is gone before a command"
	answerLost    faultKind = "LVM is gone after a command"
	commandDies   faultKind = "LVM is killed before the pool has made what it has written down"
	commandJams   faultKind = "LVM is killed before the pool has counted what it made"
	commandHangs  faultKind = "a command hangs"
	questionFails faultKind = "a question to LVM fails"
	kernelFails   faultKind = "a question to the kernel fails"
	fillFails     faultKind = "a copy fails"
	driverDies    faultKind = "the driver dies before a command"
	driverDied    faultKind = "the driver dies after a command"
	driverFills   faultKind = "the driver dies in a copy"
)

var faultKinds = []faultKind{
	commandFails, commandLost, answerLost, commandHangs, questionFails, kernelFails, fillFails, driverDies, driverDied, driverFills,
}

// seam is between an engine and its host. What goes through it can go wrong.
type seam struct {
	mu       sync.Mutex
	kind     faultKind
	after    int // so many go well before
	fired    bool
	dead     bool
	begun    chan struct{}
	released chan struct{}
	commands int
}

func (s *seam) arm(kind faultKind, after int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kind, s.after, s.fired = kind, after, false
	s.begun, s.released = make(chan struct{}), make(chan struct{})
}

// disarm says whether the fault came to pass.
func (s *seam) disarm() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kind = noFault
	return s.fired
}

func (s *seam) isDead() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead
}

func (s *seam) kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
}

// take says what is to go wrong with this one.
func (s *seam) take(kinds ...faultKind) faultKind {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead {
		return driverDies
	}
	for _, k := range kinds {
		if k != s.kind || s.fired {
			continue
		}
		if s.after--; s.after >= 0 {
			continue
		}
		s.fired = true
		s.dead = k == driverDies || k == driverFills
		return k
	}
	return noFault
}

// executor is LVM, on the other side.
type executor struct {
	*seam
	inner lvm.Executor
}

func (x executor) Run(ctx context.Context, args ...string) (lvm.Output, error) {
	text := strings.Join(args, " ")
	gone := func(when string) (lvm.Output, error) {
		return lvm.Output{}, fmt.Errorf("%w: %s %s", lvm.ErrOutcomeUnknown, when, text)
	}
	if !lvmtest.Changes(args) {
		switch x.take(questionFails) {
		case questionFails:
			return lvm.Output{ExitCode: 5, Text: "Internal error: simulated."}, nil
		case driverDies:
			return gone("dead before")
		default:
			return x.inner.Run(ctx, args...)
		}
	}
	x.mu.Lock()
	x.commands++
	x.mu.Unlock()
	switch x.take(commandFails, commandLost, answerLost, commandHangs, driverDies, driverDied) {
	case commandFails:
		return lvm.Output{ExitCode: 5, Text: "Internal error: simulated."}, nil
	case commandLost, driverDies:
		return gone("before")
	case answerLost:
		_, _ = x.inner.Run(context.WithoutCancel(ctx), args...)
		return gone("after")
	case driverDied:
		_, _ = x.inner.Run(context.WithoutCancel(ctx), args...)
		x.kill()
		return gone("dead after")
	case commandHangs:
		close(x.begun)
		select {
		case <-x.released:
		case <-ctx.Done():
			return lvm.Output{}, fmt.Errorf("%s: %w: %w", text, hostexec.ErrStillRunning, context.Cause(ctx))
		}
	default:
	}
	return x.inner.Run(ctx, args...)
}

// kernel is device-mapper, on the other side.
type kernel struct {
	*seam
	dm.Kernel
}

func (k kernel) ask() error {
	if k.take(kernelFails) != noFault {
		return fmt.Errorf("ioctl on /dev/mapper/control: simulated: %w", unix.EIO)
	}
	return nil
}

func (k kernel) PoolStatus(ctx context.Context, group, name string) (dm.PoolStatus, error) {
	if err := k.ask(); err != nil {
		return dm.PoolStatus{}, err
	}
	return k.Kernel.PoolStatus(ctx, group, name)
}

func (k kernel) SnapshotStatus(ctx context.Context, group, name string) (dm.SnapshotStatus, error) {
	if err := k.ask(); err != nil {
		return dm.SnapshotStatus{}, err
	}
	return k.Kernel.SnapshotStatus(ctx, group, name)
}

func (k kernel) Info(ctx context.Context, group, name string) (dm.Info, error) {
	if err := k.ask(); err != nil {
		return dm.Info{}, err
	}
	return k.Kernel.Info(ctx, group, name)
}

func (k kernel) Devices(ctx context.Context, group string) ([]dm.Device, error) {
	if err := k.ask(); err != nil {
		return nil, err
	}
	return k.Kernel.Devices(ctx, group)
}

func (k kernel) Resume(ctx context.Context, device string) error {
	if err := k.ask(); err != nil {
		return err
	}
	return k.Kernel.Resume(ctx, device)
}

func (k kernel) HasThin(ctx context.Context, group, pool string, id uint32) (bool, error) {
	if err := k.ask(); err != nil {
		return false, err
	}
	return k.Kernel.HasThin(ctx, group, pool, id)
}

func (k kernel) SetTransactionID(ctx context.Context, group, pool string, from, to uint64) error {
	if err := k.ask(); err != nil {
		return err
	}
	return k.Kernel.SetTransactionID(ctx, group, pool, from, to)
}

// filler copies and zeroes. What goes wrong does so half way.
type filler struct {
	*seam
	inner storage.Filler
}

func (f filler) Zero(ctx context.Context, device string, o blockcopy.Options) (blockcopy.Progress, error) {
	ctx, o, done := f.prepare(ctx, o)
	defer done()
	return f.inner.Zero(ctx, device, o)
}

func (f filler) Copy(ctx context.Context, r blockcopy.Request, o blockcopy.Options) (blockcopy.Progress, error) {
	ctx, o, done := f.prepare(ctx, o)
	defer done()
	return f.inner.Copy(ctx, r, o)
}

func (f filler) prepare(ctx context.Context, o blockcopy.Options) (context.Context, blockcopy.Options, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	if f.take(fillFails, driverFills) != noFault {
		told := o.OnCheckpoint
		o.BlockBytes, o.Parallelism, o.CheckpointInterval = 64<<10, 1, 1
		o.OnCheckpoint = func(p blockcopy.Progress) {
			told(p)
			cancel(fmt.Errorf("writing: simulated: %w", unix.EIO))
		}
	}
	return ctx, o, func() { cancel(nil) }
}

// blocks are the real devices.
type blocks struct{}

func (blocks) Zero(ctx context.Context, device string, o blockcopy.Options) (blockcopy.Progress, error) {
	return blockcopy.Zero(ctx, device, o)
}

func (blocks) Copy(ctx context.Context, r blockcopy.Request, o blockcopy.Options) (blockcopy.Progress, error) {
	return blockcopy.Copy(ctx, r, o)
}
