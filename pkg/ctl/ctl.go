// Package ctl is lvmsnapctl: what an operator asks at 3 a.m., answered by the driver's own engine (pkg/storage) on the node
// itself, with the driver at work or without. Everything but `doctor --fix` only looks: it takes no lock of LVM's and makes
// no command that changes a group. docs/adr/0022
package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/percentage"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
)

// The exit codes. Scripts depend on them.
const (
	ExitOK       = 0
	ExitFailed   = 1 // it could not be looked at, or not put right
	ExitUsage    = 2 // the command line is wrong
	ExitFindings = 3 // doctor: something is wrong
	ExitNotFound = 4 // there is no such object
)

const defaultDriver = "csi.lvmsnap.io"

var (
	errUsage    = errors.New("usage")
	errNotFound = errors.New("not found")
	errFindings = errors.New("something is wrong")
)

// usageError is an error of the command line.
func usageError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errUsage, fmt.Errorf(format, args...))
}

// Settings are the flags that every command has.
type Settings struct {
	VolumeGroups  []string
	DriverName    string
	NodeID        string
	HostNamespace bool
	WorkDir       string
	Verbose       int
	Timeout       time.Duration // of one look at a group

	// Of pools' data and metadata: they decide from when on a pool is said to be low.
	DataReserve, MetadataReserve percentage.Value
}

// Env is where lvmsnapctl runs.
type Env struct {
	Out, Err io.Writer
	Terminal bool // Out is one
	NoColor  bool // by the environment: no-color.org
	Width    int  // of the terminal; 0 is unknown
	Now      func() time.Time
	Version  string
	Proc     string   // of the kernel's processes: empty, or a directory
	Defaults Settings // of the flags, by the environment
	// Open reaches the node. Tests put fakes there.
	Open func(context.Context, Settings) (*Host, error)
	// Discover lists the groups in which the driver has something, for who names none.
	Discover func(context.Context, Settings) ([]string, error)
}

// app is one run.
type app struct {
	Env
	Settings
	output    string
	color     string
	noHeaders bool
	settle    time.Duration
	paint     painter
}

// Run runs a command line, and returns the exit code.
func Run(ctx context.Context, env Env, args []string) int {
	cmd := New(env) //nolint:contextcheck // the commands get it by ExecuteContext
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(ctx)
	if err != nil && !errors.Is(err, errFindings) {
		_, _ = fmt.Fprintf(env.Err, "lvmsnapctl: %s\n", strings.TrimPrefix(err.Error(), errUsage.Error()+": "))
	}
	switch {
	case err == nil:
		return ExitOK
	case errors.Is(err, errUsage):
		return ExitUsage
	case errors.Is(err, errFindings):
		return ExitFindings
	case errors.Is(err, errNotFound), errors.Is(err, storage.ErrNotFound):
		return ExitNotFound
	default:
		return ExitFailed
	}
}

const longHelp = `lvmsnapctl shows what the lvmsnap driver has in the volume groups of this node: volumes, snapshots and pools with their names in
Kubernetes, what they take, what depends on them, and what is wrong. It reads LVM's metadata from the disks and asks the
kernel, as the driver does, and works when the driver is down. Run it as root on the node, or by kubectl exec in the
driver's container.

Nothing is changed, but by "doctor --fix"; "--space" has the kernel keep a snapshot of the pool's metadata for a moment.

Exit codes: 0 all is well, 1 it could not be looked at (or not put right), 2 the command line is wrong, 3 doctor found something
wrong, 4 there is no such object.`

