package lvm

import "context"

// Activate makes the device of a volume appear, also of one that is skipped otherwise. lvchange(8)
func (c *Client) Activate(ctx context.Context, name string) error {
	if err := validateNames(name); err != nil {
		return err
	}
	_, err := c.run(ctx, "lvchange", "--activate", "y", "--ignoreactivationskip", c.path(name))
	return err
}

// Deactivate makes the device disappear; ErrInUse while it is open, but only after the 5 s for which LVM tries
// again (activation/retry_deactivation, for the sake of udev): ask dm.Kernel.Info first. lvchange(8)
func (c *Client) Deactivate(ctx context.Context, name string) error {
	if err := validateNames(name); err != nil {
		return err
	}
	_, err := c.run(ctx, "lvchange", "--activate", "n", c.path(name))
	return err
}

// ChangeTags removes and adds tags in one commit; a tag that is not there to be removed, or there already, is
// no error. lvchange(8)
func (c *Client) ChangeTags(ctx context.Context, name string, remove, add []string) error {
	if err := validateNames(name); err != nil {
		return err
	}
	args, err := tagArgs([]string{"lvchange"}, "--deltag", remove)
	if err != nil {
		return err
	}
	if args, err = tagArgs(args, "--addtag", add); err != nil {
		return err
	}
	_, err = c.run(ctx, append(args, c.path(name))...)
	return err
}
