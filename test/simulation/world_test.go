package simulation_test

import (
	"context"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thick"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
)

const (
	driverName = "csi.lvmsnap.io"
	nodeID     = "node-1"
	poolName   = "pool"
	mib        = int64(1) << 20
)

// world is a host, and what is asked of it behind the engine's back. All volume groups have a thin pool.
type world struct {
	groups []string
	// open is a driver's way to one group, closed with it.
	open   func(group string) (x lvm.Executor, r lvm.MetadataReader, closed func())
	kernel dm.Kernel
	filler storage.Filler // nil: pkg/blockcopy
	// admin asks LVM what there is.
	admin func(group string) *lvm.Client
	// write replaces what an active volume holds, durably. text reads it, as far as it can be read now.
	write func(group, lv, text string) error
	text  func(group, lv string, sizeBytes int64) (text string, ok bool, err error)
	// oldBlocks says whether a volume has something of those who had its extents before; nil: text finds that.
	oldBlocks func(group, lv string) bool
	// reveal makes what a group's inactive snapshots hold readable, until the returned function is called.
	reveal func(group string) (hide func())
	// quiet waits until the driver's own goroutines have nothing to do.
	quiet func(*driver)
	// patient: copies take real time, and a call may have to be made more than once.
	patient bool
	// strict: without a fault nothing that a call waits for takes time.
	strict bool
	// dieNext has LVM killed within one of the next commands; nil where that cannot be had.
	dieNext func(kind faultKind, after int) (fired func() bool)
	// locks are LVM's own; nil: nobody else runs it.
	locks lvm.Locker
}

// driver is an engine, until it ends in one way or the other.
type driver struct {
	*storage.Engine
	seam   *seam
	closed []func()
}

func (w *world) start(ctx context.Context) (*driver, error) {
	d := &driver{seam: &seam{kind: noFault}}
	k := kernel{d.seam, w.kernel}
	var groups []*lvm.Group
	for _, name := range w.groups {
		inner, reader, closed := w.open(name)
		d.closed = append(d.closed, closed)
		g, err := lvm.NewGroup(name, lvm.GroupOptions{Executor: executor{d.seam, inner}, Reader: reader, Locks: w.locks})
		if err != nil {
			return nil, err
		}
		groups = append(groups, g)
	}
	inner := w.filler
	if inner == nil {
		inner = blocks{}
	}
	var err error
	d.Engine, err = storage.New(ctx, storage.Options{
		Driver: driverName, NodeID: nodeID, Groups: groups, Kernel: k,
		Fill: storage.FillOptions{Filler: filler{d.seam, inner}, Wait: 5 * time.Second},
		Backends: map[storage.Type]storage.Backend{
			storage.TypeThin:  thin.New(thin.Options{Kernel: k, DataReservePercent: 5, MetadataReservePercent: 10}),
			storage.TypeThick: thick.New(k),
		},
	})
	if err != nil {
		return nil, err
	}
	return d, nil
}

// end ends the driver, as SIGTERM does, or SIGKILL: then it has done nothing more since.
func (d *driver) end(killed bool) {
	if killed {
		d.seam.kill()
	}
	d.Close()
	for _, fn := range d.closed {
		fn()
	}
}
