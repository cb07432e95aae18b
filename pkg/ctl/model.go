package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// What is shown. The JSON names are for scripts: fields are added, and none is renamed.

// Volume is a volume.
type Volume struct {
	Name             string      `json:"name"`            // CSI's
	Claim            string      `json:"claim,omitempty"` // namespace/name of the PersistentVolumeClaim
	PersistentVolume string      `json:"persistentVolume,omitempty"`
	Handle           string      `json:"handle,omitempty"`
	VolumeGroup      string      `json:"volumeGroup"`
	LogicalVolume    string      `json:"logicalVolume"`
	Type             string      `json:"type"`   // thin or thick
	Layout           string      `json:"layout"` // LVM's segment type
	Pool             string      `json:"pool,omitempty"`
	SizeBytes        int64       `json:"sizeBytes"`
	RequestedBytes   int64       `json:"requestedBytes"`
	Access           string      `json:"access"`
	FSType           string      `json:"fsType,omitempty"`
	Source           string      `json:"source,omitempty"` // logical volume of what it was made from
	CreatedAt        *time.Time  `json:"createdAt,omitempty"`
	State            string      `json:"state"`
	Device           string      `json:"device,omitempty"` // while it is active
	OpenCount        int         `json:"openCount"`
	Fill             *Progress   `json:"fill,omitempty"`
	Space            *Space      `json:"space,omitempty"` // with --space
	Snapshots        int         `json:"snapshots"`
	Dependents       []string    `json:"dependents,omitempty"` // logical volumes made from it
	Conditions       []Condition `json:"conditions,omitempty"`

	thinID       uint32
	major, minor uint32
}

// Condition is something wrong.
type Condition struct {
	Severity storage.Severity `json:"severity"`
	Reason   string           `json:"reason"`
	Message  string           `json:"message"`
}

func conditions(all []storage.Condition) []Condition {
	var out []Condition
	for _, c := range all {
		out = append(out, Condition(c))
	}
	return out
}

// Progress of a copy or a wipe, up to where it is on stable storage.
type Progress struct {
	Kind       string `json:"kind"` // copy, zero, grow
	DoneBytes  int64  `json:"doneBytes"`
	TotalBytes int64  `json:"totalBytes"`
}

// Snapshot is a snapshot.
type Snapshot struct {
	Name          string      `json:"name"`
	Snapshot      string      `json:"snapshot,omitempty"` // namespace/name of the VolumeSnapshot
	Content       string      `json:"content,omitempty"`  // VolumeSnapshotContent
	Handle        string      `json:"handle"`
	VolumeGroup   string      `json:"volumeGroup"`
	LogicalVolume string      `json:"logicalVolume"`
	Type          string      `json:"type"`
	Pool          string      `json:"pool,omitempty"`
	Source        string      `json:"source"`                // logical volume of the volume
	SourceClaim   string      `json:"sourceClaim,omitempty"` // what that is called
	SizeBytes     int64       `json:"sizeBytes"`
	FSType        string      `json:"fsType,omitempty"`
	CreatedAt     *time.Time  `json:"createdAt,omitempty"`
	Ready         bool        `json:"ready"`
	State         string      `json:"state"`
	COW           *COW        `json:"cow,omitempty"`
	Space         *Space      `json:"space,omitempty"`
	Dependents    []string    `json:"dependents,omitempty"`
	Conditions    []Condition `json:"conditions,omitempty"`

	originLV string
	thinID   uint32
}

// COW is how full the snapshot of a thick volume is.
type COW struct {
	UsedBytes  *int64 `json:"usedBytes,omitempty"` // unknown while it is inactive
	TotalBytes int64  `json:"totalBytes"`
}

// Pool is a thin pool.
type Pool struct {
	VolumeGroup     string      `json:"volumeGroup"`
	Name            string      `json:"name"`
	Active          bool        `json:"active"`
	SizeBytes       int64       `json:"sizeBytes"`
	UsedBytes       int64       `json:"usedBytes"`
	DataPercent     float64     `json:"dataPercent"`
	MetadataBytes   int64       `json:"metadataBytes"`
	MetadataPercent float64     `json:"metadataPercent"`
	PromisedBytes   int64       `json:"promisedBytes"` // what its volumes can hold together
	Volumes         int         `json:"volumes"`
	Snapshots       int         `json:"snapshots"`
	State           string      `json:"state"`
	Conditions      []Condition `json:"conditions,omitempty"`
}

// Group is a volume group.
type Group struct {
	Name               string `json:"name"`
	SizeBytes          int64  `json:"sizeBytes"`
	FreeBytes          int64  `json:"freeBytes"`
	MetadataBytes      int64  `json:"metadataBytes"` // of its own metadata; 0 with a limit of 0 is unknown
	MetadataLimitBytes int64  `json:"metadataLimitBytes"`
	Volumes            int    `json:"volumes"`
	Snapshots          int    `json:"snapshots"`
}

