package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/driver"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
)

// serve runs the driver on a fake LVM, wired as run does it, until the end of the test.
func serve(t *testing.T, logger klog.Logger, traces *tracing) *grpc.ClientConn {
	t.Helper()
	fake := lvmtest.New()
	fake.AddGroup("vg", 100<<30)
	fake.AddPool("vg", "pool", 1<<30, 16<<20, 64<<10, true)
	group, err := lvm.NewGroup("vg", lvm.GroupOptions{Executor: fake, Tracer: traces.commands()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), logger))
	engine, err := storage.New(ctx, storage.Options{
		Driver: "csi.lvmsnap.io", NodeID: "n", Groups: []*lvm.Group{group}, Kernel: fake, Fill: storage.FillOptions{Filler: fake},
		Backends: map[storage.Type]storage.Backend{storage.TypeThin: thin.New(thin.Options{Kernel: fake, OverprovisionRatio: 3})},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "lvmsnap") // t.TempDir's names are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	server, err := driver.New(driver.Options{
		Name: "csi.lvmsnap.io", Version: "v", NodeID: "n", Endpoint: "unix://" + socket, Engine: engine, Tracing: traces.rpcs(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		engine.Close()
		_ = os.RemoveAll(dir)
	})
	return conn
}

func volumeRequest(name string) *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: 8 << 20}, Secrets: map[string]string{"password": "hunter2"},
		VolumeCapabilities: []*csi.VolumeCapability{{
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
		}},
	}
}

// A call's span has the LVM command that it took as its child, continues its caller's trace, and tells no secret.
func TestSpans(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	traces, err := newTracing(t.Context(), "node-7", sdk.WithSyncer(spans))
	if err != nil {
		t.Fatal(err)
	}
	conn := serve(t, klog.Background(), traces)
	const parent = "0af7651916cd43dd8448eb211c80319c"
	ctx := metadata.AppendToOutgoingContext(t.Context(), "traceparent", "00-"+parent+"-b7ad6b7169203331-01")
	if _, err := csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := csi.NewControllerClient(conn).CreateVolume(ctx, volumeRequest("pvc-1")); err != nil {
		t.Fatal(err)
	}

	byName := map[string]tracetest.SpanStub{}
	const name = "csi.v1.Controller/CreateVolume"
	for deadline := time.Now().Add(30 * time.Second); byName[name].Name == ""; time.Sleep(time.Millisecond) { // it ends a little after the answer
		for _, s := range spans.GetSpans() {
			byName[s.Name] = s
		}
		if time.Now().After(deadline) {
			t.Fatalf("the spans are %v", byName)
		}
	}
	traces.close(t.Context())
	for _, s := range byName {
		if text := fmt.Sprintf("%+v", s); strings.Contains(text, "hunter2") {
			t.Errorf("a secret is in the span %s", text)
		}
	}
	call, command := byName[name], byName["lvm lvcreate"]
	if call.SpanContext.TraceID().String() != parent || command.Parent.SpanID() != call.SpanContext.SpanID() {
		t.Errorf("call %v below %v, lvcreate below %v", call.SpanContext.TraceID(), call.Parent.SpanID(), command.Parent.SpanID())
	}
	for span, want := range map[*tracetest.SpanStub][]string{
		&call:    {"csi.name=pvc-1"},
		&command: {"lvm.verb=lvcreate", "lvm.volume_group=vg", "lvm.result=ok", "lvm.exit_code=0"},
	} {
		var got []string
		for _, a := range span.Attributes {
			got = append(got, string(a.Key)+"="+a.Value.String())
		}
		for _, w := range want {
			if !slices.Contains(got, w) {
				t.Errorf("span %q has %v, not %s", span.Name, got, w)
			}
		}
		if about := span.Resource.String(); !strings.Contains(about, "service.name=lvmsnap") || !strings.Contains(about, "host.name=node-7") {
			t.Errorf("span %q is from %s", span.Name, about)
		}
	}
	for name := range byName {
		if strings.Contains(name, "Probe") {
			t.Errorf("a probe has a span")
		}
	}
}

