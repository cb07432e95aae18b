package main

import (
	"context"
	"fmt"
	"path"
	"strings"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	grpcstats "google.golang.org/grpc/stats"
	"k8s.io/klog/v2"
)

// traceFlush is how long the last spans may take when the driver ends.
const traceFlush = 3 * time.Second

// tracing is where spans go; the zero value is nowhere.
type tracing struct {
	provider *sdk.TracerProvider
}

// startTracing begins to send spans if the standard environment variables of OpenTelemetry ask for it (docs/reference/tracing.md).
// Their defaults would have every process send to localhost: here nobody does until told.
func startTracing(ctx context.Context, nodeID string, getenv func(string) string) (*tracing, error) {
	protocol, err := traceProtocol(getenv)
	if err != nil || protocol == "" {
		return &tracing{}, err
	}
	var exporter sdk.SpanExporter
	if protocol == protocolGRPC {
		exporter, err = otlptracegrpc.New(ctx)
	} else {
		exporter, err = otlptracehttp.New(ctx)
	}
	if err != nil {
		return &tracing{}, fmt.Errorf("traces: %w", err)
	}
	t, err := newTracing(ctx, nodeID, sdk.WithBatcher(exporter))
	if err != nil {
		return &tracing{}, fmt.Errorf("traces: %w", err)
	}
	logger := klog.FromContext(ctx)
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { logger.Error(err, "Traces cannot be sent") }))
	logger.Info("Sending traces", "protocol", protocol)
	return t, nil
}

const (
	protocolGRPC = "grpc"
	protocolHTTP = "http/protobuf"
)

// traceProtocol is how spans are sent; empty: not at all.
func traceProtocol(getenv func(string) string) (string, error) {
	either := func(specific, general string) string {
		if v := getenv(specific); v != "" {
			return v
		}
		return getenv(general)
	}
	exporter := getenv("OTEL_TRACES_EXPORTER")
	endpoint := either("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
	switch {
	case strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true"), exporter == "none", exporter == "" && endpoint == "":
		return "", nil
	case exporter != "" && exporter != "otlp":
		return "", fmt.Errorf("OTEL_TRACES_EXPORTER: %q is neither otlp nor none", exporter)
	}
	switch protocol := either("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"); protocol {
	case "":
		return protocolHTTP, nil
	case protocolGRPC, protocolHTTP:
		return protocol, nil
	default:
		return "", fmt.Errorf("OTEL_EXPORTER_OTLP_PROTOCOL: %q is neither %s nor %s", protocol, protocolGRPC, protocolHTTP)
	}
}

// newTracing adds what a span does not say of itself. Sampling is the variables' (OTEL_TRACES_SAMPLER).
func newTracing(ctx context.Context, nodeID string, options ...sdk.TracerProviderOption) (*tracing, error) {
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", "lvmsnap"), attribute.String("service.version", version), attribute.String("host.name", nodeID),
	), resource.WithFromEnv()) // last: OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the last word
	if err != nil {
		return nil, err
	}
	return &tracing{sdk.NewTracerProvider(append(options, sdk.WithResource(about))...)}, nil
}

// rpcs makes a span of each call, below that of a caller who says that he has one; nil without tracing. Probes, every few
// seconds, are left out.
func (t *tracing) rpcs() grpcstats.Handler {
	if t.provider == nil {
		return nil
	}
	return otelgrpc.NewServerHandler(
		otelgrpc.WithTracerProvider(t.provider), otelgrpc.WithMeterProvider(noop.NewMeterProvider()),
		otelgrpc.WithPropagators(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})),
		otelgrpc.WithFilter(func(info *grpcstats.RPCTagInfo) bool { return path.Base(info.FullMethodName) != "Probe" }),
	)
}

// commands makes spans of LVM commands; nil without tracing.
func (t *tracing) commands() trace.Tracer {
	if t.provider == nil {
		return nil
	}
	return t.provider.Tracer("github.com/lvmsnap/lvmsnap/pkg/lvm")
}

// close sends what has not been sent.
func (t *tracing) close(ctx context.Context) {
	if t.provider == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), traceFlush)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		klog.FromContext(ctx).Error(err, "The last traces were not sent")
	}
}
