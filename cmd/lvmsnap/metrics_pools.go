package main

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/bounded"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// poolMetrics are how full the groups and their pools are, looked at when they are asked for: a few reads of the metadata and a
// few ioctls, no LVM command.
type poolMetrics struct {
	engine surveyor
	logger klog.Logger
	looks  map[string]*bounded.Question[storage.Survey] // by group: a kernel that does not answer is not asked again by every scrape
}

// surveyor is what the metrics of groups need of *storage.Engine.
type surveyor interface {
	GroupNames() []string
	Survey(ctx context.Context, group string) (storage.Survey, error)
}

func newPoolMetrics(engine surveyor, logger klog.Logger) *poolMetrics {
	m := &poolMetrics{engine: engine, logger: logger, looks: map[string]*bounded.Question[storage.Survey]{}}
	for _, name := range engine.GroupNames() {
		m.looks[name] = bounded.New[storage.Survey](poolTimeout)
	}
	return m
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
	poolLimit            = poolDesc("data_limit_bytes", "Nothing is created in a thin pool with more data in use: its size less --pool-data-reserve.")
	poolMetadataSize     = poolDesc("metadata_size_bytes", "Size of a thin pool's metadata.")
	poolMetadataUsed     = poolDesc("metadata_used_bytes", "How much of a thin pool's metadata is in use.")
	poolMetadataLimit    = poolDesc("metadata_limit_bytes", "Nothing is created in a thin pool with more metadata in use: its size less --pool-metadata-reserve, or less what LVM wants to be free.")
	poolPromised         = poolDesc("promised_bytes", "Sizes of all writable volumes of a thin pool together, whoever made them.")
	poolAutoextends      = poolDesc("autoextends_total", "Extensions of a thin pool by the driver since its start, of data or metadata, by result: ok, no_space (the volume group has no free extents), error.", "of", "result")
	poolCondition        = poolDesc("condition", "1 for everything that is wrong with a thin pool, by reason; without a series nothing is.", "reason")
	groupSize            = groupDesc("size_bytes", "Size of a volume group.")
	groupFree            = groupDesc("free_bytes", "How much of a volume group no logical volume has.")
	groupMetadataUsed    = groupDesc("metadata_area_used_bytes", "Length of a volume group's own metadata.")
	groupMetadataMaximum = groupDesc("metadata_area_size_bytes", "How long a volume group's own metadata can become; nothing is created above 95 % of it.")

	volumeCount = prometheus.NewDesc("lvmsnap_volumes",
		"Volumes by type and state: active (has a device on the node), inactive, filling (its content is being written, and it does not exist yet for its owner), damaged (a disk is missing, or the pool failed).", []string{"volume_group", "type", "state"}, nil)
	snapshotCount = prometheus.NewDesc("lvmsnap_snapshots",
		"Snapshots by type and state: ready (can be restored), lost (its COW overflowed), damaged (a disk is missing, the pool is not active, or LVM and the kernel disagree).", []string{"volume_group", "type", "state"}, nil)
	snapshotOldest = prometheus.NewDesc("lvmsnap_snapshot_oldest_timestamp_seconds",
		"When the oldest snapshot of a volume group was cut, since the epoch; absent without one.", []string{"volume_group", "type"}, nil)
	snapshotNewest = prometheus.NewDesc("lvmsnap_snapshot_newest_timestamp_seconds",
		"When the newest snapshot of a volume group was cut, since the epoch; absent without one.", []string{"volume_group", "type"}, nil)
	cowSize = prometheus.NewDesc("lvmsnap_cow_size_bytes",
		"Sizes of the COWs of all active snapshots of thick volumes together.", []string{"volume_group"}, nil)
	cowUsed = prometheus.NewDesc("lvmsnap_cow_used_bytes",
		"How much of the COWs of active snapshots of thick volumes is in use.", []string{"volume_group"}, nil)
	cowFullest = prometheus.NewDesc("lvmsnap_cow_fullest_ratio",
		"How full the fullest COW is, 0 to 1, of those that can overflow and have not.", []string{"volume_group"}, nil)
)

// Describe implements prometheus.Collector.
func (m *poolMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		poolSize, poolUsed, poolLimit, poolMetadataSize, poolMetadataUsed, poolMetadataLimit, poolPromised, poolAutoextends, poolCondition,
		groupSize, groupFree, groupMetadataUsed, groupMetadataMaximum,
		volumeCount, snapshotCount, snapshotOldest, snapshotNewest, cowSize, cowUsed, cowFullest,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. What cannot be had in time is left out, so that the rest arrives.
func (m *poolMetrics) Collect(ch chan<- prometheus.Metric) {
	var groups sync.WaitGroup
	for name, look := range m.looks {
		groups.Go(func() {
			s, err := look.Ask(func() (storage.Survey, error) { return m.engine.Survey(context.Background(), name) })
			if err != nil {
				m.logger.Error(err, "No metrics of a volume group", "volumeGroup", name)
				return
			}
			collectGroup(ch, s)
		})
	}
	groups.Wait()
}

func collectGroup(ch chan<- prometheus.Metric, s storage.Survey) {
	gauge := func(d *prometheus.Desc, value int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...)
	}
	g := s.Group
	gauge(groupSize, g.SizeBytes, g.Name)
	gauge(groupFree, g.FreeBytes, g.Name)
	if g.MetadataLimitBytes > 0 {
		gauge(groupMetadataUsed, g.MetadataBytes, g.Name)
		gauge(groupMetadataMaximum, g.MetadataLimitBytes, g.Name)
	}
	for _, p := range s.Pools {
		collectPool(ch, p, gauge)
	}
	for c, n := range s.Volumes {
		gauge(volumeCount, int64(n), g.Name, string(c.Type), string(c.State))
	}
	for c, n := range s.Snapshots {
		gauge(snapshotCount, int64(n), g.Name, string(c.Type), string(c.State))
	}
	for t, cuts := range s.Cuts {
		gauge(snapshotOldest, cuts.Oldest.Unix(), g.Name, string(t))
		gauge(snapshotNewest, cuts.Newest.Unix(), g.Name, string(t))
	}
	gauge(cowSize, s.COW.SizeBytes, g.Name)
	gauge(cowUsed, s.COW.UsedBytes, g.Name)
	ch <- prometheus.MustNewConstMetric(cowFullest, prometheus.GaugeValue, s.COW.Fullest, g.Name)
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
