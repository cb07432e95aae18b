//go:build lab

package thin_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/backendtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// The contract on real LVM, through the shell as in production.
func TestContractOnLVM(t *testing.T) {
	vg := labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool", PoolSize: "2g", PoolMetadataSize: "16m"})
	env, err := lvm.WriteConfig(t.Context(), hostexec.Host{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	fixture := func(t *testing.T) *backendtest.Fixture { return newRealFixture(t, vg, env) }
	backendtest.Run(t, fixture)
	backendtest.RunPool(t, fixture)
}

// newRealFixture uses one group for all tests, which costs less than making one each, and empties it after each.
func newRealFixture(t *testing.T, vg *labtest.Group, env []string) *backendtest.Fixture {
	kernel := &dm.Control{}
	t.Cleanup(func() {
		_ = kernel.Close()
		labtest.Run(t, "lvremove", "--yes", vg.Name, "--select", "lv_attr!~^t") // all but the pool
	})
	open := func(t *testing.T) *storage.Engine { return openEngine(t, vg.Name, kernel, env) }
	return &backendtest.Fixture{
		Engine: open(t), Reopen: open, Type: storage.TypeThin, Group: vg.Name, Pool: vg.ThinPool,
		Admin: lvm.NewClient(lvm.Exec{Runner: hostexec.Host{}, Env: env}, vg.Name),
		Write: backendtest.WriteDevice, Read: backendtest.ReadDevice, Hold: backendtest.HoldDevice,
		FillPool: func(t *testing.T, percent float64) { fillPool(t, vg, kernel, percent) },
	}
}

func openEngine(t *testing.T, vg string, kernel dm.Kernel, env []string) *storage.Engine {
	e, err := storage.New(t.Context(), storage.Options{
		Driver: backendtest.Driver, NodeID: backendtest.NodeID, Kernel: kernel,
		Groups: []*lvm.Group{backendtest.OpenGroup(t, vg, env)},
		Backends: map[storage.Type]storage.Backend{
			storage.TypeThin: thin.New(thin.Options{Kernel: kernel, DataReservePercent: 5, MetadataReservePercent: 10}),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// fillPool writes to a volume of the administrator's until the pool is that full.
func fillPool(t *testing.T, vg *labtest.Group, kernel dm.Kernel, percent float64) {
	t.Helper()
	labtest.Run(t, "lvcreate", "--type", "thin", "--virtualsize", "4g", "--name", "filler", "--thinpool", vg.Name+"/"+vg.ThinPool)
	f, err := os.OpenFile(filepath.Join("/dev", vg.Name, "filler"), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	buf := bytes.Repeat([]byte{0xa5}, 8<<20)
	for off := int64(0); ; off += int64(len(buf)) {
		st, err := kernel.PoolStatus(t.Context(), vg.Name, vg.ThinPool)
		if err != nil {
			t.Fatal(err)
		}
		if st.DataPercent() > percent {
			return
		}
		if _, err := f.WriteAt(buf, off); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
}

// What the ioctl says is what LVM says.
func TestPoolStatusAgreesWithLVM(t *testing.T) {
	vg := labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool", PoolSize: "512m"})
	kernel := &dm.Control{}
	defer kernel.Close()
	fillPool(t, vg, kernel, 30)
	st, err := kernel.PoolStatus(t.Context(), vg.Name, vg.ThinPool)
	if err != nil {
		t.Fatal(err)
	}
	for field, got := range map[string]float64{"data_percent": st.DataPercent(), "metadata_percent": st.MetadataPercent()} {
		text := strings.TrimSpace(labtest.Run(t, "lvs", "--noheadings", "-o", field, vg.Name+"/"+vg.ThinPool))
		want, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatal(err)
		}
		if got < want-0.1 || got > want+0.1 {
			t.Errorf("%s: %.2f by ioctl, %.2f by lvs", field, got, want)
		}
	}
}
