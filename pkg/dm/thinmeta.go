package dm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A thin pool can keep its metadata as it is at one moment, once at a time, for a program that reads it while the pool
// is in use (thin_ls, thin_delta). It stays until it is released, over restarts of the node, too.

// MetadataSnapshot is the block of the root of an active thin pool's metadata snapshot; 0: there is none.
func (c *Control) MetadataSnapshot(ctx context.Context, group, pool string) (root uint64, err error) {
	for _, name := range poolDeviceNames(group, pool) {
		_, target, status, err := c.call(ctx, cmdTableStatus, name, flagNoFlush)
		if errors.Is(err, ErrNoDevice) || (err == nil && target != thinPoolTarget) {
			continue
		}
		if err != nil {
			return 0, err
		}
		return parseHeldRoot(status)
	}
	return 0, fmt.Errorf("%w: thin pool %s/%s is not active", ErrNoDevice, group, pool)
}

// parseHeldRoot reads the fourth word of a pool's status; see ParsePoolStatus.
func parseHeldRoot(status string) (uint64, error) {
	f := strings.Fields(status)
	switch {
	case len(f) == 1 && (f[0] == "Fail" || f[0] == "Error"):
		return 0, nil
	case len(f) < 4:
		return 0, fmt.Errorf("thin-pool status %q has fewer than 4 words", status)
	case f[3] == "-":
		return 0, nil
	}
	root, err := strconv.ParseUint(f[3], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("thin-pool status %q: held metadata root: %w", status, err)
	}
	return root, nil
}

// ReserveMetadataSnapshot takes an active thin pool's metadata snapshot; EBUSY when there is one.
func (c *Control) ReserveMetadataSnapshot(ctx context.Context, group, pool string) error {
	return c.poolMessage(ctx, group, pool, "reserve_metadata_snap")
}

// ReleaseMetadataSnapshot gives it back.
func (c *Control) ReleaseMetadataSnapshot(ctx context.Context, group, pool string) error {
	return c.poolMessage(ctx, group, pool, "release_metadata_snap")
}

// MetadataDevice is the path of the device that a thin pool's metadata is on.
func MetadataDevice(group, pool string) string {
	return "/dev/mapper/" + DeviceName(group, pool) + "_tmeta"
}

const (
	cmdListVersions = 13
	versionNameAt   = 16 // struct dm_target_versions: u32 next, u32 version[3], char name[]
)

// Targets are the kinds of devices that the kernel can make now. One whose module is not loaded is not among them.
func (c *Control) Targets(ctx context.Context) ([]string, error) {
	file, err := c.open()
	if err != nil {
		return nil, err
	}
	return await(ctx, "its targets", func() ([]string, error) {
		h, buf, err := ioctlRaw(file, cmdListVersions, "", 0, bufferBytes)
		if err != nil {
			return nil, err
		}
		if h.Flags&flagBufferFull != 0 {
			return nil, fmt.Errorf("device-mapper's list of targets exceeds %d bytes", bufferBytes)
		}
		return parseTargets(buf[:min(int(h.DataSize), len(buf))], h.DataStart)
	})
}

func parseTargets(buf []byte, start uint32) ([]string, error) {
	var out []string
	for at := int(start); ; {
		if at < headerBytes || at+versionNameAt > len(buf) {
			return nil, errors.New("device-mapper's list of targets is malformed")
		}
		entry := buf[at:]
		out = append(out, cString(entry[versionNameAt:]))
		next := int(binary.NativeEndian.Uint32(entry))
		if next == 0 {
			slices.Sort(out)
			return out, nil
		}
		at += next
	}
}
