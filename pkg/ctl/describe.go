package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) describeCommand() *cobra.Command {
	var space bool
	cmd := &cobra.Command{
		Use:   "describe NAME",
		Short: "Shows everything about one volume, snapshot or pool",
		Long: "Shows everything about one volume, snapshot or pool. NAME is that of the claim or VolumeSnapshot (NAMESPACE/NAME, or NAME where there is\n" +
			"one of that name), of the PersistentVolume or VolumeSnapshotContent, CSI's, a handle, or LVM's (LV, or GROUP/LV).",
		Args: oneName,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return a.completeNames(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd.Context(), func(h *Host) error { return a.describe(cmd.Context(), h, args[0], space) })
		},
	}
	a.outputFlags(cmd, "text", "json", "yaml")
	cmd.Flags().BoolVar(&space, "space", false, "show what it takes of its thin pool; see get volumes --space")
	return cmd
}

// completeNames are what people call the objects. Completion that fails says nothing.
func (a *app) completeNames(ctx context.Context) []string {
	var out []string
	_ = a.with(ctx, func(h *Host) error {
		inv, err := h.inventory(ctx, false)
		if err != nil {
			return err
		}
		for _, v := range inv.Volumes {
			out = append(out, v.title()+"\tvolume")
		}
		for _, s := range inv.Snapshots {
			out = append(out, s.title()+"\tsnapshot")
		}
		for _, p := range inv.Pools {
			out = append(out, where(p.VolumeGroup, p.Name)+"\tpool")
		}
		return nil
	})
	return out
}

func (a *app) describe(ctx context.Context, h *Host, name string, space bool) error {
	inv, failed := h.inventory(ctx, space)
	found := inv.find(name)
	switch {
	case len(found) == 0 && failed != nil:
		return failed
	case len(found) == 0:
		return fmt.Errorf("%w: no volume, snapshot or pool is called %q in %s", errNotFound, name, strings.Join(h.Groups, ", "))
	case len(found) > 1:
		var names []string
		for _, f := range found {
			names = append(names, f.name())
		}
		return usageError("%q is the name of several: %s", name, strings.Join(names, ", "))
	}
	if a.output != "text" {
		return errors.Join(failed, structured(a.Out, a.output, found[0].value()))
	}
	p := &page{w: a.Out}
	switch f := found[0]; {
	case f.volume != nil:
		a.describeVolume(p, inv, f.volume)
	case f.snapshot != nil:
		a.describeSnapshot(p, inv, f.snapshot)
	default:
		a.describePool(p, inv, f.pool)
	}
	return errors.Join(failed, p.err)
}

// object is one of the three.
type object struct {
	volume   *Volume
	snapshot *Snapshot
	pool     *Pool
}

func (o object) value() any {
	switch {
	case o.volume != nil:
		return o.volume
	case o.snapshot != nil:
		return o.snapshot
	default:
		return o.pool
	}
}

func (o object) name() string {
	switch {
	case o.volume != nil:
		return o.volume.VolumeGroup + "/" + o.volume.LogicalVolume
	case o.snapshot != nil:
		return o.snapshot.VolumeGroup + "/" + o.snapshot.LogicalVolume
	default:
		return where(o.pool.VolumeGroup, o.pool.Name)
	}
}

// find looks by every name that an object has.
func (i *Inventory) find(name string) []object {
	var out []object
	matches := func(names ...string) bool {
		for _, n := range names {
			if n != "" && n == name {
				return true
			}
		}
		return false
	}
	base := func(s string) string { return s[strings.LastIndex(s, "/")+1:] }
	for n := range i.Volumes {
		v := &i.Volumes[n]
		if matches(v.Claim, base(v.Claim), v.Name, v.PersistentVolume, v.Handle, v.LogicalVolume, v.VolumeGroup+"/"+v.LogicalVolume) {
			out = append(out, object{volume: v})
		}
	}
	for n := range i.Snapshots {
		s := &i.Snapshots[n]
		if matches(s.Snapshot, base(s.Snapshot), s.Name, s.Content, s.Handle, s.LogicalVolume, s.VolumeGroup+"/"+s.LogicalVolume) {
			out = append(out, object{snapshot: s})
		}
	}
	for n := range i.Pools {
		p := &i.Pools[n]
		if matches(p.Name, where(p.VolumeGroup, p.Name)) {
			out = append(out, object{pool: p})
		}
	}
	return out
}

// page writes lines with a label, until one fails.
type page struct {
	w   io.Writer
	err error
}

const labelWidth = 20

func (p *page) line(label, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if p.err == nil && text != "" {
		_, p.err = fmt.Fprintf(p.w, "%-*s%s\n", labelWidth, label+":", text)
	}
}

