package lvm

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Layout is how a thick volume lies on its disks: a segment type of LVM. lvmraid(7)
type Layout string

// The layouts that this driver makes.
const (
	LayoutLinear  Layout = "linear"
	LayoutStriped Layout = "striped"
	LayoutRAID1   Layout = "raid1"
	LayoutRAID5   Layout = "raid5"
	LayoutRAID10  Layout = "raid10"
)

// ThickVolumeOptions describe a thick volume.
type ThickVolumeOptions struct {
	Name        string
	SizeBytes   int64  // LVM rounds up to extents, and with stripes to as many whole extents for each
	Layout      Layout // empty: linear
	Stripes     int    // of striped, raid5 and raid10, without parity and copies
	StripeBytes int64  // how much goes to a stripe at a time; 0: LVM's default, 64 KiB
	Mirrors     int    // of raid1 and raid10: the copies beside the first
	Tags        []string
}

// CreateThickVolume makes an inactive thick volume, which nothing but Activate activates. Its extents hold whatever was
// on the disks: without zeroing and wiping LVM needs no device and has no question, but the first user must
// overwrite what others left. A RAID volume synchronizes from its first activation on. lvcreate(8), lvmraid(7)
func (c *Client) CreateThickVolume(ctx context.Context, o ThickVolumeOptions) error {
	if err := validateNames(o.Name); err != nil {
		return err
	}
	if err := validateSize(o.SizeBytes); err != nil {
		return err
	}
	layout, err := o.layoutArgs()
	if err != nil {
		return err
	}
	args := append([]string{"lvcreate"}, layout...)
	args = append(args, "--size", bytesArg(o.SizeBytes), "--name", o.Name,
		"--setactivationskip", "y", "--activate", "n", "--zero", "n", "--wipesignatures", "n")
	if args, err = tagArgs(args, "--addtag", o.Tags); err != nil {
		return err
	}
	_, err = c.run(ctx, append(args, c.group)...)
	return err
}

// AllocatedBytes is what such a volume takes of a group with extents of so many bytes: RAID has copies or parity, and with
// every image an extent of metadata (of extents of 4 MiB one suffices for 64 TiB; lvmraid(7), "SubLVs").
func (o ThickVolumeOptions) AllocatedBytes(extentBytes int64) int64 {
	stripes, images := int64(1), int64(1)
	switch o.Layout {
	case LayoutLinear, "":
	case LayoutStriped:
		stripes, images = int64(o.Stripes), int64(o.Stripes)
	case LayoutRAID1:
		images = int64(o.Mirrors) + 1
	case LayoutRAID5:
		stripes, images = int64(o.Stripes), int64(o.Stripes)+1
	case LayoutRAID10:
		stripes, images = int64(o.Stripes), int64(o.Stripes)*(int64(o.Mirrors)+1)
	}
	each := RoundUp(o.SizeBytes, stripes*extentBytes) / stripes
	if strings.HasPrefix(string(o.Layout), "raid") {
		each += extentBytes
	}
	return images * each
}

// RoundUp is n in whole extents, or whatever the unit is.
func RoundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }

// Limits of what is passed on; LVM has narrower ones, which depend on the group.
const (
	maxStripes     = 128     // MAX_STRIPES of LVM
	maxMirrors     = 9       // DEFAULT_RAID_MAX_IMAGES of LVM is 10 for raid1
	minStripeBytes = 4 << 10 // lvcreate(8), --stripesize: a power of two, not below a page
	maxStripeBytes = 1 << 30
)

// Validate says what is wrong with the layout.
func (o ThickVolumeOptions) Validate() error {
	_, err := o.layoutArgs()
	return err
}

