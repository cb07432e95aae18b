package driver

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// Every error of the engine reaches the client with the code of the table, and its text.
func TestErrorCodes(t *testing.T) {
	p := startPlugin(t, 0)
	for err, code := range map[error]codes.Code{
		storage.ErrInvalid:               codes.InvalidArgument,
		storage.ErrSizeRange:             codes.OutOfRange,
		storage.ErrConflict:              codes.AlreadyExists,
		storage.ErrNoSpace:               codes.ResourceExhausted,
		storage.ErrInUse:                 codes.FailedPrecondition,
		storage.ErrDamaged:               codes.FailedPrecondition,
		storage.ErrPending:               codes.Aborted,
		storage.ErrBusy:                  codes.Unavailable,
		storage.ErrOtherNode:             codes.Unavailable,
		context.Canceled:                 codes.Canceled,
		context.DeadlineExceeded:         codes.DeadlineExceeded,
		errors.New("something else"):     codes.Internal,
		errors.New(""):                   codes.Internal, // a message is there all the same: checkAnswer
		status.Error(codes.DataLoss, ""): codes.DataLoss,
	} {
		p.engine.before = func(string) error { return fmt.Errorf("%w", err) }
		_, got := p.CreateVolume(t.Context(), volumeRequest("v"))
		wantCode(t, got, code, err.Error())
		_, got = p.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: "x"})
		wantCode(t, got, code)
	}
}

func logLines(log string) []string {
	return strings.Split(strings.TrimSuffix(log, "\n"), "\n")
}

// At the default level, a call is one line.
func TestLogLine(t *testing.T) {
	p := startPlugin(t, 0)
	volume := p.createVolume(t, "pvc-1").GetVolumeId()
	snapshot := p.createSnapshot(t, "snap-1", volume).GetSnapshotId()
	_, err := p.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: snapshotHandle(otherNode, "s")})
	wantCode(t, err, codes.Unavailable)
	p.engine.before = func(string) error { return errors.New("lvremove failed") }
	_, err = p.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: volume})
	wantCode(t, err, codes.Internal)
	p.engine.before = nil
	must(p.Probe(t.Context(), &csi.ProbeRequest{}))(t)

	got := logLines(p.log.String())
	want := [][]string{
		{"I", `"RPC"`, `requestID=1`, `method="CreateVolume"`, `code="OK"`, `duration=`, `name="pvc-1"`, `volumeID="` + volume + `"`},
		{"I", `"RPC"`, `requestID=2`, `method="CreateSnapshot"`, `name="snap-1"`, `sourceVolumeID="` + volume + `"`, `snapshotID="` + snapshot + `"`},
		{"I", `"RPC failed"`, `method="DeleteSnapshot"`, `code="Unavailable"`, `snapshotID="v1/`, "belongs to another node"},
		{"E", `"RPC failed"`, `method="DeleteVolume"`, `code="Internal"`, `volumeID="` + volume + `"`, "lvremove failed"},
	}
	if len(got) != len(want) { // and no line for the Probe
		t.Fatalf("got %d lines, want %d:\n%s", len(got), len(want), p.log)
	}
	for i, words := range want {
		if got[i][:1] != words[0] {
			t.Errorf("line %q is not of severity %s", got[i], words[0])
		}
		for _, word := range words[1:] {
			if !strings.Contains(got[i], word) {
				t.Errorf("line %q lacks %s", got[i], word)
			}
		}
	}
	if n := strings.Count(p.log.String(), "lvremove failed"); n != 1 {
		t.Errorf("the error is logged %d times", n)
	}
}

func TestFailedProbeIsLogged(t *testing.T) {
	p := startPlugin(t, 0)
	p.engine.before = func(string) error { return errors.New("no lvm") }
	_, err := p.Probe(t.Context(), &csi.ProbeRequest{})
	wantCode(t, err, codes.FailedPrecondition)
	if got := logLines(p.log.String()); len(got) != 1 || !strings.Contains(got[0], "no lvm") {
		t.Errorf("got %q", got)
	}
}

