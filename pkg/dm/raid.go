package dm

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// RAIDStatus is the state of an active RAID volume; Documentation/admin-guide/device-mapper/dm-raid.rst, "Status Output".
type RAIDStatus struct {
	Type    string // raid1, raid5_ls, raid10, ...
	Devices int
	Failed  int // of the devices: dead or missing
	// Action is what the array does by itself: idle, resync (the first synchronization), recover (onto a new disk), check, repair.
	Action                  string
	SyncedBytes, TotalBytes int64 // of that, on each device
}

// RAIDRecover is the Action that makes an array whole again.
const RAIDRecover = "recover"

const (
	raidTarget  = "raid"
	realSuffix  = "-real" // of the layer between an origin of COW snapshots and its extents
	raidDead    = 'D'
	raidMissing = '-'
)

// ParseRAIDStatus reads the status line of a raid target.
func ParseRAIDStatus(status string) (RAIDStatus, error) {
	// <type> <devices> <health, a character each> <synced>/<total> <action> <mismatches> ...
	f := strings.Fields(status)
	if len(f) < 5 {
		return RAIDStatus{}, fmt.Errorf("raid status %q has fewer than 5 words", status)
	}
	devices, err := strconv.Atoi(f[1])
	if err != nil || devices != len(f[2]) {
		return RAIDStatus{}, fmt.Errorf("raid status %q: %q devices", status, f[1])
	}
	synced, total, err := parseRatio(f[3])
	if err != nil || synced > maxSectors || total > maxSectors {
		return RAIDStatus{}, fmt.Errorf("raid status %q: synchronized %q", status, f[3])
	}
	return RAIDStatus{
		Type: f[0], Devices: devices, Failed: strings.Count(f[2], string(raidDead)) + strings.Count(f[2], string(raidMissing)), Action: f[4],
		SyncedBytes: int64(synced) * sectorBytes, TotalBytes: int64(total) * sectorBytes,
	}, nil
}

// RAIDStatus implements Kernel.
func (c *Control) RAIDStatus(ctx context.Context, group, lv string) (RAIDStatus, error) {
	name := DeviceName(group, lv)
	for _, name := range []string{name + realSuffix, name} { // the layer below COW snapshots, or the volume itself
		_, target, status, err := c.call(ctx, cmdTableStatus, name, flagNoFlush)
		if errors.Is(err, ErrNoDevice) || err == nil && target != raidTarget {
			continue
		}
		if err != nil {
			return RAIDStatus{}, err
		}
		return ParseRAIDStatus(status)
	}
	return RAIDStatus{}, fmt.Errorf("%w: %s/%s is not an active RAID volume", ErrNoDevice, group, lv)
}