// New makes the commands.
func New(env Env) *cobra.Command {
	a := &app{Env: env, Settings: env.Defaults}
	root := &cobra.Command{
		Use:   "lvmsnapctl",
		Short: "Shows the volumes, snapshots and pools of the lvmsnap driver on this node, and what is wrong with them",
		Long:  longHelp,
		Args:  noArgs, SilenceUsage: true, SilenceErrors: true, Version: env.Version,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return errors.Join(a.check(), a.asTheDriver(cmd.Flags())) },
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError("%w", err) })
	f := root.PersistentFlags()
	f.StringSliceVar(&a.VolumeGroups, "volume-group", env.Defaults.VolumeGroups,
		"a volume group of the driver's (repeatable, or comma-separated), as its own flag; default $LVMSNAP_VOLUME_GROUP, else every group in which the driver has something")
	f.StringVar(&a.DriverName, "driver-name", defaultDriver, "the `name` of the CSI driver, as its own flag")
	f.StringVar(&a.NodeID, "node-id", env.Defaults.NodeID, "the `name` of this node, as the driver's own flag, which is part of handles; default $NODE_NAME, else the host name")
	f.BoolVar(&a.HostNamespace, "host-namespace", false, "run LVM in the host's mount namespace, as the driver's own flag")
	a.DataReserve, a.MetadataReserve = thin.DefaultDataReservePercent, thin.DefaultMetadataReservePercent
	f.Var(&a.DataReserve, "pool-data-reserve", "of how much free data a pool is said to be low, as the driver's own flag, whose value is taken from the driver that runs, if there is one")
	f.Var(&a.MetadataReserve, "pool-metadata-reserve", "the same of its metadata")
	f.StringVar(&a.color, "color", "auto", "color `when`: auto (on a terminal, unless NO_COLOR is set), always or never")
	f.DurationVar(&a.Timeout, "timeout", defaultTimeout, "how `long` to wait for what one volume group has to say: a disk may not answer, and the other groups are shown then")
	f.IntVarP(&a.Verbose, "verbosity", "v", 0, "what the engine logs, to standard error: 1 errors and what is put right, 4 LVM's commands")
	fixed(root, "color", "auto", "always", "never")
	complete(root, "volume-group", func(cmd *cobra.Command) []string {
		groups, _ := a.groups(cmd.Context())
		return groups
	})
	root.AddCommand(a.getCommand(), a.treeCommand(), a.describeCommand(), a.doctorCommand(), a.watchCommand(), a.bundleCommand())
	return root
}

// check looks at the flags that every command has.
func (a *app) check() error {
	switch a.color {
	case "auto":
		a.paint = painter(a.Terminal && !a.NoColor)
	case "always":
		a.paint = true
	case "never":
		a.paint = false
	default:
		return usageError("--color: %q is not auto, always or never", a.color)
	}
	if a.Timeout <= 0 {
		return usageError("--timeout: %s is not positive", a.Timeout)
	}
	for i, name := range a.VolumeGroups {
		if err := lvm.ValidateName(name); err != nil {
			return usageError("--volume-group: %w", err)
		}
		if slices.Contains(a.VolumeGroups[:i], name) {
			return usageError("--volume-group: %s is named twice", name)
		}
	}
	return nil
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError("unexpected argument %q; see %s --help", args[0], cmd.CommandPath())
	}
	return nil
}

func oneName(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError("%s takes the name of a volume, snapshot or pool, not %d arguments", cmd.CommandPath(), len(args))
	}
	return nil
}

// fixed are the values that a flag can have.
func fixed(cmd *cobra.Command, flag string, values ...string) {
	complete(cmd, flag, func(*cobra.Command) []string { return values })
}

func complete(cmd *cobra.Command, flag string, values func(*cobra.Command) []string) {
	err := cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return values(cmd), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // a flag that is not there
	}
}

// groups are those that were named, or those in which the driver has something.
func (a *app) groups(ctx context.Context) ([]string, error) {
	if len(a.VolumeGroups) > 0 {
		return a.VolumeGroups, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, a.Timeout, fmt.Errorf("no answer for %s (--timeout)", a.Timeout))
	defer cancel()
	found, err := a.Discover(ctx, a.Settings)
	if err != nil {
		return nil, fmt.Errorf("find the driver's volume groups (--volume-group names them): %w", err)
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s has nothing in any volume group of this node yet; --volume-group names one", a.DriverName)
	}
	return found, nil
}

// open reaches the node.
func (a *app) open(ctx context.Context) (*Host, error) {
	groups, err := a.groups(ctx)
	if err != nil {
		return nil, err
	}
	s := a.Settings
	s.VolumeGroups = groups
	h, err := a.Open(ctx, s)
	if err == nil {
		h.proc, h.timeout, h.looks = cmp.Or(a.Proc, "/proc"), a.Timeout, newLooks(groups, a.Timeout)
	}
	return h, err
}

// with runs fn on the node.
func (a *app) with(ctx context.Context, fn func(*Host) error) error {
	h, err := a.open(ctx)
	if err != nil {
		return err
	}
	return fn(h)
}
