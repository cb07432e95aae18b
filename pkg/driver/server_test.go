package driver

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
)

func TestParseEndpoint(t *testing.T) {
	for endpoint, want := range map[string]string{
		"unix:///csi/csi.sock": "/csi/csi.sock",
		"unix:/csi/csi.sock":   "/csi/csi.sock",
		"unix:csi.sock":        "csi.sock",
		"unix://csi/csi.sock":  "csi/csi.sock",
		"/csi/csi.sock":        "/csi/csi.sock",
		"csi.sock":             "csi.sock",
		"/odd:name/csi.sock":   "/odd:name/csi.sock",

		"/" + strings.Repeat("a", maxSocketPath-1): "/" + strings.Repeat("a", maxSocketPath-1),

		"":                                       "",
		"unix:":                                  "",
		"unix://":                                "",
		"unix:@abstract":                         "",
		"@abstract":                              "",
		"tcp://127.0.0.1:1":                      "",
		"tcp:127.0.0.1:1":                        "",
		"dns:///x":                               "",
		"http://x/unix:///y":                     "",
		"unixpacket:///x":                        "",
		"unix-abstract:x":                        "",
		"vsock://2:1024":                         "",
		"localhost:1234":                         "",
		"/" + strings.Repeat("a", maxSocketPath): "",
	} {
		got, err := parseEndpoint(endpoint)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", endpoint, got, err, want)
		}
	}
}

func TestNewRejects(t *testing.T) {
	registry := prometheus.NewRegistry()
	good := Options{Name: "csi.lvmsnap.io", Version: "v1", NodeID: testNode, Endpoint: "/csi.sock", Engine: newMemEngine(), Registerer: registry}
	for word, change := range map[string]func(*Options){
		"plugin name": func(o *Options) { o.Name = "-x" },
		"63 char":     func(o *Options) { o.Name = strings.Repeat("x", 64) },
		"version":     func(o *Options) { o.Version = "" },
		"node id":     func(o *Options) { o.NodeID = "" },
		"segment":     func(o *Options) { o.NodeID = strings.Repeat("x", 64) },
		"engine":      func(o *Options) { o.Engine = nil },
		"endpoint":    func(o *Options) { o.Endpoint = "tcp://:1" },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("got %v, want an error about %s", err, word)
		}
	}
	if _, err := New(good); err != nil {
		t.Error(err)
	}
	if _, err := New(good); err == nil || !strings.Contains(err.Error(), "metrics") {
		t.Errorf("got %v, want an error about the metrics", err)
	}
}

// socketDir is short: t.TempDir can be too long for a socket.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lvmsnap")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// runServer starts a server on a real socket; cancel ends it, and result is what Run returned.
func runServer(t *testing.T, path string, change ...func(*Options)) (conn *grpc.ClientConn, cancel func(), result <-chan error) {
	t.Helper()
	o := Options{Name: "csi.lvmsnap.io", Version: "v1", NodeID: testNode, Endpoint: "unix://" + path, Engine: newMemEngine()}
	for _, f := range change {
		f(&o)
	}
	server, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	impatient := grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: time.Millisecond, MaxDelay: 10 * time.Millisecond},
		MinConnectTimeout: 10 * time.Second,
	})
	conn, err = grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), impatient)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = conn.Close() })
	_, err = csi.NewIdentityClient(conn).Probe(t.Context(), &csi.ProbeRequest{}, grpc.WaitForReady(true))
	wantCode(t, err, codes.OK)
	return conn, cancel, done
}

