// Package driverproc runs the real driver, bin/lvmsnap, as a process for tests in the lab, and talks to it over
// its socket as sidecars and kubelet do.
package driverproc

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// NodeID is the node that drivers are started for unless told otherwise.
const NodeID = "node-1"

const (
	envBinary    = "LVMSNAP_BIN"
	startTimeout = 30 * time.Second
	stopTimeout  = 60 * time.Second
)

// Binary is the path of the driver's binary: $LVMSNAP_BIN, or the repository's bin/lvmsnap. Nothing is built
// here: in the lab that would take minutes.
func Binary(t testing.TB) string {
	t.Helper()
	path := os.Getenv(envBinary)
	if path == "" {
		path = filepath.Join(repository(t), "bin", "lvmsnap")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build", err)
	}
	return path
}

// repository is the directory of go.mod above the test's.
func repository(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			t.Fatalf("no go.mod above the working directory: set %s", envBinary)
		}
		dir = filepath.Dir(dir)
	}
}

// Options of a driver process.
type Options struct {
	Groups []string // --volume-group; at least one
	NodeID string   // default NodeID
	Flags  []string // further flags
	Env    []string // beside the test's own environment
	Socket string   // default: in a directory of its own
}

// Driver is a driver process, which a test can stop, kill and start again.
type Driver struct {
	*Clients // on a connection that outlives restarts
	Socket   string

	t     testing.TB
	opts  Options
	dir   string
	log   string
	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd is gone
}

// Start starts the driver and waits until it is ready. It is stopped at the end of the test; start it after
// everything that must outlive it (the volume group). Its log is shown if the test fails.
func Start(t testing.TB, opts Options) *Driver {
	t.Helper()
	d := New(t, opts)
	d.Start()
	return d
}

// New prepares a driver that is not started yet.
func New(t testing.TB, opts Options) *Driver {
	t.Helper()
	// t.TempDir's names are too long for a socket.
	dir, err := os.MkdirTemp("", "driver")
	if err != nil {
		t.Fatal(err)
	}
	d := &Driver{t: t, opts: opts, dir: dir, log: filepath.Join(dir, "log"), Socket: opts.Socket}
	if d.Socket == "" {
		d.Socket = filepath.Join(dir, "csi.sock")
	}
	d.Clients = d.Connect()
	t.Cleanup(func() {
		if d.running() {
			d.Stop()
		}
		d.showLog()
		_ = os.RemoveAll(dir)
	})
	return d
}

// Connect makes clients with a connection of their own.
func (d *Driver) Connect() *Clients {
	d.t.Helper()
	return Connect(d.t, d.Socket)
}

// Args is the command line of the process.
func (d *Driver) Args() []string {
	node := d.opts.NodeID
	if node == "" {
		node = NodeID
	}
	return append([]string{
		"--endpoint", "unix://" + d.Socket, "--node-id", node,
		"--volume-group", strings.Join(d.opts.Groups, ","), "--work-dir", filepath.Join(d.dir, "work"), "-v=4",
	}, d.opts.Flags...)
}

// Start starts the process and waits until it is ready.
func (d *Driver) Start() {
	d.t.Helper()
	d.Spawn()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	ended := d.ended
	go func() {
		select {
		case <-ended:
			cancel()
		case <-ctx.Done():
		}
	}()
	if err := d.waitReady(ctx); err != nil {
		d.t.Fatalf("the driver is not ready: %v", err)
	}
}

// Spawn starts the process and does not wait for it.
func (d *Driver) Spawn() {
	d.t.Helper()
	if d.running() {
		d.t.Fatal("the driver is running already")
	}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(Binary(d.t), d.Args()...)
	cmd.Env = append(os.Environ(), d.opts.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its state says all
		close(ended)
	}()
	d.cmd, d.ended = cmd, ended
}

func (d *Driver) running() bool {
	if d.ended == nil {
		return false
	}
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// PID is the id of the process that was started last.
func (d *Driver) PID() int { return d.cmd.Process.Pid }

// Signal sends a signal.
func (d *Driver) Signal(sig syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		d.t.Fatalf("%v to the driver: %v", sig, err)
	}
}

// Wait waits for the end of the process, and returns its exit code; -1: a signal's.
func (d *Driver) Wait() int {
	d.t.Helper()
	select {
	case <-d.ended:
	case <-time.After(stopTimeout):
		d.t.Errorf("the driver has not ended after %s", stopTimeout)
		_ = d.cmd.Process.Signal(syscall.SIGQUIT) // for the stacks in the log
		<-d.ended
	}
	return d.cmd.ProcessState.ExitCode()
}

// Stop ends the process as kubelet does. It must exit with 0 and remove its socket.
func (d *Driver) Stop() {
	d.t.Helper()
	d.Signal(syscall.SIGTERM)
	d.WaitStopped()
}

// WaitStopped waits for the end of a process that has got its SIGTERM.
func (d *Driver) WaitStopped() {
	d.t.Helper()
	if code := d.Wait(); code != 0 {
		d.t.Errorf("the driver's exit code is %d after SIGTERM", code)
	}
	if _, err := os.Lstat(d.Socket); !errors.Is(err, fs.ErrNotExist) {
		d.t.Errorf("the driver has left its socket behind: %v", err)
	}
}

// Kill ends the process without a warning. LVM is in process groups of its own, and is not killed with it.
func (d *Driver) Kill() {
	d.t.Helper()
	d.Signal(syscall.SIGKILL)
	<-d.ended
}

// Restart starts the process again, having stopped it if it runs.
func (d *Driver) Restart() {
	d.t.Helper()
	if d.running() {
		d.Stop()
	}
	d.Start()
}

// Log is what the process and its predecessors have logged.
func (d *Driver) Log() string {
	text, _ := os.ReadFile(d.log)
	return string(text)
}

// maxLogBytes of the log's end are shown.
const maxLogBytes = 100 << 10

func (d *Driver) showLog() {
	if !d.t.Failed() {
		return
	}
	text := d.Log()
	if extra := len(text) - maxLogBytes; extra > 0 {
		text = "...\n" + text[extra:]
	}
	d.t.Logf("the driver's log:\n%s", text)
}
