package main

import (
	"context"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// commandMetrics measures LVM's commands, and the way to them.
type commandMetrics struct {
	duration, wait *prometheus.HistogramVec
}

func newCommandMetrics(r prometheus.Registerer) *commandMetrics {
	m := &commandMetrics{duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "lvmsnap_lvm_command_duration_seconds",
		Help:    "How long LVM commands took, by volume group, verb and result: ok, error.",
		Buckets: prometheus.ExponentialBuckets(0.002, 2, 14), // 2 ms to 16 s
		// For those who ask for native histograms; the buckets above are for the others.
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}, []string{"volume_group", "verb", "result"})}
	m.wait = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:                        "lvmsnap_group_wait_duration_seconds",
		Help:                        "How long calls waited for their turn in a volume group, by result: ok, or error when they gave up.",
		Buckets:                     []float64{.001, .01, .05, .1, .5, 1, 5, 10, 30, 60, 300},
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour,
	}, []string{"volume_group", "result"})
	r.MustRegister(m.duration, m.wait)
	return m
}

func resultOf(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

func (m *commandMetrics) waited(e lvm.WaitEvent) {
	m.wait.WithLabelValues(e.Group, resultOf(e.Err)).Observe(e.Duration.Seconds())
}

func (m *commandMetrics) observe(e lvm.CommandEvent) {
	m.duration.WithLabelValues(e.Group, e.Verb, resultOf(e.Err)).Observe(e.Duration.Seconds())
}

// engineMetrics are what the engine does by itself, collected when they are asked for.
type engineMetrics struct {
	engine interface {
		Stats() storage.Stats
		Ready(ctx context.Context) error
	}
}

var (
	ready = prometheus.NewDesc("lvmsnap_ready",
		"1 when Probe says that the driver is ready; 0 when an operation has been at work for longer than --stuck-after.", nil, nil)
	groupWaiting = prometheus.NewDesc("lvmsnap_group_waiting_calls",
		"Calls that wait for their turn in a volume group. Above 1,000 they are refused (Unavailable).", []string{"volume_group"}, nil)
	groupHeld = prometheus.NewDesc("lvmsnap_group_operation_seconds",
		"How long the operation at work in a volume group has had its turn; 0 when there is none.", []string{"volume_group"}, nil)
	groupCommand = prometheus.NewDesc("lvmsnap_lvm_running_command_seconds",
		"How long the LVM command at work in a volume group has been running; 0 when there is none.", []string{"volume_group"}, nil)
	groupStuck = prometheus.NewDesc("lvmsnap_lvm_stuck_commands",
		"1 when an operation has been at work in a volume group for longer than --stuck-after, which makes the driver not ready.", []string{"volume_group"}, nil)
	fillBytes = prometheus.NewDesc("lvmsnap_fill_bytes",
		"Bytes of a volume that is being zeroed or copied at the moment: done (on stable storage), and total. At most --copy-parallelism volumes.", []string{"lv", "of"}, nil)
	fillsNow = prometheus.NewDesc("lvmsnap_fills",
		"Volumes that are being zeroed or copied (at_work), or wait for those (waiting).", []string{"state"}, nil)
	fillsEnded = prometheus.NewDesc("lvmsnap_fills_total",
		"Volumes that were zeroed or copied, by kind (zero, copy; grow zeroes what a volume was extended by) and result: ok, interrupted (deleted, or the driver ended), error. What was interrupted or failed begins again where it was.", []string{"kind", "result"}, nil)
	fillsBytes = prometheus.NewDesc("lvmsnap_fills_done_bytes_total",
		"Bytes of volumes that were zeroed or copied and are on stable storage, by kind; with those zeroes that the disk made by itself.", []string{"kind"}, nil)
	cowEvents = prometheus.NewDesc("lvmsnap_cow_snapshots_total",
		"COW snapshots of thick volumes, by what happened to them: grown, failed (to grow), lost.", []string{"event"}, nil)
	recoveries = prometheus.NewDesc("lvmsnap_recoveries_total",
		"What interrupted LVM commands had left and was put right, by kind; each is a line in the log.", []string{"kind"}, nil)
	notices = prometheus.NewDesc("lvmsnap_notices_total",
		"What users had to know, by reason: each is a line in the log, too, and with --kubernetes-events an event.", []string{"reason"}, nil)
)

// Describe implements prometheus.Collector.
func (m engineMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{
		ready, groupWaiting, groupHeld, groupCommand, groupStuck, fillBytes, fillsNow, fillsEnded, fillsBytes, cowEvents, recoveries, notices,
	} {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (m engineMetrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	count := func(d *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge(ready, asNumber(m.engine.Ready(context.Background()) == nil))
	s := m.engine.Stats()
	for _, g := range s.Groups {
		gauge(groupWaiting, float64(g.Waiting), g.Name)
		gauge(groupHeld, g.Held.Seconds(), g.Name)
		gauge(groupCommand, g.Command.Seconds(), g.Name)
		gauge(groupStuck, asNumber(g.Stuck), g.Name)
	}
	for _, f := range s.Fills {
		gauge(fillBytes, float64(f.DoneBytes), f.LV, "done")
		gauge(fillBytes, float64(f.TotalBytes), f.LV, "total")
	}
	gauge(fillsNow, float64(len(s.Fills)), "at_work")
	gauge(fillsNow, float64(s.FillsWaiting), "waiting")
	for end, n := range s.FillsEnded {
		count(fillsEnded, n, end.Kind, end.Result)
	}
	for kind, n := range s.FilledBytes {
		count(fillsBytes, n, kind)
	}
	for event, n := range map[string]int64{"grown": s.COWGrown, "failed": s.COWFailed, "lost": s.COWLost} {
		count(cowEvents, n, event)
	}
	for kind, n := range s.Recoveries {
		count(recoveries, n, string(kind))
	}
	for reason, n := range s.Notices {
		count(notices, n, reason)
	}
}

func asNumber(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// registerBuild registers what this driver is, and what it was told: by that, dashboards and alerts know what is much.
func registerBuild(r prometheus.Registerer, o options, lvmVersion string) {
	value := func(name, help string, value float64, labels prometheus.Labels) {
		g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
		g.Set(value)
		r.MustRegister(g)
	}
	value("lvmsnap_build_info", "1, with the versions of the driver, of Go and of LVM.", 1,
		prometheus.Labels{"version": version, "go_version": runtime.Version(), "lvm_version": lvmVersion})
	value("lvmsnap_overprovision_ratio", "--overprovision-ratio: how many times its size the volumes of a thin pool may have together.",
		float64(o.overprovisionRatio), nil)
	value("lvmsnap_pool_autoextend_threshold_ratio", "--pool-autoextend-threshold: thin pools are extended when they are fuller; 1 is never.",
		float64(o.poolThreshold)/100, nil)
	value("lvmsnap_cow_autoextend_threshold_ratio", "--cow-autoextend-threshold: COWs are extended when they are fuller; 0 is never.",
		float64(o.cowThreshold)/100, nil)
	value("lvmsnap_stuck_after_seconds", "--stuck-after: an operation that has been at work for longer is stuck.", o.stuckAfter.Seconds(), nil)
}
