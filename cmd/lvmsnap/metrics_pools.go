package main

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// poolMetrics are how full the groups and their pools are, looked at when they are asked for: a few reads of the metadata and a
// few ioctls, no LVM command.
type poolMetrics struct {
	engine fillLevels
	logger klog.Logger
	// looking is held by the one look at a time, however long it takes: a kernel that does not answer is not asked again
	// by every scrape.
	looking chan struct{}
}

// fillLevels is what the metrics of pools need of *storage.Engine.
type fillLevels interface {
	Pools(ctx context.Context) ([]storage.Pool, error)
	Groups(ctx context.Context) ([]storage.Group, error)
}

func newPoolMetrics(engine fillLevels, logger klog.Logger) *poolMetrics {
	return &poolMetrics{engine: engine, logger: logger, looking: make(chan struct{}, 1)}
}

// poolTimeout is for one look; Prometheus gives a scrape 10 s by default.
const poolTimeout = 5 * time.Second

func poolDesc(name, help string, more ...string) *prometheus.Desc {
	return prometheus.NewDesc("lvmsnap_pool_"+name, help, append([]string{"volume_group", "pool"}, more...), nil)
}

func groupDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("lvmsnap_volume_group_"+name, help, []string{"volume_group"}, nil)
}

var (
	poolSize             = poolDesc("data_size_bytes", "Size of a thin pool's data.")
	poolUsed             = poolDesc("data_used_bytes", "How much of a thin pool's data is in use.")
	poolLimit            = poolDesc("data_limit_bytes", "Nothing is created in a thin pool with more data in use (its size less --pool-data-reserve).")
	poolMetadataSize     = poolDesc("metadata_size_bytes", "Size of a thin pool's metadata.")
	poolMetadataUsed     = poolDesc("metadata_used_bytes", "How much of a thin pool's metadata is in use.")
	poolMetadataLimit    = poolDesc("metadata_limit_bytes", "Nothing is created in a thin pool with more metadata in use (its size less --pool-metadata-reserve, or what LVM wants to be free).")
	poolPromised         = poolDesc("promised_bytes", "Sizes of all writable volumes of a thin pool together, whoever made them.")
	poolAutoextends      = poolDesc("autoextends_total", "Extensions of a thin pool by the driver, of data or metadata, by result: ok, no_space (the volume group has no free extents), error.", "of", "result")
	poolCondition        = poolDesc("condition", "1 for everything that is wrong with a thin pool; without a series: nothing is.", "reason")
	groupSize            = groupDesc("size_bytes", "Size of a volume group.")
	groupFree            = groupDesc("free_bytes", "How much of a volume group no logical volume has.")
	groupMetadataUsed    = groupDesc("metadata_area_used_bytes", "Length of a volume group's own metadata.")
	groupMetadataMaximum = groupDesc("metadata_area_size_bytes", "How long a volume group's own metadata can become; nothing is created above 95 % of it.")
)

// Describe implements prometheus.Collector.
func (m *poolMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		poolSize, poolUsed, poolLimit, poolMetadataSize, poolMetadataUsed, poolMetadataLimit, poolPromised, poolAutoextends, poolCondition,
		groupSize, groupFree, groupMetadataUsed, groupMetadataMaximum,
	} {
		ch <- d
	}
}

// fill is what one look finds.
type fill struct {
	pools  []storage.Pool
	groups []storage.Group
}

// Collect implements prometheus.Collector. What cannot be had in time is left out, so that the rest arrives.
func (m *poolMetrics) Collect(ch chan<- prometheus.Metric) {
	timeout := time.NewTimer(poolTimeout)
	defer timeout.Stop()
	select {
	case m.looking <- struct{}{}:
	case <-timeout.C:
		m.logger.Info("No metrics of pools: the look of an earlier scrape has not ended")
		return
	}
	found := make(chan fill, 1)
	go func() {
		defer func() { <-m.looking }()
		found <- m.look()
	}()
	select {
	case f := <-found:
		f.collect(ch)
	case <-timeout.C:
		m.logger.Info("No metrics of pools in time", "timeout", poolTimeout)
	}
}

func (m *poolMetrics) look() (f fill) {
	var err error
	if f.pools, err = m.engine.Pools(context.Background()); err != nil {
		m.logger.Error(err, "No metrics of pools")
	}
	if f.groups, err = m.engine.Groups(context.Background()); err != nil {
		m.logger.Error(err, "No metrics of volume groups")
	}
	return f
}

func (f fill) collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, value int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	for _, g := range f.groups {
		gauge(groupSize, g.SizeBytes, g.Name)
		gauge(groupFree, g.FreeBytes, g.Name)
		if g.MetadataLimitBytes > 0 {
			gauge(groupMetadataUsed, g.MetadataBytes, g.Name)
			gauge(groupMetadataMaximum, g.MetadataLimitBytes, g.Name)
		}
	}
	for _, p := range f.pools {
		collectPool(ch, p, gauge)
	}
}

func collectPool(ch chan<- prometheus.Metric, p storage.Pool, gauge func(*prometheus.Desc, int64, ...string)) {
	gauge(poolSize, p.SizeBytes, p.VolumeGroup, p.Name)
	gauge(poolPromised, p.PromisedBytes, p.VolumeGroup, p.Name)
	if p.Active {
		gauge(poolUsed, p.Used.DataBytes, p.VolumeGroup, p.Name)
		gauge(poolLimit, p.Limit.DataBytes, p.VolumeGroup, p.Name)
		gauge(poolMetadataSize, p.MetadataBytes, p.VolumeGroup, p.Name)
		gauge(poolMetadataUsed, p.Used.MetadataBytes, p.VolumeGroup, p.Name)
		gauge(poolMetadataLimit, p.Limit.MetadataBytes, p.VolumeGroup, p.Name)
	}
	for kind, n := range p.Growths {
		ch <- prometheus.MustNewConstMetric(poolAutoextends, prometheus.CounterValue, float64(n), p.VolumeGroup, p.Name, kind.Of, kind.Result)
	}
	for _, c := range p.Conditions {
		gauge(poolCondition, 1, p.VolumeGroup, p.Name, c.Reason)
	}
}
