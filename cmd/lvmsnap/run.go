package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof" // its handlers on the default mux are served by nobody
	"os"
	"path/filepath"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/blockcopy"
	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/driver"
	"github.com/lvmsnap/lvmsnap/pkg/events"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/mount"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thick"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
)

// shutdownTimeout is how long LVM may take to finish what it is doing when the driver ends.
const shutdownTimeout = 20 * time.Second

// run wires the driver and serves until ctx ends.
func run(ctx context.Context, o options) (err error) {
	logger := klog.FromContext(ctx)
	host := hostexec.Host{Namespace: o.hostNamespace}
	lvmVersion, err := lvm.CheckVersion(ctx, host)
	if err != nil {
		return err
	}
	logger.Info("Starting", "version", version, "node", o.nodeID, "lvm", lvmVersion.String(), "volumeGroups", o.volumeGroups)
	if err := os.MkdirAll(o.workDir, 0o700); err != nil {
		return err
	}
	env, err := lvm.WriteConfig(ctx, host, o.workDir)
	if err != nil {
		return err
	}
	locks, err := lockDir(ctx, host, env)
	if err != nil {
		return err
	}
	for _, name := range o.volumeGroups { // before anything is looked at, and until all is closed
		release, err := lvm.FileLocks{Dir: locks}.Announce(ctx, name)
		if err != nil {
			return err
		}
		defer release()
	}
	traces, err := startTracing(ctx, o.nodeID, os.Getenv)
	if err != nil {
		return err
	}
	defer traces.close(ctx)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	registerBuild(registry, o, lvmVersion.String())
	commands := newCommandMetrics(registry)

	kernel := &dm.Control{}
	defer func() { err = errors.Join(err, kernel.Close()) }()
	groups := make([]*lvm.Group, len(o.volumeGroups))
	neighbors := lvm.NewNeighbors(lvmVersion)
	for i, name := range o.volumeGroups {
		shell := lvm.NewShell(host, env)
		// The shells end after the server: calls that outlive their clients may still be using them.
		defer func() { err = errors.Join(err, closeShell(ctx, shell)) }()
		reader := &lvm.DiskReader{}
		defer func() { err = errors.Join(err, reader.Close()) }()
		groups[i], err = lvm.NewGroup(name, lvm.GroupOptions{
			Executor: shell, Reader: reader, Locks: lvm.FileLocks{Dir: locks}, Neighbors: neighbors,
			Observe: commands.observe, Waited: commands.waited, Tracer: traces.commands(),
		})
		if err != nil {
			return err
		}
	}
	notify, closeEvents := newEvents(ctx, o)
	defer closeEvents() // after the engine
	engine, err := newEngine(ctx, o, groups, neighbors, kernel, notify)
	if err != nil {
		return err
	}
	defer engine.Close() // before the shells: its copies end with commands
	registry.MustRegister(engineMetrics{engine}, newPoolMetrics(engine, logger))
	files := mount.NewHost(host, o.kubeletDir)
	server, err := driver.New(driver.Options{
		Name: o.driverName, Version: version, NodeID: o.nodeID, Endpoint: o.endpoint,
		Registerer: registry, Engine: engine, Ready: func() { notifyReady(logger) }, Tracing: traces.rpcs(),
		Node: driver.NewNode(driver.NodeOptions{NodeID: o.nodeID, Engine: engine, FileSystems: files, Mounts: files}),
	})
	if err != nil {
		return err
	}
	parts, ctx := errgroup.WithContext(ctx)
	parts.Go(func() error { return server.Run(ctx) })
	parts.Go(func() error { return engine.Run(ctx) })
	if o.metricsAddress != "" {
		parts.Go(func() error { return serveMetrics(ctx, o.metricsAddress, registry, o.enablePprof) })
	}
	return parts.Wait()
}

// notifyReady tells systemd, if it has started us and wants to know (Type=notify).
func notifyReady(logger klog.Logger) {
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		logger.Error(err, "Cannot tell systemd that the driver is ready")
	}
}

// lockDir is LVM's, which in a container with --host-namespace is the host's.
func lockDir(ctx context.Context, host hostexec.Host, env []string) (string, error) {
	dir, err := lvm.LockingDir(ctx, host, env)
	if host.Namespace {
		dir = filepath.Join("/proc/1/root", dir)
	}
	return dir, err
}

// newEvents is whom the engine tells what users have to know: nobody, where that is not asked for or cannot be had, which is no
// reason not to serve volumes.
func newEvents(ctx context.Context, o options) (notify func(storage.Notice), stop func()) {
	stop = func() {}
	if !o.kubernetesEvents {
		return nil, stop
	}
	sink, err := events.InCluster(o.driverName, version)
	if err != nil {
		klog.FromContext(ctx).Error(err, "There will be no Kubernetes events (--kubernetes-events)")
		return nil, stop
	}
	// The Node's name, whatever --node-id says.
	r := events.New(ctx, events.Options{Driver: o.driverName, Node: cmp.Or(os.Getenv("NODE_NAME"), o.nodeID), Sink: sink})
	return r.Notify, r.Close
}

func newEngine(
	ctx context.Context, o options, groups []*lvm.Group, neighbors *lvm.Neighbors, kernel dm.Kernel, notify func(storage.Notice),
) (*storage.Engine, error) {
	fill := storage.FillOptions{Parallelism: int64(o.copyParallelism), Checkpoint: o.copyCheckpoint}
	if o.copyRateLimit > 0 {
		fill.Limiter = rate.NewLimiter(rate.Limit(o.copyRateLimit), blockcopy.DefaultBlockBytes)
	}
	pools := thin.New(thin.Options{
		Kernel: kernel, DataReservePercent: float64(o.poolDataReserve), MetadataReservePercent: float64(o.poolMetadataReserve),
		OverprovisionRatio: float64(o.overprovisionRatio),
		Growth:             thin.Growth{ThresholdPercent: float64(o.poolThreshold), ExtendPercent: float64(o.poolPercent)},
	})
	neighbors.SilentPools(pools.Silent)
	return storage.New(ctx, storage.Options{
		Driver: o.driverName, NodeID: o.nodeID, Groups: groups, Kernel: kernel, Fill: fill, StuckAfter: o.stuckAfter, Notify: notify,
		COW:      storage.COWOptions{ThresholdPercent: float64(o.cowThreshold), ExtendPercent: float64(o.cowPercent)},
		Backends: map[storage.Type]storage.Backend{storage.TypeThin: pools, storage.TypeThick: thick.New(kernel)},
	})
}

func closeShell(ctx context.Context, shell *lvm.Shell) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	return shell.Close(ctx)
}

// serveMetrics serves /metrics, and /debug/pprof/ if asked to, until ctx ends.
func serveMetrics(ctx context.Context, address string, registry *prometheus.Registry, profiles bool) error {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{Registry: registry}))
	if profiles {
		mux.HandleFunc("/debug/pprof/", pprof.Index) // the named profiles, too
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	lis, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("--metrics-address: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}
