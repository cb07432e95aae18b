// Package workload is many clients of a driver that may die at any moment, with the machine or without it. Each writes to its
// volumes, has them snapshotted, restored, cloned, expanded and deleted, and keeps a record of what it asked for and of what was
// reported to it, from which anybody can tell afterwards what must be true.
package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
)

const (
	mib         = int64(1) << 20
	leastBytes  = 16 * mib
	mostBytes   = 32 * mib // no volume is expanded beyond it, and each copy has it
	callTimeout = 60 * time.Second
	// patience is for what has to come to its end by itself after the driver was started again.
	patience = 2 * time.Minute
)

// What a call wanted that has not said what became of it. Only the same call again ends the doubt.
const (
	Creating = "creating"
	Deleting = "deleting"
	Growing  = "growing"
)

// State is the record of one client.
type State struct {
	Seed      uint64 // of the places of stamps
	Sequence  uint64 // of this record
	Numbers   uint64 // of names and versions that were used
	Volumes   map[string]*Volume
	Snapshots map[string]*Snapshot
}

// Volume is one that was asked for. Holds are the versions of which it may show any, in each MiB.
type Volume struct {
	Name, ID, Type string
	Doubt          string
	Bytes, Wanted  int64
	Staged         bool
	Holds          []Held
	Source         *Source
}

// Source is what a volume is made from.
type Source struct {
	Volume bool
	ID     string
	Name   string
}

// Snapshot is one that was asked for.
type Snapshot struct {
	Name, Volume, SourceID, ID, Doubt string
	Thick                             bool
	Created                           time.Time
	Holds                             []Held
	Asked                             []Ask
}

// Ask is when a snapshot was asked for, and what its volume held until the answer, or until nothing could make it any more.
type Ask struct {
	At    time.Time
	Holds []Held
}

// Worker is one client.
type Worker struct {
	*driverproc.Clients
	Name  string
	Group string
	Dir   string // for staging and target paths
	Thick bool   // thick volumes, too
	// Orphans: LVM goes on without a driver that is killed, and may cut a snapshot after the call has ended.
	Orphans bool
	// Save keeps the record. It is called before and after each call.
	Save func(*State) error
	State
	Counts map[string]int
	Broken int // calls that the driver's end cut short
	rng    *rand.Rand
}

// New makes a client with a record, which is empty at first.
func New(w Worker, seed uint64) *Worker {
	w.rng = rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test has to be repeatable
	w.Counts = map[string]int{}
	if w.Volumes == nil {
		w.Volumes, w.Snapshots = map[string]*Volume{}, map[string]*Snapshot{}
	}
	if w.Seed == 0 {
		w.Seed = max(seed, 1)
	}
	if w.Save == nil {
		w.Save = func(*State) error { return nil }
	}
	return &w
}

func (w *Worker) save() error {
	w.Sequence++
	return w.Save(&w.State)
}

func (w *Worker) number() uint64 {
	w.Numbers++
	return w.Numbers
}

// Run makes so many random calls. An error is a broken promise.
func (w *Worker) Run(calls int) error {
	for range calls {
		if err := w.Step(); err != nil {
			return err
		}
	}
	return nil
}

// Step makes one random call.
func (w *Worker) Step() error {
	if w.rng.IntN(2) == 0 {
		if done, err := w.resolveOne(); done || err != nil {
			return err
		}
	}
	volumes := pick(w, w.Volumes, func(v *Volume) bool { return v.Doubt == "" })
	snapshots := pick(w, w.Snapshots, func(s *Snapshot) bool { return s.Doubt == "" })
	v, s := first(volumes), first(snapshots)
	switch n := w.rng.IntN(100); {
	case v == nil || n < 10 && len(w.Volumes) < 3:
		return w.newVolume(nil)
	case n < 35:
		return w.write(v)
	case n < 65 && len(w.Snapshots) < 6:
		return w.newSnapshot(v)
	case n < 75 && s != nil:
		return w.deleteSnapshot(s)
	case n < 83 && s != nil && len(w.Volumes) < 5:
		return w.newVolume(&Source{Name: s.Name, ID: s.ID})
	case n < 88 && len(w.Volumes) < 5:
		return w.newVolume(&Source{Name: v.Name, ID: v.ID, Volume: true})
	case n < 92 && v.Bytes < mostBytes:
		return w.expand(v, v.Bytes+4*mib)
	case n < 97 && len(w.Volumes) > 2:
		return w.deleteVolume(v)
	default:
		return w.list()
	}
}

// pick is those that fit, in a random order.
func pick[T any](w *Worker, all map[string]*T, fits func(*T) bool) []*T {
	var names []string
	for name, x := range all {
		if fits(x) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	w.rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	out := make([]*T, len(names))
	for i, name := range names {
		out[i] = all[name]
	}
	return out
}

func first[T any](all []*T) *T {
	if len(all) == 0 {
		return nil
	}
	return all[0]
}

// errBeingCopied: a snapshot from which a volume is being made is deleted later.
var errBeingCopied = errors.New("it is being copied")

// open: the call has not said what became of it.
func open(err error) bool {
	if errors.Is(err, errBeingCopied) {
		return true
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.Aborted, codes.Canceled:
		return true
	default:
		return false
	}
}

// call makes a call and counts it. Doubt is true when nobody knows what became of it.
func (w *Worker) call(what string, fn func(context.Context) error) (doubt bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	w.Counts[what]++
	err = fn(ctx)
	if open(err) {
		if code := status.Code(err); code == codes.Unavailable || code == codes.Canceled {
			w.Broken++
		}
		return true, nil
	}
	if err != nil {
		err = fmt.Errorf("%s: %s: %w", w.Name, what, err)
	}
	return false, err
}

func (w *Worker) capability() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER},
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
	}
}

