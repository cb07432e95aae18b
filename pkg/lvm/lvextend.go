package lvm

import (
	"context"
	"errors"
)

// Extend grows a logical volume to sizeBytes, online; the file system on it is left alone. One that is as large or
// larger already stays as it is, without an error. lvextend(8)
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
