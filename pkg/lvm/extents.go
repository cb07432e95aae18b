package lvm

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// ErrNotLinear: the volume is not simply a row of extents.
var ErrNotLinear = errors.New("not a linear volume")

// Extents are the physical extents below a linear volume, as PV:FIRST-LAST; ErrNotLinear for any other. lvs(8), seg_pe_ranges
func (c *Client) Extents(ctx context.Context, name string) ([]string, error) {
	if err := validateNames(name); err != nil {
		return nil, err
	}
	doc, err := c.run(ctx, "lvs", "--units", "b", "--nosuffix", "--options", "lv_name,segtype,seg_pe_ranges", c.path(name))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, r := range doc.Report {
		for _, row := range r.LV {
			if row.Name != name || row.SegType != "linear" {
				return nil, fmt.Errorf("%w: %s is %s", ErrNotLinear, c.path(name), row.SegType)
			}
			out = append(out, strings.Fields(row.Extents)...)
		}
	}
	return out, nil
}

// ExtendOnto is Extend of a linear volume onto those extents, and no others. lvextend(8)
func (c *Client) ExtendOnto(ctx context.Context, name string, sizeBytes int64, extents []string) error {
	if err := validateNames(name); err != nil {
		return err
	}
	if err := validateSize(sizeBytes); err != nil {
		return err
	}
	if len(extents) == 0 {
		return errors.New("no extents to extend " + c.path(name) + " onto")
	}
	_, err := c.run(ctx, append([]string{"lvextend", "--size", bytesArg(sizeBytes), c.path(name)}, extents...)...)
	return err
}
