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
	if err := validateNames(name); err != nil {
		return err
	}
	if err := validateSize(sizeBytes); err != nil {
		return err
	}
	_, err := c.run(ctx, "lvextend", "--size", bytesArg(sizeBytes), c.path(name))
	if errors.Is(err, ErrNothingToChange) {
		return nil
	}
	return err
}
