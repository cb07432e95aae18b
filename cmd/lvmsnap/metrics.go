package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// commandMetrics measures LVM's commands.
type commandMetrics struct {
	duration *prometheus.HistogramVec
}

func newCommandMetrics(r prometheus.Registerer) *commandMetrics {
	m := &commandMetrics{duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "lvmsnap_lvm_command_duration_seconds",
		Help:    "How long LVM commands took, by volume group, verb and result.",
		Buckets: prometheus.ExponentialBuckets(0.002, 2, 14), // 2 ms to 16 s
	}, []string{"volume_group", "verb", "result"})}
	r.MustRegister(m.duration)
	return m
}

func (m *commandMetrics) observe(e lvm.CommandEvent) {
	result := "ok"
	if e.Err != nil {
		result = "error"
	}
	m.duration.WithLabelValues(e.Group, e.Verb, result).Observe(e.Duration.Seconds())
}

// engineMetrics are what the engine does by itself, collected when they are asked for.
type engineMetrics struct {
	engine interface{ Stats() storage.Stats }
}

var (
	fillBytes = prometheus.NewDesc("lvmsnap_fill_bytes",
		"Bytes of a volume that is being zeroed or copied: done (on stable storage), and total.", []string{"lv", "of"}, nil)
	cowEvents = prometheus.NewDesc("lvmsnap_cow_snapshots_total",
		"COW snapshots, by what happened to them: grown, failed to grow, lost.", []string{"event"}, nil)
	recoveries = prometheus.NewDesc("lvmsnap_recoveries_total",
		"What interrupted LVM commands had left and was put right, by kind.", []string{"kind"}, nil)
)

// Describe implements prometheus.Collector.
func (m engineMetrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- fillBytes
	ch <- cowEvents
	ch <- recoveries
}

// Collect implements prometheus.Collector.
func (m engineMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.engine.Stats()
	for _, f := range s.Fills {
		ch <- prometheus.MustNewConstMetric(fillBytes, prometheus.GaugeValue, float64(f.DoneBytes), f.LV, "done")
		ch <- prometheus.MustNewConstMetric(fillBytes, prometheus.GaugeValue, float64(f.TotalBytes), f.LV, "total")
	}
	for event, n := range map[string]int64{"grown": s.COWGrown, "failed": s.COWFailed, "lost": s.COWLost} {
		ch <- prometheus.MustNewConstMetric(cowEvents, prometheus.CounterValue, float64(n), event)
	}
	for kind, n := range s.Recoveries {
		ch <- prometheus.MustNewConstMetric(recoveries, prometheus.CounterValue, float64(n), string(kind))
	}
}
