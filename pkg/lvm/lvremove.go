package lvm

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Remove deletes a logical volume; ErrInUse when it is open (after 5 s, see Deactivate), ErrNotFound when it does not
// exist. Beware: LVM removes the COW snapshots of a thick origin with it; see RemoveThick. lvremove(8)
func (c *Client) Remove(ctx context.Context, name string) error {
	if err := validateNames(name); err != nil {
		return err
	}
	_, err := c.run(ctx, "lvremove", "--yes", c.path(name))
	return err
}

// RemoveKeepingBlocks is Remove, and leaves what is on the extents as it is, whatever the host's lvm.conf says (issue_discards):
// it is for extents that were overwritten for the next one. lvm.conf(5)
func (c *Client) RemoveKeepingBlocks(ctx context.Context, name string) error {
	if err := validateNames(name); err != nil {
		return err
	}
	_, err := c.run(ctx, "lvremove", "--yes", "--config", "devices/issue_discards=0", c.path(name))
	return err
}

// RemoveThick is Remove for thick volumes: ErrHasSnapshots when it is the origin of COW snapshots, which LVM, left to
// itself, removes with it.
//
// The selection is what prevents it: LVM evaluates it under the group's lock, so that nobody's new snapshot can come in
// between; an origin is passed over in silence. lvmreport(7)
func (c *Client) RemoveThick(ctx context.Context, name string) error {
	if err := validateNames(name); err != nil {
		return err
	}
	doc, err := c.run(ctx, "lvremove", "--yes", "--select", "lv_role!=thickorigin", c.path(name))
	if err != nil || slices.ContainsFunc(doc.Log, removed) {
		return err
	}
	// No word of it: the volume was passed over, or there is no log (see Exec.Run).
	m, err := c.View(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(m.LVs, func(lv LV) bool { return lv.Name == name }) {
		return fmt.Errorf("%w: %s", ErrHasSnapshots, c.path(name))
	}
	return nil
}

func removed(e LogEntry) bool { return strings.Contains(e.Message, "successfully removed") }
