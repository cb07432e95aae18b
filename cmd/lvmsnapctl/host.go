package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/ctl"
	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thick"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
)

// hostRoot is where a container that shares the host's PID namespace finds the host's files.
const hostRoot = "proc/1/root"

func discover(ctx context.Context, s ctl.Settings) ([]string, error) {
	return ctl.Discover(ctx, hostexec.Host{Namespace: s.HostNamespace}, s.DriverName)
}

// open wires lvmsnapctl as cmd/lvmsnap wires the driver, but for what changes something.
func open(ctx context.Context, s ctl.Settings) (*ctl.Host, error) {
	if err := logTo(s.Verbose); err != nil {
		return nil, err
	}
	host := hostexec.Host{Namespace: s.HostNamespace}
	kernel := &dm.Control{}
	w := &wiring{settings: s, host: host, kernel: kernel}
	inspector, err := w.inspector(ctl.ReadOnly(lvm.Exec{Runner: host}, ctl.WithoutVolumes(ctx, host, kernel, s.VolumeGroups)), nil, s.VolumeGroups)
	if err != nil {
		return nil, err
	}
	out := &ctl.Host{Groups: s.VolumeGroups, Inspector: inspector, Runner: host, Kernel: kernel, Locks: w.locks, Recover: w.recover}
	if s.HostNamespace {
		out.Root = hostRoot
	}
	return out, nil
}

// logTo has the engine's log on standard error, as much of it as is wanted.
func logTo(verbosity int) error {
	flags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(flags)
	if verbosity <= 0 {
		klog.LogToStderr(false)
		klog.SetOutput(io.Discard)
		return flags.Set("stderrthreshold", "FATAL")
	}
	return flags.Set("v", fmt.Sprint(verbosity))
}

type wiring struct {
	settings ctl.Settings
	host     hostexec.Host
	kernel   *dm.Control
}

// inspector reads metadata from the disks, one reader a group. None is closed: that would wait for a disk that does not answer, and
// the end of the process does it.
func (w *wiring) inspector(exec lvm.Executor, locks lvm.Locker, names []string) (*storage.Inspector, error) {
	var groups []*lvm.Group
	for _, name := range names {
		g, err := lvm.NewGroup(name, lvm.GroupOptions{Executor: exec, Reader: &lvm.DiskReader{}, Locks: locks})
		if err != nil {
			return nil, err
		}
		groups = append(groups, g)
	}
	return storage.NewInspector(storage.Options{
		Driver: w.settings.DriverName, NodeID: w.settings.NodeID, Groups: groups, Kernel: w.kernel,
		Backends: map[storage.Type]storage.Backend{
			storage.TypeThin: thin.New(thin.Options{
				Kernel: w.kernel, DataReservePercent: float64(w.settings.DataReserve), MetadataReservePercent: float64(w.settings.MetadataReserve),
			}),
			storage.TypeThick: thick.New(w.kernel),
		},
	})
}

// locks are where LVM says that they are, which in a container with --host-namespace is on the host.
func (w *wiring) locks(ctx context.Context) (lvm.FileLocks, error) {
	dir, err := lvm.LockingDir(ctx, w.host, nil)
	if w.settings.HostNamespace {
		dir = filepath.Join("/", hostRoot, dir)
	}
	return lvm.FileLocks{Dir: dir}, err
}

// recover has everything that the driver has, with a private lvm.conf of its own beside the driver's.
func (w *wiring) recover(ctx context.Context, group string, alone bool) (_ map[storage.RecoveryKind]int64, err error) {
	if err := os.MkdirAll(w.settings.WorkDir, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(w.settings.WorkDir, "ctl-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	env, err := lvm.WriteConfig(ctx, w.host, dir)
	if err != nil {
		return nil, err
	}
	locks, err := w.locks(ctx)
	if err != nil {
		return nil, err
	}
	inspector, err := w.inspector(lvm.Exec{Runner: w.host, Env: env}, locks, []string{group})
	if err != nil {
		return nil, err
	}
	return inspector.Recover(ctx, group, alone)
}
