package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// Survey is what one volume group holds, counted, for metrics: nothing in it is of one volume or snapshot.
type Survey struct {
	Group     Group
	Pools     []Pool
	Volumes   map[Count]int // of all types and states, those of which there is none too
	Snapshots map[Count]int
	Cuts      map[Type]Cuts // of the types of which there are snapshots
	COW       COWTotals
}

// Count is what volumes and snapshots are counted by.
type Count struct {
	Type  Type
	State CountState
}

// CountState is what can be said of a volume or a snapshot without an LVM command.
type CountState string

// The states of volumes and snapshots.
const (
	CountActive   CountState = "active"   // a volume that has a device, for somebody who uses it
	CountInactive CountState = "inactive" // a volume that nobody uses
	CountFilling  CountState = "filling"  // a volume that does not exist for its owner yet: its content is being written
	CountReady    CountState = "ready"    // a snapshot that can be restored
	CountLost     CountState = "lost"     // a snapshot whose COW overflowed
	CountDamaged  CountState = "damaged"  // a disk of it is missing, or LVM and the kernel disagree about it
)

var (
	volumeStates   = []CountState{CountActive, CountInactive, CountFilling, CountDamaged}
	snapshotStates = []CountState{CountReady, CountLost, CountDamaged}
)

// Cuts are when the first and the last of the snapshots that there are were cut.
type Cuts struct{ Oldest, Newest time.Time }

// COWTotals are how full the COWs of active snapshots are, together.
type COWTotals struct {
	SizeBytes, UsedBytes int64
	// Fullest is the share that is used of the fullest of those that can overflow and have not; 0: there is none.
	Fullest float64
}

// GroupNames are the volume groups that the engine was told of.
func (e *Engine) GroupNames() []string {
	names := make([]string, len(e.groups))
	for i, g := range e.groups {
		names[i] = g.Name()
	}
	return names
}

// Survey looks at one group, and runs no LVM command for it: the metadata on the disks and the kernel have it all.
func (e *Engine) Survey(ctx context.Context, groupName string) (Survey, error) {
	return read(ctx, func() (Survey, error) {
		g, err := e.groupFor(Class{VolumeGroup: groupName})
		if err != nil {
			return Survey{}, err
		}
		v, err := e.look(ctx, g, func(ctx context.Context) (lvm.Metadata, error) { return g.Peek(ctx, e.limit) })
		if err != nil {
			return Survey{}, fmt.Errorf("volume group %s: %w", g.Name(), err)
		}
		s := Survey{Group: v.describeGroup()}
		if s.Pools, err = v.pools(ctx); err != nil {
			return Survey{}, err
		}
		return s, v.count(ctx, &s)
	})
}

func (v *view) count(ctx context.Context, s *Survey) error {
	devices, err := v.e.kernel.Devices(ctx, v.group.Name())
	if err != nil {
		return err
	}
	active := map[string]bool{}
	for _, d := range devices {
		active[d.Name] = true
	}
	s.Volumes, s.Snapshots, s.Cuts = map[Count]int{}, map[Count]int{}, map[Type]Cuts{}
	for t := range v.e.backends {
		for _, state := range volumeStates {
			s.Volumes[Count{t, state}] = 0
		}
		for _, state := range snapshotStates {
			s.Snapshots[Count{t, state}] = 0
		}
	}
	for _, lv := range v.lvs {
		if vol, ok := v.volume(lv); ok {
			s.Volumes[Count{vol.Class.Type, v.countAs(lv, vol, active[dm.DeviceName(v.group.Name(), lv.Name)])}]++
		} else if snap, ok := v.snapshot(lv); ok {
			s.addSnapshot(snap)
		}
		if isCOW(lv) && v.ours(lv) {
			if err := v.addCOW(ctx, s, lv); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *view) countAs(lv lvm.LV, vol Volume, active bool) CountState {
	switch {
	case v.fillOf(lv).unborn():
		return CountFilling
	case len(vol.Conditions) > 0:
		return CountDamaged
	case active:
		return CountActive
	default:
		return CountInactive
	}
}

func (s *Survey) addSnapshot(snap Snapshot) {
	t, state := snap.Class.Type, CountReady
	switch {
	case len(snap.Conditions) > 0 && snap.Conditions[0].Reason == SnapshotInvalid:
		state = CountLost
	case !snap.Ready:
		state = CountDamaged
	}
	s.Snapshots[Count{t, state}]++
	if snap.CreatedAt.IsZero() {
		return // somebody took its tag away
	}
	cuts, seen := s.Cuts[t]
	if !seen || snap.CreatedAt.Before(cuts.Oldest) {
		cuts.Oldest = snap.CreatedAt
	}
	if !seen || snap.CreatedAt.After(cuts.Newest) {
		cuts.Newest = snap.CreatedAt
	}
	s.Cuts[t] = cuts
}

func (v *view) addCOW(ctx context.Context, s *Survey, lv lvm.LV) error {
	st, err := v.e.kernel.SnapshotStatus(ctx, v.group.Name(), lv.Name)
	if errors.Is(err, dm.ErrNoDevice) {
		return nil
	}
	if err != nil || !st.Valid() {
		return err
	}
	s.COW.SizeBytes += st.TotalBytes
	s.COW.UsedBytes += st.UsedBytes
	if v.canOverflow(lv) {
		s.COW.Fullest = max(s.COW.Fullest, st.Percent()/100)
	}
	return nil
}
