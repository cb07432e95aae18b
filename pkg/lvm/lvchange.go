package lvm

import (
	"context"
	"errors"
)

// A COW snapshot is active together with its origin and all its other snapshots, whichever of them is named. LVM asks
// before it does that for a snapshot, and its shell would take the next command for the answer: hence --yes.

// Activate makes the device of a volume appear, also of one that is skipped otherwise. lvchange(8)
func (c *Client) Activate(ctx context.Context, name string) error {
	if err := validateNames(name); err != nil {
		return err
	}
	_, err := c.run(ctx, "lvchange", "--yes", "--activate", "y", "--ignoreactivationskip", c.path(name))
	return err
}

// Deactivate makes the device disappear; ErrInUse while it is open, but only after the 5 s for which LVM tries
// again (activation/retry_deactivation, for the sake of udev): ask dm.Kernel.Info first. An origin is in use when one of
// its COW snapshots is. lvchange(8)
func (c *Client) Deactivate(ctx context.Context, name string) error {
	if err := validateNames(name); err != nil {
		return err
	}
	_, err := c.run(ctx, "lvchange", "--yes", "--activate", "n", c.path(name))
	return err
}

// Refresh loads the tables of a volume anew and resumes it, with its COW snapshots: the cure for devices that an
// interrupted command left suspended, whose I/O hangs. What it makes active has its node in /dev afterwards, too, which an
// interrupted command had not come to, and which nobody makes where there is no udev. lvchange(8), vgmknodes(8)
func (c *Client) Refresh(ctx context.Context, name string) error {
	if err := validateNames(name); err != nil {
		return err
	}
	if _, err := c.run(ctx, "lvchange", "--refresh", c.path(name)); err != nil {
		return err
	}
	return c.MakeNodes(ctx)
}

// MakeNodes makes the nodes in /dev of active volumes that have none, because a command died between its last change and theirs:
// where there is no udev, nobody else does. vgmknodes(8)
func (c *Client) MakeNodes(ctx context.Context) error {
	// LVM 2.03.16 makes what is missing and says with exit code 5, and no word, that it failed (seen in the lab).
	_, err := c.run(ctx, "vgmknodes", c.group)
	var failed *CommandError
	if errors.As(err, &failed) {
		return nil
	}
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
