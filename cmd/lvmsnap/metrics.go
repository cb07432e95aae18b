package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
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
