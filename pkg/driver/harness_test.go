package driver

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

// plugin is a whole server on a connection in memory, with clients.
type plugin struct {
	csi.IdentityClient
	csi.ControllerClient
	engine   *memEngine
	registry *prometheus.Registry
	log      *logBuffer
	conn     *grpc.ClientConn
}

// startPlugin starts a server; options may be changed before.
func startPlugin(t *testing.T, verbosity int, change ...func(*Options)) *plugin {
	t.Helper()
	p := &plugin{engine: newMemEngine(), registry: prometheus.NewRegistry(), log: &logBuffer{}}
	o := Options{
		Name: "csi.lvmsnap.io", Version: "v0.0.0-test", NodeID: testNode, Endpoint: "unix:///unused",
		Engine: p.engine, Registerer: p.registry,
	}
	for _, f := range change {
		f(&o)
	}
	server, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	logger := textlogger.NewLogger(textlogger.NewConfig(textlogger.Verbosity(verbosity), textlogger.Output(p.log)))
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), logger))
	lis := bufconn.Listen(1 << 20)
	served := make(chan error, 1)
	go func() { served <- server.serve(ctx, lis) }()
	p.conn, err = grpc.NewClient("passthrough:///bufconn",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }),
		grpc.WithUnaryInterceptor(checkAnswer(t)))
	if err != nil {
		t.Fatal(err)
	}
	p.IdentityClient, p.ControllerClient = csi.NewIdentityClient(p.conn), csi.NewControllerClient(p.conn)
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		if err := p.conn.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return p
}

// checkAnswer holds every answer in every test to the rules that bind all of them: the size limits, and errors
// with a message and without details.
func checkAnswer(t *testing.T) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := invoke(ctx, method, req, reply, cc, opts...)
		if err == nil {
			if err := checkLimits(reply.(proto.Message)); err != nil {
				t.Errorf("%s: answer breaks a limit: %v", method, err)
			}
			return nil
		}
		if st := status.Convert(err); st.Message() == "" || len(st.Details()) > 0 {
			t.Errorf("%s: status %v has no message or has details", method, st)
		}
		return err
	}
}

// wantCode fails the test unless err has the code, and its text the words.
func wantCode(t *testing.T, err error, code codes.Code, words ...string) {
	t.Helper()
	if status.Code(err) != code {
		t.Fatalf("got %v, want code %s", err, code)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not contain %q", err, word)
		}
	}
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// logBuffer is a log that tests can read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func mountCapability(fsType string, mode csi.VolumeCapability_AccessMode_Mode, flags ...string) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fsType, MountFlags: flags}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
	}
}

func blockCapability(mode csi.VolumeCapability_AccessMode_Mode) *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode},
	}
}

const (
	singleWriter     = csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	multiNodeReader  = csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	multiNodeWriters = csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
)

func volumeRequest(name string) *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name:               name,
		VolumeCapabilities: []*csi.VolumeCapability{mountCapability("", singleWriter)},
		CapacityRange:      &csi.CapacityRange{RequiredBytes: 10 * mib},
	}
}

func fromSnapshot(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id}}}
}

func fromVolume(id string) *csi.VolumeContentSource {
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id}}}
}

func onNode(ids ...string) []*csi.Topology {
	var all []*csi.Topology
	for _, id := range ids {
		all = append(all, topologyOf(id)...)
	}
	return all
}

func (p *plugin) createVolume(t *testing.T, name string) *csi.Volume {
	t.Helper()
	return must(p.CreateVolume(t.Context(), volumeRequest(name)))(t).GetVolume()
}

func (p *plugin) createSnapshot(t *testing.T, name, source string) *csi.Snapshot {
	t.Helper()
	return must(p.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: source}))(t).GetSnapshot()
}
