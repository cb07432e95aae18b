package driver

import (
	"context"
	"fmt"
	"path"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// Verbosities of the log; one line a call is at 0.
const (
	logProbes   = 4
	logMessages = 5
)

// interceptors are what every call goes through, so that handlers need to know nothing of it:
//
//	observe -> toStatus and panics -> how many there are -> limits of the request -> handler
type interceptors struct {
	logger  klog.Logger
	metrics *Metrics
	calls   atomic.Uint64
	serving atomic.Int64
}

const (
	// maxCalls bounds what is served at a time, and with it the memory of calls that wait: one that is refused costs
	// its caller a retry, one too many may cost the node's memory.
	maxCalls = 2000
	// maxRequestBytes is far above what the size limits of the spec leave a request, and below gRPC's own 4 MiB.
	maxRequestBytes = 2 << 20
	// earliest is how long before its deadline a call ends.
	earliest = 250 * time.Millisecond
)

func (i *interceptors) unary() grpc.ServerOption {
	return grpc.ChainUnaryInterceptor(i.observeUnary, i.convertUnary, i.boundUnary, limitUnary)
}

func (i *interceptors) stream() grpc.ServerOption {
	return grpc.ChainStreamInterceptor(i.observeStream, i.convertStream, i.boundStream, limitStream)
}

// call is one RPC as it is logged and counted.
type call struct {
	*interceptors
	logger klog.Logger
	method string
	start  time.Time
	span   trace.Span // of the call; one that records nothing when nobody traces
}

// begin gives the call its number, which all lines that are logged below it carry.
func (i *interceptors) begin(ctx context.Context, fullMethod string) (context.Context, *call) {
	c := &call{interceptors: i, method: path.Base(fullMethod), start: time.Now(), span: trace.SpanFromContext(ctx)}
	c.logger = klog.LoggerWithValues(i.logger, "requestID", i.calls.Add(1), "method", c.method)
	if c.span.IsRecording() {
		c.logger = klog.LoggerWithValues(c.logger, "traceID", c.span.SpanContext().TraceID().String())
	}
	i.metrics.inFlight.Inc()
	return klog.NewContext(ctx, c.logger), c
}

func (c *call) logMessage(what string, message any) {
	c.logger.V(logMessages).Info(what, "message", redacted{message})
}

// end logs the one line of the call, and the error in it, which is not logged anywhere else.
func (c *call) end(object []any, err error) {
	took := time.Since(c.start)
	code := status.Code(err)
	c.metrics.inFlight.Dec()
	c.metrics.observe(c.method, code, took)
	keysAndValues := append([]any{"code", code.String(), "duration", took}, object...)
	for j := 0; c.span.IsRecording() && j+1 < len(object); j += 2 {
		c.span.SetAttributes(attribute.String(fmt.Sprint("csi.", object[j]), fmt.Sprint(object[j+1])))
	}
	switch {
	case err == nil && c.method == "Probe":
		// livenessprobe calls every few seconds. A failure is worth a line: it gets the pod out of service.
		c.logger.V(logProbes).Info("RPC", keysAndValues...)
	case err == nil:
		c.logger.Info("RPC", keysAndValues...)
	case code == codes.Internal || code == codes.Unknown:
		c.logger.Error(err, "RPC failed", keysAndValues...)
	default:
		c.logger.Info("RPC failed", append(keysAndValues, "err", err)...)
	}
}

func (i *interceptors) observeUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	ctx, c := i.begin(ctx, info.FullMethod)
	c.logMessage("Request", req)
	rsp, err := handler(ctx, req)
	if err == nil {
		c.logMessage("Response", rsp)
	}
	c.end(objectOf(req, rsp), err)
	return rsp, err
}

func (i *interceptors) observeStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, c := i.begin(ss.Context(), info.FullMethod)
	observed := &observedStream{ServerStream: ss, ctx: ctx, call: c}
	err := handler(srv, observed)
	c.end(observed.object, err)
	return err
}

// observedStream has the call's logger in its context and logs what goes through it.
type observedStream struct {
	grpc.ServerStream
	ctx    context.Context // a stream is its context: there is no other way to pass it on
	call   *call
	object []any
}

func (s *observedStream) Context() context.Context { return s.ctx }

func (s *observedStream) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil {
		s.object = objectOf(m, nil)
		s.call.logMessage("Request", m)
	}
	return err
}

func (s *observedStream) SendMsg(m any) error {
	s.call.logMessage("Response", m)
	return s.ServerStream.SendMsg(m)
}

