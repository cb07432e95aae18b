package storage

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

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
	cow      COWOptions
	stats    counters
	limit    time.Duration
	stuck    time.Duration
	patience time.Duration // with a group that is not open
	serves   bool          // and only looks, if not
	now      func() time.Time
	notify   func(Notice)
}

// group is a volume group that the driver was told of.
type group struct {
	*lvm.Group
	opened      atomic.Bool             // see Engine.open
	probed      bool                    // probeCOWs was tried, since
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
	// OpenPatience is for how long a group that does not open keeps New, when another does, and calls that look whether it has
	// what they are about; default 5 seconds.
	OpenPatience time.Duration
	// StuckAfter is for how long an operation may hold a group before the engine is not ready; default 2 minutes.
	StuckAfter time.Duration
	Now        func() time.Time // default time.Now
	// Notify is told what users have to know, from the turns of groups: it does not wait for anything.
	Notify func(Notice)
}

const (
	defaultCommandLimit = 10 * time.Minute
	defaultStuckAfter   = 2 * time.Minute
	defaultOpenPatience = 5 * time.Second
	// explainAfter is when an operation at work in a group is worth a word in other calls' errors.
	explainAfter = 100 * time.Millisecond
)

// New makes an engine, which Close ends, looks at every group once and puts right what interrupted commands left in it. When no
// group can be served, the error says which group or pool is missing and how to make it.
func New(ctx context.Context, o Options) (*Engine, error) {
	e, err := newEngine(o)
	if err != nil {
		return nil, err
	}
	e.serves = true
	if err := e.start(ctx); err != nil {
		e.Close()
		return nil, err
	}
	return e, nil
}

// newEngine checks the options and fills in their defaults. The engine has looked at nothing yet.
func newEngine(o Options) (*Engine, error) {
	if len(o.Groups) == 0 {
		return nil, fmt.Errorf("%w: no volume group was given (--volume-group)", ErrInvalid)
	}
	if err := lvm.ValidateTag(tag(tagDriver, o.Driver)); err != nil {
		return nil, fmt.Errorf("%w: driver name: %w", ErrInvalid, err)
	}
	e := &Engine{
		driver: o.Driver, nodeID: o.NodeID, node: NodeHash(o.NodeID), backends: o.Backends, kernel: o.Kernel,
		limit: o.CommandLimit, stuck: o.StuckAfter, patience: o.OpenPatience, now: o.Now, fills: newFills(o.Fill), cow: o.COW.withDefaults(), notify: o.Notify,
	}
	if e.limit <= 0 {
		e.limit = defaultCommandLimit
	}
	if e.stuck <= 0 {
		e.stuck = defaultStuckAfter
	}
	if e.patience <= 0 {
		e.patience = defaultOpenPatience
	}
	if e.now == nil {
		e.now = time.Now
	}
	for _, g := range o.Groups {
		opening := &group{Group: g}
		opening.suspect.Store(true) // nobody knows how the last driver ended
		e.groups = append(e.groups, opening)
	}
	return e, nil
}

// Close ends what the engine does by itself. What is left undone is begun again by the next engine.
func (e *Engine) Close() { e.fills.close() }

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
