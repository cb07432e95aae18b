package ctl_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/ctl"
)

// A pool is low from where the driver refuses, whose flags are found where it runs.
func TestReserves(t *testing.T) {
	for name, tt := range map[string]struct {
		driver, flags string
		want          []string
	}{
		"the defaults":           {"lvmsnap", "", []string{}},
		"no driver":              {"", "", []string{}},
		"the driver's":           {"lvmsnap --volume-group=data --pool-data-reserve=30%", "", []string{"PoolDataLow"}},
		"in two words":           {"lvmsnap --pool-metadata-reserve 90", "", []string{"PoolMetadataLow"}},
		"another driver's":       {"lvmsnap --driver-name=other.example --pool-data-reserve=30", "", []string{}},
		"by flags":               {"lvmsnap", "--pool-data-reserve 30 --pool-metadata-reserve 90", []string{"PoolDataLow", "PoolMetadataLow"}},
		"by flags, not driver's": {"lvmsnap --pool-data-reserve=30", "--pool-data-reserve 20%", []string{}},
	} {
		n, _, _ := shop(t) // 22.5 % of its pool's data and 87.5 % of its metadata are free
		if tt.driver != "" {
			n.run(map[int]program{50: {comm: "lvmsnap", state: "S", parent: 1, line: tt.driver}})
		}
		got, _ := n.doctor(strings.Fields(tt.flags)...)
		if !slices.Equal(reasons(got.Findings), tt.want) {
			t.Errorf("%s: %+v", name, got.Findings)
		}
	}
	n := newNode(t)
	if code := n.ctl("doctor", "--pool-data-reserve", "100"); code != ctl.ExitUsage {
		t.Errorf("exit code %d: %s", code, n.err.String())
	}
}

// The driver of a pod whose LVM is the host's.
func TestHostNamespaceOfTheDriver(t *testing.T) {
	for line, want := range map[string]bool{
		"lvmsnap --host-namespace --volume-group=data": true, "lvmsnap --host-namespace=true": true,
		"lvmsnap --host-namespace=false": false, "lvmsnap": false, "lvmsnap --driver-name other --host-namespace": false,
	} {
		n := newNode(t)
		n.run(map[int]program{50: {comm: "lvmsnap", state: "S", parent: 1, line: line}})
		n.ctl("get", "pools")
		if n.hostNamespace != want {
			t.Errorf("%s: %v", line, n.hostNamespace)
		}
	}
}
