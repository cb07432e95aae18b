package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

type levels struct {
	surveys []storage.Survey
	failing string        // a group that cannot be looked at
	hangs   chan struct{} // until it is closed, looking at the failing group takes
}

func (l levels) GroupNames() []string {
	var out []string
	for _, s := range l.surveys {
		out = append(out, s.Group.Name)
	}
	return out
}

func (l levels) Survey(_ context.Context, group string) (storage.Survey, error) {
	if group == l.failing {
		if l.hangs != nil {
			<-l.hangs
		}
		return storage.Survey{}, errors.New("no answer")
	}
	i := slices.Index(l.GroupNames(), group)
	return l.surveys[i], nil
}

func TestPoolMetrics(t *testing.T) {
	of := func(what, result string) storage.Growth { return storage.Growth{Of: what, Result: result} }
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(newPoolMetrics(levels{
		surveys: []storage.Survey{{Group: storage.Group{Name: "old", SizeBytes: 5}}, {
			Group: storage.Group{Name: "vg", SizeBytes: 1000, FreeBytes: 200, MetadataBytes: 30, MetadataLimitBytes: 90},
			Pools: []storage.Pool{
				{
					VolumeGroup: "vg", Name: "pool", SizeBytes: 700, Active: true, Used: storage.PoolUse{DataBytes: 680, MetadataBytes: 7}, MetadataBytes: 40,
					Limit: storage.PoolUse{DataBytes: 665, MetadataBytes: 36}, PromisedBytes: 1400,
					Growths:    map[storage.Growth]int64{of("data", "ok"): 2, of("metadata", "no_space"): 1},
					Conditions: []storage.Condition{{Reason: "PoolDataLow"}},
				},
				{VolumeGroup: "vg", Name: "off", SizeBytes: 60, Conditions: []storage.Condition{{Reason: "PoolInactive"}}},
			},
			Volumes:   map[storage.Count]int{{Type: storage.TypeThin, State: storage.CountActive}: 3, {Type: storage.TypeThick, State: storage.CountFilling}: 0},
			Snapshots: map[storage.Count]int{{Type: storage.TypeThick, State: storage.CountLost}: 2},
			Cuts:      map[storage.Type]storage.Cuts{storage.TypeThick: {Oldest: time.Unix(1000, 1), Newest: time.Unix(2000, 0)}},
			COW:       storage.COWTotals{SizeBytes: 100, UsedBytes: 60, Fullest: 0.75},
		}},
	}, klog.Background()))
	err := testutil.GatherAndCompare(r, strings.NewReader(`
# HELP lvmsnap_cow_fullest_ratio How full the fullest COW is, 0 to 1, of those that can overflow and have not.
# TYPE lvmsnap_cow_fullest_ratio gauge
lvmsnap_cow_fullest_ratio{volume_group="old"} 0
lvmsnap_cow_fullest_ratio{volume_group="vg"} 0.75
# HELP lvmsnap_cow_size_bytes Sizes of the COWs of all active snapshots of thick volumes together.
# TYPE lvmsnap_cow_size_bytes gauge
lvmsnap_cow_size_bytes{volume_group="old"} 0
lvmsnap_cow_size_bytes{volume_group="vg"} 100
# HELP lvmsnap_cow_used_bytes How much of the COWs of active snapshots of thick volumes is in use.
# TYPE lvmsnap_cow_used_bytes gauge
lvmsnap_cow_used_bytes{volume_group="old"} 0
lvmsnap_cow_used_bytes{volume_group="vg"} 60
# HELP lvmsnap_pool_autoextends_total Extensions of a thin pool by the driver since its start, of data or metadata, by result: ok, no_space (the volume group has no free extents), error.
# TYPE lvmsnap_pool_autoextends_total counter
lvmsnap_pool_autoextends_total{of="data",pool="pool",result="ok",volume_group="vg"} 2
lvmsnap_pool_autoextends_total{of="metadata",pool="pool",result="no_space",volume_group="vg"} 1
# HELP lvmsnap_pool_condition 1 for everything that is wrong with a thin pool, by reason; without a series nothing is.
# TYPE lvmsnap_pool_condition gauge
lvmsnap_pool_condition{pool="off",reason="PoolInactive",volume_group="vg"} 1
lvmsnap_pool_condition{pool="pool",reason="PoolDataLow",volume_group="vg"} 1
# HELP lvmsnap_pool_data_limit_bytes Nothing is created in a thin pool with more data in use: its size less --pool-data-reserve.
# TYPE lvmsnap_pool_data_limit_bytes gauge
lvmsnap_pool_data_limit_bytes{pool="pool",volume_group="vg"} 665
# HELP lvmsnap_pool_data_size_bytes Size of a thin pool's data.
# TYPE lvmsnap_pool_data_size_bytes gauge
lvmsnap_pool_data_size_bytes{pool="off",volume_group="vg"} 60
lvmsnap_pool_data_size_bytes{pool="pool",volume_group="vg"} 700
# HELP lvmsnap_pool_data_used_bytes How much of a thin pool's data is in use.
# TYPE lvmsnap_pool_data_used_bytes gauge
lvmsnap_pool_data_used_bytes{pool="pool",volume_group="vg"} 680
# HELP lvmsnap_pool_metadata_limit_bytes Nothing is created in a thin pool with more metadata in use: its size less --pool-metadata-reserve, or less what LVM wants to be free.
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
# HELP lvmsnap_snapshot_newest_timestamp_seconds When the newest snapshot of a volume group was cut, since the epoch; absent without one.
# TYPE lvmsnap_snapshot_newest_timestamp_seconds gauge
lvmsnap_snapshot_newest_timestamp_seconds{type="thick",volume_group="vg"} 2000
# HELP lvmsnap_snapshot_oldest_timestamp_seconds When the oldest snapshot of a volume group was cut, since the epoch; absent without one.
# TYPE lvmsnap_snapshot_oldest_timestamp_seconds gauge
lvmsnap_snapshot_oldest_timestamp_seconds{type="thick",volume_group="vg"} 1000
# HELP lvmsnap_snapshots Snapshots by type and state: ready (can be restored), lost (its COW overflowed), damaged (a disk is missing, the pool is not active, or LVM and the kernel disagree).
# TYPE lvmsnap_snapshots gauge
lvmsnap_snapshots{state="lost",type="thick",volume_group="vg"} 2
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
# HELP lvmsnap_volumes Volumes by type and state: active (has a device on the node), inactive, filling (its content is being written, and it does not exist yet for its owner), damaged (a disk is missing, or the pool failed).
# TYPE lvmsnap_volumes gauge
lvmsnap_volumes{state="active",type="thin",volume_group="vg"} 3
lvmsnap_volumes{state="filling",type="thick",volume_group="vg"} 0
`))
	if err != nil {
		t.Error(err)
	}
}

// What cannot be had is left out, and the scrape goes on, with the other groups.
func TestPoolMetricsUnavailable(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(newPoolMetrics(levels{
		surveys: []storage.Survey{{Group: storage.Group{Name: "vg"}}, {Group: storage.Group{Name: "gone"}}}, failing: "gone",
	}, klog.Background()))
	if n, err := testutil.GatherAndCount(r); n != 5 || err != nil {
		t.Errorf("%d metrics, %v", n, err)
	}
}

// A group that hangs is looked at once, whoever asks, and does not keep the others from being told of.
func TestPoolMetricsHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangs := make(chan struct{})
		r := prometheus.NewPedanticRegistry()
		r.MustRegister(newPoolMetrics(levels{
			surveys: []storage.Survey{{Group: storage.Group{Name: "vg"}}, {Group: storage.Group{Name: "stuck"}}}, failing: "stuck", hangs: hangs,
		}, klog.Background()))
		for range 3 {
			begin := time.Now()
			if n, err := testutil.GatherAndCount(r); n != 5 || err != nil {
				t.Errorf("%d metrics, %v", n, err)
			}
			if took := time.Since(begin); took > poolTimeout {
				t.Errorf("the scrape took %s", took)
			}
		}
		close(hangs)
	})
}
