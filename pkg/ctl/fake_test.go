package ctl_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/lvmsnap/lvmsnap/pkg/ctl"
	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thick"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	mib   = int64(1) << 20
	gib   = int64(1) << 30
	group = "data"
	pool  = "pool"
	node  = "node-1"
)

// begin is the moment at which the node's history begins.
var begin = time.Date(2026, 11, 20, 8, 0, 0, 0, time.UTC)

// node is a fake node, with the driver's engine on it, and lvmsnapctl beside it.
type fakeNode struct {
	t *testing.T
	*lvmtest.LVM
	engine   *storage.Engine
	now      time.Time
	locks    lvm.FileLocks
	kernel   *fakeKernel
	programs map[string]func(args []string) (string, int)
	out, err bytes.Buffer
	terminal bool
	noGroup  bool // discovery finds nothing
	groups   []string
	hang     func(args []string) error // before LVM answers what lvmsnapctl asks
	proc     string
	// of lvmsnapctl
	dataReserve, metadataReserve float64
	hostNamespace                bool
	root                         string // of the host's files
	// of the group's metadata; a limit of 0 is that it cannot be read from the disks
	textBytes, textLimit int64
}

// fakeKernel is the fake's, with what only lvmsnapctl asks for.
type fakeKernel struct {
	*lvmtest.LVM
	root    uint64 // of the metadata snapshot
	targets []string
}

func (k *fakeKernel) MetadataSnapshot(context.Context, string, string) (uint64, error) {
	return k.root, nil
}

func (k *fakeKernel) ReserveMetadataSnapshot(context.Context, string, string) error {
	if k.root != 0 {
		return errors.New("device or resource busy")
	}
	k.root = 7
	return nil
}

func (k *fakeKernel) ReleaseMetadataSnapshot(context.Context, string, string) error {
	k.root = 0
	return nil
}

func (k *fakeKernel) Targets(context.Context) ([]string, error) { return k.targets, nil }

func newNode(t *testing.T) *fakeNode {
	t.Helper()
	n := &fakeNode{t: t, LVM: lvmtest.New(), now: begin, locks: lvm.FileLocks{Dir: t.TempDir()}, groups: []string{group}, dataReserve: 5, metadataReserve: 10, proc: t.TempDir(), root: t.TempDir()}
	n.AddGroup(group, 100*gib)
	n.AddPool(group, pool, 40*gib, 128*mib, 64<<10, true)
	n.kernel = &fakeKernel{LVM: n.LVM, targets: []string{"linear", "raid", "snapshot", "snapshot-origin", "thin", "thin-pool"}}
	n.programs = map[string]func([]string) (string, int){
		"lvm":                  n.lvm,
		"lvm without settings": says(""),
		"thin_check":           says("0.9.0"), "thin_ls": says(""), "mkfs.ext4": says(""), "mkfs.xfs": says(""), "mkfs.btrfs": says(""), "dmsetup": says(""),
	}
	n.engine = n.open()
	return n
}

func says(text string) func([]string) (string, int) {
	return func([]string) (string, int) { return text, 0 }
}

// lvm answers what is not asked through the executor.
func (n *fakeNode) lvm(args []string) (string, int) {
	switch args[0] {
	case "version":
		return "  LVM version:     2.03.16(2) (2022-05-18)\n", 0
	case "lvmconfig":
		return "udev_sync=0\nthin_pool_autoextend_threshold=100\nuse_lvmlockd=0\nlocking_dir=\"/\"\n", 0
	default:
		return "", 0
	}
}

// Run of the programs: a hostexec.Runner.
type programs struct{ n *fakeNode }

func (p programs) Run(_ context.Context, c hostexec.Command) (hostexec.Result, error) {
	name := c.Name
	if slices.Contains(c.Env, "LVM_SYSTEM_DIR=/nonexistent") {
		name += " without settings"
	}
	program, ok := p.n.programs[name]
	if !ok {
		return hostexec.Result{}, fmt.Errorf("start %s: not found", c.Name)
	}
	text, code := program(c.Args)
	return hostexec.Result{Stdout: []byte(text), ExitCode: code}, nil
}