// Inventory is all that there is.
type Inventory struct {
	Groups    []Group    `json:"volumeGroups"`
	Pools     []Pool     `json:"pools"`
	Volumes   []Volume   `json:"volumes"`
	Snapshots []Snapshot `json:"snapshots"`
}

// inventory looks at the groups; with space, at what each thin LV takes. Beside an error it has what could be looked at: where
// one group is broken, the others are what is left to go by.
func (h *Host) inventory(ctx context.Context, space bool) (*Inventory, error) {
	out := &Inventory{Groups: []Group{}, Pools: []Pool{}, Volumes: []Volume{}, Snapshots: []Snapshot{}} // not null in JSON
	var failed error
	all, errs := askAll(h, func(group string) (storage.Inventory, error) { return h.Inspector.Inventory(ctx, group) })
	for i, inv := range all {
		if errs[i] != nil {
			failed = errors.Join(failed, fmt.Errorf("volume group %s: %w", h.Groups[i], errs[i]))
			continue
		}
		out.add(inv)
	}
	out.relate()
	if space {
		failed = errors.Join(failed, h.addSpace(ctx, out))
	}
	return out, failed
}

func (i *Inventory) add(inv storage.Inventory) {
	g := inv.Group
	i.Groups = append(i.Groups, Group{
		Name: g.Name, SizeBytes: g.SizeBytes, FreeBytes: g.FreeBytes, MetadataBytes: g.MetadataBytes, MetadataLimitBytes: g.MetadataLimitBytes,
		Volumes: len(inv.Volumes), Snapshots: len(inv.Snapshots),
	})
	for _, p := range inv.Pools {
		i.Pools = append(i.Pools, Pool{
			VolumeGroup: p.VolumeGroup, Name: p.Name, Active: p.Active, SizeBytes: p.SizeBytes, UsedBytes: p.Used.DataBytes, DataPercent: p.DataPercent,
			MetadataBytes: p.MetadataBytes, MetadataPercent: p.MetadataPercent, PromisedBytes: p.PromisedBytes, Conditions: conditions(p.Conditions),
			State: worst("Healthy", p.Conditions),
		})
	}
	for _, v := range inv.Volumes {
		i.Volumes = append(i.Volumes, volumeOf(g.Name, v))
	}
	for _, s := range inv.Snapshots {
		i.Snapshots = append(i.Snapshots, snapshotOf(g.Name, s))
	}
}

func volumeOf(group string, v storage.VolumeDetail) Volume {
	out := Volume{
		Name: v.Name, Claim: join(v.Claim.Namespace, v.Claim.Name), PersistentVolume: v.Claim.VolumeName, Handle: v.ID,
		VolumeGroup: group, LogicalVolume: v.LV, Type: string(v.Class.Type), Layout: v.SegType, Pool: v.Class.ThinPool,
		SizeBytes: v.SizeBytes, RequestedBytes: v.RequestedBytes, Access: string(v.Access), FSType: v.FSType, CreatedAt: moment(v.CreatedAt),
		OpenCount: v.OpenCount, Conditions: conditions(v.Conditions), State: volumeState(v), thinID: v.ThinID, major: v.Major, minor: v.Minor,
	}
	if v.Active {
		out.Device = v.DevicePath
	}
	if v.Source != nil {
		if h, err := storage.ParseHandle(v.Source.ID); err == nil {
			out.Source = h.LV
		}
	}
	if v.Fill != nil {
		out.Fill = &Progress{v.Fill.Kind, v.Fill.DoneBytes, v.Fill.TotalBytes}
	}
	return out
}

// volumeState is one word: what is wrong, or else what is going on.
func volumeState(v storage.VolumeDetail) string {
	state := "Inactive"
	switch {
	case v.Deleted:
		state = "Deleted"
	case v.Fill != nil:
		return map[string]string{"copy": "Copying", "zero": "Wiping", "grow": "Growing"}[v.Fill.Kind]
	case v.OpenCount > 0:
		state = "InUse"
	case v.Active:
		state = "Active"
	}
	return worst(state, v.Conditions)
}