// Nothing is sent unless the standard variables ask for it; then it goes where they say.
func TestTracesAreOffByDefault(t *testing.T) {
	var mu sync.Mutex
	var paths []string
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		mu.Lock()
		defer mu.Unlock()
		paths = append(paths, r.URL.Path)
	}))
	t.Cleanup(collector.Close)
	for name, test := range map[string]struct {
		env  map[string]string
		sent bool
	}{
		"nothing":          {nil, false},
		"an endpoint":      {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL}, true},
		"its own endpoint": {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": collector.URL + "/v1/traces", "OTEL_TRACES_EXPORTER": "otlp"}, true},
		"none":             {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL, "OTEL_TRACES_EXPORTER": "none"}, false},
		"disabled":         {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL, "OTEL_SDK_DISABLED": "TRUE"}, false},
		"not sampled":      {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": collector.URL, "OTEL_TRACES_SAMPLER": "always_off"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, name := range []string{
				"OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
				"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_TRACES_SAMPLER",
			} {
				t.Setenv(name, test.env[name])
			}
			paths = nil
			traces, err := startTracing(t.Context(), "n", os.Getenv)
			if err != nil {
				t.Fatal(err)
			}
			if (traces.provider != nil) != (test.sent || name == "not sampled") {
				t.Errorf("provider %v", traces.provider)
			}
			conn := serve(t, klog.Background(), traces)
			if _, err := csi.NewControllerClient(conn).CreateVolume(t.Context(), volumeRequest("v")); err != nil {
				t.Fatal(err)
			}
			traces.close(t.Context())
			mu.Lock()
			defer mu.Unlock()
			if test.sent != (len(paths) > 0) || test.sent && paths[0] != "/v1/traces" {
				t.Errorf("sent to %v", paths)
			}
		})
	}
}

func TestTracesRefuse(t *testing.T) {
	for want, env := range map[string]map[string]string{
		"OTEL_TRACES_EXPORTER":        {"OTEL_TRACES_EXPORTER": "jaeger"},
		"OTEL_EXPORTER_OTLP_PROTOCOL": {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
	} {
		_, err := startTracing(t.Context(), "n", func(name string) string { return env[name] })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error about %s", err, want)
		}
	}
}

// synced is a buffer that many may write to.
type synced struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *synced) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(p)
}

func (s *synced) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Split(strings.TrimSuffix(s.buf.String(), "\n"), "\n")
}

// With --logging-format=json every line is an object with Kubernetes' keys; a call is one line, an error is in one line, and a
// secret is in none, at any verbosity.
func TestJSONLog(t *testing.T) {
	fs := newFlagSet(new(options))
	if err := fs.Set("v", "10"); err != nil {
		t.Fatal(err)
	}
	var out synced
	logJSON(&out)
	t.Cleanup(func() {
		klog.ClearLogger()
		if err := fs.Set("v", "0"); err != nil {
			t.Error(err)
		}
	})
	client := csi.NewControllerClient(serve(t, klog.Background(), &tracing{}))
	if _, err := client.CreateVolume(t.Context(), volumeRequest("pvc-1")); err != nil {
		t.Fatal(err)
	}
	bad := volumeRequest("pvc-2")
	bad.CapacityRange.RequiredBytes = 1 << 40
	if _, err := client.CreateVolume(t.Context(), bad); status.Code(err) == codes.OK {
		t.Fatal("more than there is")
	}
	klog.Background().Error(os.ErrNotExist, "An error", "took", time.Second)

	calls, errors := 0, 0
	for _, line := range out.lines() {
		if strings.Contains(line, "hunter2") {
			t.Errorf("a secret is in the log: %s", line)
		}
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		ts, _ := entry["ts"].(float64)
		if age := time.Since(time.UnixMilli(int64(ts))); age < 0 || age > time.Hour {
			t.Errorf("ts: %s", line)
		}
		caller, _ := entry["caller"].(string)
		switch entry["msg"] {
		case "RPC":
			calls++
			if entry["method"] != "CreateVolume" || entry["code"] != "OK" || entry["name"] != "pvc-1" || entry["v"] != 0.0 ||
				!strings.HasPrefix(caller, "driver/interceptors.go:") || entry["requestID"] != 1.0 {
				t.Errorf("got %s", line)
			}
			if took, err := time.ParseDuration(entry["duration"].(string)); err != nil || took <= 0 {
				t.Errorf("duration: %s", line)
			}
		case "RPC failed":
			errors++
			if text, _ := entry["err"].(string); !strings.Contains(text, "pool") || entry["code"] == "OK" {
				t.Errorf("got %s", line)
			}
		case "Request":
			if message, _ := entry["message"].(string); !strings.Contains(message, "stripped") || entry["v"] != 5.0 {
				t.Errorf("got %s", line)
			}
		case "An error":
			if _, verbose := entry["v"]; verbose || entry["err"] != "file does not exist" || entry["took"] != "1s" {
				t.Errorf("got %s", line)
			}
		}
	}
	if calls != 1 || errors != 1 {
		t.Errorf("%d calls, %d failed ones:\n%s", calls, errors, strings.Join(out.lines(), "\n"))
	}
}

// -v decides in JSON, too.
func TestJSONVerbosity(t *testing.T) {
	var out synced
	logJSON(&out)
	t.Cleanup(klog.ClearLogger)
	klog.Background().V(1).Info("too much")
	klog.Background().WithValues("a", 1).WithName("b").Info("enough")
	if got := out.lines(); len(got) != 1 || !strings.Contains(got[0], `"msg":"enough"`) || !strings.Contains(got[0], `"a":1`) {
		t.Errorf("got %q", got)
	}
}
