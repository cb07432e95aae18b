package storage

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/keylock"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// Engine is the driver's node-local storage. All methods are safe for concurrent use and idempotent.
//
// A method that changes something outlives its context: when the context ends first, the method returns the
// context's error, the work goes on to its end, and calls for the same object get ErrPending until then.
type Engine struct {
	driver   string
	node     string // hash of the node id
	groups   []*group
	backends map[Type]Backend
	kernel   dm.Kernel
	locks    keylock.Set
	fills    *fills
	cow      COWOptions
	stats    counters
	limit    time.Duration
	stuck    time.Duration
	now      func() time.Time
}

// group is a volume group that the driver was told of.
type group struct {
	*lvm.Group
	extentBytes int64
	records     atomic.Pointer[records] // of the last look
	suspect     atomic.Bool             // a command may have died half way since the last recovery
	recoveredAt atomic.Uint64           // the metadata's sequence number then
	cowTroubles cowTroubles
}

// Options of an Engine.
type Options struct {
	Driver   string       // the driver's name, which marks its LVs
	NodeID   string       // whose volumes these are
	Groups   []*lvm.Group // the opt-in list; the first is the default
	Backends map[Type]Backend
	Kernel   dm.Kernel
	Fill     FillOptions
	COW      COWOptions
	// CommandLimit bounds one operation once it has begun, long after its caller gave up; default 10 minutes.
	CommandLimit time.Duration
	// StuckAfter is for how long an operation may hold a group before the engine is not ready; default 2 minutes.
	StuckAfter time.Duration
	Now        func() time.Time // default time.Now
}

const (
	defaultCommandLimit = 10 * time.Minute
	defaultStuckAfter   = 2 * time.Minute
	// explainAfter is when an operation at work in a group is worth a word in other calls' errors.
	explainAfter = 100 * time.Millisecond
)

