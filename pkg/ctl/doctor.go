package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// defaultSettle is between doctor's two looks: what a command at work shows is gone by the second, or looks the same for longer
// than an LVM command usually takes.
const defaultSettle = 2 * time.Second

func (a *app) doctorCommand() *cobra.Command {
	var fix, space bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Says what is wrong with pools, volumes, snapshots and the host, and what to do about it",
		Long: `Says what is wrong with pools, volumes, snapshots and the host, and what to do about it. What an LVM command at work would look like,
too, is said only when it is still there at a second look (--settle). The exit code is 3 when there is something. With --space
each thin pool is also asked for all that it has, by thin_ls.

With --fix, what an interrupted LVM command left is put right, by what the driver itself does about it, under LVM's own lock, and then
everything is looked at again. While no driver is at work, which is kept from starting meanwhile, that is all of it. Beside a driver
it is what I/O or a pool hangs on; what then remains to be removed, the driver removes with its next change. --fix needs
--volume-group.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if fix && len(a.VolumeGroups) == 0 {
				return usageError("--fix changes something: name the groups (--volume-group)")
			}
			return a.with(cmd.Context(), func(h *Host) error { return a.doctor(cmd.Context(), h, fix, space) })
		},
	}
	a.outputFlags(cmd, "table", "json", "yaml")
	cmd.Flags().DurationVar(&a.settle, "settle", defaultSettle, "how `long` after the first look there is a second one, if there is a reason for it")
	cmd.Flags().BoolVar(&fix, "fix", false, "put right what interrupted LVM commands left")
	cmd.Flags().BoolVar(&space, "space", false, "also compare what LVM and each thin pool have, which has the kernel keep a snapshot of the pool's metadata for a moment")
	a.workDirFlag(cmd)
	return cmd
}

func (a *app) workDirFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.WorkDir, "work-dir", "/run/lvmsnap", "a `directory` for run-time files, as the driver's own flag; with --host-namespace, the same on the host")
}

// diagnosis is what doctor says.
type diagnosis struct {
	Groups   []groupDiagnosis  `json:"volumeGroups"`
	Findings []storage.Finding `json:"findings"`
	Fixed    []storage.Finding `json:"fixed,omitempty"` // what was there before --fix
	Failed   []string          `json:"failed,omitempty"`
}

type groupDiagnosis struct {
	Name       string `json:"name"`
	DriverRuns bool   `json:"driverRuns"`
	space      bool
	locks      lvm.FileLocks // none where there is no LVM
}

func (a *app) doctor(ctx context.Context, h *Host, fix, space bool) error {
	d, err := a.diagnose(ctx, h, space)
	if err != nil {
		return err
	}
	if fix {
		if d, err = a.fix(ctx, h, d, space); err != nil {
			return err
		}
	}
	if a.output == "table" {
		err = a.showDiagnosis(d)
	} else {
		err = structured(a.Out, a.output, d)
	}
	if err == nil && len(d.Findings)+len(d.Failed) > 0 {
		err = errFindings
	}
	return err
}

func (a *app) diagnose(ctx context.Context, h *Host, space bool) (*diagnosis, error) {
	d := &diagnosis{Findings: append([]storage.Finding{}, h.hostFindings(ctx)...)}
	var locks lvm.FileLocks
	var filters []storage.Finding
	var asked sync.WaitGroup
	if !slices.ContainsFunc(d.Findings, func(f storage.Finding) bool { return f.Reason == reasonNoLVM }) {
		var err error
		if locks, err = h.Locks(ctx); err != nil {
			return nil, err
		}
		asked.Go(func() { filters = h.filterFindings(ctx) }) // which may have no answer
	}
	for _, g := range h.Groups {
		one := groupDiagnosis{Name: g, space: space, locks: locks}
		if locks.Dir != "" {
			var err error
			if one.DriverRuns, err = locks.DriverRuns(g); err != nil {
				d.Failed = append(d.Failed, fmt.Sprintf("whether a driver is at work on %s: %v", g, err))
			}
		}
		d.Groups = append(d.Groups, one)
	}
	found, err := a.settled(ctx, h, d.Groups)
	asked.Wait()
	d.Findings = append(append(d.Findings, filters...), found...)
	return d, err
}

// settled are the findings of all groups, and of who works on them, without those that pass by themselves.
func (a *app) settled(ctx context.Context, h *Host, groups []groupDiagnosis) ([]storage.Finding, error) {
	first, processes := h.findings(ctx, groups), h.processes()
	if stuck := stuckFindings(processes, processes); ctx.Err() == nil && len(stuck) == 0 && !slices.ContainsFunc(first, passing) {
		return first, nil
	}
	select {
	case <-time.After(a.settle):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	second := slices.DeleteFunc(h.findings(ctx, groups), func(f storage.Finding) bool { return f.Passing && !contains(first, f) })
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return append(second, stuckFindings(processes, h.processes())...), nil
}

// findings are those of each group, or that it cannot be looked at.
func (h *Host) findings(ctx context.Context, groups []groupDiagnosis) []storage.Finding {
	var out []storage.Finding
	found, errs := askAll(h, func(group string) ([]storage.Finding, error) {
		i := slices.IndexFunc(groups, func(g groupDiagnosis) bool { return g.Name == group })
		return h.groupFindings(ctx, groups[i])
	})
	for i, g := range groups {
		out = append(out, found[i]...)
		if errs[i] != nil {
			out = append(out, storage.Finding{
				Severity: storage.SeverityInaccessible, Reason: "GroupUnreadable", Object: g.Name, Message: errs[i].Error(),
				Cure: "see `vgs`, `pvs`, the device filters in lvm.conf and the kernel log: a disk may be missing, or not answer",
			})
		}
	}
	return out
}

func (h *Host) groupFindings(ctx context.Context, g groupDiagnosis) ([]storage.Finding, error) {
	out, err := h.Inspector.Findings(ctx, g.Name, g.DriverRuns)
	if err != nil {
		return out, err
	}
	inv, err := h.Inspector.Inventory(ctx, g.Name)
	if err != nil {
		return out, err
	}
	for _, p := range inv.Pools {
		if !p.Active {
			continue
		}
		root, err := h.Kernel.MetadataSnapshot(ctx, g.Name, p.Name)
		if err != nil {
			return out, err
		}
		if g.space && root == 0 {
			out = append(out, h.thinFindings(ctx, g.Name, p.Name)...)
		}
		if root != 0 {
			f, err := heldFinding(g, p.Name, root)
			if err != nil {
				return out, err
			}
			out = append(out, f)
		}
	}
	return out, nil
}

// thinFindings are what LVM and a pool do not agree about.
func (h *Host) thinFindings(ctx context.Context, group, pool string) []storage.Finding {
	space, err := h.space(ctx, group, pool)
	has := map[uint32]int64{}
	for id, s := range space {
		has[id] = s.MappedBytes
	}
	var out []storage.Finding
	if err == nil {
		out, err = h.Inspector.ThinFindings(ctx, group, pool, has)
	}
	if err != nil {
		out = append(out, storage.Finding{
			Severity: storage.SeverityDegraded, Reason: "PoolNotCompared", Object: where(group, pool), Message: err.Error(),
			Cure: "see what else is wrong with the pool; while it takes no writes it cannot be asked",
		})
	}
	return out
}

// heldFinding is of a metadata snapshot: one of ours that is still there at the second look was left by somebody who was killed.
func heldFinding(g groupDiagnosis, pool string, root uint64) (storage.Finding, error) {
	f := storage.Finding{
		Severity: storage.SeverityDegraded, Reason: reasonMetadataSnapshot, Object: where(g.Name, pool), Passing: true, Which: fmt.Sprint(root),
		Message: "thin pool " + where(g.Name, pool) + " keeps a snapshot of its metadata, and with it metadata blocks that would be free: " +
			"something reads it now (a backup, thin_ls), or was interrupted",
		Cure: fmt.Sprintf("where nobody reads it: dmsetup message %s-tpool 0 release_metadata_snap", dm.DeviceName(g.Name, pool)),
	}
	if g.locks.Dir == "" {
		return f, nil
	}
	own, err := g.locks.OwnMetadataSnapshot(g.Name, pool, root)
	if own {
		f.Fixable, f.Cure = true, ""
		f.Message = "thin pool " + where(g.Name, pool) + " keeps a snapshot of its metadata, for an lvmsnapctl that is at work or was killed"
	}
	return f, err
}

const reasonMetadataSnapshot = "MetadataSnapshotHeld"

func passing(f storage.Finding) bool { return f.Passing }

// contains: the same was found, whatever the message says by now.
func contains(all []storage.Finding, f storage.Finding) bool {
	return slices.ContainsFunc(all, func(o storage.Finding) bool {
		return o.Reason == f.Reason && o.Object == f.Object && o.Which == f.Which
	})
}

// fix has the driver's recovery put right what it can, and looks again.
func (a *app) fix(ctx context.Context, h *Host, before *diagnosis, space bool) (*diagnosis, error) {
	locks, err := h.Locks(ctx)
	if err != nil {
		return nil, err
	}
	var failed []string
	for _, g := range before.Groups {
		if err := h.fixGroup(ctx, locks, g.Name, before.Findings); err != nil {
			if ctx.Err() != nil {
				return nil, err
			}
			failed = append(failed, g.Name+": "+err.Error())
		}
	}
	after, err := a.diagnose(ctx, h, space)
	if err != nil {
		return nil, err
	}
	after.Failed = append(after.Failed, failed...)
	for _, f := range before.Findings {
		if !contains(after.Findings, f) {
			after.Fixed = append(after.Fixed, f)
		}
	}
	for i, f := range after.Findings {
		if !f.Fixable {
			continue
		}
		for _, g := range after.Groups {
			if group, _, _ := strings.Cut(f.Object, "/"); g.DriverRuns && group == g.Name && f.Cure == "" {
				after.Findings[i].Cure = "the driver, which is at work, does it with its next change"
			}
		}
	}
	return after, nil
}

func (h *Host) fixGroup(ctx context.Context, locks lvm.FileLocks, group string, found []storage.Finding) error {
	release, err := locks.Alone(ctx, group)
	alone := err == nil
	if err != nil && !errors.Is(err, lvm.ErrDriverRuns) {
		return err
	}
	if alone {
		defer release()
	}
	_, err = h.Recover(ctx, group, alone)
	if err != nil && slices.ContainsFunc(found, func(f storage.Finding) bool { return f.Reason == storage.GroupDiskMissing && f.Object == group }) {
		err = fmt.Errorf("nothing is put right while a disk of the group is missing: %w", err)
	}
	for _, f := range found {
		if _, pool, ok := strings.Cut(f.Object, "/"); ok && f.Fixable && f.Reason == reasonMetadataSnapshot && f.Object == where(group, pool) {
			nothing := func(context.Context) error { return nil }
			err = errors.Join(err, locks.WithMetadataSnapshot(ctx, h.Kernel, group, pool, nothing))
		}
	}
	return err
}

func (a *app) showDiagnosis(d *diagnosis) error {
	p := &page{w: a.Out}
	write := func(format string, args ...any) {
		if p.err == nil {
			_, p.err = fmt.Fprintf(a.Out, format+"\n", args...)
		}
	}
	for _, g := range d.Groups {
		runs := "no driver is at work on it"
		if g.DriverRuns {
			runs = "a driver is at work on it"
		}
		write("Volume group %s: %s.", g.Name, runs)
	}
	for _, f := range d.Fixed {
		write("\n%s %s %s\n  %s", a.paint.color(green, "Put right:"), f.Reason, f.Object, f.Message)
	}
	for _, f := range d.Findings {
		color := yellow
		if f.Severity != storage.SeverityDegraded {
			color = red
		}
		write("\n%s %s %s\n  %s", a.paint.color(color, string(f.Severity)+":"), f.Reason, f.Object, f.Message)
		switch {
		case f.Cure != "":
			write("  What to do: %s", f.Cure)
		case f.Fixable:
			write("  What to do: lvmsnapctl doctor --fix --volume-group %s", strings.SplitN(f.Object, "/", 2)[0])
		}
	}
	for _, f := range d.Failed {
		write("\n%s %s", a.paint.color(red, "Failed:"), f)
	}
	if len(d.Findings)+len(d.Failed) == 0 {
		write("\n%s", a.paint.color(green, "All is well."))
	}
	return p.err
}
