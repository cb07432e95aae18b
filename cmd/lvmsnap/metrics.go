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
	groupWaiting = prometheus.NewDesc("lvmsnap_group_waiting_calls",
		"Calls that wait for their turn in a volume group.", []string{"volume_group"}, nil)
	groupHeld = prometheus.NewDesc("lvmsnap_group_operation_seconds",
		"How long the operation at work in a volume group has had its turn; 0 when there is none.", []string{"volume_group"}, nil)
	groupCommand = prometheus.NewDesc("lvmsnap_lvm_running_command_seconds",
		"How long the LVM command at work in a volume group has been running; 0 when there is none.", []string{"volume_group"}, nil)
	groupStuck = prometheus.NewDesc("lvmsnap_lvm_stuck_commands",
		"Operations that have been at work in a volume group for longer than --stuck-after.", []string{"volume_group"}, nil)
	fillBytes = prometheus.NewDesc("lvmsnap_fill_bytes",
		"Bytes of a volume that is being zeroed or copied: done (on stable storage), and total.", []string{"lv", "of"}, nil)
	cowEvents = prometheus.NewDesc("lvmsnap_cow_snapshots_total",
		"COW snapshots, by what happened to them: grown, failed to grow, lost.", []string{"event"}, nil)
	recoveries = prometheus.NewDesc("lvmsnap_recoveries_total",
		"What interrupted LVM commands had left and was put right, by kind.", []string{"kind"}, nil)
	notices = prometheus.NewDesc("lvmsnap_notices_total",
		"What users had to know, by reason: each is a line in the log, too, and with --kubernetes-events an event.", []string{"reason"}, nil)
)

// Describe implements prometheus.Collector.
func (m engineMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{groupWaiting, groupHeld, groupCommand, groupStuck, fillBytes, cowEvents, recoveries, notices} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (m engineMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.engine.Stats()
	for _, g := range s.Groups {
		stuck := 0.0
		if g.Stuck {
			stuck = 1
		}
		ch <- prometheus.MustNewConstMetric(groupWaiting, prometheus.GaugeValue, float64(g.Waiting), g.Name)
		ch <- prometheus.MustNewConstMetric(groupHeld, prometheus.GaugeValue, g.Held.Seconds(), g.Name)
		ch <- prometheus.MustNewConstMetric(groupCommand, prometheus.GaugeValue, g.Command.Seconds(), g.Name)
		ch <- prometheus.MustNewConstMetric(groupStuck, prometheus.GaugeValue, stuck, g.Name)
	}
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
	for reason, n := range s.Notices {
		ch <- prometheus.MustNewConstMetric(notices, prometheus.CounterValue, float64(n), reason)
	}
}
