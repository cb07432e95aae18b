package storage

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/lvmsnap/lvmsnap/pkg/blockcopy"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// filling is what a volume's tag "fill" says is to be written before anybody gets it. It is committed with the volume, and
// removed when all is on stable storage. KIND:OFFSET says that there is nothing to do below that byte; whoever continues begins there.
type filling struct {
	kind   string
	offset int64
	again  bool // of fillCopy: what was copied before is of another moment, and may be anywhere
}

const (
	fillNone = ""
	fillZero = "zero" // new, and has what others left on its extents
	fillCopy = "copy" // made from the LV in the tag "source"; copy:OFFSET:again
	fillGrow = "grow" // as zero, behind where the volume ended before it grew

	fillAgain = "again"

	sectorBytes = 512
)

func (v *view) fillOf(lv lvm.LV) filling { return parseFilling(v.records.of(lv)[tagFill]) }

func parseFilling(text string) filling {
	kind, rest, _ := strings.Cut(text, ":")
	offset, again, _ := strings.Cut(rest, ":")
	f := filling{kind: kind, again: again == fillAgain}
	n, err := strconv.ParseInt(offset, 10, 64)
	switch {
	case err == nil && n >= 0:
		f.offset = n / sectorBytes * sectorBytes
	case kind == fillGrow:
		f.kind = "unknown" // nobody gets it, and nobody overwrites it
	}
	return f
}

// text is the tag's value.
func (f filling) text() string {
	out := f.kind
	if f.offset > 0 || f.again || f.kind == fillGrow {
		out += ":" + strconv.FormatInt(f.offset, 10)
	}
	if f.again {
		out += ":" + fillAgain
	}
	return out
}

// changeFill replaces what an LV's tag "fill" says; fillNone takes it away.
func (v *view) changeFill(ctx context.Context, c *lvm.Client, lv lvm.LV, to filling, remove, add []string) error {
	if old := v.records.of(lv)[tagFill]; old != to.text() {
		if old != "" {
			remove = append(remove, tag(tagFill, old))
		}
		if to.kind != fillNone {
			add = append(add, tag(tagFill, to.text()))
		}
	}
	if len(remove)+len(add) == 0 {
		return nil
	}
	return c.ChangeTags(ctx, lv.Name, remove, add)
}

// unborn: it was reported to nobody yet, and does not exist for a caller.
func (f filling) unborn() bool { return f.kind != fillNone && f.kind != fillGrow }

// Filler moves the data. The real one is pkg/blockcopy.
type Filler interface {
	Zero(ctx context.Context, device string, o blockcopy.Options) (blockcopy.Progress, error)
	Copy(ctx context.Context, r blockcopy.Request, o blockcopy.Options) (blockcopy.Progress, error)
}

type blockFiller struct{}

func (blockFiller) Zero(ctx context.Context, device string, o blockcopy.Options) (blockcopy.Progress, error) {
	return blockcopy.Zero(ctx, device, o)
}

func (blockFiller) Copy(ctx context.Context, r blockcopy.Request, o blockcopy.Options) (blockcopy.Progress, error) {
	return blockcopy.Copy(ctx, r, o)
}

// FillOptions are for zeroing and copying.
type FillOptions struct {
	Filler Filler // default: pkg/blockcopy
	// Wait is how long a call waits for the content before it gets ErrPending; default 5 s.
	Wait        time.Duration
	Parallelism int64         // how many volumes at a time; default 2
	Limiter     *rate.Limiter // of all of them together; nil: none
	// Checkpoint is how often it is written down, in the volume's tag, how far it is; default 1 minute. That is what a
	// restart of the driver costs, and two commits of the group's metadata each time.
	Checkpoint time.Duration
}

const (
	defaultFillWait        = 5 * time.Second
	defaultFillParallelism = 2
	defaultFillCheckpoint  = time.Minute
)

// fills are the volumes that are being filled, each by a job of its own, beside the calls and out of the groups' turns.
type fills struct {
	o     FillOptions
	slots *semaphore.Weighted
	jobs  sync.WaitGroup

	mu      sync.Mutex
	ended   bool
	running map[string]*fill    // by LV name
	reads   map[string]*reading // by the UUID of what was activated
	clones  map[string]target   // by LV name: those in the making, with a job or waiting for their next one
}

// fill is one job.
type fill struct {
	lv       string
	fresh    bool        // begun with the volume itself: nothing was written to it before
	working  atomic.Bool // it has its slot
	cancel   context.CancelFunc
	progress atomic.Pointer[blockcopy.Progress]
	done     chan struct{}
	err      error // once done
}

