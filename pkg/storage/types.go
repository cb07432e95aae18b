// Package storage is the engine: it knows what a volume and a snapshot are, keeps every operation idempotent,
// locked and undoable, and leaves to a Backend what differs between thin pools and thick volumes. It knows
// neither CSI nor command lines. LVM's metadata, with the tags of tags.go, is its only record (docs/adr/0001).
package storage

import (
	"fmt"
	"time"
)

// AccessType is how a volume is handed to its workload. It is fixed when the volume is created.
type AccessType string

// The access types of CSI's VolumeCapability.
const (
	AccessMount AccessType = "mount"
	AccessBlock AccessType = "block"
)

// Type is the kind of storage behind a volume, the class parameter "type".
type Type string

// The types of volumes.
const (
	TypeThin  Type = "thin"
	TypeThick Type = "thick"
)

// SourceKind says what a volume is made from.
type SourceKind string

// The kinds of sources.
const (
	SourceSnapshot SourceKind = "snapshot"
	SourceVolume   SourceKind = "volume"
)

// Source is what a volume is made from.
type Source struct {
	Kind SourceKind
	ID   string // the handle, echoed exactly as it was given
}

// Class is what a StorageClass asks for; empty fields mean the default.
type Class struct {
	Type        Type   // default thin
	VolumeGroup string // default: the first group that the driver was told of
	ThinPool    string // default: the group's only thin pool
	Layout      Layout // of thick volumes
	// OverprovisionRatio is how many times the size of its thin pool the volumes in it may have together; default: the
	// backend's. What exists does not tell: it is for those that are to be made.
	OverprovisionRatio float64
}

// unit of the sizes of such volumes: whole extents, the same number on each stripe.
func (c Class) unit(extentBytes int64) int64 { return extentBytes * int64(max(c.Layout.Stripes, 1)) }

// Layout is how a thick volume lies on the group's disks; empty is linear. It is for those that are to be made: a volume that exists
// has it in a tag only, as it was asked for, and an administrator may have converted it since (lvconvert). lvmraid(7)
type Layout struct {
	RAIDType    string // raid1, raid5 or raid10; empty: linear, or with Stripes striped
	Stripes     int    // without parity and copies
	StripeBytes int64  // default: LVM's
	Mirrors     int    // the copies beside the first
}

