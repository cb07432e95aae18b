package lvm

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Remove deletes a logical volume; ErrInUse when it is open (after 5 s, see Deactivate), ErrNotFound when it does not
// exist, ErrHasSnapshots when it is the origin of COW snapshots.
//
// Left to itself, LVM removes these with their origin. The selection is what prevents it: LVM evaluates it under the
// group's lock, so that nobody's new snapshot can come in between; an origin is passed over in silence. lvremove(8), lvmreport(7)
func (c *Client) Remove(ctx context.Context, name string) error {
	if err := validateNames(name); err != nil {
		return err
	}
	doc, err := c.run(ctx, "lvremove", "--yes", "--select", "lv_role!=thickorigin", c.path(name))
	if err != nil || slices.ContainsFunc(doc.Log, removed) {
		return err
	}
	// No word of it: the volume was passed over, or there is no log (see Exec.Run).
	lvs, err := c.View(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(lvs, func(lv LV) bool { return lv.Name == name }) {
		return fmt.Errorf("%w: %s", ErrHasSnapshots, c.path(name))
	}
	return nil
}

func removed(e LogEntry) bool { return strings.Contains(e.Message, "successfully removed") }