func (o ThickVolumeOptions) layoutArgs() ([]string, error) {
	layout, stripes, mirrors := o.Layout, false, false
	switch layout {
	case "":
		layout = LayoutLinear
	case LayoutLinear:
	case LayoutStriped, LayoutRAID5:
		stripes = true
	case LayoutRAID1:
		mirrors = true
	case LayoutRAID10:
		stripes, mirrors = true, true
	default:
		return nil, fmt.Errorf("%q is not a layout of thick volumes (%s, %s, %s, %s, %s)",
			layout, LayoutLinear, LayoutStriped, LayoutRAID1, LayoutRAID5, LayoutRAID10)
	}
	args := []string{"--type", string(layout)}
	switch {
	case stripes && (o.Stripes < 2 || o.Stripes > maxStripes):
		return nil, fmt.Errorf("%s with %d stripes (2 to %d)", layout, o.Stripes, maxStripes)
	case stripes:
		args = append(args, "--stripes", strconv.Itoa(o.Stripes))
	case o.Stripes != 0 || o.StripeBytes != 0:
		return nil, fmt.Errorf("%s has no stripes", layout)
	}
	if n := o.StripeBytes; n != 0 {
		if n < minStripeBytes || n > maxStripeBytes || n&(n-1) != 0 {
			return nil, fmt.Errorf("stripe size %d (a power of two from %d to %d)", n, minStripeBytes, maxStripeBytes)
		}
		args = append(args, "--stripesize", bytesArg(n))
	}
	switch {
	case mirrors && (o.Mirrors < 1 || o.Mirrors > maxMirrors):
		return nil, fmt.Errorf("%s with %d mirrors (1 to %d)", layout, o.Mirrors, maxMirrors)
	case mirrors:
		args = append(args, "--mirrors", strconv.Itoa(o.Mirrors))
	case o.Mirrors != 0:
		return nil, fmt.Errorf("%s has no mirrors", layout)
	}
	return args, nil
}

// COWSnapshotOptions describe a COW snapshot.
type COWSnapshotOptions struct {
	Name     string
	Origin   string
	COWBytes int64 // how much can be written to the origin before the snapshot is lost; see COWMaxBytes
	Tags     []string
}

// CreateCOWSnapshot cuts a read-only snapshot of a thick volume, which may be mounted: LVM freezes its file system for
// the moment of the cut. It is active if and only if its origin is, whatever is asked for. LVM reduces a
// COW that is larger than it could ever need. lvcreate(8)
func (c *Client) CreateCOWSnapshot(ctx context.Context, o COWSnapshotOptions) error {
	if err := validateNames(o.Name, o.Origin); err != nil {
		return err
	}
	if err := validateSize(o.COWBytes); err != nil {
		return err
	}
	args := []string{
		"lvcreate", "--snapshot", "--size", bytesArg(o.COWBytes), "--chunksize", bytesArg(COWChunkBytes), "--name", o.Name,
		"--permission", "r", "--setactivationskip", "y",
	}
	args, err := tagArgs(args, "--addtag", o.Tags)
	if err != nil {
		return err
	}
	_, err = c.run(ctx, append(args, c.path(o.Origin))...)
	return err
}

// COWChunkBytes is how much of the origin is kept at the first write to any of it. Larger chunks make small
// writes dearer (measured with 4 KiB writes: 20 times as much is written with 64 KiB).
const COWChunkBytes = 4 << 10

// COWMaxBytes is the size of the COW that cannot overflow, of an origin of so many bytes; LVM takes no larger one. It
// has a header, all of the origin's chunks, and for each of them 16 bytes of metadata, in chunks that
// are written with one more, an empty one, behind them.
// lvm2: _cow_max_size() in metadata/snapshot_manip.c; Linux: dm-snap-persistent.c
func COWMaxBytes(originBytes int64) int64 {
	const perMetadataChunk = COWChunkBytes / 16
	if originBytes > math.MaxInt64/2 {
		return math.MaxInt64 // what LVM rejects in its own words
	}
	chunks := (originBytes + COWChunkBytes - 1) / COWChunkBytes
	return (1 + chunks + chunks/perMetadataChunk + 1) * COWChunkBytes
}
