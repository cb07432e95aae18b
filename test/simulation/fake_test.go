package simulation_test

import (
	"slices"
	"sync/atomic"
	"testing/synctest"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
)

// fakeWorld is a fake LVM. It is made in a bubble (testing/synctest), in which waiting costs nothing.
func fakeWorld(groups ...string) *world {
	fake := lvmtest.New()
	for _, g := range groups {
		fake.AddGroup(g, 40<<30)
		fake.AddPool(g, poolName, 4<<30, 64*mib, 64<<10, true)
	}
	return &world{
		groups: groups,
		open:   func(string) (lvm.Executor, lvm.MetadataReader, func()) { return fake, nil, func() {} },
		kernel: fake, filler: fake,
		admin: func(group string) *lvm.Client { return lvm.NewClient(fake, group) },
		write: fake.Write,
		text: func(group, lv string, _ int64) (string, bool, error) {
			return fake.Content(group, lv), true, nil
		},
		oldBlocks: fake.HasOldBlocks,
		reveal:    func(string) func() { return func() {} },
		quiet:     func(*driver) { synctest.Wait() }, strict: true,
		dieNext: func(kind faultKind, after int) func() bool {
			var fired atomic.Bool
			next := func(fits func(args []string) bool) lvmtest.Match {
				return func(args []string) bool {
					if fired.Load() || !fits(args) {
						return false
					}
					after--
					fired.Store(after < 0)
					return fired.Load()
				}
			}
			fake.ClearFaults()
			switch kind {
			case commandJams:
				fake.JamNext(next(func(args []string) bool { return args[0] == "lvcreate" && !slices.Contains(args, "--size") }))
			default:
				fake.PhantomNext(next(lvmtest.Verb("lvcreate")))
			}
			return func() bool { fake.ClearFaults(); return fired.Load() }
		},
	}
}
