// Package driver is the CSI plugin: it serves the Identity, Controller and Node services of one node. It turns
// requests into typed specs, calls the storage engine, and turns the engine's errors into gRPC codes, in one
// table (status.go). It knows codes and never command lines.
package driver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"
	"k8s.io/klog/v2"
)

// DefaultDrainTimeout leaves some of the 30 s that Kubernetes gives a pod to end.
const DefaultDrainTimeout = 25 * time.Second

// stopGrace is for calls that are cut off to notice that.
const stopGrace = time.Second

// Options is what a Server is made of.
type Options struct {
	Name     string // of the plugin, as in the CSIDriver object
	Version  string
	NodeID   string // at most 63 bytes: it is a topology segment
	Endpoint string // unix:///path, unix:path or a bare path

	Engine Engine
	Node   csi.NodeServer // nil: no node service

	// Register registers further services, which go through the same interceptors; may be nil.
	Register func(grpc.ServiceRegistrar)

	Registerer prometheus.Registerer // nil: the metrics are kept but not registered

	Tracing stats.Handler // of every call; nil: none

	// DrainTimeout is how long calls that run at the end may take; 0 is DefaultDrainTimeout.
	DrainTimeout time.Duration

	// Ready is called once the socket takes calls; may be nil.
	Ready func()
}

// Server serves CSI on a unix socket.
type Server struct {
	path         string
	metrics      *Metrics
	drainTimeout time.Duration
	tracing      stats.Handler

	identity   *identity
	controller *controller
	node       csi.NodeServer
	register   func(grpc.ServiceRegistrar)
	ready      func()
}

var (
	// CSI spec, GetPluginInfoResponse.name.
	pluginNamePattern = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]{0,61}[a-zA-Z0-9])?$`)
	// CSI spec, Topology: also Kubernetes' rule for the values of labels.
	segmentPattern = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9._-]{0,61}[a-zA-Z0-9])?$`)
)

// New makes a server; Run runs it.
func New(o Options) (*Server, error) {
	path, err := parseEndpoint(o.Endpoint)
	switch {
	case err != nil:
		return nil, err
	case !pluginNamePattern.MatchString(o.Name):
		return nil, fmt.Errorf("plugin name %q is not a domain name of at most 63 characters", o.Name)
	case o.Version == "" || len(o.Version) > maxString:
		return nil, fmt.Errorf("version %q must have 1 to %d bytes", o.Version, maxString)
	case !segmentPattern.MatchString(o.NodeID):
		return nil, fmt.Errorf("node id %q cannot be a topology segment: at most 63 letters, digits, '-', '_' and '.', a letter or digit first and last", o.NodeID)
	case o.Engine == nil:
		return nil, errors.New("no engine")
	}
	metrics, err := NewMetrics(o.Registerer)
	if err != nil {
		return nil, fmt.Errorf("cannot register the metrics: %w", err)
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = DefaultDrainTimeout
	}
	return &Server{
		path:         path,
		metrics:      metrics,
		drainTimeout: o.DrainTimeout,
		tracing:      o.Tracing,
		identity:     &identity{name: o.Name, version: o.Version, engine: o.Engine},
		controller:   &controller{nodeID: o.NodeID, volumes: o.Engine, snapshots: o.Engine},
		node:         o.Node,
		register:     o.Register,
		ready:        o.Ready,
	}, nil
}

// Run serves until ctx ends, then drains: no new calls, and those that run may end. It logs through the
// logger in ctx. The socket is gone when it returns.
func (s *Server) Run(ctx context.Context) (err error) {
	lis, cleanup, err := listen(ctx, s.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanup()) }()
	klog.FromContext(ctx).Info("Serving CSI", "socket", s.path)
	if s.ready != nil {
		s.ready()
	}
	return s.serve(ctx, lis)
}

func (s *Server) serve(ctx context.Context, lis net.Listener) error {
	logger := klog.FromContext(ctx)
	server := s.grpcServer(logger)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(lis) }()
	select {
	case err := <-failed:
		server.Stop()
		return fmt.Errorf("cannot go on serving: %w", err)
	case <-ctx.Done():
	}
	logger.Info("Draining", "timeout", s.drainTimeout)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		server.GracefulStop()
	}()
	timeout := time.NewTimer(s.drainTimeout)
	defer timeout.Stop()
	select {
	case <-drained:
	case <-timeout.C:
		// The engine finishes or undoes on its next start what the end of the process interrupts.
		logger.Info("Calls are still running; they are cut off", "timeout", s.drainTimeout)
		server.Stop()
		// GracefulStop waits for handlers even now; those that heed their context end at once, and the others
		// must not keep the process.
		select {
		case <-drained:
		case <-time.After(stopGrace):
		}
	}
	if err := <-failed; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("cannot end serving: %w", err)
	}
	return nil
}

func (s *Server) grpcServer(logger klog.Logger) *grpc.Server {
	i := &interceptors{logger: logger, metrics: s.metrics}
	options := []grpc.ServerOption{i.unary(), i.stream(), grpc.MaxRecvMsgSize(maxRequestBytes)}
	if s.tracing != nil {
		options = append(options, grpc.StatsHandler(s.tracing))
	}
	server := grpc.NewServer(options...)
	csi.RegisterIdentityServer(server, s.identity)
	csi.RegisterControllerServer(server, s.controller)
	if s.node != nil {
		csi.RegisterNodeServer(server, s.node)
	}
	if s.register != nil {
		s.register(server)
	}
	return server
}
