package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

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
