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
	nodeID   string
	node     string // its hash
	groups   []*group
	backends map[Type]Backend
	kernel   dm.Kernel
	locks    keylock.Set
	fills    *fills
	resumed  atomic.Bool // all jobs that another process left are begun
	cow      COWOptions
	stats    counters
	limit    time.Duration
	stuck    time.Duration
	now      func() time.Time
	notify   func(Notice)
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
	// Notify is told what users have to know, from the turns of groups: it does not wait for anything.
	Notify func(Notice)
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
	e, err := newEngine(o)
	if err != nil {
		return nil, err
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

// newEngine checks the options and fills in their defaults. The engine has no groups yet, and has looked at nothing.
func newEngine(o Options) (*Engine, error) {
	if len(o.Groups) == 0 {
		return nil, fmt.Errorf("%w: no volume group was given (--volume-group)", ErrInvalid)
	}
	if err := lvm.ValidateTag(tag(tagDriver, o.Driver)); err != nil {
		return nil, fmt.Errorf("%w: driver name: %w", ErrInvalid, err)
	}
	e := &Engine{
		driver: o.Driver, nodeID: o.NodeID, node: NodeHash(o.NodeID), backends: o.Backends, kernel: o.Kernel,
		limit: o.CommandLimit, stuck: o.StuckAfter, now: o.Now, fills: newFills(o.Fill), cow: o.COW.withDefaults(), notify: o.Notify,
	}
	if e.limit <= 0 {
		e.limit = defaultCommandLimit
	}
	if e.stuck <= 0 {
		e.stuck = defaultStuckAfter
	}
	if e.now == nil {
		e.now = time.Now
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
		return Handle{}, fmt.Errorf("%w: %s is on the node with hash %s, and this is %s", ErrOtherNode, id, h.NodeHash, e.nodeID)
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
