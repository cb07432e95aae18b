package thin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/bounded"
	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// answerLimit is how long a pool may take to say how it is. It leaves callers, who give up after 10 s and more, the time to look
// at others.
const answerLimit = 3 * time.Second

// kernel asks pools, which may not answer: the kernel commits a pool's metadata under the lock that its status takes, and
// flushes the pool's data before. When a disk hangs in that, so does every status (dm-thin-metadata.c,
// dm_pool_commit_metadata and dm_pool_get_metadata_transaction_id).
type kernel struct {
	dm.Kernel

	mu    sync.Mutex
	pools map[string]*bounded.Question[dm.PoolStatus]
}

// PoolStatus implements dm.Kernel; a silentError when the pool does not answer.
func (k *kernel) PoolStatus(ctx context.Context, group, pool string) (dm.PoolStatus, error) {
	st, err := k.question(group, pool).Ask(func() (dm.PoolStatus, error) {
		return k.Kernel.PoolStatus(context.WithoutCancel(ctx), group, pool)
	})
	var silence *bounded.UnansweredError
	if errors.As(err, &silence) {
		err = &silentError{silence, group, pool}
	}
	return st, err
}

func (k *kernel) question(group, pool string) *bounded.Question[dm.PoolStatus] {
	key := group + "/" + pool
	k.mu.Lock()
	defer k.mu.Unlock()
	q := k.pools[key]
	if q == nil {
		q = bounded.New[dm.PoolStatus](answerLimit)
		k.pools[key] = q
	}
	return q
}

// Silent says whether a pool does not answer now, for lvm.Neighbors: pools are asked by the engine's watch every second.
func (b *Backend) Silent() bool {
	k := b.kernel
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, q := range k.pools {
		if q.Unanswered(suspectLimit) {
			return true
		}
	}
	return false
}

// suspectLimit is how long a status may take before LVM is kept from the pool's devices, by which it is no worse.
const suspectLimit = 250 * time.Millisecond

// silentError: a pool does not answer.
type silentError struct {
	*bounded.UnansweredError
	group, pool string
}

// message says which device, for how long, and where to look.
func (e *silentError) message() string {
	return fmt.Sprintf("thin pool %s/%s has not answered for %s: I/O of %s or %s hangs, and with it whatever needs a new block of the pool; "+
		"see `dmsetup info` (suspended?) and the kernel log",
		e.group, e.pool, e.Age(), dm.DeviceName(e.group, e.pool+"_tdata"), dm.DeviceName(e.group, e.pool+"_tmeta"))
}

// Error implements error.
func (e *silentError) Error() string { return storage.ErrBusy.Error() + ": " + e.message() }

// Unwrap says that nothing was begun.
func (e *silentError) Unwrap() error { return storage.ErrBusy }

func isSilent(err error) bool {
	var silence *silentError
	return errors.As(err, &silence)
}

// memoryLimit is how old the last answer of a pool may have been when the silence began. It is asked every second, and so nobody can take a
// pool away, repair it and bring it back without being seen; only then could it know less than it did.
const memoryLimit = time.Minute

// memory keeps the last transaction id of each pool, by its UUID: it only grows.
type memory struct {
	mu    sync.Mutex
	pools map[string]remembered
}

type remembered struct {
	transaction uint64
	at          time.Time
}

func (m *memory) keep(uuid string, transaction uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pools == nil {
		m.pools = map[string]remembered{}
	}
	m.pools[uuid] = remembered{transaction, time.Now()}
}

func (m *memory) forget(uuid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pools, uuid)
}

// of a pool that is silent; 0, by which nothing is there, when nothing is known.
func (m *memory) of(uuid string, silence *silentError) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	last, ok := m.pools[uuid]
	if !ok || silence.Since.Sub(last.at) > memoryLimit {
		return 0
	}
	return last.transaction
}

// transactions of a pool: LVM's, which its next volume gets, and how many the kernel has counted, or had when it last answered.
type transactions struct {
	lvm, kernel uint64
	unfinished  bool // LVM has not written down that its last one is done
	silent      bool
}

// transactions asks a pool; false when nobody can tell.
func (b *Backend) transactions(ctx context.Context, group string, pool lvm.LV) (transactions, bool, error) {
	out := transactions{lvm: pool.TransactionID, unfinished: len(pool.Queue) > 0}
	st, err := b.kernel.PoolStatus(ctx, group, pool.Name)
	var silence *silentError
	switch {
	case errors.As(err, &silence):
		out.kernel, out.silent = b.memory.of(pool.UUID, silence), true
	case errors.Is(err, dm.ErrNoDevice), err == nil && st.Mode == dm.PoolFailed:
		b.memory.forget(pool.UUID)
		return out, false, nil
	case err != nil:
		return out, false, err
	default:
		b.memory.keep(pool.UUID, st.TransactionID)
		out.kernel = st.TransactionID
	}
	return out, true, nil
}

// has says whether the pool is known to have a volume of that transaction for good. What a silent pool counted last may not be on its
// disk yet: that hangs. So LVM has to have gone on from it.
func (t transactions) has(id uint64) bool {
	return id < t.kernel && (!t.silent || !t.unfinished || id+1 < t.lvm)
}