func snapshotOf(group string, s storage.SnapshotDetail) Snapshot {
	out := Snapshot{
		Name: s.Name, Snapshot: join(s.Object.Namespace, s.Object.Name), Content: s.Object.ContentName, Handle: s.ID,
		VolumeGroup: group, LogicalVolume: s.LV, Type: string(s.Class.Type), Pool: s.Class.ThinPool, SizeBytes: s.SizeBytes, FSType: s.FSType,
		CreatedAt: moment(s.CreatedAt), Ready: s.Ready, Conditions: conditions(s.Conditions), originLV: s.OriginLV, thinID: s.ThinID,
	}
	if h, err := storage.ParseHandle(s.SourceID); err == nil {
		out.Source = h.LV
	}
	if s.COW != nil {
		out.COW = &COW{TotalBytes: s.COW.TotalBytes}
		if s.COW.Known {
			out.COW.UsedBytes = &s.COW.UsedBytes
		}
	}
	out.State = worst("Ready", s.Conditions)
	if !s.Ready && len(s.Conditions) == 0 {
		out.State = "NotReady"
	}
	return out
}

// worst is the reason of the worst condition, or what it is without one.
func worst(well string, conditions []storage.Condition) string {
	if len(conditions) == 0 {
		return well
	}
	return slices.MinFunc(conditions, func(a, b storage.Condition) int { return cmp.Compare(rank(a.Severity), rank(b.Severity)) }).Reason
}

// rank is 0 for the worst.
func rank(s storage.Severity) int {
	return slices.Index([]storage.Severity{storage.SeverityDataLoss, storage.SeverityInaccessible, storage.SeverityDegraded}, s)
}

func join(namespace, name string) string {
	if name == "" {
		return ""
	}
	return namespace + "/" + name
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// relate says of everything what was made from it, sorts, and counts.
func (i *Inventory) relate() {
	slices.SortStableFunc(i.Volumes, func(a, b Volume) int {
		return cmp.Or(strings.Compare(a.VolumeGroup, b.VolumeGroup), strings.Compare(a.title(), b.title()), strings.Compare(a.LogicalVolume, b.LogicalVolume))
	})
	slices.SortStableFunc(i.Snapshots, func(a, b Snapshot) int {
		return cmp.Or(strings.Compare(a.VolumeGroup, b.VolumeGroup), older(a.CreatedAt, b.CreatedAt), strings.Compare(a.LogicalVolume, b.LogicalVolume))
	})
	for n := range i.Snapshots {
		s := &i.Snapshots[n]
		for m := range i.Volumes {
			if v := &i.Volumes[m]; v.has(s) {
				v.Snapshots++
				v.Dependents = append(v.Dependents, s.LogicalVolume)
				s.SourceClaim = v.Claim
			}
		}
		for _, v := range i.Volumes {
			if v.Source == s.LogicalVolume && v.Source != "" {
				s.Dependents = append(s.Dependents, v.LogicalVolume)
			}
		}
	}
	for n := range i.Volumes {
		v := &i.Volumes[n]
		for _, o := range i.Volumes {
			if o.Source == v.LogicalVolume && o.Source != "" {
				v.Dependents = append(v.Dependents, o.LogicalVolume)
			}
		}
	}
	for n := range i.Pools {
		p := &i.Pools[n]
		for _, v := range i.Volumes {
			if v.VolumeGroup == p.VolumeGroup && v.Pool == p.Name {
				p.Volumes++
			}
		}
		for _, s := range i.Snapshots {
			if s.VolumeGroup == p.VolumeGroup && s.Pool == p.Name {
				p.Snapshots++
			}
		}
	}
}

// has: the snapshot is of this volume. A thick volume that was deleted has another name, and LVM still knows it for the origin.
func (v *Volume) has(s *Snapshot) bool {
	if v.VolumeGroup != s.VolumeGroup {
		return false
	}
	if s.COW != nil {
		return s.originLV == v.LogicalVolume
	}
	return s.Source == v.LogicalVolume && s.Source != ""
}

func older(a, b *time.Time) int {
	switch {
	case a == nil || b == nil:
		return 0
	default:
		return a.Compare(*b)
	}
}

// title is what people call it.
func (v *Volume) title() string { return cmp.Or(v.Claim, v.Name) }

func (s *Snapshot) title() string { return cmp.Or(s.Snapshot, s.Name) }

// addSpace asks each active pool.
func (h *Host) addSpace(ctx context.Context, i *Inventory) (failed error) {
	for _, p := range i.Pools {
		if !p.Active || p.Volumes+p.Snapshots == 0 {
			continue
		}
		space, err := h.space(ctx, p.VolumeGroup, p.Name)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		of := func(group, pool string, id uint32) *Space {
			s, ok := space[id]
			if !ok || group != p.VolumeGroup || pool != p.Name {
				return nil
			}
			return &s
		}
		for n := range i.Volumes {
			if v := &i.Volumes[n]; v.Space == nil {
				v.Space = of(v.VolumeGroup, v.Pool, v.thinID)
			}
		}
		for n := range i.Snapshots {
			if s := &i.Snapshots[n]; s.Space == nil {
				s.Space = of(s.VolumeGroup, s.Pool, s.thinID)
			}
		}
	}
	return failed
}
