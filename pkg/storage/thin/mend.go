package thin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

var _ storage.Mender = (*Backend)(nil)

// Mend implements storage.Mender: it undoes jams, and finishes removals.
//
// A creation in a thin pool has four steps: LVM commits the new LV, its own transaction id plus one, and what the pool is to
// do; the kernel does it (create_snap, with the origin suspended) and commits; the kernel counts it (set_transaction_id);
// LVM commits that nothing is left to be done. Every later command begins by sending to the pool what is left. So, when a
// command died
//
//   - before the second step, the next one creates the volume, from what its origin holds by then: a phantom, which is to be
//     removed before (storage.StatePhantom);
//   - between the second and the third, the next one fails, because the device is there: a jam. What the kernel made is whole and
//     of the right moment. It is only to be counted, which is the very step that the dead command owed;
//   - after the third, all is well.
//
// A removal has the same steps. The pool keeps the device and its blocks until the next command sends what is left, and may
// be too full for one to be begun; so that is done here, as LVM would do it.
//
// Whoever's volume it is: all this is what LVM was about to do.
func (b *Backend) Mend(ctx context.Context, group string, lvs []lvm.LV) ([]storage.Recovery, error) {
	var out []storage.Recovery
	var silent error
	for _, pool := range pools(lvs) {
		st, err := b.kernel.PoolStatus(ctx, group, pool.Name)
		if isSilent(err) {
			silent = errors.Join(silent, err) // others may answer
			continue
		}
		if errors.Is(err, dm.ErrNoDevice) || err == nil && pool.TransactionID != st.TransactionID+1 {
			continue
		}
		if err != nil {
			return out, err
		}
		lv, ok := newest(lvs, pool.Name, st.TransactionID)
		if !ok {
			r, err := b.finishRemoval(ctx, group, pool, lvs, st.TransactionID)
			if out = append(out, r...); err != nil {
				return out, err
			}
			continue
		}
		has, err := b.kernel.HasThin(ctx, group, pool.Name, lv.ThinID)
		if err != nil {
			return out, fmt.Errorf("thin pool %s/%s is one transaction behind LVM, and does not say whether it has %s (device %d): %w",
				group, pool.Name, lv.Name, lv.ThinID, err)
		}
		if !has {
			continue // a phantom
		}
		if err := b.kernel.SetTransactionID(ctx, group, pool.Name, st.TransactionID, pool.TransactionID); err != nil {
			return out, err
		}
		out = append(out, storage.Recovery{
			Kind: storage.RecoveredJam, LV: lv.Name,
			Found: fmt.Sprintf("thin pool %s has made device %d and not counted it, which jams the pool", pool.Name, lv.ThinID),
			Done:  fmt.Sprintf("counted it: transaction %d", pool.TransactionID),
		})
	}
	return out, silent
}

// finishRemoval does what LVM has written down for the pool to do, if that is to remove devices and nothing else, none of which is a
// volume's any more: LVM forgets the volume by the same commit.
func (b *Backend) finishRemoval(ctx context.Context, group string, pool lvm.LV, lvs []lvm.LV, transaction uint64) ([]storage.Recovery, error) {
	inUse := func(id uint32) bool {
		return slices.ContainsFunc(lvs, func(lv lvm.LV) bool { return lv.Pool == pool.Name && lv.ThinID == id })
	}
	other := func(m lvm.PoolMessage) bool { return m.Create != "" || m.Unknown || inUse(m.Delete) }
	if len(pool.Queue) == 0 || slices.ContainsFunc(pool.Queue, other) {
		return nil, nil
	}
	var ids []string
	for _, m := range pool.Queue {
		if err := b.kernel.DeleteThin(ctx, group, pool.Name, m.Delete); err != nil {
			return nil, err
		}
		ids = append(ids, strconv.FormatUint(uint64(m.Delete), 10))
	}
	if err := b.kernel.SetTransactionID(ctx, group, pool.Name, transaction, pool.TransactionID); err != nil {
		return nil, err
	}
	return []storage.Recovery{{
		Kind: storage.RecoveredRemoval, LV: pool.Name,
		Found: "the pool had not been told that LVM removed volumes from it",
		Done:  fmt.Sprintf("removed device %s: transaction %d", strings.Join(ids, ", "), pool.TransactionID),
	}}, nil
}

// newest is the only volume of a transaction; false when there is none, or it cannot be told.
func newest(lvs []lvm.LV, pool string, transaction uint64) (out lvm.LV, ok bool) {
	for _, lv := range lvs {
		if lv.Pool != pool || lv.TransactionID != transaction {
			continue
		}
		if ok {
			return lvm.LV{}, false
		}
		out, ok = lv, true
	}
	return out, ok
}