// text is the layout in a tag, RAID type:stripes:stripe bytes:mirrors; empty when it is linear.
func (l Layout) text() string {
	if l == (Layout{}) {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d:%d", l.RAIDType, l.Stripes, l.StripeBytes, l.Mirrors)
}

// VolumeSpec is a validated request for a volume.
type VolumeSpec struct {
	Name          string // the CSI name: any Unicode, at most 128 bytes
	RequiredBytes int64  // at least; 0 is the default size (or the source's)
	LimitBytes    int64  // at most; 0 is no limit
	Class         Class
	Access        AccessType
	FSType        string  // for AccessMount; empty is the default (or the source's)
	Source        *Source // nil: an empty volume
	Claim         Claim
}

// Claim is what Kubernetes calls a volume (--extra-create-metadata), kept for people and tools.
type Claim struct {
	Namespace, Name string // PersistentVolumeClaim
	VolumeName      string // PersistentVolume
}

// Volume is a volume that exists.
type Volume struct {
	ID             string // the handle: v1/<node hash>/<lv name>
	Name           string // the CSI name
	RequestedBytes int64  // what was asked for, the least that a restore must have
	SizeBytes      int64  // the size of the device, RequestedBytes rounded up to extents
	Class          Class  // with its defaults filled in
	Access         AccessType
	FSType         string
	Source         *Source
	Claim          Claim
	CreatedAt      time.Time
	Active         bool
	DevicePath     string // /dev/<group>/<lv>; exists while Active
	// Init is what must happen before the first mount; see Engine.Initialized.
	Init       Init
	Conditions []Condition // nothing wrong: empty
}

// Init is the work that stands between a new volume and its first mount. It is recorded with the volume, and
// cleared once done, so that a crash in between repeats it, and so that nothing else is ever formatted.
type Init string

// What a volume can wait for.
const (
	InitDone   Init = ""
	InitFormat Init = "format" // nothing was ever written to it: make a file system
	InitClone  Init = "clone"  // a copy of another volume's file system: it needs an identity of its own, and may have to grow
)

// SnapshotSpec is a validated request for a snapshot.
type SnapshotSpec struct {
	Name     string // the CSI name: any Unicode, at most 128 bytes
	SourceID string // the handle of the source volume
	COW      COWSize
	Object   SnapshotObject
}

// COWSize is how much of a thick volume can be overwritten before its snapshot is lost; the zero value is all of it.
type COWSize struct {
	Bytes   int64
	Percent int // of the volume
}

// Of a volume with so many bytes; 0 is all of it.
func (s COWSize) Of(volumeBytes int64) int64 {
	if s.Bytes > 0 {
		return s.Bytes
	}
	return int64(float64(volumeBytes) * float64(s.Percent) / 100)
}

// SnapshotObject is what Kubernetes calls a snapshot (--extra-create-metadata), kept for people and tools.
type SnapshotObject struct {
	Namespace, Name string // VolumeSnapshot
	ContentName     string // VolumeSnapshotContent
}

// Snapshot is a snapshot that exists.
type Snapshot struct {
	ID         string
	Name       string
	SourceID   string    // handle of the source volume, echoed exactly; the volume may be gone
	SizeBytes  int64     // the least size of a restore: what was requested for the source
	CreatedAt  time.Time // the moment of the cut
	Ready      bool      // it is cut, committed in the pool and can be restored
	Class      Class
	FSType     string
	Access     AccessType
	Object     SnapshotObject
	Conditions []Condition
}

// SnapshotQuery says which snapshots to list; the zero value asks for all.
type SnapshotQuery struct {
	SourceID string // of this volume only
	AfterID  string // those with a greater ID
	Limit    int    // at most so many
}

// Severity of a condition, in CSI's words (VolumeHealthErrorType).
type Severity string

// The severities of CSI spec v1.13 "VolumeHealth".
const (
	SeverityDegraded     Severity = "Degraded"
	SeverityInaccessible Severity = "Inaccessible"
	SeverityDataLoss     Severity = "DataLoss"
)

// Condition is something wrong with an object or a pool.
type Condition struct {
	Severity Severity
	Reason   string // CamelCase, stable, for machines: PoolDataFull
	Message  string // for people: what is wrong and what to do
}

// Capacity of a pool or group for new volumes of one class.
type Capacity struct {
	AvailableBytes int64 // what new data can still take before the reserve
	MaximumBytes   int64 // the largest single volume that would be made
	MinimumBytes   int64 // the smallest: one extent
}

// Pool is the state of a thin pool, for health and metrics.
type Pool struct {
	VolumeGroup, Name string
	UUID              string
	SizeBytes         int64
	Active            bool   // else all up to Limit is unknown
	Broken            bool   // it has to be repaired first, whatever else it needs
	Transaction       uint64 // how many changes the kernel has counted
	Used              PoolUse
	MetadataBytes     int64
	DataPercent       float64
	MetadataPercent   float64
	Limit             PoolUse // nothing is created when more is used
	PromisedBytes     int64   // what its volumes can hold together, snapshots apart
	Growths           map[Growth]int64
	Conditions        []Condition
}

// Growth is a kind of extension of a pool: of what, and what came of it.
type Growth struct{ Of, Result string }

// What is extended, and what can come of it.
const (
	GrowthOfData     = "data"
	GrowthOfMetadata = "metadata"

	GrowthDone    = "ok"
	GrowthNoSpace = "no_space" // the group has no free extents
	GrowthFailed  = "error"
)

// Group is how full a volume group is.
type Group struct {
	Name                 string
	SizeBytes, FreeBytes int64 // of extents
	// MetadataBytes is the length of the group's own metadata, and MetadataLimitBytes how long it can become; 0 is unknown.
	MetadataBytes, MetadataLimitBytes int64
}