func TestRun(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(socketDir(t), "csi.sock")
	_, cancel, done := runServer(t, path)
	info := must(os.Lstat(path))(t)
	if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket has mode %v", info.Mode())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// The mode is there from the first moment, not only after a chmod.
func TestSocketIsBornPrivate(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(socketDir(t), "csi.sock")
	lc := net.ListenConfig{Control: privateSocket}
	lis := must(lc.Listen(t.Context(), "unix", path))(t)
	defer lis.Close()
	if mode := must(os.Lstat(path))(t).Mode().Perm(); mode != 0o600 {
		t.Errorf("the socket has mode %o", mode)
	}
}

func TestStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(socketDir(t), "csi.sock")
	stale := must(net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}))(t)
	stale.SetUnlinkOnClose(false)
	if err := stale.Close(); err != nil {
		t.Fatal(err)
	}
	must(os.Lstat(path))(t)
	_, cancel, done := runServer(t, path)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOccupiedPaths(t *testing.T) {
	dir := socketDir(t)
	live, file := filepath.Join(dir, "live"), filepath.Join(dir, "file")
	conn, cancel, done := runServer(t, live)
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, word := range map[string]string{
		live: "another server", file: "not a socket", dir: "not a socket", filepath.Join(dir, "none", "csi.sock"): "no such file",
	} {
		if _, _, err := listen(t.Context(), path); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: got %v, want %q", path, err, word)
		}
	}
	if got := must(os.ReadFile(file))(t); string(got) != "precious" {
		t.Errorf("the file is now %q", got)
	}
	_, err := csi.NewIdentityClient(conn).Probe(t.Context(), &csi.ProbeRequest{})
	wantCode(t, err, codes.OK)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A server that ends after its successor has started does not take the successor's socket away.
func TestCleanupLeavesOthersAlone(t *testing.T) {
	path := filepath.Join(socketDir(t), "csi.sock")
	_, cancel, done := runServer(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	successor := must(net.Listen("unix", path))(t)
	defer successor.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	must(os.Lstat(path))(t)
}

// A call that runs when the server is told to end may end first; new ones are not accepted.
func TestDrain(t *testing.T) {
	path := filepath.Join(socketDir(t), "csi.sock")
	entered, proceed := make(chan struct{}), make(chan struct{})
	node := &echoNode{stage: func(context.Context) error { entered <- struct{}{}; <-proceed; return nil }}
	conn, cancel, done := runServer(t, path, func(o *Options) { o.Node = node })
	result := make(chan error)
	go func() {
		_, err := csi.NewNodeClient(conn).NodeStageVolume(context.Background(), &csi.NodeStageVolumeRequest{})
		result <- err
	}()
	<-entered
	cancel()
	for { // until the listener is closed
		c, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		_ = c.Close()
		time.Sleep(time.Millisecond)
	}
	select {
	case err := <-done:
		t.Fatalf("Run returned %v before the call ended", err)
	default:
	}
	proceed <- struct{}{}
	wantCode(t, <-result, codes.OK)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Calls that do not end are cut off in the end, whether they heed their context or not.
func TestDrainTimeout(t *testing.T) {
	for name, stage := range map[string]func(ctx context.Context, stop <-chan struct{}){
		"heeds":   func(ctx context.Context, _ <-chan struct{}) { <-ctx.Done() },
		"ignores": func(_ context.Context, stop <-chan struct{}) { <-stop },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(socketDir(t), "csi.sock")
			entered, stop := make(chan struct{}), make(chan struct{})
			node := &echoNode{stage: func(ctx context.Context) error { close(entered); stage(ctx, stop); return ctx.Err() }}
			conn, cancel, done := runServer(t, path, func(o *Options) { o.Node, o.DrainTimeout = node, 10*time.Millisecond })
			result := make(chan error)
			go func() {
				_, err := csi.NewNodeClient(conn).NodeStageVolume(context.Background(), &csi.NodeStageVolumeRequest{})
				result <- err
			}()
			<-entered
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
			wantCode(t, <-result, codes.Unavailable)
			close(stop)
			if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket is still there: %v", err)
			}
		})
	}
}

// Whoever hears that the server is ready can call it at once.
func TestReady(t *testing.T) {
	path := filepath.Join(socketDir(t), "csi.sock")
	ready := make(chan error, 1)
	runServer(t, path, func(o *Options) {
		o.Ready = func() {
			conn, err := new(net.Dialer).DialContext(t.Context(), "unix", path)
			if err == nil {
				err = conn.Close()
			}
			ready <- err
		}
	})
	if err := <-ready; err != nil {
		t.Error(err)
	}
}

func TestRunWhenAlreadyEnded(t *testing.T) {
	server := must(New(Options{Name: "csi.lvmsnap.io", Version: "v1", NodeID: testNode, Endpoint: filepath.Join(socketDir(t), "s"), Engine: newMemEngine()}))(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := server.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
