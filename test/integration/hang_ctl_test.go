//go:build lab

package integration_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/ctl"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// asked is what lvmsnapctl said.
type asked struct {
	out, complaints bytes.Buffer
	code            int
}

// lvmsnapctl runs the real one, once for each command line, all at once. They have to end in spite of what hangs, for whoever waits for
// their processes and for their output.
func (c *co) lvmsnapctl(groups []string, lines ...string) map[string]*asked {
	c.t.Helper()
	binary := filepath.Join(filepath.Dir(driverproc.Binary(c.t)), "lvmsnapctl")
	environment := append(os.Environ(), "LVM_SYSTEM_DIR="+withoutFilter(c.t))
	out, ended := map[string]*asked{}, make(chan struct{})
	var all sync.WaitGroup
	for _, line := range lines {
		a := &asked{}
		out[line] = a
		all.Go(func() {
			cmd := exec.Command(binary, append(strings.Fields(line), "--node-id", driverproc.NodeID, "--volume-group", strings.Join(groups, ","))...)
			cmd.Env, cmd.Stdout, cmd.Stderr = environment, &a.out, &a.complaints
			_ = cmd.Run() // the exit code says it
			a.code = cmd.ProcessState.ExitCode()
		})
	}
	go func() {
		all.Wait()
		close(ended)
	}()
	const bound = 50 * time.Second // what hangs, hangs for a minute or for ever
	began := time.Now()
	select {
	case <-ended:
		c.t.Logf("lvmsnapctl has ended after %s", time.Since(began).Round(time.Millisecond))
	case <-time.After(bound):
		c.t.Fatalf("lvmsnapctl has not ended after %s", bound)
	}
	return out
}

// withoutFilter is a directory with LVM's settings of a host that has no filter, as most have none; the lab's rejects volumes.
func withoutFilter(t *testing.T) string {
	t.Helper()
	conf, err := os.ReadFile(filepath.Join(os.Getenv("LVM_SYSTEM_DIR"), "lvm.conf"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "lvm.conf"), regexp.MustCompile(`global_filter = .*`).ReplaceAll(conf, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// operatorSees has lvmsnapctl look at a pool that does not answer, and an LVM command that hangs on it, beside another group.
func (c *co) operatorSees(other *labtest.Group) {
	c.t.Helper()
	all := c.lvmsnapctl([]string{c.vg.Name, other.Name}, "get pools -o json", "tree", "doctor -o json")
	for line, a := range all {
		if a.complaints.Len() > 0 {
			c.t.Errorf("lvmsnapctl %s: exit code %d: %s", line, a.code, a.complaints.String())
		}
	}
	got := all["get pools -o json"]
	var pools struct{ Items []ctl.Pool }
	c.ok(json.Unmarshal(got.out.Bytes(), &pools))
	states := map[string]string{}
	for _, p := range pools.Items {
		states[p.VolumeGroup] = p.State
	}
	if got.code != ctl.ExitOK || len(states) != 2 || states[c.vg.Name] != storage.PoolNotAnswering || states[other.Name] != "Healthy" {
		c.t.Errorf("get pools: exit code %d, %v", got.code, states)
	}
	got = all["tree"]
	for _, want := range []string{"volume " + c.prefix + "v ", "snapshot " + c.prefix + "first ", "volume " + c.prefix + "w ", storage.PoolNotAnswering} {
		if got.code != ctl.ExitOK || !strings.Contains(got.out.String(), want) {
			c.t.Errorf("tree: exit code %d, no %q in\n%s", got.code, want, got.out.String())
		}
	}
	got = all["doctor -o json"]
	var report struct{ Findings []storage.Finding }
	c.ok(json.Unmarshal(got.out.Bytes(), &report))
	messages := map[string]string{}
	for _, f := range report.Findings {
		messages[f.Reason+" "+f.Object] = f.Message
		if strings.HasPrefix(f.Object, other.Name) && f.Reason != "MetadataAreaSmall" {
			c.t.Errorf("of the other group: %+v", f)
		}
	}
	for finding, want := range map[string][]string{
		storage.PoolNotAnswering + " " + c.vg.Name + "/pool": {"has not answered for", c.vg.Name + "-pool_tdata"},
		"LVMCommandStuck " + c.vg.Name:                       {"of lvmsnap", "it waits for I/O in the kernel", "LVM's lock of volume group " + c.vg.Name + " for "},
	} {
		for _, text := range want {
			if got.code != ctl.ExitFindings || !strings.Contains(messages[finding], text) {
				c.t.Errorf("doctor: exit code %d, %s: no %q in %q", got.code, finding, text, messages[finding])
			}
		}
	}
}
