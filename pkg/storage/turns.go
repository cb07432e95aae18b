package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/lvmsnap/lvmsnap/pkg/keylock"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// change runs fn as the only operation on the LV of that name, beyond the end of ctx (see Engine).
func change[T any](ctx context.Context, e *Engine, lv, purpose string, fn func() (T, error)) (T, error) {
	out, err := keylock.Do(ctx, &e.locks, lv, e.limit, func(context.Context) (T, error) {
		out, err := fn()
		return out, classify(err)
	})
	if errors.Is(err, keylock.ErrHeld) {
		return out, fmt.Errorf("%w: %s: another call is working on %s; try again", ErrPending, purpose, lv)
	}
	return out, e.explain(ctx, err)
}

// explain says what a call that ran out of time was waiting for.
func (e *Engine) explain(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	for _, g := range e.groups {
		if busy, ok := g.Busy(); ok && e.now().Sub(busy.Since) > explainAfter {
			err = fmt.Errorf("%w (volume group %s: %s)", err, g.Name(), busy)
		}
	}
	return err
}

// read runs fn and returns when ctx ends at the latest; fn changes nothing, so it may end unheard.
func read[T any](ctx context.Context, fn func() (T, error)) (T, error) {
	type answer struct {
		out T
		err error
	}
	done := make(chan answer, 1)
	go func() {
		out, err := fn()
		done <- answer{out, classify(err)}
	}()
	select {
	case a := <-done:
		return a.out, a.err
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
}

// mode is what a turn is for.
type mode bool

const (
	looking  mode = false // waits for nobody; there is no client
	changing mode = true  // what a crash left is put right first
)

// inTurn looks at a group, in its turn when it is to be changed.
func (e *Engine) inTurn(ctx context.Context, g *group, m mode, purpose string, fn func(context.Context, *lvm.Client, *view) error) error {
	if m == looking {
		v, err := e.lookAt(ctx, g)
		if err != nil {
			return err
		}
		return fn(ctx, nil, v)
	}
	return g.Do(ctx, purpose, e.limit, func(ctx context.Context, c *lvm.Client) error {
		v, err := e.begin(ctx, g, c)
		if err != nil {
			return err
		}
		return e.orRecover(ctx, g, c, fn, fn(ctx, c, v))
	})
}

// create is inTurn for a call that makes something, of which it may be that it was made before. Where nobody could look, no
// answer may say that nothing is there.
func (e *Engine) create(ctx context.Context, g *group, purpose string, fn func(context.Context, *lvm.Client, *view) error) error {
	looked := false
	err := e.inTurn(ctx, g, changing, purpose, func(ctx context.Context, c *lvm.Client, v *view) error {
		looked = true
		return fn(ctx, c, v)
	})
	if !looked {
		err = unseen(err)
	}
	return err
}

// unseen is an error that came before it was known whether what a call makes is there already: only a retry can tell. The
// cause is told and not wrapped: it would look final.
func unseen(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if err := classify(err); errors.Is(err, ErrPending) || errors.Is(err, ErrBusy) {
		return err // neither looks final
	}
	return fmt.Errorf("%w: nobody knows what there is: %s", ErrPending, err.Error())
}

// settle finds out what a failed creation left. The error may only be final when nothing is left.
func (e *Engine) settle(ctx context.Context, g *group, c *lvm.Client, name string, lvName func(string) string, cause error) error {
	cause = classify(cause)
	if errors.Is(cause, ErrPending) || errors.Is(cause, ErrConflict) {
		return cause
	}
	v, err := e.look(ctx, g, c.View)
	if err == nil {
		lv, left := v.find(name)
		if _, ours := v.owned(lv, lvName); !left || !ours {
			return cause
		}
		if err = v.discard(ctx, c, lv); err == nil {
			return cause
		}
	}
	// The cause is told and not wrapped: it would look final.
	return fmt.Errorf("%w: creating %s failed (%s) and undoing it did too: %w", ErrPending, name, cause.Error(), err)
}

// withLV finds the group that holds an LV and calls fn there; ErrNotFound when no group does. A group that
// cannot be looked at matters only when the LV is in none of the others.
func (e *Engine) withLV(
	ctx context.Context, name string, m mode, purpose string, fn func(context.Context, *lvm.Client, *view, lvm.LV) error,
) error {
	groups := e.groups
	if m == changing && len(groups) > 1 {
		// Looking first, so that nobody waits for the turn of a group that has nothing to do with it.
		g, err := e.locate(ctx, name, purpose)
		if err != nil {
			return err
		}
		groups = nil
		if g != nil {
			groups = []*group{g}
		}
	}
	var failed error
	for _, g := range groups {
		found := false
		err := e.inTurn(ctx, g, m, purpose, func(ctx context.Context, c *lvm.Client, v *view) error {
			lv, ok := v.find(name)
			if !ok {
				return nil
			}
			found = true
			if m == changing {
				if err := v.checkPool(ctx, lv, PoolNotAnswering); err != nil {
					return err // LVM would hang, and keep the group's turn
				}
			}
			return fn(ctx, c, v, lv)
		})
		if found {
			return err
		}
		failed = errors.Join(failed, err)
	}
	if failed != nil {
		return failed
	}
	return fmt.Errorf("%w: there is no logical volume %s in %s", ErrNotFound, name, e.groupNames())
}

// locate says which group holds an LV, nil when none does.
func (e *Engine) locate(ctx context.Context, name, purpose string) (*group, error) {
	v, err := e.locateView(ctx, name, purpose)
	if v == nil {
		return nil, err
	}
	return v.group, err
}

// locateView is a view of the group that holds an LV, nil when none does.
func (e *Engine) locateView(ctx context.Context, name, purpose string) (*view, error) {
	var out *view
	err := e.withLV(ctx, name, looking, purpose, func(_ context.Context, _ *lvm.Client, v *view, _ lvm.LV) error {
		out = v
		return nil
	})
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	return out, err
}