func (p programs) Start(hostexec.Command) (*hostexec.Process, error) {
	return nil, errors.New("nothing is started with pipes here")
}

func (n *fakeNode) options(exec lvm.Executor, locks lvm.Locker) storage.Options {
	n.t.Helper()
	o := lvm.GroupOptions{Executor: exec, Locks: locks}
	if n.textLimit > 0 {
		o.Reader = disks{n}
	}
	var groups []*lvm.Group
	for _, name := range n.groups {
		g, err := lvm.NewGroup(name, o)
		n.ok(err)
		groups = append(groups, g)
	}
	return storage.Options{
		Driver: "csi.lvmsnap.io", NodeID: node, Groups: groups, Kernel: n.kernel, Now: func() time.Time { return n.now },
		Fill: storage.FillOptions{Filler: n.LVM, Wait: 10 * time.Second, Checkpoint: time.Nanosecond},
		Backends: map[storage.Type]storage.Backend{
			storage.TypeThin:  thin.New(thin.Options{Kernel: n.kernel, DataReservePercent: n.dataReserve, MetadataReservePercent: n.metadataReserve}),
			storage.TypeThick: thick.New(n.kernel),
		},
	}
}

func (n *fakeNode) open() *storage.Engine {
	n.t.Helper()
	e, err := storage.New(n.t.Context(), n.options(n.LVM, nil))
	n.ok(err)
	n.t.Cleanup(e.Close)
	return e
}

func (n *fakeNode) ok(err error) {
	n.t.Helper()
	if err != nil {
		n.t.Fatal(err)
	}
}

// questions lets no change through: whatever lvmsnapctl does by it, it only reads.
type questions struct{ n *fakeNode }

func (q questions) Run(ctx context.Context, args ...string) (lvm.Output, error) {
	if lvmtest.Changes(args) {
		q.n.t.Errorf("a command that only looks ran lvm %s", strings.Join(args, " "))
	}
	if q.n.hang != nil {
		if err := q.n.hang(args); err != nil {
			return lvm.Output{}, err
		}
	}
	return q.n.Run(ctx, args...)
}

// ctl runs lvmsnapctl, and returns its exit code.
func (n *fakeNode) ctl(args ...string) int {
	n.t.Helper()
	n.out.Reset()
	n.err.Reset()
	return ctl.Run(n.t.Context(), ctl.Env{
		Out: &n.out, Err: &n.err, Terminal: n.terminal, Now: func() time.Time { return n.now }, Version: "v1.2.3", Proc: n.proc,
		Discover: func(context.Context, ctl.Settings) ([]string, error) {
			if n.noGroup {
				return nil, nil
			}
			return []string{group}, nil
		},
		Open: func(_ context.Context, s ctl.Settings) (*ctl.Host, error) {
			n.dataReserve, n.metadataReserve, n.hostNamespace = float64(s.DataReserve), float64(s.MetadataReserve), s.HostNamespace
			inspector, err := storage.NewInspector(n.options(questions{n}, nil))
			if err != nil {
				return nil, err
			}
			return &ctl.Host{
				Groups: s.VolumeGroups, Inspector: inspector, Runner: programs{n}, Kernel: n.kernel, Root: n.root,
				Locks: func(context.Context) (lvm.FileLocks, error) { return n.locks, nil },
				Recover: func(ctx context.Context, group string, alone bool) (map[storage.RecoveryKind]int64, error) {
					i, err := storage.NewInspector(n.options(n.LVM, nil))
					if err != nil {
						return nil, err
					}
					return i.Recover(ctx, group, alone)
				},
			}, nil
		},
	}, args)
}

// disks have the group's metadata as LVM reports it, with how long it is.
type disks struct{ n *fakeNode }

func (d disks) Metadata(group string) (lvm.Metadata, error) {
	m, err := lvm.NewClient(d.n.LVM, group).View(context.Background())
	m.TextBytes, m.TextLimitBytes = d.n.textBytes, d.n.textLimit
	return m, err
}

