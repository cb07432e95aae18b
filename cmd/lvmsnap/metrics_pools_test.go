package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

type levels struct {
	pools  []storage.Pool
	groups []storage.Group
	err    error
}

func (l levels) Pools(context.Context) ([]storage.Pool, error)   { return l.pools, l.err }
func (l levels) Groups(context.Context) ([]storage.Group, error) { return l.groups, nil }

func TestPoolMetrics(t *testing.T) {
	of := func(what, result string) storage.Growth { return storage.Growth{Of: what, Result: result} }
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(newPoolMetrics(levels{
		groups: []storage.Group{{Name: "vg", SizeBytes: 1000, FreeBytes: 200, MetadataBytes: 30, MetadataLimitBytes: 90}, {Name: "old", SizeBytes: 5}},
		pools: []storage.Pool{
			{
				VolumeGroup: "vg", Name: "pool", SizeBytes: 700, Active: true, Used: storage.PoolUse{DataBytes: 680, MetadataBytes: 7}, MetadataBytes: 40,
				Limit: storage.PoolUse{DataBytes: 665, MetadataBytes: 36}, PromisedBytes: 1400,
				Growths:    map[storage.Growth]int64{of("data", "ok"): 2, of("metadata", "no_space"): 1},
				Conditions: []storage.Condition{{Reason: "PoolDataLow"}},
			},
			{VolumeGroup: "vg", Name: "off", SizeBytes: 60, Conditions: []storage.Condition{{Reason: "PoolInactive"}}},
		},
	}, klog.Background()))
	err := testutil.GatherAndCompare(r, strings.NewReader(`
# HELP lvmsnap_pool_autoextends_total Extensions of a thin pool by the driver, of data or metadata, by result: ok, no_space (the volume group has no free extents), error.
# TYPE lvmsnap_pool_autoextends_total counter
lvmsnap_pool_autoextends_total{of="data",pool="pool",result="ok",volume_group="vg"} 2
lvmsnap_pool_autoextends_total{of="metadata",pool="pool",result="no_space",volume_group="vg"} 1
# HELP lvmsnap_pool_condition 1 for everything that is wrong with a thin pool; without a series: nothing is.
# TYPE lvmsnap_pool_condition gauge
lvmsnap_pool_condition{pool="off",reason="PoolInactive",volume_group="vg"} 1
lvmsnap_pool_condition{pool="pool",reason="PoolDataLow",volume_group="vg"} 1
# HELP lvmsnap_pool_data_limit_bytes Nothing is created in a thin pool with more data in use (its size less --pool-data-reserve).
# TYPE lvmsnap_pool_data_limit_bytes gauge
lvmsnap_pool_data_limit_bytes{pool="pool",volume_group="vg"} 665
# HELP lvmsnap_pool_data_size_bytes Size of a thin pool's data.
# TYPE lvmsnap_pool_data_size_bytes gauge
lvmsnap_pool_data_size_bytes{pool="off",volume_group="vg"} 60
lvmsnap_pool_data_size_bytes{pool="pool",volume_group="vg"} 700
# HELP lvmsnap_pool_data_used_bytes How much of a thin pool's data is in use.
# TYPE lvmsnap_pool_data_used_bytes gauge
lvmsnap_pool_data_used_bytes{pool="pool",volume_group="vg"} 680
# HELP lvmsnap_pool_metadata_limit_bytes Nothing is created in a thin pool with more metadata in use (its size less --pool-metadata-reserve, or what LVM wants to be free).
# TYPE lvmsnap_pool_metadata_limit_bytes gauge
lvmsnap_pool_metadata_limit_bytes{pool="pool",volume_group="vg"} 36
# HELP lvmsnap_pool_metadata_size_bytes Size of a thin pool's metadata.
# TYPE lvmsnap_pool_metadata_size_bytes gauge
lvmsnap_pool_metadata_size_bytes{pool="pool",volume_group="vg"} 40
# HELP lvmsnap_pool_metadata_used_bytes How much of a thin pool's metadata is in use.
# TYPE lvmsnap_pool_metadata_used_bytes gauge
lvmsnap_pool_metadata_used_bytes{pool="pool",volume_group="vg"} 7
# HELP lvmsnap_pool_promised_bytes Sizes of all writable volumes of a thin pool together, whoever made them.
# TYPE lvmsnap_pool_promised_bytes gauge
lvmsnap_pool_promised_bytes{pool="off",volume_group="vg"} 0
lvmsnap_pool_promised_bytes{pool="pool",volume_group="vg"} 1400
# HELP lvmsnap_volume_group_free_bytes How much of a volume group no logical volume has.
# TYPE lvmsnap_volume_group_free_bytes gauge
lvmsnap_volume_group_free_bytes{volume_group="old"} 0
lvmsnap_volume_group_free_bytes{volume_group="vg"} 200
# HELP lvmsnap_volume_group_metadata_area_size_bytes How long a volume group's own metadata can become; nothing is created above 95 % of it.
# TYPE lvmsnap_volume_group_metadata_area_size_bytes gauge
lvmsnap_volume_group_metadata_area_size_bytes{volume_group="vg"} 90
# HELP lvmsnap_volume_group_metadata_area_used_bytes Length of a volume group's own metadata.
# TYPE lvmsnap_volume_group_metadata_area_used_bytes gauge
lvmsnap_volume_group_metadata_area_used_bytes{volume_group="vg"} 30
# HELP lvmsnap_volume_group_size_bytes Size of a volume group.
# TYPE lvmsnap_volume_group_size_bytes gauge
lvmsnap_volume_group_size_bytes{volume_group="old"} 5
lvmsnap_volume_group_size_bytes{volume_group="vg"} 1000
`))
	if err != nil {
		t.Error(err)
	}
	problems, err := testutil.GatherAndLint(r)
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}

// What cannot be had is left out, and the scrape goes on.
func TestPoolMetricsUnavailable(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(newPoolMetrics(levels{groups: []storage.Group{{Name: "vg"}}, err: errors.New("no answer")}, klog.Background()))
	if n, err := testutil.GatherAndCount(r); n != 2 || err != nil {
		t.Errorf("%d metrics, %v", n, err)
	}
}