// Neither secrets nor mount flags are ever logged, in calls that succeed, fail or are refused.
func TestSecretsAreNotLogged(t *testing.T) {
	p := startPlugin(t, 10, func(o *Options) { o.Node = &echoNode{} })
	node := csi.NewNodeClient(p.conn)
	secrets := map[string]string{"password": "hunter2"}
	flags := mountCapability("xfs", singleWriter, "password=hunter2", "hunter2")
	req := volumeRequest("logged-name")
	req.Secrets, req.VolumeCapabilities = secrets, []*csi.VolumeCapability{flags}
	volume := must(p.CreateVolume(t.Context(), req))(t).GetVolume().GetVolumeId()
	req.VolumeCapabilities = append(req.VolumeCapabilities, blockCapability(singleWriter))
	_, err := p.CreateVolume(t.Context(), req)
	wantCode(t, err, codes.InvalidArgument)
	req.Secrets = map[string]string{"password": strings.Repeat("hunter2", 1000)}
	_, err = p.CreateVolume(t.Context(), req)
	wantCode(t, err, codes.InvalidArgument, "secrets")
	must(p.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{
		VolumeId: volume, VolumeCapabilities: []*csi.VolumeCapability{flags}, Secrets: secrets,
	}))(t) // whose answer echoes the capability
	must(p.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: volume, Secrets: secrets}))(t)
	_, err = node.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{VolumeId: volume, VolumeCapability: flags, Secrets: secrets})
	wantCode(t, err, codes.OK)

	log := p.log.String()
	if strings.Contains(log, "hunter2") {
		t.Errorf("a secret is in the log:\n%s", log)
	}
	for _, word := range []string{"logged-name", `\"fs_type\":\"xfs\"`, stripped, `"Request"`, `"Response"`} {
		if !strings.Contains(log, word) {
			t.Errorf("the log lacks %s:\n%s", word, log)
		}
	}
	if got := flags.GetMount().GetMountFlags()[1]; got != "hunter2" {
		t.Errorf("logging changed the request: %q", got)
	}
}

func TestMessagesAreNotLoggedByDefault(t *testing.T) {
	p := startPlugin(t, logMessages-1)
	p.createVolume(t, "v")
	if strings.Contains(p.log.String(), "capacity_range") {
		t.Errorf("got %s", p.log)
	}
}

// echoNode returns from NodeStageVolume only if the mount flags came through, and panics in NodeGetInfo.
type echoNode struct {
	csi.UnimplementedNodeServer
	stage func(ctx context.Context) error
}

func (n *echoNode) NodeStageVolume(ctx context.Context, req *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	if flags := req.GetVolumeCapability().GetMount().GetMountFlags(); len(flags) > 0 && flags[len(flags)-1] != "hunter2" {
		return nil, fmt.Errorf("%w: mount flags %v", storage.ErrInvalid, flags)
	}
	if n.stage != nil {
		return &csi.NodeStageVolumeResponse{}, n.stage(ctx)
	}
	return &csi.NodeStageVolumeResponse{}, nil
}

func (n *echoNode) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	panic("the cause")
}

func TestPanic(t *testing.T) {
	p := startPlugin(t, 0, func(o *Options) { o.Node = &echoNode{} })
	_, err := csi.NewNodeClient(p.conn).NodeGetInfo(t.Context(), &csi.NodeGetInfoRequest{})
	wantCode(t, err, codes.Internal, "internal error")
	if strings.Contains(err.Error(), "cause") {
		t.Errorf("the client is told too much: %v", err)
	}
	for _, word := range []string{"the cause", "NodeGetInfo", "interceptors_test.go", "goroutine"} {
		if !strings.Contains(p.log.String(), word) {
			t.Errorf("the log lacks %q:\n%s", word, p.log)
		}
	}
	// After a panic in a create nobody knows what exists: the sidecars must ask again.
	p.engine.before = func(string) error { panic("again") }
	_, err = p.CreateVolume(t.Context(), volumeRequest("v"))
	wantCode(t, err, codes.Unavailable, "internal error")
	p.engine.before = nil
	p.createVolume(t, "w") // the server lives on

	if err := testutil.GatherAndCompare(p.registry, strings.NewReader(`
# HELP lvmsnap_panics_total Panics in CSI calls. Any is a bug: its stack is in the log.
# TYPE lvmsnap_panics_total counter
lvmsnap_panics_total 2
`), "lvmsnap_panics_total"); err != nil {
		t.Error(err)
	}
}

