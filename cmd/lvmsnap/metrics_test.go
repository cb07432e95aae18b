package main

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

type stats storage.Stats

func (s stats) Stats() storage.Stats { return storage.Stats(s) }

func TestEngineMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(engineMetrics{stats{Fills: []storage.FillStats{{LV: "csi-v-x", DoneBytes: 1, TotalBytes: 4}}, COWGrown: 2, COWLost: 3, Recoveries: map[storage.RecoveryKind]int64{storage.RecoveredJam: 5}}})
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
# HELP lvmsnap_recoveries_total What interrupted LVM commands had left and was put right, by kind.
# TYPE lvmsnap_recoveries_total counter
lvmsnap_recoveries_total{kind="jam"} 5
`))
	if err != nil {
		t.Error(err)
	}
}
