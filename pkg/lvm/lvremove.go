package lvm

import "context"

// Remove deletes a logical volume; ErrInUse when it is open (after 5 s, see Deactivate), ErrNotFound when it does not exist. Beware: LVM
// removes the COW snapshots of a thick origin with it. lvremove(8)
func (c *Client) Remove(ctx context.Context, name string) error {
	if err := validateNames(name); err != nil {
		return err
	}
	_, err := c.run(ctx, "lvremove", "--yes", c.path(name))
	return err
}
