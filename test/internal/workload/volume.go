package workload

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

func (w *Worker) device(lv string) string { return filepath.Join("/dev", w.Group, lv) }

// stage makes a volume's device appear.
func (w *Worker) stage(v *Volume) (doubt bool, err error) {
	if v.Staged {
		return false, nil
	}
	if err := os.MkdirAll(w.staging(v), 0o755); err != nil {
		return false, err
	}
	doubt, err = w.call("NodeStageVolume", func(ctx context.Context) error {
		_, err := w.Node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
			VolumeId: v.ID, StagingTargetPath: w.staging(v), VolumeCapability: w.capability(),
		})
		return err
	})
	v.Staged = !doubt && err == nil
	return doubt, err
}

func (w *Worker) unstage(v *Volume) (doubt bool, err error) {
	doubt, err = w.call("NodeUnstageVolume", func(ctx context.Context) error {
		_, err := w.Node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: v.ID, StagingTargetPath: w.staging(v)})
		return err
	})
	if !doubt && err == nil {
		v.Staged = false
	}
	return doubt, err
}

// write replaces what a volume holds, durably, having looked whether that is as it should be.
func (w *Worker) write(v *Volume) error {
	if doubt, err := w.stage(v); doubt || err != nil {
		return err
	}
	if err := w.check(v); err != nil {
		return err
	}
	h := Held{Version: w.number(), Bytes: v.Bytes}
	v.Holds = add(v.Holds, h)
	w.alsoMayHold(v, h)
	if err := w.save(); err != nil {
		return err
	}
	w.Counts["write"]++
	if err := w.put(w.device(filepath.Base(v.ID)), h); err != nil {
		return err
	}
	v.Holds = []Held{h}
	return w.save()
}

func add(holds []Held, h Held) []Held { return append(slices.Clone(holds), h) }

// alsoMayHold: what is still to be made of a volume may get to see what is written to it now.
func (w *Worker) alsoMayHold(v *Volume, h Held) {
	for _, other := range w.Volumes {
		if other.Doubt == Creating && other.Source != nil && other.Source.Name == v.Name {
			other.Holds = add(other.Holds, h)
		}
	}
	for _, s := range w.Snapshots {
		if w.Orphans && s.Doubt == Creating && s.Volume == v.Name && len(s.Asked) > 0 {
			last := &s.Asked[len(s.Asked)-1]
			last.Holds = add(last.Holds, h)
		}
	}
}

// check looks what a staged volume holds.
func (w *Worker) check(v *Volume) error {
	if err := w.holds(w.device(filepath.Base(v.ID)), v.Holds); err != nil {
		return fmt.Errorf("volume %s from %+v: %w", v.Name, v.Source, err)
	}
	return nil
}

func (w *Worker) expand(v *Volume, bytes int64) error {
	if v.Type == "thick" && w.hasSnapshots(v) {
		return w.list() // LVM does not
	}
	if doubt, err := w.stage(v); doubt || err != nil {
		return err
	}
	v.Doubt, v.Wanted = Growing, bytes
	if err := w.save(); err != nil {
		return err
	}
	doubt, err := w.call("NodeExpandVolume", func(ctx context.Context) error {
		_, err := w.Node.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{
			VolumeId: v.ID, VolumePath: w.staging(v), StagingTargetPath: w.staging(v), VolumeCapability: w.capability(),
			CapacityRange: &csi.CapacityRange{RequiredBytes: bytes},
		})
		return err
	})
	if doubt || err != nil {
		return err
	}
	v.Doubt, v.Bytes, v.Wanted = "", bytes, 0
	return w.save()
}

func (w *Worker) hasSnapshots(v *Volume) bool {
	for _, s := range w.Snapshots {
		if s.Volume == v.Name {
			return true
		}
	}
	for _, other := range w.Volumes { // a copy cuts one of its own
		if other.Doubt == Creating && other.Source != nil && other.Source.Name == v.Name {
			return true
		}
	}
	return false
}

func (w *Worker) deleteVolume(v *Volume) error {
	v.Doubt = Deleting
	if err := w.save(); err != nil {
		return err
	}
	if doubt, err := w.unstage(v); doubt || err != nil {
		return err
	}
	doubt, err := w.call("DeleteVolume", func(ctx context.Context) error {
		_, err := w.Controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: v.ID})
		return err
	})
	if doubt || err != nil {
		return err
	}
	delete(w.Volumes, v.Name)
	return w.save()
}

// list: what was reported to this client is listed, as it was.
func (w *Worker) list() error {
	var volumes *csi.ListVolumesResponse
	var snapshots *csi.ListSnapshotsResponse
	doubt, err := w.call("ListSnapshots", func(ctx context.Context) (err error) {
		if volumes, err = w.Controller.ListVolumes(ctx, &csi.ListVolumesRequest{}); err != nil {
			return err
		}
		snapshots, err = w.Controller.ListSnapshots(ctx, &csi.ListSnapshotsRequest{})
		return err
	})
	if doubt || err != nil {
		return err
	}
	byID := map[string]*csi.Snapshot{}
	for _, e := range snapshots.GetEntries() {
		byID[e.GetSnapshot().GetSnapshotId()] = e.GetSnapshot()
	}
	sizes := map[string]int64{}
	for _, e := range volumes.GetEntries() {
		sizes[e.GetVolume().GetVolumeId()] = e.GetVolume().GetCapacityBytes()
	}
	for _, s := range w.Snapshots {
		if got := byID[s.ID]; s.Doubt == "" && (!got.GetReadyToUse() || !got.GetCreationTime().AsTime().Equal(s.Created) || got.GetSourceVolumeId() != s.SourceID) {
			return fmt.Errorf("snapshot %s is listed as %v, and was reported as %+v", s.Name, got, s)
		}
	}
	for _, v := range w.Volumes {
		if got, ok := sizes[v.ID]; v.Doubt == "" && (!ok || got != v.Bytes) {
			return fmt.Errorf("volume %s is listed (%t) with %d bytes, and was reported as %+v", v.Name, ok, got, v)
		}
	}
	return nil
}

// resolveOne makes one call again that has not said what became of it; false when there is none.
func (w *Worker) resolveOne() (bool, error) {
	if v := first(pick(w, w.Volumes, func(v *Volume) bool { return v.Doubt != "" })); v != nil {
		switch v.Doubt {
		case Creating:
			return true, w.createVolume(v)
		case Growing:
			return true, w.expand(v, v.Wanted)
		default:
			return true, w.deleteVolume(v)
		}
	}
	if s := first(pick(w, w.Snapshots, func(s *Snapshot) bool { return s.Doubt != "" })); s != nil {
		if s.Doubt == Creating {
			return true, w.createSnapshot(s)
		}
		return true, w.deleteSnapshot(s)
	}
	return false, nil
}

// Resolve ends all doubts.
func (w *Worker) Resolve() error {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		left, err := w.resolveOne()
		if !left || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: doubts are left after %s: %s", w.Name, patience, w.describe())
		}
	}
}

func (w *Worker) describe() string {
	out := ""
	for _, v := range w.Volumes {
		out += fmt.Sprintf("%s %s %s\n", v.Name, v.ID, v.Doubt)
	}
	for _, s := range w.Snapshots {
		out += fmt.Sprintf("%s %s %s\n", s.Name, s.ID, s.Doubt)
	}
	return out
}
