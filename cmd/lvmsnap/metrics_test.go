package main

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

type stats storage.Stats

func (s stats) Stats() storage.Stats { return storage.Stats(s) }

func TestEngineMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(engineMetrics{stats{
		Fills: []storage.FillStats{{LV: "csi-v-x", DoneBytes: 1, TotalBytes: 4}}, COWGrown: 2, COWLost: 3,
		Groups: []storage.GroupStats{{Name: "vg0", Waiting: 7, Held: 3 * time.Minute, Command: 90 * time.Second, Stuck: true}, {Name: "vg1"}},
	}})
	err := testutil.GatherAndCompare(r, strings.NewReader(`
# HELP lvmsnap_cow_snapshots_total COW snapshots, by what happened to them: grown, failed to grow, lost.
# TYPE lvmsnap_cow_snapshots_total counter
lvmsnap_cow_snapshots_total{event="failed"} 0
lvmsnap_cow_snapshots_total{event="grown"} 2
lvmsnap_cow_snapshots_total{event="lost"} 3
# HELP lvmsnap_fill_bytes Bytes of a volume that is being zeroed or copied: done (on stable storage), and total.
# TYPE lvmsnap_fill_bytes gauge
lvmsnap_fill_bytes{lv="csi-v-x",of="done"} 1
lvmsnap_fill_bytes{lv="csi-v-x",of="total"} 4
# HELP lvmsnap_group_operation_seconds How long the operation at work in a volume group has had its turn; 0 when there is none.
# TYPE lvmsnap_group_operation_seconds gauge
lvmsnap_group_operation_seconds{volume_group="vg0"} 180
lvmsnap_group_operation_seconds{volume_group="vg1"} 0
# HELP lvmsnap_group_waiting_calls Calls that wait for their turn in a volume group.
# TYPE lvmsnap_group_waiting_calls gauge
lvmsnap_group_waiting_calls{volume_group="vg0"} 7
lvmsnap_group_waiting_calls{volume_group="vg1"} 0
# HELP lvmsnap_lvm_running_command_seconds How long the LVM command at work in a volume group has been running; 0 when there is none.
# TYPE lvmsnap_lvm_running_command_seconds gauge
lvmsnap_lvm_running_command_seconds{volume_group="vg0"} 90
lvmsnap_lvm_running_command_seconds{volume_group="vg1"} 0
# HELP lvmsnap_lvm_stuck_commands Operations that have been at work in a volume group for longer than --stuck-after.
# TYPE lvmsnap_lvm_stuck_commands gauge
lvmsnap_lvm_stuck_commands{volume_group="vg0"} 1
lvmsnap_lvm_stuck_commands{volume_group="vg1"} 0
`))
	if err != nil {
		t.Error(err)
	}
}
