package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/driver"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

type stats storage.Stats

func (s stats) Stats() storage.Stats { return storage.Stats(s) }

func (s stats) Ready(context.Context) error {
	if len(s.Groups) > 0 && s.Groups[0].Stuck {
		return errors.New("stuck")
	}
	return nil
}

func TestEngineMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(engineMetrics{stats{
		Fills: []storage.FillStats{{LV: "csi-v-x", DoneBytes: 1, TotalBytes: 4}}, COWGrown: 2, COWLost: 3, Recoveries: map[storage.RecoveryKind]int64{storage.RecoveredJam: 5},
		FillsWaiting: 6, FillsEnded: map[storage.FillEnd]int64{{Kind: "copy", Result: "ok"}: 8}, FilledBytes: map[string]int64{"zero": 4096},
		Notices: map[string]int64{storage.SnapshotInvalid: 3},
		Groups:  []storage.GroupStats{{Name: "vg0", Waiting: 7, Held: 3 * time.Minute, Command: 90 * time.Second, Stuck: true}, {Name: "vg1"}},
	}})
	err := testutil.GatherAndCompare(r, strings.NewReader(`
# HELP lvmsnap_cow_snapshots_total COW snapshots of thick volumes, by what happened to them: grown, failed (to grow), lost.
# TYPE lvmsnap_cow_snapshots_total counter
lvmsnap_cow_snapshots_total{event="failed"} 0
lvmsnap_cow_snapshots_total{event="grown"} 2
lvmsnap_cow_snapshots_total{event="lost"} 3
# HELP lvmsnap_fill_bytes Bytes of a volume that is being zeroed or copied at the moment: done (on stable storage), and total. At most --copy-parallelism volumes.
# TYPE lvmsnap_fill_bytes gauge
lvmsnap_fill_bytes{lv="csi-v-x",of="done"} 1
lvmsnap_fill_bytes{lv="csi-v-x",of="total"} 4
# HELP lvmsnap_fills Volumes that are being zeroed or copied (at_work), or wait for those (waiting).
# TYPE lvmsnap_fills gauge
lvmsnap_fills{state="at_work"} 1
lvmsnap_fills{state="waiting"} 6
# HELP lvmsnap_fills_done_bytes_total Bytes of volumes that were zeroed or copied and are on stable storage, by kind; with those zeroes that the disk made by itself.
# TYPE lvmsnap_fills_done_bytes_total counter
lvmsnap_fills_done_bytes_total{kind="zero"} 4096
# HELP lvmsnap_fills_total Volumes that were zeroed or copied, by kind (zero, copy; grow zeroes what a volume was extended by) and result: ok, interrupted (deleted, or the driver ended), error. What was interrupted or failed begins again where it was.
# TYPE lvmsnap_fills_total counter
lvmsnap_fills_total{kind="copy",result="ok"} 8
# HELP lvmsnap_group_operation_seconds How long the operation at work in a volume group has had its turn; 0 when there is none.
# TYPE lvmsnap_group_operation_seconds gauge
lvmsnap_group_operation_seconds{volume_group="vg0"} 180
lvmsnap_group_operation_seconds{volume_group="vg1"} 0
# HELP lvmsnap_group_waiting_calls Calls that wait for their turn in a volume group. Above 1,000 they are refused (Unavailable).
# TYPE lvmsnap_group_waiting_calls gauge
lvmsnap_group_waiting_calls{volume_group="vg0"} 7
lvmsnap_group_waiting_calls{volume_group="vg1"} 0
# HELP lvmsnap_lvm_running_command_seconds How long the LVM command at work in a volume group has been running; 0 when there is none.
# TYPE lvmsnap_lvm_running_command_seconds gauge
lvmsnap_lvm_running_command_seconds{volume_group="vg0"} 90
lvmsnap_lvm_running_command_seconds{volume_group="vg1"} 0
# HELP lvmsnap_lvm_stuck_commands 1 when an operation has been at work in a volume group for longer than --stuck-after, which makes the driver not ready.
# TYPE lvmsnap_lvm_stuck_commands gauge
lvmsnap_lvm_stuck_commands{volume_group="vg0"} 1
lvmsnap_lvm_stuck_commands{volume_group="vg1"} 0
# HELP lvmsnap_notices_total What users had to know, by reason: each is a line in the log, too, and with --kubernetes-events an event.
# TYPE lvmsnap_notices_total counter
lvmsnap_notices_total{reason="SnapshotInvalid"} 3
# HELP lvmsnap_ready 1 when Probe says that the driver is ready; 0 when an operation has been at work for longer than --stuck-after.
# TYPE lvmsnap_ready gauge
lvmsnap_ready 0
# HELP lvmsnap_recoveries_total What interrupted LVM commands had left and was put right, by kind; each is a line in the log.
# TYPE lvmsnap_recoveries_total counter
lvmsnap_recoveries_total{kind="jam"} 5
`))
	if err != nil {
		t.Error(err)
	}
}

