package lvm

import "context"

// Rename gives a volume another name, with its COW snapshots' and RAID's devices, also while it is mounted: its device
// stays the same, but /proc/mounts goes on naming the old path, which is gone. lvrename(8)
func (c *Client) Rename(ctx context.Context, name, newName string) error {
	if err := validateNames(name, newName); err != nil {
		return err
	}
	_, err := c.run(ctx, "lvrename", c.path(name), c.path(newName))
	return err
}
