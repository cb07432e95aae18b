//go:build lab

package bench

import (
	"fmt"
	"path"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// An operation is done by a caller, of which there are many at once, through gRPC or as an administrator would.
type operation struct {
	name string
	grpc func(caller int) error
	argv func(caller int) []string
}

// A cycle is operations that are measured one after the other, and leave the group as it was.
type cycle struct {
	operations []operation
	undoGRPC   func(callers int) error
	undoArgv   func(callers int) []string
	turns      int // through gRPC, for each one by exec, which takes so much longer
}

func (l *lab) cycles() []cycle {
	return []cycle{
		l.snapshotCycle(),
		l.volumeCycle("CreateVolume", nil, func(i int) []string {
			return []string{
				"lvcreate", "--type", "thin", "--virtualsize", fmt.Sprint(volumeBytes, "b"),
				"--name", rawName(i), "--thinpool", l.vg.Name + "/" + l.vg.ThinPool,
			}
		}),
		l.volumeCycle("RestoreSnapshot", l.snapshot, func(i int) []string {
			return []string{
				"lvcreate", "--snapshot", "--setactivationskip", "n", "--permission", "rw",
				"--name", rawName(i), l.lv(l.snapshot(i)),
			}
		}),
		read("ListSnapshots", l.list(func(int) *csi.ListSnapshotsRequest {
			return &csi.ListSnapshotsRequest{MaxEntries: 100}
		}), func(int) []string { return append(lvs, l.vg.Name) }),
		read("ListSnapshotsByID", l.list(func(i int) *csi.ListSnapshotsRequest {
			return &csi.ListSnapshotsRequest{SnapshotId: l.snapshot(i)}
		}), func(i int) []string { return append(lvs, l.lv(l.snapshot(i))) }),
		read("ListSnapshotsBySource", l.list(func(i int) *csi.ListSnapshotsRequest {
			return &csi.ListSnapshotsRequest{SourceVolumeId: l.volume(i)}
		}), func(i int) []string { return append(lvs, "--select", "origin="+path.Base(l.volume(i)), l.vg.Name) }),
		read("GetCapacity", func(int) error {
			_, err := l.driver.Controller.GetCapacity(l.ctx, &csi.GetCapacityRequest{})
			return err
		}, func(int) []string {
			return []string{"lvs", "--reportformat", "json", "-o", "lv_size,data_percent,metadata_percent", l.vg.Name + "/" + l.vg.ThinPool}
		}),
	}
}

// lvs asks for what an entry of ListSnapshots says, and not for what LVM has to ask the kernel about.
var lvs = []string{"lvs", "--reportformat", "json", "-o", "lv_name,lv_size,origin,lv_tags"}

func (l *lab) snapshot(i int) string { return l.snapshots[i%len(l.snapshots)] }
func (l *lab) volume(i int) string   { return l.volumes[i%len(l.volumes)] }

func rawName(i int) string { return fmt.Sprint("raw", i) }

// snapshotCycle cuts snapshots of one volume, and deletes them.
func (l *lab) snapshotCycle() cycle {
	ids := make([]string, maxCallers)
	return cycle{turns: 3, operations: []operation{
		{
			"CreateSnapshot", func(i int) (err error) {
				ids[i], err = l.createSnapshot(fmt.Sprint("bench-", i), l.volumes[0])
				return err
			}, func(i int) []string {
				return []string{"lvcreate", "--snapshot", "--permission", "r", "--name", rawName(i), l.lv(l.volumes[0])}
			},
		},
		{
			"DeleteSnapshot", func(i int) error { return l.deleteSnapshot(ids[i]) }, func(i int) []string { return []string{"lvremove", "--yes", l.vg.Name + "/" + rawName(i)} },
		},
	}}
}

// volumeCycle makes volumes, out of nothing or of a snapshot for each caller.
func (l *lab) volumeCycle(name string, from func(int) string, argv func(int) []string) cycle {
	ids := make([]string, maxCallers)
	return cycle{
		turns: 2,
		operations: []operation{{name, func(i int) (err error) {
			var source *csi.VolumeContentSource
			if from != nil {
				source = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
					Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: from(i)},
				}}
			}
			ids[i], err = l.createVolume(fmt.Sprint("bench-", i), source)
			return err
		}, argv}},
		undoGRPC: func(callers int) error { return atOnce(callers, func(i int) error { return l.deleteVolume(ids[i]) }) },
		undoArgv: func(callers int) []string {
			argv := []string{"lvremove", "--yes"}
			for i := range callers {
				argv = append(argv, l.vg.Name+"/"+rawName(i))
			}
			return argv
		},
	}
}

func read(name string, grpc func(int) error, argv func(int) []string) cycle {
	return cycle{operations: []operation{{name, grpc, argv}}, turns: 3}
}

func (l *lab) list(request func(int) *csi.ListSnapshotsRequest) func(int) error {
	return func(i int) error {
		res, err := l.driver.Controller.ListSnapshots(l.ctx, request(i))
		if err == nil && len(res.GetEntries()) == 0 {
			err = fmt.Errorf("ListSnapshots: no entry for %v", request(i))
		}
		return err
	}
}