// registerAll registers what run does, but for Go's own. A nil engine is only good for Describe.
func registerAll(t *testing.T, r prometheus.Registerer, engine *everything) {
	t.Helper()
	registerBuild(r, options{overprovisionRatio: 3, poolThreshold: 80, cowThreshold: 70, stuckAfter: time.Minute}, "2.03.16")
	commands := newCommandMetrics(r)
	if engine == nil {
		engine = &everything{}
	} else {
		commands.observe(lvm.CommandEvent{Group: "vg", Verb: "lvcreate", Duration: time.Second})
		commands.waited(lvm.WaitEvent{Group: "vg", Duration: time.Second, Err: context.Canceled})
	}
	r.MustRegister(engineMetrics{engine.stats}, newPoolMetrics(engine.levels, klog.Background()))
	if _, err := driver.NewMetrics(r); err != nil {
		t.Fatal(err)
	}
}

// everything is an engine that has something to say in every metric.
type everything struct {
	stats
	levels
}

func newEverything() *everything {
	return &everything{
		stats{
			Fills: []storage.FillStats{{LV: "csi-v-x", DoneBytes: 1, TotalBytes: 4}}, Recoveries: map[storage.RecoveryKind]int64{storage.RecoveredJam: 5},
			FillsEnded: map[storage.FillEnd]int64{{Kind: "copy", Result: "ok"}: 8}, FilledBytes: map[string]int64{"zero": 4096},
			Notices: map[string]int64{storage.PoolDataLow: 1},
			Groups:  []storage.GroupStats{{Name: "vg"}},
		},
		levels{surveys: []storage.Survey{{
			Group: storage.Group{Name: "vg", SizeBytes: 1000, MetadataLimitBytes: 90},
			Pools: []storage.Pool{{
				VolumeGroup: "vg", Name: "pool", Active: true, Conditions: []storage.Condition{{Reason: "PoolDataLow"}},
				Growths: map[storage.Growth]int64{{Of: "data", Result: "ok"}: 2},
			}},
			Volumes:   map[storage.Count]int{{Type: storage.TypeThin, State: storage.CountActive}: 1},
			Snapshots: map[storage.Count]int{{Type: storage.TypeThin, State: storage.CountReady}: 1},
			Cuts:      map[storage.Type]storage.Cuts{storage.TypeThin: {Oldest: time.Unix(1, 0), Newest: time.Unix(2, 0)}},
		}}},
	}
}

// Names, units, help and types are what Prometheus's conventions ask for, of every metric of ours.
func TestPromlint(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	registerAll(t, r, newEverything())
	problems, err := testutil.GatherAndLint(r)
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
	var all described
	registerAll(t, &all, nil)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	looked := map[string]bool{"lvmsnap_rpc_duration_seconds": true} // has no series before the first call; pkg/driver lints it
	for _, f := range families {
		looked[f.GetName()] = true
	}
	for _, d := range all.descs {
		if !looked[d.name] {
			t.Errorf("not looked at: %s", d.name)
		}
	}
}

// Classic buckets for those who read text, native ones for those who ask for them.
func TestHistogramsAreNativeToo(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	registerAll(t, r, newEverything())
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range families {
		if f.GetType() != dto.MetricType_HISTOGRAM {
			continue
		}
		seen++
		h := f.GetMetric()[0].GetHistogram()
		if len(h.GetBucket()) == 0 || len(h.GetPositiveSpan()) == 0 || h.Schema == nil {
			t.Errorf("%s: %d classic buckets, native %v", f.GetName(), len(h.GetBucket()), h.GetPositiveSpan())
		}
	}
	if seen != 2 {
		t.Errorf("%d histograms", seen)
	}
}
