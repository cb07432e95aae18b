package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// start takes a turn in every group. One whose disks are gone, or hang, does not keep the others from being served: it is
// opened by the first turn that can. It is an error only when there is none to be served.
func (e *Engine) start(ctx context.Context) error {
	ended := make(chan error, len(e.groups))
	for _, g := range e.groups {
		go func() {
			err := e.inTurn(ctx, g, changing, "start", func(context.Context, *lvm.Client, *view) error { return nil })
			switch {
			case err == nil:
			case g.opened.Load():
				// No reason not to serve what is well; every change begins with another try.
				klog.FromContext(ctx).Error(err, "What interrupted commands left could not be put right at the start", "volumeGroup", g.Name())
			default:
				klog.FromContext(ctx).Error(err, "A volume group cannot be served before it can be opened, which is tried again", "volumeGroup", g.Name())
				err = fmt.Errorf("volume group %s: %w", g.Name(), err)
			}
			ended <- err
		}()
	}
	anyOpened := func() bool { return slices.ContainsFunc(e.groups, func(g *group) bool { return g.opened.Load() }) }
	patience := time.NewTicker(e.patience) // whichever opens first may take longer
	defer patience.Stop()
	var failed error
	for range e.groups {
		for waiting := true; waiting; {
			select {
			case err := <-ended:
				failed, waiting = errors.Join(failed, err), false
			case <-patience.C:
				if anyOpened() {
					klog.FromContext(ctx).Info("Not all volume groups have been opened; the others are served", "waiting", e.unopened())
					return nil
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	if anyOpened() {
		return nil
	}
	return failed
}

func (e *Engine) unopened() []string {
	var out []string
	for _, g := range e.groups {
		if !g.opened.Load() {
			out = append(out, g.Name())
		}
	}
	return out
}

// open is the begin of a group's first turn: its pools are activated, and the fills begun that another process has left.
func (e *Engine) open(ctx context.Context, g *group, c *lvm.Client) error {
	m, err := c.View(ctx)
	if errors.Is(err, lvm.ErrGroupNotFound) {
		return fmt.Errorf("%w: there is no such volume group on this node (vgcreate %s DISK): %w", ErrInvalid, g.Name(), err)
	}
	if err != nil {
		return err
	}
	for _, b := range e.backends {
		if err := b.Open(ctx, c, m.LVs); err != nil {
			return err
		}
	}
	if e.serves {
		v, err := e.look(ctx, g, c.View)
		if err != nil {
			return err
		}
		for _, lv := range v.lvs {
			if _, ok := v.volume(lv); ok && v.fillOf(lv).kind != fillNone {
				e.startFill(ctx, lv.Name, false)
			}
		}
	}
	g.opened.Store(true)
	return nil
}

// begin is what every turn begins with.
func (e *Engine) begin(ctx context.Context, g *group, c *lvm.Client) (*view, error) {
	if !g.opened.Load() {
		if err := e.open(ctx, g, c); err != nil {
			return nil, err
		}
	}
	v, err := e.healthy(ctx, g, c)
	if err != nil || g.probed || !e.serves {
		return v, err
	}
	g.probed = true
	if err := v.probeCOWs(ctx, c); err != nil {
		// It is not tried again: whoever activates the volume finds out.
		klog.FromContext(ctx).Error(err, "Which COW snapshots were lost while nobody looked is not known", "volumeGroup", g.Name())
	}
	return e.look(ctx, g, c.View)
}

// lookAt makes a view without a turn. With a group that was never opened nobody waits for long: what keeps it may be a disk that
// hangs.
func (e *Engine) lookAt(ctx context.Context, g *group) (*view, error) {
	metadata := func(ctx context.Context) (lvm.Metadata, error) { return g.View(ctx, e.limit) }
	if g.opened.Load() || !e.serves {
		return e.look(ctx, g, metadata)
	}
	ctx, cancel := context.WithTimeout(ctx, e.patience)
	defer cancel()
	v, err := read(ctx, func() (*view, error) { return e.look(ctx, g, metadata) })
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: volume group %s could not be opened yet: %s", ErrBusy, g.Name(), err.Error())
	}
	return v, err
}
