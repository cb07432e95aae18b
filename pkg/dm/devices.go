package dm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Device is one device of a volume group.
type Device struct {
	Name string // device-mapper's: see DeviceName; hidden ones have a suffix (-real, -cow, -tpool)
	UUID string // LVM's: see LV
	Info
}

const (
	uuidPrefix = "LVM-"
	uuidChars  = 32 // of a group's or an LV's UUID, without its hyphens
)

// LV is the UUID of the logical volume that the device belongs to, without hyphens, and the device's layer of it: empty for
// the LV itself, or -real, -cow, -tpool. The UUID is the same after an LV was renamed. Empty: the device is not LVM's.
func (d Device) LV() (uuid, layer string) {
	ids, ok := strings.CutPrefix(d.UUID, uuidPrefix)
	if !ok || len(ids) < 2*uuidChars {
		return "", ""
	}
	return ids[uuidChars : 2*uuidChars], ids[2*uuidChars:]
}

// Devices lists the devices of a volume group by name: its active LVs, their hidden layers, and what an interrupted
// command may have left of LVs that LVM knows nothing of.
//
// The suspended origin of COW snapshots is resumed by lvm.Client.Refresh, which resumes its snapshots first; one that
// were resumed by itself would go on without them.
func (c *Control) Devices(ctx context.Context, group string) ([]Device, error) {
	file, err := c.open()
	if err != nil {
		return nil, err
	}
	names, err := await(ctx, group, func() ([]string, error) {
		for size := uint32(bufferBytes); size <= maxListBytes; size *= 4 {
			h, buf, err := ioctlRaw(file, cmdListDevices, "", 0, size)
			if err != nil {
				return nil, err
			}
			if h.Flags&flagBufferFull == 0 {
				return parseNames(buf, h.DataStart)
			}
		}
		return nil, fmt.Errorf("device-mapper's list of devices exceeds %d bytes", maxListBytes)
	})
	if err != nil {
		return nil, err
	}
	var out []Device
	for _, name := range names {
		if !inGroup(name, group) {
			continue
		}
		h, _, _, err := c.call(ctx, cmdDevStatus, name, 0)
		if errors.Is(err, ErrNoDevice) {
			continue // gone since
		}
		if err != nil {
			return nil, err
		}
		out = append(out, Device{Name: name, UUID: cString(h.UUID[:]), Info: infoOf(h)})
	}
	slices.SortFunc(out, func(a, b Device) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// maxListBytes is room for 100,000 devices.
const maxListBytes = bufferBytes * 4 * 4 * 4 * 4 * 4

// inGroup: a single hyphen ends the group's name.
func inGroup(device, group string) bool {
	lv, ok := strings.CutPrefix(device, mangle(group)+"-")
	return ok && lv != "" && lv[0] != '-'
}

const (
	nameNextAt = 8  // struct dm_name_list: u64 dev, u32 next, char name[]
	nameAt     = 12 //
)

// parseNames walks a list of struct dm_name_list. An empty one has a single entry without a device.
func parseNames(buf []byte, start uint32) ([]string, error) {
	var out []string
	for at := int(start); ; {
		if at < headerBytes || at+nameAt > len(buf) {
			return nil, errors.New("device-mapper's list of devices is malformed")
		}
		entry := buf[at:]
		if binary.NativeEndian.Uint64(entry) == 0 {
			return out, nil
		}
		out = append(out, cString(entry[nameAt:]))
		next := binary.NativeEndian.Uint32(entry[nameNextAt:])
		if next == 0 {
			return out, nil
		}
		at += int(next)
	}
}
