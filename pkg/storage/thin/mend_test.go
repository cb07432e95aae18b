package thin_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
)

// poolKernel is a pool at a transaction, with some devices; it writes down what it was told to do.
type poolKernel struct {
	kernel
	has  map[uint32]bool
	mute bool // does not say what it has
	done []string
}

func (k *poolKernel) HasThin(_ context.Context, _, _ string, id uint32) (bool, error) {
	if k.mute {
		return false, errors.New("read-only")
	}
	return k.has[id], nil
}

func (k *poolKernel) DeleteThin(_ context.Context, _, _ string, id uint32) error {
	k.done = append(k.done, fmt.Sprint("delete ", id))
	return nil
}

func (k *poolKernel) SetTransactionID(_ context.Context, _, _ string, from, to uint64) error {
	k.done = append(k.done, fmt.Sprint("set_transaction_id ", from, " ", to))
	return nil
}

// What is not known for certain is left as it is.
func TestMend(t *testing.T) {
	removal := []lvm.PoolMessage{{Delete: 5}, {Delete: 6}}
	for _, tt := range []struct {
		name        string
		lvm, kernel uint64
		queue       []lvm.PoolMessage
		lvs         []lvm.LV // of the pool
		has         []uint32
		mute, fails bool
		want        []string
		kinds       []storage.RecoveryKind
	}{
		{name: "in agreement", lvm: 10, kernel: 10, queue: removal, lvs: volumes(9), has: []uint32{9}},
		{name: "a jam", lvm: 10, kernel: 9, lvs: volumes(8, 9), has: []uint32{8, 9}, want: []string{"set_transaction_id 9 10"}, kinds: []storage.RecoveryKind{storage.RecoveredJam}},
		{name: "a phantom", lvm: 10, kernel: 9, lvs: volumes(8, 9), has: []uint32{8}},
		{name: "jam or phantom, the pool does not say", lvm: 10, kernel: 9, lvs: volumes(8, 9), mute: true, fails: true},
		{name: "two volumes of the transaction", lvm: 10, kernel: 9, lvs: volumes(9, 9), has: []uint32{9}},
		{name: "a removal", lvm: 10, kernel: 9, queue: removal, lvs: volumes(8), has: []uint32{8, 5}, want: []string{"delete 5", "delete 6", "set_transaction_id 9 10"}, kinds: []storage.RecoveryKind{storage.RecoveredRemoval}},
		{name: "nobody knows what", lvm: 10, kernel: 9, lvs: volumes(8), has: []uint32{8, 5}},
		{name: "a removal and more", lvm: 10, kernel: 9, queue: append(removal, lvm.PoolMessage{Create: "x"}), lvs: volumes(8)},
		{name: "a removal and what nobody knows", lvm: 10, kernel: 9, queue: append(removal[:1:1], lvm.PoolMessage{Unknown: true}), lvs: volumes(8), has: []uint32{8, 5, 0}},
		{name: "a removal of what is there", lvm: 10, kernel: 9, queue: []lvm.PoolMessage{{Delete: 8}}, lvs: volumes(8), has: []uint32{8}},
		{name: "two transactions behind", lvm: 10, kernel: 8, queue: removal, lvs: volumes(8, 9), has: []uint32{8}},
		{name: "the kernel is ahead", lvm: 9, kernel: 10, queue: removal, lvs: volumes(9), has: []uint32{9}},
	} {
		k := &poolKernel{kernel: kernel{status: dm.PoolStatus{TransactionID: tt.kernel, Mode: dm.PoolReadWrite}}, has: map[uint32]bool{}, mute: tt.mute}
		for _, id := range tt.has {
			k.has[id] = true
		}
		lvs := append([]lvm.LV{{Name: "pool", Attr: "twi-aotz--", TransactionID: tt.lvm, Queue: tt.queue}}, tt.lvs...)
		done, err := thin.New(thin.Options{Kernel: k}).Mend(t.Context(), "vg0", lvs)
		if (err != nil) != tt.fails {
			t.Errorf("%s: %v", tt.name, err)
		}
		var kinds []storage.RecoveryKind
		for _, r := range done {
			kinds = append(kinds, r.Kind)
		}
		if diff := cmp.Diff(tt.want, k.done) + cmp.Diff(tt.kinds, kinds); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
	}
}

// volumes of a pool, each with its transaction for its id.
func volumes(transactions ...uint64) []lvm.LV {
	var out []lvm.LV
	for i, n := range transactions {
		out = append(out, lvm.LV{Name: fmt.Sprint("v", i), Attr: "Vwi---tz-k", Pool: "pool", TransactionID: n, ThinID: uint32(n)})
	}
	return out
}
