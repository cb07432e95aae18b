package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// formats of what is shown.
var formats = []string{"table", "wide", "json", "yaml"}

func (a *app) outputFlags(cmd *cobra.Command, formats ...string) {
	output := cmd.Flags().StringP("output", "o", formats[0], "the `format`: "+strings.Join(formats, ", "))
	fixed(cmd, "output", formats...)
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if a.output = *output; !slices.Contains(formats, a.output) {
			return usageError("--output: %q is not one of %s", a.output, strings.Join(formats, ", "))
		}
		return nil
	}
}

// getter shows one kind of objects.
type getter struct {
	use, short string
	aliases    []string
	space      bool
	sorts      []string
	items      func(*Inventory) any
	table      func(*app, *Inventory, bool) *table
	sort       func(*Inventory, string)
}

func (a *app) getCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get", Short: "Lists volumes, snapshots, pools or volume groups", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError("get takes volumes, snapshots, pools or groups; see %s --help", cmd.CommandPath())
		},
	}
	for _, g := range []getter{
		{
			use: "volumes", aliases: []string{"volume", "vol"}, short: "Lists volumes, with their claims, snapshots and state", space: true,
			sorts: []string{"name", "age", "size", "exclusive"},
			items: func(i *Inventory) any { return i.Volumes }, table: (*app).volumeTable, sort: sortVolumes,
		},
		{
			use: "snapshots", aliases: []string{"snapshot", "snap"}, short: "Lists snapshots, with what was made from them and whether they are good", space: true,
			sorts: []string{"age", "name", "size", "exclusive"},
			items: func(i *Inventory) any { return i.Snapshots }, table: (*app).snapshotTable, sort: sortSnapshots,
		},
		{
			use: "pools", aliases: []string{"pool"}, short: "Lists thin pools, with how full they are",
			items: func(i *Inventory) any { return i.Pools }, table: (*app).poolTable,
		},
		{
			use: "groups", aliases: []string{"group", "vg"}, short: "Lists volume groups, with what is free of them and of their metadata areas",
			items: func(i *Inventory) any { return i.Groups }, table: (*app).groupTable,
		},
	} {
		cmd.AddCommand(a.getterCommand(g))
	}
	return cmd
}

func (a *app) getterCommand(g getter) *cobra.Command {
	var space bool
	var sortBy string
	cmd := &cobra.Command{
		Use: g.use, Aliases: g.aliases, Short: g.short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if g.sorts != nil && !slices.Contains(g.sorts, sortBy) {
				return usageError("--sort-by: %q is not one of %s", sortBy, strings.Join(g.sorts, ", "))
			}
			return a.get(cmd.Context(), g, space || sortBy == "exclusive", sortBy)
		},
	}
	a.outputFlags(cmd, formats...)
	cmd.Flags().BoolVar(&a.noHeaders, "no-headers", false, "print no header")
	if g.space {
		cmd.Flags().BoolVar(&space, "space", false, "show what each takes of its thin pool: of its own (free once it is removed), and shared with others. "+
			"The pool's metadata is read, of which the kernel keeps a snapshot meanwhile")
		cmd.Flags().StringVar(&sortBy, "sort-by", g.sorts[0], "the `order`: "+strings.Join(g.sorts, ", ")+" (with --space)")
		fixed(cmd, "sort-by", g.sorts...)
	}
	return cmd
}

func (a *app) get(ctx context.Context, g getter, space bool, sortBy string) error {
	return a.with(ctx, func(h *Host) error {
		inv, failed := h.inventory(ctx, space)
		if len(inv.Groups) == 0 {
			return failed
		}
		if g.sort != nil {
			g.sort(inv, sortBy)
		}
		if a.output == "json" || a.output == "yaml" {
			return errors.Join(failed, structured(a.Out, a.output, list{g.items(inv)}))
		}
		t := g.table(a, inv, a.output == "wide")
		if len(t.rows) == 0 {
			_, err := fmt.Fprintf(a.Err, "No %s in %s.\n", g.use, strings.Join(h.Groups, ", "))
			return errors.Join(failed, err)
		}
		return errors.Join(failed, t.write(a.Out, a.noHeaders))
	})
}

