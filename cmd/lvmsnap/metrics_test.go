package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/driver"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

type stats storage.Stats

func (s stats) Stats() storage.Stats { return storage.Stats(s) }

func TestEngineMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(engineMetrics{stats{
		Fills: []storage.FillStats{{LV: "csi-v-x", DoneBytes: 1, TotalBytes: 4}}, COWGrown: 2, COWLost: 3, Recoveries: map[storage.RecoveryKind]int64{storage.RecoveredJam: 5},
		Notices: map[string]int64{storage.SnapshotInvalid: 3},
		Groups:  []storage.GroupStats{{Name: "vg0", Waiting: 7, Held: 3 * time.Minute, Command: 90 * time.Second, Stuck: true}, {Name: "vg1"}},
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
# HELP lvmsnap_notices_total What users had to know, by reason: each is a line in the log, too, and with --kubernetes-events an event.
# TYPE lvmsnap_notices_total counter
lvmsnap_notices_total{reason="SnapshotInvalid"} 3
# HELP lvmsnap_recoveries_total What interrupted LVM commands had left and was put right, by kind.
# TYPE lvmsnap_recoveries_total counter
lvmsnap_recoveries_total{kind="jam"} 5
`))
	if err != nil {
		t.Error(err)
	}
}

// named are the metrics of a collector.
type named struct{ names map[string]bool }

func (n named) Register(c prometheus.Collector) error {
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		c.Describe(descs)
	}()
	for d := range descs {
		n.names[regexp.MustCompile(`fqName: "([^"]*)"`).FindStringSubmatch(d.String())[1]] = true
	}
	return nil
}

func (n named) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		_ = n.Register(c)
	}
}

func (named) Unregister(prometheus.Collector) bool { return false }

// Every metric is in the reference, and nothing else is.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(lvmsnap_[a-z_]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = true
	}
	n := named{map[string]bool{}}
	newCommandMetrics(n)
	n.MustRegister(engineMetrics{}, newPoolMetrics(nil, klog.Background()))
	if _, err := driver.NewMetrics(n); err != nil {
		t.Fatal(err)
	}
	for name := range n.names {
		if !documented[name] {
			t.Errorf("%s is not in docs/reference/metrics.md", name)
		}
		delete(documented, name)
	}
	for name := range documented {
		t.Errorf("docs/reference/metrics.md has %s, which there is not", name)
	}
}