// convertUnary is the only place where an error gets its gRPC code, and where a panic ends.
func (i *interceptors) convertUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (rsp any, err error) {
	defer func() {
		if p := recover(); p != nil {
			rsp, err = nil, i.panicked(ctx, info.FullMethod, p)
		}
	}()
	rsp, err = handler(ctx, req)
	if err != nil {
		return nil, finalStatus(err)
	}
	return rsp, nil
}

// finalStatus makes an error what the spec asks of it ("Error Scheme"): a status with a message and without
// details.
func finalStatus(err error) error {
	if err == nil {
		return nil
	}
	st := status.Convert(toStatus(err))
	message := st.Message()
	if message == "" {
		message = st.Code().String()
	}
	return status.Error(st.Code(), message)
}

func (i *interceptors) convertStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = i.panicked(ss.Context(), info.FullMethod, p)
		}
	}()
	return finalStatus(handler(srv, ss))
}

// panicked tells the log everything and the client nothing. The code is Internal, but for calls that create:
// csi-snapshotter and csi-provisioner take Internal for final, nothing left behind, and would forget an object
// that may exist. Unavailable has them ask again.
func (i *interceptors) panicked(ctx context.Context, fullMethod string, p any) error {
	i.metrics.panics.Inc()
	klog.FromContext(ctx).Error(fmt.Errorf("panic: %v", p), "Handler panicked; this is a bug", "stack", string(debug.Stack()))
	code := codes.Internal
	if strings.HasPrefix(path.Base(fullMethod), "Create") {
		code = codes.Unavailable
	}
	return status.Error(code, "internal error")
}

func (i *interceptors) boundUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	done, err := i.admit(info.FullMethod)
	if err != nil {
		return nil, err
	}
	defer done()
	ctx, cancel := early(ctx)
	defer cancel()
	return handler(ctx, req)
}

// early ends a call a little before its deadline: a client that has given up does not read why.
func early(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/10, earliest)))
}

func (i *interceptors) boundStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	done, err := i.admit(info.FullMethod)
	if err != nil {
		return err
	}
	defer done()
	return handler(srv, ss)
}

// admit refuses a call when there are too many. Probes and the like are always answered: they wait for nobody.
func (i *interceptors) admit(fullMethod string) (done func(), err error) {
	if strings.HasPrefix(fullMethod, "/csi.v1.Identity/") {
		return func() {}, nil
	}
	done = func() { i.serving.Add(-1) }
	if n := i.serving.Add(1); n > maxCalls {
		done()
		return nil, fmt.Errorf("%w: %d are being served already; try again later", storage.ErrBusy, maxCalls)
	}
	return done, nil
}

// limitUnary applies the spec's general rules before the handler sees the request.
func limitUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if m, ok := req.(proto.Message); ok {
		if err := checkLimits(m); err != nil {
			return nil, err
		}
	}
	return handler(ctx, req)
}

func limitStream(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return handler(srv, limitedStream{ss})
}

type limitedStream struct{ grpc.ServerStream }

func (s limitedStream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	if m, ok := m.(proto.Message); ok {
		return checkLimits(m)
	}
	return nil
}

// The fields that say which object a call is about, and the log's names for them.
var objectFields = []struct{ field, key protoreflect.Name }{
	{"name", "name"},
	{"volume_id", "volumeID"},
	{"snapshot_id", "snapshotID"},
	{"source_volume_id", "sourceVolumeID"},
	{"group_snapshot_id", "groupSnapshotID"},
	{"base_snapshot_id", "baseSnapshotID"},
	{"target_snapshot_id", "targetSnapshotID"},
}

// objectOf says which object a call is about, as keys and values for the log. A create is known by its name
// until it succeeds, and by its id from then on: the line of the response joins the two.
func objectOf(req, rsp any) []any {
	var object []any
	if m, ok := req.(proto.Message); ok {
		fields := m.ProtoReflect().Descriptor().Fields()
		for _, f := range objectFields {
			fd := fields.ByName(f.field)
			if fd == nil || fd.Kind() != protoreflect.StringKind || fd.IsList() {
				continue
			}
			if value := m.ProtoReflect().Get(fd).String(); value != "" {
				object = append(object, string(f.key), clip(value))
			}
		}
	}
	switch rsp := rsp.(type) {
	case *csi.CreateVolumeResponse:
		object = append(object, "volumeID", rsp.GetVolume().GetVolumeId())
	case *csi.CreateSnapshotResponse:
		object = append(object, "snapshotID", rsp.GetSnapshot().GetSnapshotId())
	}
	return object
}
