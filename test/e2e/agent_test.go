//go:build lab && nodes

package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const (
	agentPort  = 8000
	csiPort    = 8001
	csiSocket  = "/run/csi.sock"
	kubeletDir = "/run/kubelet" // of the machine's memory: /var/lib is the host's
	groupName  = "data"
	poolName   = "pool"
	agentCalls = 2 * time.Minute
)

// networkAddress of a machine, in a network that is the machines' own.
func networkAddress(number int) string { return fmt.Sprintf("10.99.0.%d", number) }

// joinNetwork gives the machine its address.
func joinNetwork(t *testing.T) {
	t.Helper()
	number, err := strconv.Atoi(os.Getenv(envNumber))
	if err != nil {
		t.Fatalf("%s: %v: this is a part of TestTwoNodes, run make e2e-nodes", envNumber, err)
	}
	labtest.Run(t, "ip", "link", "set", "vec0", "address", fmt.Sprintf("02:00:00:00:00:%02x", number))
	labtest.Run(t, "ip", "address", "add", networkAddress(number)+"/24", "dev", "vec0")
	labtest.Run(t, "ip", "link", "set", "vec0", "up")
}

// agent does on a node's machine what it is told over the network. It is what a person would do at a shell there.
type agent struct {
	mu       sync.Mutex
	programs *cluster
}

// order is what an agent is told.
type order struct {
	Argv   []string // a command; or else a program:
	Env    []string
	Binary string
	Name   string
	Args   []string
}

// answer is what became of it.
type answer struct{ Out, Err string }

// TestWorker is a node's machine: a volume group on its disk, which outlives it, and an agent. It goes on until its power is cut.
func TestWorker(t *testing.T) {
	joinNetwork(t)
	disk := labtest.Disks(t)[0]
	if !strings.Contains(labtest.Run(t, "vgs", "--noheadings", "-o", "vg_name"), groupName) {
		labtest.Run(t, "vgcreate", "-y", groupName, disk)
		labtest.Run(t, "lvcreate", "-y", "--type", "thin-pool", "--name", poolName, "--size", "2g", groupName)
	}
	labtest.Run(t, "vgchange", "--activate", "y", groupName) // as every boot does
	forward(t, "tcp", ":"+strconv.Itoa(csiPort), "unix", csiSocket)
	a := &agent{programs: &cluster{t: t, dir: t.TempDir(), logs: map[string]string{}}}
	server := &http.Server{Addr: ":" + strconv.Itoa(agentPort), Handler: a, ReadHeaderTimeout: time.Minute}
	t.Fatal(server.ListenAndServe())
}

func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var o order
	if err := json.NewDecoder(r.Body).Decode(&o); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	_ = json.NewEncoder(w).Encode(a.do(o))
}

func (a *agent) do(o order) answer {
	if len(o.Argv) > 0 {
		cmd := exec.Command(o.Argv[0], o.Argv[1:]...)
		cmd.Env = append(os.Environ(), "LC_ALL=C", "LVM_SUPPRESS_FD_WARNINGS=1")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return answer{Err: fmt.Sprintf("%s: %v\n%s%s", strings.Join(o.Argv, " "), err, out, stderr.Bytes())}
		}
		return answer{Out: string(out)}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if o.Binary == "" {
		return answer{Out: a.programs.log(o.Name)}
	}
	a.programs.container(o.Env, o.Binary, o.Name, o.Args...)
	return answer{}
}

// there is another machine, with an agent.
type there struct {
	shared, name string
	number       int
}

// tell tells the agent; an error is one of the network.
func (m there) tell(o order) (answer, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return answer{}, err
	}
	client := http.Client{Timeout: agentCalls, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Post("http://"+net.JoinHostPort(networkAddress(m.number), strconv.Itoa(agentPort)), "application/json", bytes.NewReader(text))
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	var a answer
	return a, json.NewDecoder(res.Body).Decode(&a)
}

func (m there) must(t testing.TB, o order) string {
	t.Helper()
	a, err := m.tell(o)
	if err != nil {
		t.Fatalf("the agent of %s: %v", m.name, err)
	}
	if a.Err != "" {
		t.Fatalf("%s: %s", m.name, a.Err)
	}
	return a.Out
}

func (m there) run(t testing.TB, argv ...string) string {
	t.Helper()
	return m.must(t, order{Argv: argv})
}

func (m there) container(t testing.TB, env []string, binary, name string, args ...string) {
	t.Helper()
	m.must(t, order{Env: env, Binary: binary, Name: name, Args: args})
}

func (m there) file(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := "/run/" + filepath.Base(path)
	m.run(t, "sh", "-c", `umask 077; printf %s "$1" > "$2"`, "sh", string(text), copied)
	return copied
}

func (m there) tempDir(t testing.TB) string {
	t.Helper()
	return strings.TrimSpace(m.run(t, "sh", "-c", `mkdir -p "$1" && mktemp -d -p "$1"`, "sh", kubeletDir))
}

// power cuts the machine's power, or gives it back.
func (m there) power(c *cluster, on bool) {
	c.t.Helper()
	off := offFile(m.shared, m.name)
	var err error
	if on {
		err = os.Remove(off)
	} else {
		err = os.WriteFile(off, nil, 0o600)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	m.awaitPower(c, on)
}

func (m there) awaitPower(c *cluster, on bool) {
	c.t.Helper()
	at := net.JoinHostPort(networkAddress(m.number), strconv.Itoa(agentPort))
	c.Await(fmt.Sprintf("the machine %s to have power: %t", m.name, on), time.Minute, func(ctx context.Context) error {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", at)
		if err == nil {
			_ = conn.Close()
		}
		if on == (err == nil) {
			return nil
		}
		return fmt.Errorf("its agent answers: %t", err == nil)
	})
}

// forward carries connections from one address to another until the end of the test.
func forward(t *testing.T, network, address, toNetwork, toAddress string) {
	t.Helper()
	listener, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer from.Close()
				to, err := net.Dial(toNetwork, toAddress)
				if err != nil {
					return
				}
				defer to.Close()
				done := make(chan struct{}, 2)
				for _, pair := range [][2]net.Conn{{from, to}, {to, from}} {
					go func() {
						_, _ = io.Copy(pair[0], pair[1])
						done <- struct{}{}
					}()
				}
				<-done
			}()
		}
	}()
}