// New makes an engine, which Close ends, looks at every group once and puts right what interrupted commands left in it: an error
// says which group or pool is missing and how to make it.
func New(ctx context.Context, o Options) (*Engine, error) {
	if len(o.Groups) == 0 {
		return nil, fmt.Errorf("%w: no volume group was given (--volume-group)", ErrInvalid)
	}
	if err := lvm.ValidateTag(tag(tagDriver, o.Driver)); err != nil {
		return nil, fmt.Errorf("%w: driver name: %w", ErrInvalid, err)
	}
	e := &Engine{
		driver: o.Driver, node: NodeHash(o.NodeID), backends: o.Backends, kernel: o.Kernel,
		limit: o.CommandLimit, stuck: o.StuckAfter, now: o.Now, fills: newFills(o.Fill),
	}
	e.cow = o.COW.withDefaults()
	if e.limit <= 0 {
		e.limit = defaultCommandLimit
	}
	if e.stuck <= 0 {
		e.stuck = defaultStuckAfter
	}
	if e.now == nil {
		e.now = time.Now
	}
	for _, g := range o.Groups {
		opened, err := e.open(ctx, g)
		if err != nil {
			return nil, fmt.Errorf("volume group %s: %w", g.Name(), err)
		}
		e.groups = append(e.groups, opened)
	}
	for _, g := range e.groups {
		if err := e.inTurn(ctx, g, changing, "start", func(context.Context, *lvm.Client, *view) error { return nil }); err != nil {
			// No reason not to serve what is well; every change begins with another try.
			klog.FromContext(ctx).Error(err, "What interrupted commands left could not be put right at the start", "volumeGroup", g.Name())
		}
	}
	if err := e.resumeFills(ctx); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// Close ends what the engine does by itself. What is left undone is begun again by the next engine.
func (e *Engine) Close() { e.fills.close() }

func (e *Engine) open(ctx context.Context, g *lvm.Group) (*group, error) {
	out := &group{Group: g}
	out.suspect.Store(true) // nobody knows how the last driver ended
	err := g.Do(ctx, "start", e.limit, func(ctx context.Context, c *lvm.Client) error {
		m, err := c.View(ctx)
		if errors.Is(err, lvm.ErrGroupNotFound) {
			return fmt.Errorf("%w: there is no such volume group on this node (vgcreate %s DISK): %w", ErrInvalid, g.Name(), err)
		}
		if err != nil {
			return err
		}
		out.extentBytes = m.ExtentBytes
		for _, b := range e.backends {
			if err := b.Open(ctx, c, m.LVs); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

func (e *Engine) handle(lv string) string { return Handle{NodeHash: e.node, LV: lv}.String() }

// local parses a handle of this node.
func (e *Engine) local(id string) (Handle, error) {
	h, err := ParseHandle(id)
	if err != nil {
		return Handle{}, err
	}
	if h.NodeHash != e.node {
		return Handle{}, fmt.Errorf("%w: %s is on the node with hash %s, this one is %s", ErrOtherNode, id, h.NodeHash, e.node)
	}
	return h, nil
}

func (e *Engine) localVolume(id string) (Handle, error) {
	h, err := e.local(id)
	if err == nil && !h.IsVolume() {
		err = fmt.Errorf("%w: %s is not a volume", ErrNotFound, id)
	}
	return h, err
}

func (e *Engine) localSnapshot(id string) (Handle, error) {
	h, err := e.local(id)
	if err == nil && !h.IsSnapshot() {
		err = fmt.Errorf("%w: %s is not a snapshot", ErrNotFound, id)
	}
	return h, err
}

func (e *Engine) groupNames() string { return strings.Join(e.GroupNames(), ", ") }

// groupFor is the group that a class names, or the default.
func (e *Engine) groupFor(class Class) (*group, error) {
	if class.VolumeGroup == "" {
		return e.groups[0], nil
	}
	for _, g := range e.groups {
		if g.Name() == class.VolumeGroup {
			return g, nil
		}
	}
	return nil, fmt.Errorf("%w: volume group %q is not among those that the driver was told to use on this node (--volume-group %s)",
		ErrInvalid, class.VolumeGroup, e.groupNames())
}

func (e *Engine) backend(t Type) (Backend, error) {
	if t == "" {
		t = TypeThin
	}
	b, ok := e.backends[t]
	if !ok {
		return nil, fmt.Errorf("%w: type %q is not available in this driver", ErrInvalid, t)
	}
	return b, nil
}

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
		v, err := e.look(ctx, g, func(ctx context.Context) (lvm.Metadata, error) { return g.View(ctx, e.limit) })
		if err != nil {
			return err
		}
		return fn(ctx, nil, v)
	}
	return g.Do(ctx, purpose, e.limit, func(ctx context.Context, c *lvm.Client) error {
		v, err := e.healthy(ctx, g, c)
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

// remove deletes an LV of this driver. What is not there, or not the driver's, is left alone and no error.
func (e *Engine) remove(ctx context.Context, name, purpose string, lvName func(string) string) error {
	_, err := change(ctx, e, name, purpose, func() (struct{}, error) {
		if err := e.fills.stop(ctx, name); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, e.whenClosed(ctx, func() error {
			return e.withLV(ctx, name, changing, purpose+" "+name, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
				if _, ok := v.owned(lv, lvName); !ok {
					return nil
				}
				if err := e.checkClosed(ctx, v.group.Name(), lv); err != nil {
					return err
				}
				if _, isVolume := v.owned(lv, VolumeLV); !isVolume && e.fills.isRead(lv.UUID) {
					return fmt.Errorf("%w: %s/%s is being copied into a new volume", ErrInUse, v.group.Name(), lv.Name)
				}
				if err := v.checkPoolTakes(ctx, lv); err != nil {
					return err
				}
				return v.discardUnfinished(ctx, c, lv)
			})
		})
	})
	return ignoreNotFound(err)
}

func ignoreNotFound(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// checkClosed says whether somebody has the LV's device open. LVM would find out, too, but only after retrying
// for six seconds (activation/retry_deactivation), in which the group is closed to everybody else.
func (e *Engine) checkClosed(ctx context.Context, group string, lv lvm.LV) error {
	info, err := e.kernel.Info(ctx, group, lv.Name)
	if errors.Is(err, dm.ErrNoDevice) {
		return nil
	}
	if err == nil && info.OpenCount > 0 {
		err = fmt.Errorf("%w: /dev/%s/%s is open or mounted (%d times); see `lsblk` and `fuser -vm` on the node",
			ErrInUse, group, lv.Name, info.OpenCount)
	}
	return err
}

// whenClosed tries fn for about a second while it says ErrInUse: after an unmount udev opens the device for a
// moment to look at it.
func (e *Engine) whenClosed(ctx context.Context, fn func() error) error {
	for pause := 50 * time.Millisecond; ; pause *= 2 {
		err := fn()
		if !errors.Is(err, ErrInUse) || pause > 400*time.Millisecond {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}
