package lvm_test

import (
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
)

func TestContractFake(t *testing.T) {
	RunContract(t, func(t *testing.T) fixture {
		const group = "vg0"
		host := lvmtest.New()
		host.AddGroup(group, 2<<30)
		host.AddPool(group, poolName, poolBytes, poolMetadata, poolChunk, true)
		return fixture{
			exec: host, client: lvm.NewClient(host, group), kernel: host, group: group,
			write: func(t *testing.T, lv, data string) {
				t.Helper()
				if err := host.Write(group, lv, data); err != nil {
					t.Fatal(err)
				}
			},
			read: func(t *testing.T, lv string) string {
				t.Helper()
				data, err := host.Read(group, lv)
				if err != nil {
					t.Fatal(err)
				}
				return data
			},
			overwrite: func(t *testing.T, lv string, bytes int) {
				t.Helper()
				if err := host.Write(group, lv, strings.Repeat("x", bytes)); err != nil {
					t.Fatal(err)
				}
			},
			open: func(_ *testing.T, lv string) func() { return host.Open(group, lv) },
			plain: func(_ *testing.T, lv string, sizeBytes int64) {
				host.AddForeignLV(group, lvmtest.ForeignLV{Name: lv, SizeBytes: sizeBytes, Active: true})
			},
			fill: func(*testing.T) { host.SetPoolUsage(group, poolName, poolBytes, 15) },
		}
	})
}
