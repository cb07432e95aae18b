package thin_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
)

// silentKernel answers as kernel does, unless it is silent.
type silentKernel struct {
	kernel
	silent chan struct{}
}

func (k *silentKernel) PoolStatus(ctx context.Context, group, pool string) (dm.PoolStatus, error) {
	if k.silent != nil {
		<-k.silent
	}
	return k.kernel.PoolStatus(ctx, group, pool)
}

// Snapshots are reported as ready by these states, so that a silent pool is believed what it has said, and no more.
func TestStatesOfASilentPool(t *testing.T) {
	const committed, silent = storage.StateCommitted, storage.StateSilent
	queue := []lvm.PoolMessage{{Create: "v"}}
	for _, tt := range []struct {
		name   string
		uuid   string
		lvm    uint64
		queue  []lvm.PoolMessage
		before []kernel      // what it said last
		age    time.Duration // of that
		want   map[string]storage.State
	}{
		{"in agreement", "p", 10, nil, answered, 0, states(0, 9, committed)},
		{"as old as can be", "p", 10, nil, answered, time.Minute, states(0, 9, committed)},
		{"LVM is about to make one", "p", 11, queue, answered, 0, merge(states(0, 9, committed), states(10, 10, silent))},
		{"it counted one, which is not on its disk for all that LVM knows", "p", 10, queue, answered, 0, merge(states(0, 8, committed), states(9, 9, silent))},
		{"it said so too long ago", "p", 10, nil, answered, time.Minute + time.Second, states(0, 9, silent)},
		{"it was away", "p", 10, nil, append(answered, kernel{err: dm.ErrNoDevice}), 0, states(0, 9, silent)},
		{"it had failed", "p", 10, nil, append(answered, kernel{status: dm.PoolStatus{Mode: dm.PoolFailed}}), 0, states(0, 9, silent)},
		{"it never answered", "p", 10, nil, nil, 0, states(0, 9, silent)},
		{"it is another pool", "q", 10, nil, answered, 0, states(0, 9, silent)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &silentKernel{}
				b := thin.New(thin.Options{Kernel: k})
				pool := lvm.LV{Name: "pool", UUID: "p", Attr: "twi-aotz--", TransactionID: 10}
				for _, k.kernel = range tt.before {
					if _, err := b.States(t.Context(), "vg0", []lvm.LV{pool}); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(tt.age)
				k.silent = make(chan struct{})
				defer close(k.silent)
				pool.UUID, pool.TransactionID, pool.Queue = tt.uuid, tt.lvm, tt.queue
				lvs := []lvm.LV{pool, {Name: "thick", Attr: "-wi-a-----"}}
				for i := range tt.lvm {
					lvs = append(lvs, lvm.LV{Name: fmt.Sprint("v", i), Attr: "Vwi---tz-k", Pool: "pool", TransactionID: i})
				}
				for range 2 { // the second time without waiting
					state, err := b.States(t.Context(), "vg0", lvs)
					if err != nil {
						t.Fatal(err)
					}
					if diff := cmp.Diff(tt.want, known(lvs, state)); diff != "" {
						t.Error(diff)
					}
				}
			})
		})
	}
}

var answered = []kernel{{status: dm.PoolStatus{Mode: dm.PoolReadWrite, TransactionID: 10}}}