func sortVolumes(i *Inventory, by string) {
	slices.SortStableFunc(i.Volumes, func(a, b Volume) int {
		switch by {
		case "age":
			return older(a.CreatedAt, b.CreatedAt)
		case "size":
			return cmp.Compare(b.SizeBytes, a.SizeBytes)
		case "exclusive":
			return cmp.Compare(exclusive(b.Space), exclusive(a.Space))
		default:
			return 0 // they are sorted by name
		}
	})
}

func sortSnapshots(i *Inventory, by string) {
	slices.SortStableFunc(i.Snapshots, func(a, b Snapshot) int {
		switch by {
		case "name":
			return strings.Compare(a.title(), b.title())
		case "size":
			return cmp.Compare(b.SizeBytes, a.SizeBytes)
		case "exclusive":
			return cmp.Compare(exclusive(b.Space), exclusive(a.Space))
		default:
			return older(a.CreatedAt, b.CreatedAt)
		}
	})
}

func exclusive(s *Space) int64 {
	if s == nil {
		return -1
	}
	return s.ExclusiveBytes
}

func spaceCells(s *Space) []cell {
	if s == nil {
		return []cell{plain("-"), plain("-")}
	}
	return []cell{plain(size(s.ExclusiveBytes)), plain(size(s.SharedBytes))}
}

// where is the group, with the pool of what is in one.
func where(group, pool string) string {
	if pool == "" {
		return group
	}
	return group + "/" + pool
}

func (a *app) volumeTable(i *Inventory, wide bool) *table {
	space := slices.ContainsFunc(i.Volumes, func(v Volume) bool { return v.Space != nil })
	t := &table{header: []string{"CLAIM", "NAME", "SIZE", "TYPE", "POOL", "SNAPSHOTS", "AGE"}}
	if space {
		t.header = append(t.header, "EXCLUSIVE", "SHARED")
	}
	if wide {
		t.header = append(t.header, "SOURCE", "FS", "OPEN", "LV")
	}
	t.header = append(t.header, "STATE")
	for _, v := range i.Volumes {
		row := []cell{
			plain(cmp.Or(v.Claim, "-")), plain(v.Name), plain(size(v.SizeBytes)), plain(v.Type), plain(where(v.VolumeGroup, v.Pool)),
			plain(fmt.Sprint(v.Snapshots)), plain(age(a.Now(), v.CreatedAt)),
		}
		if space {
			row = append(row, spaceCells(v.Space)...)
		}
		if wide {
			row = append(row, plain(cmp.Or(i.titleOf(v.VolumeGroup, v.Source), "-")), plain(cmp.Or(v.FSType, v.Access)), plain(fmt.Sprint(v.OpenCount)), plain(v.LogicalVolume))
		}
		t.add(append(row, cell{v.State, a.paint.state(v.State, v.Conditions)})...)
	}
	return t
}

// titleOf is what people call a logical volume, which may be gone.
func (i *Inventory) titleOf(group, lv string) string {
	for _, v := range i.Volumes {
		if v.VolumeGroup == group && v.LogicalVolume == lv {
			return v.title()
		}
	}
	for _, s := range i.Snapshots {
		if s.VolumeGroup == group && s.LogicalVolume == lv {
			return s.title()
		}
	}
	if lv == "" {
		return ""
	}
	return lv + " (deleted)"
}

