package ctl

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) treeCommand() *cobra.Command {
	var space bool
	cmd := &cobra.Command{
		Use: "tree", Short: "Shows what was made from what: pool, volume, its snapshots, what was restored from them", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(h *Host) error { return a.tree(cmd.Context(), h, space) })
		},
	}
	cmd.Flags().BoolVar(&space, "space", false, "show what each takes of its thin pool for itself; see get volumes --space")
	return cmd
}

// node of the tree.
type node struct {
	text     string
	children []*node
}

func (n *node) add(child *node) { n.children = append(n.children, child) }

func (n *node) write(w io.Writer, first, rest string) error {
	if _, err := fmt.Fprintln(w, first+n.text); err != nil {
		return err
	}
	for i, c := range n.children {
		branch, below := "├─ ", "│  "
		if i == len(n.children)-1 {
			branch, below = "└─ ", "   "
		}
		if err := c.write(w, rest+branch, rest+below); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) tree(ctx context.Context, h *Host, space bool) error {
	inv, failed := h.inventory(ctx, space)
	for _, g := range inv.Groups {
		if err := (&forest{a, inv, g.Name, map[string]bool{}}).root(g).write(a.Out, "", ""); err != nil {
			return err
		}
	}
	return failed
}

// forest makes the tree of one group.
type forest struct {
	a     *app
	inv   *Inventory
	group string
	shown map[string]bool // logical volumes
}

func (f *forest) root(g Group) *node {
	root := &node{text: fmt.Sprintf("%s  volume group, %s, %s free", g.Name, size(g.SizeBytes), size(g.FreeBytes))}
	for _, p := range f.inv.Pools {
		if p.VolumeGroup == g.Name {
			pool := &node{text: f.poolText(p)}
			root.add(pool)
			f.plant(pool, p.Name)
		}
	}
	f.plant(root, "")
	return root
}

func (f *forest) poolText(p Pool) string {
	if !p.Active {
		return fmt.Sprintf("%s  thin pool, %s, %s", p.Name, size(p.SizeBytes), f.a.paint.state(p.State, p.Conditions))
	}
	return fmt.Sprintf("%s  thin pool %s %s of %s, metadata %s, %s", p.Name, f.a.paint.bar(p.DataPercent), percentText(p.DataPercent), size(p.SizeBytes),
		percentText(p.MetadataPercent), f.a.paint.state(p.State, p.Conditions))
}

// plant adds what lies in a pool (or in none) and was made from nothing that is there.
func (f *forest) plant(under *node, pool string) {
	for n := range f.inv.Volumes {
		v := &f.inv.Volumes[n]
		if v.VolumeGroup == f.group && v.Pool == pool && !f.exists(v.Source) {
			f.volume(under, v, pool)
		}
	}
	gone := map[string]*node{}
	for n := range f.inv.Snapshots {
		s := &f.inv.Snapshots[n]
		if s.VolumeGroup != f.group || s.Pool != pool || f.shown[s.LogicalVolume] || f.owner(s) != nil {
			continue
		}
		parent := gone[s.Source]
		if parent == nil {
			parent = &node{text: f.a.paint.color(dim, "deleted volume "+s.Source)}
			gone[s.Source] = parent
			under.add(parent)
		}
		f.snapshot(parent, s, pool)
	}
}

func (f *forest) exists(lv string) bool {
	return lv != "" && !strings.HasSuffix(f.inv.titleOf(f.group, lv), " (deleted)")
}

func (f *forest) owner(s *Snapshot) *Volume {
	for n := range f.inv.Volumes {
		if v := &f.inv.Volumes[n]; v.has(s) {
			return v
		}
	}
	return nil
}

// volume adds a volume, with what was made from it. What is elsewhere (a restore into another pool) is named there, too.
func (f *forest) volume(under *node, v *Volume, pool string) {
	if f.shown[v.LogicalVolume] {
		return // LVM's metadata has no rings, and who writes tags by hand may
	}
	f.shown[v.LogicalVolume] = true
	text := fmt.Sprintf("volume %s  %s, %s", v.title(), size(v.SizeBytes), f.a.paint.state(v.State, v.Conditions))
	if v.Type == "thick" {
		text += ", " + v.Layout
	}
	if v.Fill != nil {
		text += " " + f.a.paint.bar(ratio(v.Fill.DoneBytes, v.Fill.TotalBytes))
	}
	n := &node{text: text + f.extra(v.Space, v.Pool, pool)}
	under.add(n)
	for i := range f.inv.Snapshots {
		if s := &f.inv.Snapshots[i]; v.has(s) {
			f.snapshot(n, s, v.Pool)
		}
	}
	f.madeFrom(n, v.LogicalVolume, v.Pool)
}

func (f *forest) snapshot(under *node, s *Snapshot, pool string) {
	if f.shown[s.LogicalVolume] {
		return
	}
	f.shown[s.LogicalVolume] = true
	text := fmt.Sprintf("snapshot %s  %s, %s old, %s", s.title(), size(s.SizeBytes), age(f.a.Now(), s.CreatedAt), f.a.paint.state(s.State, s.Conditions))
	if s.COW != nil && s.COW.UsedBytes != nil {
		used := ratio(*s.COW.UsedBytes, s.COW.TotalBytes)
		text += fmt.Sprintf(", COW %s %s of %s", f.a.paint.bar(used), percentText(used), size(s.COW.TotalBytes))
	}
	n := &node{text: text + f.extra(s.Space, s.Pool, pool)}
	under.add(n)
	f.madeFrom(n, s.LogicalVolume, s.Pool)
}

func (f *forest) madeFrom(n *node, lv, pool string) {
	for i := range f.inv.Volumes {
		if v := &f.inv.Volumes[i]; v.VolumeGroup == f.group && v.Source == lv {
			f.volume(n, v, pool)
		}
	}
}

func (f *forest) extra(s *Space, pool, under string) string {
	out := ""
	if s != nil {
		out += fmt.Sprintf(", %s exclusive, %s shared", size(s.ExclusiveBytes), size(s.SharedBytes))
	}
	if pool != under {
		out += ", in " + where(f.group, pool)
	}
	return out
}
