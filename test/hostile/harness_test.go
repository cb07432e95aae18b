// Package hostile_test treats the driver as badly as clients and commands can: requests that nobody would send, more
// calls than anybody could, commands that never return. It is the whole driver but for the host: LVM and mounts are
// the fakes.
package hostile_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/driver"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/mount/mounttest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thick"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
)

func TestMain(m *testing.M) {
	klog.SetLogger(klog.Logger{})
	goleak.VerifyTestMain(m)
}

const (
	mib        = int64(1) << 20
	node       = "node-1"
	stuckAfter = 200 * time.Millisecond
)

// groups are the volume groups of every driver here.
var groups = []string{"vg-a", "vg-b"}

// disks reads metadata as the driver does on a real host: beside LVM's commands, whatever hangs there.
type disks struct{ *lvmtest.LVM }

func (d disks) Metadata(group string) (lvm.Metadata, error) {
	return lvm.NewClient(d.LVM, group).View(context.Background())
}

func (disks) Locate(context.Context, *lvm.Client) error { return errors.New("they are where they are") }

// gate is where commands hang, before LVM has begun.
type gate struct {
	*lvmtest.LVM
	mu    sync.Mutex
	match lvmtest.Match
	open  chan struct{}
}

// hang makes the next command that matches hang until the gate is opened.
func (g *gate) hang(match lvmtest.Match) (open func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.match, g.open = match, make(chan struct{})
	return sync.OnceFunc(func() { close(g.open) })
}

// Run implements lvm.Executor.
func (g *gate) Run(ctx context.Context, args ...string) (lvm.Output, error) {
	g.mu.Lock()
	var wait chan struct{}
	if g.match != nil && g.match(args) {
		g.match, wait = nil, g.open
	}
	g.mu.Unlock()
	if wait != nil {
		<-wait
	}
	return g.LVM.Run(ctx, args...)
}

// host is a driver on a fake host, served on a unix socket.
type host struct {
	*lvmtest.LVM
	gate     *gate
	engine   *storage.Engine
	mounts   *mounttest.Fake
	registry *prometheus.Registry
	socket   string

	csi.IdentityClient
	csi.ControllerClient
	csi.NodeClient
	conn *grpc.ClientConn

	mu   sync.Mutex
	argv [][]string // of every LVM command since takeCommands
}

func start(t testing.TB) *host {
	t.Helper()
	h := &host{LVM: lvmtest.New(), mounts: mounttest.NewFake(), registry: prometheus.NewRegistry()}
	for _, name := range groups {
		h.AddGroup(name, 1<<40)
		h.AddPool(name, "pool", 1<<38, 1<<30, 64<<10, true)
	}
	h.OnCommand(func(args []string) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.argv = append(h.argv, args)
	})
	h.gate = &gate{LVM: h.LVM}
	h.engine = newEngine(t, h.gate)
	h.socket = filepath.Join(t.TempDir(), "csi.sock")
	server, err := driver.New(driver.Options{
		Name: "csi.lvmsnap.io", Version: "v0.0.0-test", NodeID: node, Endpoint: h.socket,
		Registerer: h.registry, Engine: h.engine, DrainTimeout: time.Second,
		Node: driver.NewNode(driver.NodeOptions{NodeID: node, Engine: h.engine, FileSystems: h.mounts, Mounts: h.mounts}),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), klog.Logger{}))
	served := make(chan error, 1)
	go func() { served <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	h.conn = h.dial(t)
	h.IdentityClient, h.ControllerClient, h.NodeClient = csi.NewIdentityClient(h.conn), csi.NewControllerClient(h.conn), csi.NewNodeClient(h.conn)
	if _, err := h.Probe(t.Context(), &csi.ProbeRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
	}
	return h
}

func newEngine(t testing.TB, fake *gate) *storage.Engine {
	t.Helper()
	var all []*lvm.Group
	for _, name := range groups {
		g, err := lvm.NewGroup(name, lvm.GroupOptions{Executor: fake, Reader: disks{fake.LVM}})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, g)
	}
	e, err := storage.New(t.Context(), storage.Options{
		Driver: "csi.lvmsnap.io", NodeID: node, Groups: all, Kernel: fake, Fill: storage.FillOptions{Filler: fake, Wait: time.Second},
		StuckAfter: stuckAfter,
		Backends: map[storage.Type]storage.Backend{
			storage.TypeThin:  thin.New(thin.Options{Kernel: fake, DataReservePercent: 5, MetadataReservePercent: 10}),
			storage.TypeThick: thick.New(fake),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// dial makes a connection of its own, as another client would.
func (h *host) dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+h.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// takeCommands returns those since the last call.
func (h *host) takeCommands() [][]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	argv := h.argv
	h.argv = nil
	return argv
}

func volumeRequest(name, group string) *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name: name, Parameters: map[string]string{"volumeGroup": group},
		CapacityRange: &csi.CapacityRange{RequiredBytes: 8 * mib},
		VolumeCapabilities: []*csi.VolumeCapability{{
			AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		}},
	}
}

func (h *host) volume(t *testing.T, name, group string) string {
	t.Helper()
	rsp, err := h.CreateVolume(t.Context(), volumeRequest(name, group))
	if err != nil {
		t.Fatal(err)
	}
	return rsp.GetVolume().GetVolumeId()
}

// within is a context as short as an impatient sidecar's.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// wantCode fails the test unless err has the code, and its text the words.
func wantCode(t *testing.T, what string, err error, code codes.Code, words ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Errorf("%s: got %v, want code %s", what, err, code)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: error %q does not contain %q", what, err, word)
		}
	}
}

// eventually tries until check is content.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// metric is the sum of a gauge or counter over its labels that contain all the words.
func (h *host) metric(t *testing.T, name string, words ...string) float64 {
	t.Helper()
	families, err := h.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			text := fmt.Sprint(m.GetLabel())
			matches := true
			for _, word := range words {
				matches = matches && strings.Contains(text, word)
			}
			if matches {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}