func (a *app) snapshotTable(i *Inventory, wide bool) *table {
	space := slices.ContainsFunc(i.Snapshots, func(s Snapshot) bool { return s.Space != nil })
	t := &table{header: []string{"SNAPSHOT", "SOURCE", "SIZE", "TYPE", "POOL", "COW", "RESTORES", "AGE"}}
	if space {
		t.header = append(t.header, "EXCLUSIVE", "SHARED")
	}
	if wide {
		t.header = append(t.header, "NAME", "LV", "HANDLE")
	}
	t.header = append(t.header, "STATE")
	for _, s := range i.Snapshots {
		row := []cell{
			plain(s.title()), plain(cmp.Or(i.sourceOf(&s), "-")), plain(size(s.SizeBytes)), plain(s.Type), plain(where(s.VolumeGroup, s.Pool)),
			a.cowCell(s.COW), plain(fmt.Sprint(len(s.Dependents))), plain(age(a.Now(), s.CreatedAt)),
		}
		if space {
			row = append(row, spaceCells(s.Space)...)
		}
		if wide {
			row = append(row, plain(s.Name), plain(s.LogicalVolume), plain(s.Handle))
		}
		t.add(append(row, cell{s.State, a.paint.state(s.State, s.Conditions)})...)
	}
	return t
}

// sourceOf is what people call the volume of a snapshot, by LVM's word where the tag's is out of date.
func (i *Inventory) sourceOf(s *Snapshot) string {
	if s.COW != nil {
		return i.titleOf(s.VolumeGroup, s.originLV)
	}
	return i.titleOf(s.VolumeGroup, s.Source)
}

func (a *app) cowCell(c *COW) cell {
	switch {
	case c == nil:
		return plain("-")
	case c.UsedBytes == nil:
		return plain("? of " + size(c.TotalBytes))
	}
	text := percentText(ratio(*c.UsedBytes, c.TotalBytes)) + " of " + size(c.TotalBytes)
	return cell{text, a.paint.percent(ratio(*c.UsedBytes, c.TotalBytes), text)}
}

func (a *app) poolTable(i *Inventory, wide bool) *table {
	t := &table{header: []string{"POOL", "SIZE", "DATA", "", "METADATA", "PROMISED", "VOLUMES", "SNAPSHOTS"}}
	if wide {
		t.header = append(t.header, "FREE", "METADATA-SIZE", "GROUP-FREE")
	}
	t.header = append(t.header, "STATE")
	for _, p := range i.Pools {
		bar, data, metadata := "-", "-", "-"
		painted := bar
		if p.Active {
			bar, painted, data, metadata = painter(false).bar(p.DataPercent), a.paint.bar(p.DataPercent), percentText(p.DataPercent), percentText(p.MetadataPercent)
		}
		row := []cell{
			plain(where(p.VolumeGroup, p.Name)), plain(size(p.SizeBytes)),
			{bar, painted},
			{data, a.paint.percent(p.DataPercent, data)},
			{metadata, a.paint.percent(p.MetadataPercent, metadata)},
			plain(size(p.PromisedBytes)), plain(fmt.Sprint(p.Volumes)), plain(fmt.Sprint(p.Snapshots)),
		}
		if wide {
			row = append(row, plain(size(p.SizeBytes-p.UsedBytes)), plain(size(p.MetadataBytes)), plain(size(i.group(p.VolumeGroup).FreeBytes)))
		}
		t.add(append(row, cell{p.State, a.paint.state(p.State, p.Conditions)})...)
	}
	return t
}

func (i *Inventory) group(name string) Group {
	for _, g := range i.Groups {
		if g.Name == name {
			return g
		}
	}
	return Group{}
}

func (a *app) groupTable(i *Inventory, _ bool) *table {
	t := &table{header: []string{"GROUP", "SIZE", "FREE", "METADATA-AREA", "", "VOLUMES", "SNAPSHOTS"}}
	for _, g := range i.Groups {
		bar, painted, text := "-", "-", "unknown"
		if g.MetadataLimitBytes > 0 {
			used := ratio(g.MetadataBytes, g.MetadataLimitBytes)
			bar, painted = painter(false).bar(used), a.paint.bar(used)
			text = percentText(used) + " of " + size(g.MetadataLimitBytes)
		}
		t.add(plain(g.Name), plain(size(g.SizeBytes)), plain(size(g.FreeBytes)), cell{bar, painted}, plain(text), plain(fmt.Sprint(g.Volumes)), plain(fmt.Sprint(g.Snapshots)))
	}
	return t
}
