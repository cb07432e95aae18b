//go:build lab && nodes

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/test/lab/labnet"
)

// The environment of the test's parts that run on machines.
const (
	envShared = "E2E_SHARED" // a directory that all of them and the host see
	envNumber = "E2E_NUMBER" // of the machine: in its address
)

const (
	controlNumber = 1
	nodesLimit    = 15 * time.Minute
)

// workers are the nodes, each a machine with its own number and its own disk.
var workers = []struct {
	name   string
	number int
}{{"worker-1", 2}, {"worker-2", 3}}

// TestTwoNodes runs on the host: it gives the control plane and each node a machine of the lab's, and them a network that
// exists nowhere else. The tests are in TestControlPlane, which can have a node's power cut.
func TestTwoNodes(t *testing.T) {
	if os.Getenv("E2E_LAB") == "" {
		t.Fatal("E2E_LAB is not set: run make e2e-nodes")
	}
	shared, err := os.MkdirTemp("", "nodes") // t.TempDir's names are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(shared) })
	network, err := labnet.Listen(filepath.Join(shared, "net"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = network.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), nodesLimit)
	t.Cleanup(cancel)

	machines := map[string]*box{}
	for _, w := range workers {
		machines[w.name] = &box{t: t, shared: shared, name: w.name, number: w.number, test: "^TestWorker$", flags: []string{"--memory", "1G", "--disks", "0", "--disk", filepath.Join(shared, w.name+".disk")}}
	}
	control := &box{t: t, shared: shared, name: "control", number: controlNumber, test: "^TestControlPlane$/" + os.Getenv("E2E_RUN"), flags: []string{"--memory", "2G", "--disks", "0"}}
	control.start()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, m := range machines {
			m.attend(!exists(offFile(shared, m.name)))
		}
		select {
		case <-ctx.Done():
			t.Errorf("the control plane has not ended within %s", nodesLimit)
			control.attend(false)
		case <-control.ended:
			if code := control.cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("the tests on the control plane's machine: exit code %d", code)
			}
			for _, m := range machines {
				m.attend(false)
			}
			return
		case <-tick.C:
		}
	}
}

// offFile is there while the machine is to be without power.
func offFile(shared, name string) string { return filepath.Join(shared, name+".off") }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// box is a machine of the lab's, running a part of this test.
type box struct {
	t            *testing.T
	shared, name string
	number       int
	test         string
	flags        []string

	cmd   *exec.Cmd
	ended chan struct{}
}

// attend starts the machine if it is to have power, and cuts it if not: the lab kills it, and it hears nothing of it.
func (b *box) attend(power bool) {
	b.t.Helper()
	running := b.ended != nil
	if running {
		select {
		case <-b.ended:
			running = false
		default:
		}
	}
	switch {
	case power && !running && b.ended != nil && b.cmd.ProcessState.ExitCode() != killed:
		b.t.Fatalf("the machine %s has ended by itself: %s", b.name, b.cmd.ProcessState)
	case power && !running:
		b.start()
	case !power && running:
		_ = b.cmd.Process.Signal(syscall.SIGTERM)
		<-b.ended
	}
}

// killed is the lab's exit code when a signal ended it.
const killed = 128 + int(syscall.SIGTERM)

func (b *box) start() {
	b.t.Helper()
	self, err := os.Executable()
	if err != nil {
		b.t.Fatal(err)
	}
	args := append([]string{"--mode", "uml", "--timeout", nodesLimit.String(), "--network", filepath.Join(b.shared, "net")}, b.flags...)
	b.cmd = exec.Command(os.Getenv("E2E_LAB"), append(args, "--", self, "-test.run", b.test, "-test.v", "-test.timeout", nodesLimit.String())...)
	b.cmd.Env = append(os.Environ(), envShared+"="+b.shared, envNumber+"="+strconv.Itoa(b.number), "NODE_NAME="+b.name)
	out := os.Stdout
	if b.number != controlNumber {
		if out, err = os.OpenFile(filepath.Join(b.shared, b.name+".out"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(func() {
			_ = out.Close()
			if text, _ := os.ReadFile(out.Name()); b.t.Failed() {
				fmt.Printf("what the machine %s wrote:\n%s\n", b.name, end(string(text), 20<<10))
			}
		})
	}
	b.cmd.Stdout, b.cmd.Stderr = out, out
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	b.ended = make(chan struct{})
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait() // its state says all
		close(ended)
	}(b.cmd, b.ended)
	b.t.Cleanup(func() { b.attend(false) })
}
