package ctl

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/bounded"
	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// Kernel is what lvmsnapctl asks of device-mapper; dm.Control.
type Kernel interface {
	dm.Kernel
	lvm.MetadataSnapshots
	Targets(ctx context.Context) ([]string, error)
}

// Host is the node.
type Host struct {
	Groups    []string
	Inspector *storage.Inspector // which only reads
	Runner    hostexec.Runner
	Kernel    Kernel
	Root      string // of the host's files: empty, or a directory
	// Locks asks LVM where its locks are, and makes nothing there.
	Locks func(context.Context) (lvm.FileLocks, error)
	// Recover puts right what interrupted commands left in a group; alone is storage.Inspector.Recover's.
	Recover func(ctx context.Context, group string, alone bool) (map[storage.RecoveryKind]int64, error)

	proc    string // of the kernel's processes
	timeout time.Duration
	looks   map[string]*bounded.Question[any] // by group
}

// defaultTimeout is more than the 3 s that the engine gives each pool and disk to answer: what else there is of the group is shown then.
const defaultTimeout = 10 * time.Second

func newLooks(groups []string, limit time.Duration) map[string]*bounded.Question[any] {
	out := map[string]*bounded.Question[any]{}
	for _, name := range groups {
		out[name] = bounded.New[any](limit)
	}
	return out
}

// askAll looks at all groups at once, by one question for each: a group that does not answer keeps nobody from the others, and is not asked
// again before it has. The answers and errors are in the order of the groups.
func askAll[T any](h *Host, ask func(group string) (T, error)) ([]T, []error) {
	answers, errs := make([]T, len(h.Groups)), make([]error, len(h.Groups))
	var all sync.WaitGroup
	for i, name := range h.Groups {
		all.Go(func() {
			answer, err := h.looks[name].Ask(func() (any, error) { return ask(name) })
			answers[i], _ = answer.(T)
			errs[i] = err
		})
	}
	all.Wait()
	return answers, errs
}

// readOnly lets only questions through, and has LVM answer them without any lock and without asking the kernel: an
// answer is there, too, while a command hangs that has the lock. lvm(8), --readonly
type readOnly struct {
	lvm.Executor
	settings string
}

// ReadOnly makes an executor with which nothing can be changed, with further settings of LVM's.
func ReadOnly(e lvm.Executor, settings string) lvm.Executor { return readOnly{e, settings} }

// readSettings are those that the driver's private lvm.conf has for its own reading of LVM's answers, and use_aio (docs/adr/0006).
const readSettings = `log/report_command_log=1 log/prefix="" report/output_format="json" report/compact_output=0 report/buffered=1 global/use_aio=0 devices/hints="none"`

// Run implements lvm.Executor.
func (r readOnly) Run(ctx context.Context, args ...string) (lvm.Output, error) {
	if len(args) == 0 || args[0] != "vgs" && args[0] != "lvs" {
		return lvm.Output{}, fmt.Errorf("refusing to run %s: only questions are asked here", strings.Join(args, " "))
	}
	return r.Executor.Run(ctx, slices.Insert(slices.Clone(args), 1, "--readonly", "--config", readSettings+" "+r.settings)...)
}

// Discover asks LVM for the groups that have LVs with the driver's tag.
func Discover(ctx context.Context, runner hostexec.Runner, driver string) ([]string, error) {
	t := storage.DriverTag(driver)
	if err := lvm.ValidateTag(t); err != nil {
		return nil, usageError("--driver-name: %w", err)
	}
	res, err := runner.Run(ctx, hostexec.Command{
		Name: "lvm", Interruptible: true, Env: []string{"LVM_SUPPRESS_FD_WARNINGS=1", "HOME=/dev/null"},
		Args: []string{
			"lvs", "--readonly", "--config", "global/use_aio=0 log/prefix=\"\" report/output_format=\"basic\"", "--noheadings", "--options", "vg_name",
			"@" + t,
		},
	})
	if err != nil {
		return nil, err
	}
	if res.ExitCode != 0 {
		return nil, fmt.Errorf("lvs exit code %d: %s", res.ExitCode, strings.TrimSpace(string(res.Stderr)))
	}
	out := strings.Fields(string(res.Stdout))
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Space is what a thin volume or snapshot takes of its pool.
type Space struct {
	MappedBytes    int64 `json:"mappedBytes"`    // all that it shows and that is not just zeroes
	ExclusiveBytes int64 `json:"exclusiveBytes"` // that nobody else has: what is free once it is removed
	SharedBytes    int64 `json:"sharedBytes"`    // that others of the pool have, too
}

// space reads a pool's metadata, as it is at this moment, and says of every thin device in it what it takes, by its id.
// thin_ls(8)
func (h *Host) space(ctx context.Context, group, pool string) (map[uint32]Space, error) {
	locks, err := h.Locks(ctx)
	if err != nil {
		return nil, err
	}
	st, err := h.Kernel.PoolStatus(ctx, group, pool)
	if err != nil {
		return nil, err
	}
	var out map[uint32]Space
	err = locks.WithMetadataSnapshot(ctx, h.Kernel, group, pool, func(ctx context.Context) error {
		res, err := h.Runner.Run(ctx, hostexec.Command{
			Name: "thin_ls", Interruptible: true,
			Args: []string{"--metadata-snap", "--no-headers", "--format", "DEV,MAPPED_BLOCKS,EXCLUSIVE_BLOCKS,SHARED_BLOCKS", dm.MetadataDevice(group, pool)},
		})
		if err != nil {
			return fmt.Errorf("thin_ls (Debian: thin-provisioning-tools): %w", err)
		}
		if res.ExitCode != 0 {
			return fmt.Errorf("thin_ls exit code %d: %s", res.ExitCode, strings.TrimSpace(string(res.Stderr)))
		}
		out, err = parseThinLS(string(res.Stdout), st.ChunkBytes)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("space of thin pool %s/%s: %w", group, pool, err)
	}
	return out, nil
}

// parseThinLS reads lines of a device's id and three numbers of blocks.
func parseThinLS(text string, blockBytes int64) (map[uint32]Space, error) {
	out := map[uint32]Space{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 4 {
			return nil, fmt.Errorf("thin_ls wrote %q, not four numbers", line)
		}
		var n [4]int64
		for i := range n {
			var err error
			if n[i], err = strconv.ParseInt(f[i], 10, 64); err != nil || n[i] < 0 || n[i] > 1<<40 {
				return nil, fmt.Errorf("thin_ls wrote %q, not four numbers", line)
			}
		}
		out[uint32(n[0])] = Space{n[1] * blockBytes, n[2] * blockBytes, n[3] * blockBytes} //nolint:gosec // 24 bits
	}
	return out, nil
}