func (p *page) list(label string, items []string) {
	for i, item := range items {
		if i > 0 {
			label = ""
		}
		if p.err == nil {
			head := label
			if head != "" {
				head += ":"
			}
			_, p.err = fmt.Fprintf(p.w, "%-*s%s\n", labelWidth, head, item)
		}
	}
}

func (a *app) created(t *time.Time) string {
	if t == nil {
		return "unknown"
	}
	return t.Format(time.RFC3339) + " (" + age(a.Now(), t) + " ago)"
}

func (a *app) describeVolume(p *page, i *Inventory, v *Volume) {
	p.line("Volume", "%s", v.title())
	p.line("Name", "%s", v.Name)
	p.line("PersistentVolume", "%s", v.PersistentVolume)
	p.line("Handle", "%s", v.Handle)
	p.line("Logical volume", "%s/%s (%s)", v.VolumeGroup, v.LogicalVolume, v.Layout)
	p.line("Type", "%s", v.Type)
	p.line("Pool", "%s", v.Pool)
	p.line("Size", "%s (requested: %d bytes)", size(v.SizeBytes), v.RequestedBytes)
	p.line("Access", "%s %s", v.Access, v.FSType)
	p.line("Created", "%s", a.created(v.CreatedAt))
	p.line("Made from", "%s", i.titleOf(v.VolumeGroup, v.Source))
	p.line("State", "%s", a.paint.state(v.State, v.Conditions))
	if v.Device != "" {
		p.line("Device", "%s (%d:%d), open %d times", v.Device, v.major, v.minor, v.OpenCount)
	}
	if v.Fill != nil {
		p.line("Content", "%s, %s of %s on stable storage", v.Fill.Kind, size(v.Fill.DoneBytes), size(v.Fill.TotalBytes))
	}
	describeSpace(p, v.Space)
	p.list("Made from it", i.titles(v.VolumeGroup, v.Dependents))
	describeConditions(p, v.Conditions)
}

func (a *app) describeSnapshot(p *page, i *Inventory, s *Snapshot) {
	p.line("Snapshot", "%s", s.title())
	p.line("Name", "%s", s.Name)
	p.line("Content", "%s", s.Content)
	p.line("Handle", "%s", s.Handle)
	p.line("Logical volume", "%s/%s", s.VolumeGroup, s.LogicalVolume)
	p.line("Type", "%s", s.Type)
	p.line("Pool", "%s", s.Pool)
	p.line("Source", "%s", i.sourceOf(s))
	p.line("Size", "%s", size(s.SizeBytes))
	p.line("File system", "%s", s.FSType)
	p.line("Cut", "%s", a.created(s.CreatedAt))
	p.line("State", "%s", a.paint.state(s.State, s.Conditions))
	if s.COW != nil {
		p.line("COW", "%s", a.cowCell(s.COW).painted)
	}
	describeSpace(p, s.Space)
	p.list("Restored from it", i.titles(s.VolumeGroup, s.Dependents))
	describeConditions(p, s.Conditions)
}

func (a *app) describePool(p *page, i *Inventory, pool *Pool) {
	p.line("Thin pool", "%s", where(pool.VolumeGroup, pool.Name))
	p.line("State", "%s", a.paint.state(pool.State, pool.Conditions))
	if pool.Active {
		p.line("Data", "%s %s, %s of %s", a.paint.bar(pool.DataPercent), percentText(pool.DataPercent), size(pool.UsedBytes), size(pool.SizeBytes))
		p.line("Metadata", "%s %s of %s", a.paint.bar(pool.MetadataPercent), percentText(pool.MetadataPercent), size(pool.MetadataBytes))
	} else {
		p.line("Size", "%s", size(pool.SizeBytes))
	}
	p.line("Promised", "%s to %d volumes (%.1f times its size)", size(pool.PromisedBytes), pool.Volumes, ratio(pool.PromisedBytes, pool.SizeBytes)/100)
	p.line("Snapshots", "%d", pool.Snapshots)
	p.line("Group", "%s, %s free", pool.VolumeGroup, size(i.group(pool.VolumeGroup).FreeBytes))
	describeConditions(p, pool.Conditions)
}

func describeSpace(p *page, s *Space) {
	if s != nil {
		p.line("Space", "%s of its own, %s shared", size(s.ExclusiveBytes), size(s.SharedBytes))
	}
}

func describeConditions(p *page, conditions []Condition) {
	for _, c := range conditions {
		p.line(cmp.Or(string(c.Severity), "Condition"), "%s: %s", c.Reason, c.Message)
	}
}

func (i *Inventory) titles(group string, lvs []string) []string {
	var out []string
	for _, lv := range lvs {
		out = append(out, i.titleOf(group, lv)+" ("+lv+")")
	}
	return out
}
