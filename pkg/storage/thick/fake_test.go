package thick_test

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/backendtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thick"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	fakeGroup = "vg-0" // a hyphen, as device-mapper likes it least
	gib       = int64(1) << 30
)

// The contract on the fake.
func TestContractOnFake(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) *backendtest.Fixture {
		fake := lvmtest.New()
		fake.AddGroup(fakeGroup, 100*gib)
		open := func(t *testing.T) *storage.Engine { return openFake(t, fake) }
		return &backendtest.Fixture{
			Engine: open(t), Reopen: open, Type: storage.TypeThick, Group: fakeGroup,
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
			Hold: func(t *testing.T, v storage.Volume) func() { return fake.Open(fakeGroup, lvName(t, v)) },
		}
	})
}

func openFake(t *testing.T, fake *lvmtest.LVM) *storage.Engine {
	group, err := lvm.NewGroup(fakeGroup, lvm.GroupOptions{Executor: fake})
	if err != nil {
		t.Fatal(err)
	}
	e, err := storage.New(context.Background(), storage.Options{
		Driver: backendtest.Driver, NodeID: backendtest.NodeID, Groups: []*lvm.Group{group}, Kernel: fake,
		Fill:     storage.FillOptions{Filler: fake, Wait: 10 * time.Second},
		Backends: map[storage.Type]storage.Backend{storage.TypeThick: thick.New(fake)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
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
