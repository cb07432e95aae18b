// Package dm talks to the kernel's device-mapper by ioctl, where a forked command would take a hundred times as
// long. Source: linux/dm-ioctl.h, Documentation/admin-guide/device-mapper/thin-provisioning.rst,
// snapshot.rst.
package dm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrNoDevice: there is no device of that name; the volume is not active.
var ErrNoDevice = errors.New("no such device-mapper device")

// Kernel is what the driver asks of device-mapper. Control is the real one.
type Kernel interface {
	// PoolStatus reads the state of an active thin pool; ErrNoDevice when it is not active.
	PoolStatus(ctx context.Context, group, pool string) (PoolStatus, error)
	// SnapshotStatus reads the state of an active COW snapshot; ErrNoDevice when it is not active.
	SnapshotStatus(ctx context.Context, group, snapshot string) (SnapshotStatus, error)
	// Info describes a volume's device; ErrNoDevice when it is not active.
	Info(ctx context.Context, group, lv string) (Info, error)
	Repairs
}

// Info is the state of one device.
type Info struct {
	OpenCount int  // mounts, opens and devices stacked on it
	Suspended bool // its I/O hangs until it is resumed
	ReadOnly  bool
	Major     uint32
	Minor     uint32
}

// PoolMode is what a thin pool can still do.
type PoolMode string

// The modes of a thin pool, in the kernel's words.
const (
	PoolReadWrite      PoolMode = "rw"
	PoolReadOnly       PoolMode = "ro"
	PoolOutOfDataSpace PoolMode = "out_of_data_space"
	PoolFailed         PoolMode = "Fail"
)

// PoolStatus is the state of a thin pool.
type PoolStatus struct {
	TransactionID       uint64
	UsedMetadataBlocks  uint64 // of MetadataBlockBytes
	TotalMetadataBlocks uint64
	UsedDataBlocks      uint64 // of ChunkBytes
	TotalDataBlocks     uint64
	ChunkBytes          int64
	Mode                PoolMode
	NeedsCheck          bool // thin_check must run before the next activation
	ErrorIfNoSpace      bool // otherwise writers wait for space
	SkipZeroing         bool // a new chunk shows what was on the disk before
}

// MetadataBlockBytes is dm-thin's fixed metadata block size.
const MetadataBlockBytes = 4096

// DataPercent is how full the data device is.
func (s PoolStatus) DataPercent() float64 { return percent(s.UsedDataBlocks, s.TotalDataBlocks) }

// MetadataPercent is how full the metadata device is.
func (s PoolStatus) MetadataPercent() float64 {
	return percent(s.UsedMetadataBlocks, s.TotalMetadataBlocks)
}

// SizeBytes is the size of the data device.
func (s PoolStatus) SizeBytes() int64 { return int64(s.TotalDataBlocks) * s.ChunkBytes } //nolint:gosec // a disk's size fits

// UsedBytes is how much of the data device is in use.
func (s PoolStatus) UsedBytes() int64 { return int64(s.UsedDataBlocks) * s.ChunkBytes } //nolint:gosec // a disk's size fits

func percent(used, total uint64) float64 {
	if total == 0 {
		return 100
	}
	return float64(used) * 100 / float64(total)
}

// DeviceName is the device-mapper name of an LV: hyphens in names are doubled, one separates.
func DeviceName(group, lv string) string { return mangle(group) + "-" + mangle(lv) }

func mangle(s string) string { return strings.ReplaceAll(s, "-", "--") }

// poolDeviceNames are the devices that may carry the thin-pool target of an LVM pool: the hidden layer of a
// pool in use, or the pool itself.
func poolDeviceNames(group, pool string) []string {
	name := DeviceName(group, pool)
	return []string{name + "-tpool", name}
}

const thinPoolTarget = "thin-pool"

// ParsePoolStatus reads the status line and the table line of a thin-pool target.
func ParsePoolStatus(status, table string) (PoolStatus, error) {
	var s PoolStatus
	f := strings.Fields(status)
	// <transaction id> <used>/<total metadata> <used>/<total data> <held root> <mode> <discard>
	// <error_if_no_space|queue_if_no_space> [needs_check|-] ...; or the one word Fail or Error
	if len(f) == 1 && (f[0] == "Fail" || f[0] == "Error") {
		s.Mode = PoolFailed
		return s, nil
	}
	if len(f) < 5 {
		return s, fmt.Errorf("thin-pool status %q has fewer than 5 words", status)
	}
	var err error
	if s.TransactionID, err = strconv.ParseUint(f[0], 10, 64); err != nil {
		return s, fmt.Errorf("thin-pool status %q: transaction id: %w", status, err)
	}
	if s.UsedMetadataBlocks, s.TotalMetadataBlocks, err = parseRatio(f[1]); err != nil {
		return s, fmt.Errorf("thin-pool status %q: metadata: %w", status, err)
	}
	if s.UsedDataBlocks, s.TotalDataBlocks, err = parseRatio(f[2]); err != nil {
		return s, fmt.Errorf("thin-pool status %q: data: %w", status, err)
	}
	s.Mode = PoolMode(f[4])
	for _, word := range f[5:] {
		switch word {
		case "error_if_no_space":
			s.ErrorIfNoSpace = true
		case "needs_check":
			s.NeedsCheck = true
		}
	}
	// <metadata dev> <data dev> <chunk in sectors> <low water mark> <number of features> <features...>
	t := strings.Fields(table)
	if len(t) < 3 {
		return s, fmt.Errorf("thin-pool table %q has fewer than 3 words", table)
	}
	sectors, err := strconv.ParseInt(t[2], 10, 32)
	if err != nil || sectors <= 0 {
		return s, fmt.Errorf("thin-pool table %q: chunk size %q", table, t[2])
	}
	s.ChunkBytes = sectors * sectorBytes
	for _, word := range t[3:] {
		if word == "skip_block_zeroing" {
			s.SkipZeroing = true
		}
	}
	return s, nil
}

const sectorBytes = 512

func parseRatio(s string) (used, total uint64, err error) {
	a, b, ok := strings.Cut(s, "/")
	if !ok {
		return 0, 0, fmt.Errorf("%q is not used/total", s)
	}
	if used, err = strconv.ParseUint(a, 10, 64); err == nil {
		total, err = strconv.ParseUint(b, 10, 64)
	}
	return used, total, err
}
