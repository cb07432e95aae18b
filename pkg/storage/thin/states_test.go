package thin_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
)

// kernel knows one pool.
type kernel struct {
	dm.Kernel
	status dm.PoolStatus
	err    error
}

func (k kernel) PoolStatus(context.Context, string, string) (dm.PoolStatus, error) {
	return k.status, k.err
}

// Phantoms are removed, so nothing else may ever be taken for one.
func TestStates(t *testing.T) {
	const committed, phantom = storage.StateCommitted, storage.StatePhantom
	for _, tt := range []struct {
		name        string
		lvm, kernel uint64
		want        map[string]storage.State // of volumes of transactions 0 to 9
	}{
		{"in agreement", 10, 10, states(0, 9, committed)},
		{"a creation was interrupted", 10, 9, merge(merge(states(0, 8, committed), states(9, 9, phantom)), map[string]storage.State{"pool": storage.StateBehind})},
		{"the pool lost transactions", 10, 5, states(0, 4, committed)},
		{"the pool lost all transactions", 10, 0, nil},
		{"the group was restored from a backup", 5, 9, states(0, 8, committed)},
	} {
		lvs := []lvm.LV{{Name: "pool", Attr: "twi-aotz--", TransactionID: tt.lvm}, {Name: "thick", Attr: "-wi-a-----"}}
		for i := range uint64(10) {
			lvs = append(lvs, lvm.LV{Name: fmt.Sprint("v", i), Attr: "Vwi---tz-k", Pool: "pool", TransactionID: i})
		}
		b := thin.New(thin.Options{Kernel: kernel{status: dm.PoolStatus{TransactionID: tt.kernel, Mode: dm.PoolReadWrite}}})
		state, err := b.States(t.Context(), "vg0", lvs)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(merge(tt.want, nil), known(lvs, state)); diff != "" {
			t.Errorf("%s:\n%s", tt.name, diff)
		}
		for what, k := range map[string]kernel{
			"inactive": {err: dm.ErrNoDevice}, "failed": {status: dm.PoolStatus{Mode: dm.PoolFailed}},
		} {
			state, err := thin.New(thin.Options{Kernel: k}).States(t.Context(), "vg0", lvs)
			if err != nil {
				t.Fatal(err)
			}
			if got := known(lvs, state); len(got) > 0 {
				t.Errorf("%s pool: %v", what, got)
			}
		}
	}
}

func known(lvs []lvm.LV, state func(lvm.LV) storage.State) map[string]storage.State {
	out := map[string]storage.State{}
	for _, lv := range lvs {
		if s := state(lv); s != storage.StateUnknown {
			out[lv.Name] = s
		}
	}
	return out
}

func states(from, to int, s storage.State) map[string]storage.State {
	out := map[string]storage.State{}
	for i := from; i <= to; i++ {
		out[fmt.Sprint("v", i)] = s
	}
	return out
}

func merge(a, b map[string]storage.State) map[string]storage.State {
	out := map[string]storage.State{}
	for _, m := range []map[string]storage.State{a, b} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}