func TestMetrics(t *testing.T) {
	entered, proceed := make(chan struct{}), make(chan struct{})
	p := startPlugin(t, 0, func(o *Options) {
		o.Node = &echoNode{stage: func(context.Context) error { entered <- struct{}{}; <-proceed; return nil }}
	})
	inFlight := func(want string) {
		t.Helper()
		if err := testutil.GatherAndCompare(p.registry, strings.NewReader(
			"# HELP lvmsnap_rpc_in_flight CSI calls that are being served at the moment.\n"+
				"# TYPE lvmsnap_rpc_in_flight gauge\nlvmsnap_rpc_in_flight "+want+"\n"), "lvmsnap_rpc_in_flight"); err != nil {
			t.Error(err)
		}
	}
	done := make(chan error)
	go func() {
		_, err := csi.NewNodeClient(p.conn).NodeStageVolume(context.Background(), &csi.NodeStageVolumeRequest{VolumeId: "x"})
		done <- err
	}()
	<-entered
	inFlight("1")
	proceed <- struct{}{}
	wantCode(t, <-done, codes.OK)
	p.createVolume(t, "v")
	p.createVolume(t, "v")
	_, err := p.CreateVolume(t.Context(), &csi.CreateVolumeRequest{})
	wantCode(t, err, codes.InvalidArgument)
	inFlight("0")

	counts := map[string]uint64{}
	for _, family := range must(p.registry.Gather())(t) {
		for _, m := range family.GetMetric() {
			if family.GetName() == "lvmsnap_rpc_duration_seconds" {
				counts[m.GetLabel()[1].GetValue()+" "+m.GetLabel()[0].GetValue()] = m.GetHistogram().GetSampleCount()
			}
		}
	}
	want := map[string]uint64{"NodeStageVolume OK": 1, "CreateVolume OK": 2, "CreateVolume InvalidArgument": 1}
	if fmt.Sprint(counts) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", counts, want)
	}
	if problems, err := testutil.GatherAndLint(p.registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

func TestNewMetricsTwice(t *testing.T) {
	registry := prometheus.NewRegistry()
	if _, err := NewMetrics(registry); err != nil {
		t.Fatal(err)
	}
	if _, err := NewMetrics(registry); err == nil {
		t.Error("registered twice")
	}
}

// fakeMetadata stands for a service with streams.
type fakeMetadata struct {
	csi.UnimplementedSnapshotMetadataServer
	err error
}

func (f *fakeMetadata) GetMetadataAllocated(_ *csi.GetMetadataAllocatedRequest, stream csi.SnapshotMetadata_GetMetadataAllocatedServer) error {
	klog.FromContext(stream.Context()).Info("In the handler")
	if f.err == nil {
		panic("the cause")
	}
	return errors.Join(stream.Send(&csi.GetMetadataAllocatedResponse{VolumeCapacityBytes: 42}), f.err)
}

func TestStreams(t *testing.T) {
	f := &fakeMetadata{}
	p := startPlugin(t, logMessages, func(o *Options) { o.Node = &echoNode{} }, withService(f))
	client := csi.NewSnapshotMetadataClient(p.conn)
	call := func(req *csi.GetMetadataAllocatedRequest) error {
		stream, err := client.GetMetadataAllocated(t.Context(), req)
		for err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	req := &csi.GetMetadataAllocatedRequest{SnapshotId: "snap", Secrets: map[string]string{"a": "hunter2"}}
	wantCode(t, call(req), codes.Internal, "internal error")
	f.err = fmt.Errorf("%w: snapshot", storage.ErrNotFound)
	wantCode(t, call(req), codes.NotFound, "snapshot")
	wantCode(t, call(&csi.GetMetadataAllocatedRequest{SnapshotId: strings.Repeat("x", 129)}), codes.InvalidArgument, "snapshot_id")

	log := p.log.String()
	for _, pattern := range []string{
		`"In the handler" requestID=2 method="GetMetadataAllocated"`,
		`"Request" requestID=2 .*stripped`,
		`"Response" requestID=2 .*42`,
		`"RPC failed" requestID=2 .*code="NotFound" .*snapshotID="snap"`,
		`"Handler panicked; this is a bug" .*requestID=1`,
	} {
		if !regexp.MustCompile(pattern).MatchString(log) {
			t.Errorf("the log lacks %s:\n%s", pattern, log)
		}
	}
	if strings.Contains(log, "hunter2") {
		t.Errorf("a secret is in the log:\n%s", log)
	}
}

// withService is for tests of the interceptors with a service that the server does not have.
func withService(f csi.SnapshotMetadataServer) func(*Options) {
	return func(o *Options) {
		o.Register = func(s grpc.ServiceRegistrar) { csi.RegisterSnapshotMetadataServer(s, f) }
	}
}

func TestLongNamesInTheLog(t *testing.T) {
	p := startPlugin(t, 0)
	_, err := p.CreateVolume(t.Context(), &csi.CreateVolumeRequest{Name: strings.Repeat("x", 1<<20)})
	wantCode(t, err, codes.InvalidArgument, "name")
	if n := len(p.log.String()); n > 1000 {
		t.Errorf("the log has %d bytes", n)
	}
}