func (disks) Locate(context.Context, *lvm.Client) error { return nil }

// golden runs lvmsnapctl and compares what it says.
func (n *fakeNode) golden(name string, args ...string) {
	n.t.Helper()
	if code := n.ctl(args...); code != ctl.ExitOK && code != ctl.ExitFindings {
		n.t.Fatalf("lvmsnapctl %s: exit code %d: %s", strings.Join(args, " "), code, n.err.String())
	}
	file := filepath.Join("testdata", name+".golden")
	if *update {
		n.ok(os.MkdirAll("testdata", 0o750))
		n.ok(os.WriteFile(file, n.out.Bytes(), 0o600))
	}
	want, err := os.ReadFile(file)
	n.ok(err)
	if diff := cmp.Diff(string(want), n.out.String()); diff != "" {
		n.t.Errorf("lvmsnapctl %s (-want +got):\n%s", strings.Join(args, " "), diff)
	}
}

func (n *fakeNode) after(d time.Duration) { n.now = n.now.Add(d) }

func (n *fakeNode) volume(spec storage.VolumeSpec) storage.Volume {
	n.t.Helper()
	v, err := n.engine.CreateVolume(n.t.Context(), spec)
	n.ok(err)
	return v
}

func (n *fakeNode) snapshot(spec storage.SnapshotSpec) storage.Snapshot {
	n.t.Helper()
	s, err := n.engine.CreateSnapshot(n.t.Context(), spec)
	n.ok(err)
	return s
}

func lvOf(id string) string { return id[strings.LastIndex(id, "/")+1:] }

func claim(name string) storage.Claim { return storage.Claim{Namespace: "shop", Name: name} }

func object(name string) storage.SnapshotObject {
	return storage.SnapshotObject{Namespace: "shop", Name: name, ContentName: "snapcontent-" + name}
}

// shop is a node with all kinds of things on it.
func shop(t *testing.T) (n *fakeNode, orders storage.Volume, nightly storage.Snapshot) {
	t.Helper()
	n = newNode(t)
	orders = n.volume(storage.VolumeSpec{Name: "pvc-orders", RequiredBytes: 10 * gib, Access: storage.AccessMount, Claim: claim("orders")})
	n.after(time.Hour)
	logs := n.volume(storage.VolumeSpec{
		Name: "pvc-logs", RequiredBytes: 2 * gib, Access: storage.AccessBlock, Claim: claim("logs"), Class: storage.Class{Type: storage.TypeThick},
	})
	n.after(9 * time.Hour)
	nightly = n.snapshot(storage.SnapshotSpec{Name: "snapshot-nightly", SourceID: orders.ID, Object: object("nightly")})
	cow := n.snapshot(storage.SnapshotSpec{Name: "snapshot-logs", SourceID: logs.ID, Object: object("logs"), COW: storage.COWSize{Percent: 10}})
	n.after(time.Hour)
	n.volume(storage.VolumeSpec{
		Name: "pvc-restored", Access: storage.AccessMount, Claim: claim("orders-restored"),
		Source: &storage.Source{Kind: storage.SourceSnapshot, ID: nightly.ID},
	})
	old := n.volume(storage.VolumeSpec{Name: "pvc-old", RequiredBytes: gib, Access: storage.AccessMount})
	n.snapshot(storage.SnapshotSpec{Name: "snapshot-of-old", SourceID: old.ID})
	n.ok(n.engine.DeleteVolume(t.Context(), old.ID))
	_, err := n.engine.Activate(t.Context(), orders.ID)
	n.ok(err)
	_, err = n.engine.Activate(t.Context(), logs.ID)
	n.ok(err)
	n.SetOpen(group, lvOf(orders.ID), true)
	n.SetPoolUsage(group, pool, 31*gib, 12.5)
	n.SetCOWUsage(group, lvOf(cow.ID), 100*mib)
	n.after(26 * time.Hour)
	n.ResetCommands()
	return n, orders, nightly
}

var _ ctl.Kernel = (*dm.Control)(nil)