func newFills(o FillOptions) *fills {
	if o.Filler == nil {
		o.Filler = blockFiller{}
	}
	if o.Wait == 0 {
		o.Wait = defaultFillWait
	}
	if o.Parallelism <= 0 {
		o.Parallelism = defaultFillParallelism
	}
	if o.Checkpoint <= 0 {
		o.Checkpoint = defaultFillCheckpoint
	}
	return &fills{
		o: o, slots: semaphore.NewWeighted(o.Parallelism), running: map[string]*fill{}, reads: map[string]*reading{}, clones: map[string]target{},
	}
}

func (m *fills) find(lv string) *fill {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.running[lv]
}

// keep has a clone's snapshot kept, until drop: the group that has it does not know of a clone in another one.
func (m *fills) keep(t target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.clones[t.lv.Name] = t
}

func (m *fills) kept(lv string) (target, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t, ok := m.clones[lv]
	return t, ok
}

func (m *fills) drop(lv string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.clones, lv)
}

// start begins a job, which outlives ctx, or finds the one that is running.
func (m *fills) start(ctx context.Context, lv string, fresh bool, work func(context.Context, *fill) error) *fill {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.running[lv]; f != nil {
		return f
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &fill{lv: lv, fresh: fresh, cancel: cancel, done: make(chan struct{})}
	if m.ended {
		cancel()
		f.err = fmt.Errorf("%w: the driver is ending", ErrPending)
		close(f.done)
		return f
	}
	m.running[lv] = f
	m.jobs.Go(func() {
		defer cancel()
		err := work(ctx, f)
		m.mu.Lock()
		delete(m.running, lv)
		m.mu.Unlock()
		f.err = err
		close(f.done)
	})
	return f
}

// stop ends the job of an LV, if there is one, and waits until it has.
func (m *fills) stop(ctx context.Context, lv string) error {
	f := m.find(lv)
	if f == nil {
		return nil
	}
	f.cancel()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: waiting for the end of the copy to %s: %w", ErrPending, lv, context.Cause(ctx))
	}
}

func (m *fills) close() {
	m.mu.Lock()
	m.ended = true
	for _, f := range m.running {
		f.cancel()
	}
	m.mu.Unlock()
	m.jobs.Wait()
}

// wait for the content for as long as a caller can be kept.
func (m *fills) wait(ctx context.Context, f *fill) error {
	patience := time.NewTimer(m.o.Wait)
	defer patience.Stop()
	select {
	case <-f.done:
		return f.err
	case <-patience.C:
		return f.pending()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// pending says how far it is.
func (f *fill) pending() error {
	if f == nil {
		return fmt.Errorf("%w: %s", ErrPending, f.progressText())
	}
	return fmt.Errorf("%w: %s: %s", ErrPending, f.lv, f.progressText())
}

// progressText also says it of a fill that nobody has begun.
func (f *fill) progressText() string {
	if f == nil {
		return "its content is not there yet"
	}
	if p := f.progress.Load(); p != nil && p.TotalBytes > 0 {
		return fmt.Sprintf("its content is being written: %d%% (%s)", p.DurableBytes*100/p.TotalBytes, p)
	}
	return "its content is about to be written"
}

// reading is an activated LV that fills read, or the origin of the COW snapshots that they read.
type reading struct {
	readers    int
	deactivate bool // by the last one: nobody else wants it
}

// read counts a reader of what is active; activated says that it was made so for this reader.
func (m *fills) read(uuid string, activated bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.reads[uuid]
	if r == nil {
		r = &reading{}
		m.reads[uuid] = r
	}
	r.readers++
	r.deactivate = r.deactivate || activated
}

// unread takes a reader away; true says that the LV is to be deactivated.
func (m *fills) unread(uuid string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.reads[uuid]
	if r.readers--; r.readers > 0 {
		return false
	}
	delete(m.reads, uuid)
	return r.deactivate
}

// isRead says whether a job reads an LV.
func (m *fills) isRead(uuid string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads[uuid] != nil
}

// claim keeps an LV active beyond its readers, for a caller who wants it.
func (m *fills) claim(uuid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.reads[uuid]; r != nil {
		r.deactivate = false
	}
}

// giveUp leaves an LV that nobody else wants to its readers; false says that there are none.
func (m *fills) giveUp(uuid string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.reads[uuid]
	if r != nil {
		r.deactivate = true
	}
	return r != nil
}

// final are the errors with which a fill was given up and undone. Without room for the snapshot that a clone is copied from, nothing
// is copied, and what is there already of the clone only takes room from what would be.
func final(err error) bool {
	return errors.Is(err, ErrNotFound) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrNoSpace)
}