func (w *Worker) newVolume(from *Source) error {
	v := &Volume{Name: fmt.Sprintf("%s/v%d", w.Name, w.number()), Type: "thin", Bytes: leastBytes, Source: from, Doubt: Creating}
	if w.Thick && w.rng.IntN(3) == 0 {
		v.Type = "thick"
	}
	switch {
	case from == nil:
		v.Holds = []Held{{}}
	case from.Volume:
		v.Bytes, v.Holds = mostBytes, w.Volumes[from.Name].Holds
	default:
		v.Bytes, v.Holds = mostBytes, w.Snapshots[from.Name].Holds
	}
	w.Volumes[v.Name] = v
	if err := w.createVolume(v); err != nil || from != nil || v.Doubt != "" {
		return err
	}
	return w.write(v) // a copy of nothing says little
}

func (w *Worker) createVolume(v *Volume) error {
	req := &csi.CreateVolumeRequest{
		Name: v.Name, CapacityRange: &csi.CapacityRange{RequiredBytes: v.Bytes}, Parameters: map[string]string{"type": v.Type},
		VolumeCapabilities: []*csi.VolumeCapability{w.capability()},
	}
	if v.Source != nil {
		req.VolumeContentSource = &csi.VolumeContentSource{}
		if v.Source.Volume {
			req.VolumeContentSource.Type = &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: v.Source.ID}}
		} else {
			req.VolumeContentSource.Type = &csi.VolumeContentSource_Snapshot{
				Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: v.Source.ID},
			}
		}
	}
	if err := w.save(); err != nil {
		return err
	}
	var res *csi.CreateVolumeResponse
	doubt, err := w.call("CreateVolume", func(ctx context.Context) (err error) {
		res, err = w.Controller.CreateVolume(ctx, req)
		return err
	})
	if status.Code(err) == codes.NotFound && v.Source != nil && w.sourceGone(v.Source) {
		delete(w.Volumes, v.Name)
		return w.save()
	}
	if doubt || err != nil {
		return err
	}
	v.ID, v.Doubt = res.GetVolume().GetVolumeId(), ""
	if got := res.GetVolume().GetCapacityBytes(); got != v.Bytes {
		return fmt.Errorf("%s has %d bytes, want %d", v.Name, got, v.Bytes)
	}
	return w.save()
}

func (w *Worker) sourceGone(s *Source) bool {
	if s.Volume {
		v := w.Volumes[s.Name]
		return v == nil || v.Doubt == Deleting
	}
	snap := w.Snapshots[s.Name]
	return snap == nil || snap.Doubt == Deleting
}

func (w *Worker) newSnapshot(v *Volume) error {
	s := &Snapshot{Name: fmt.Sprintf("%s/s%d", w.Name, w.number()), Volume: v.Name, SourceID: v.ID, Thick: v.Type == "thick"}
	w.Snapshots[s.Name] = s
	return w.createSnapshot(s)
}

func (w *Worker) createSnapshot(s *Snapshot) error {
	v := w.Volumes[s.Volume]
	if v != nil {
		if len(v.Holds) > 1 { // it must be known
			if err := w.write(v); err != nil || len(v.Holds) > 1 {
				return err
			}
		}
		s.Asked = append(s.Asked, Ask{time.Now(), v.Holds})
	}
	s.Doubt = Creating
	if err := w.save(); err != nil {
		return err
	}
	var res *csi.CreateSnapshotResponse
	doubt, err := w.call("CreateSnapshot", func(ctx context.Context) (err error) {
		res, err = w.Controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: s.Name, SourceVolumeId: s.SourceID})
		return err
	})
	if status.Code(err) == codes.NotFound && (v == nil || v.Doubt == Deleting) {
		delete(w.Snapshots, s.Name)
		return w.save()
	}
	if doubt || err != nil {
		return err
	}
	got := res.GetSnapshot()
	s.ID, s.Doubt, s.Created = got.GetSnapshotId(), "", got.GetCreationTime().AsTime()
	if !got.GetReadyToUse() {
		return fmt.Errorf("%s is reported and not ready: %v", s.Name, got)
	}
	asked := false
	for _, ask := range s.Asked {
		if !ask.At.After(s.Created) {
			s.Holds, asked = ask.Holds, true
		}
	}
	if !asked {
		return fmt.Errorf("%s was cut at %s, and asked for at %v", s.Name, s.Created, s.Asked)
	}
	return w.save()
}

func (w *Worker) deleteSnapshot(s *Snapshot) error {
	s.Doubt = Deleting
	if err := w.save(); err != nil {
		return err
	}
	id := s.ID
	if id == "" {
		return fmt.Errorf("%s has no id", s.Name)
	}
	doubt, err := w.call("DeleteSnapshot", func(ctx context.Context) error {
		_, err := w.Controller.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: id})
		if status.Code(err) == codes.FailedPrecondition && w.isSource(s) {
			return errBeingCopied
		}
		return err
	})
	if doubt || err != nil {
		return err
	}
	delete(w.Snapshots, s.Name)
	return w.save()
}

func (w *Worker) isSource(s *Snapshot) bool {
	for _, v := range w.Volumes {
		if v.Doubt == Creating && v.Source != nil && v.Source.Name == s.Name {
			return true
		}
	}
	return false
}

func (w *Worker) staging(v *Volume) string { return filepath.Join(w.Dir, filepath.Base(v.ID)) }
