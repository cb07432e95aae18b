package thin_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/backendtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	fakeGroup = "vg-0" // a hyphen, as device-mapper likes it least
	fakePool  = "pool"
	gib       = int64(1) << 30
)

// The contract on the fake.
func TestContractOnFake(t *testing.T) {
	fixture := func(t *testing.T) *backendtest.Fixture {
		fixture, _ := newFakeFixture(t)
		return fixture
	}
	backendtest.Run(t, fixture)
	backendtest.RunPool(t, fixture)
}

func newFakeFixture(t *testing.T) (*backendtest.Fixture, *lvmtest.LVM) {
	fake := lvmtest.New()
	fake.AddGroup(fakeGroup, 100*gib)
	fake.AddPool(fakeGroup, fakePool, 2*gib, 16<<20, 64<<10, true)
	open := func(t *testing.T) *storage.Engine { return openFake(t, fake) }
	return &backendtest.Fixture{
		Engine: open(t), Reopen: open, Type: storage.TypeThin, Group: fakeGroup, Pool: fakePool,
		Admin: lvm.NewClient(fake, fakeGroup),
		Write: func(t *testing.T, v storage.Volume, text string) {
			if err := fake.Write(fakeGroup, lvName(t, v), text); err != nil {
				t.Fatal(err)
			}
		},
		Read: func(t *testing.T, v storage.Volume) string {
			text, err := fake.Read(fakeGroup, lvName(t, v))
			if err != nil {
				t.Fatal(err)
			}
			return text
		},
		Hold: func(t *testing.T, v storage.Volume) func() {
			fake.SetOpen(fakeGroup, lvName(t, v), true)
			return func() { fake.SetOpen(fakeGroup, lvName(t, v), false) }
		},
		FillPool: func(_ *testing.T, percent float64) {
			fake.SetPoolUsage(fakeGroup, fakePool, int64((percent+0.1)/100*float64(2*gib)), 10)
		},
	}, fake
}

func openFake(t *testing.T, fake *lvmtest.LVM) *storage.Engine {
	group, err := lvm.NewGroup(fakeGroup, lvm.GroupOptions{Executor: fake})
	if err != nil {
		t.Fatal(err)
	}
	e, err := storage.New(context.Background(), storage.Options{
		Driver: backendtest.Driver, NodeID: backendtest.NodeID, Groups: []*lvm.Group{group}, Kernel: fake,
		Backends: map[storage.Type]storage.Backend{
			storage.TypeThin: thin.New(thin.Options{Kernel: fake, DataReservePercent: 5, MetadataReservePercent: 10}),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func lvName(t *testing.T, v storage.Volume) string {
	t.Helper()
	h, err := storage.ParseHandle(v.ID)
	if err != nil {
		t.Fatal(err)
	}
	return h.LV
}
