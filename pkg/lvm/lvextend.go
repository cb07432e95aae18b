package lvm

import (
	"context"
	"errors"
)

// Extend grows a logical volume to sizeBytes, online; the file system on it is left alone. One that is as large or
// larger already stays as it is, without an error. The origin of COW snapshots is refused while it is active (ErrOriginActive);
// its snapshots keep the size that they were cut with. Of a COW snapshot it is the COW that grows, to no more
// than COWMaxBytes. lvextend(8)
func (c *Client) Extend(ctx context.Context, name string, sizeBytes int64) error {
	return c.extend(ctx, "--size", name, sizeBytes)
}

// MaxPoolMetadataBytes is what LVM lets the metadata of a thin pool grow to. lvmthin(7)
const MaxPoolMetadataBytes = 16580608 << 10

// ExtendPoolMetadata grows the metadata of a thin pool to sizeBytes, online, as Extend grows its data. Where the group's
// spare metadata volume is smaller, LVM grows that, too, out of the same free extents. lvmthin(7)
func (c *Client) ExtendPoolMetadata(ctx context.Context, pool string, sizeBytes int64) error {
	return c.extend(ctx, "--poolmetadatasize", pool, sizeBytes)
}

// extend is to an absolute size: should somebody else have been faster, LVM finds nothing to do.
func (c *Client) extend(ctx context.Context, option, name string, sizeBytes int64) error {
	if err := validateNames(name); err != nil {
		return err
	}
	if err := validateSize(sizeBytes); err != nil {
		return err
	}
	_, err := c.run(ctx, "lvextend", option, bytesArg(sizeBytes), c.path(name))
	if errors.Is(err, ErrNothingToChange) {
		return nil
	}
	return err
}
