//go:build lab

package integration_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// Whoever can call the driver can destroy data: its socket is root's, from the first moment on.
func TestSocket(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	c := newCO(t)
	isPrivate := func() {
		t.Helper()
		info, err := os.Lstat(c.driver.Socket)
		c.ok(err)
		if info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("the socket has mode %s", info.Mode())
		}
	}
	isPrivate()

	// A live driver's socket is not taken over,
	code, output := driverproc.Run(t, nil, c.driver.Args()...)
	if code == 0 || !strings.Contains(output, "another server answers on "+c.driver.Socket) {
		t.Errorf("a second driver on the same socket: exit code %d: %s", code, output)
	}
	c.volume("v", block) // and it still answers
	// a dead one's is,
	c.driver.Kill()
	isPrivate()
	c.driver.Start()
	isPrivate()
	// and a file that is no socket is nobody's business.
	c.driver.Stop()
	c.ok(os.WriteFile(c.driver.Socket, []byte("precious"), 0o600))
	code, output = driverproc.Run(t, nil, c.driver.Args()...)
	if code == 0 || !strings.Contains(output, "is not a socket") {
		t.Errorf("a file in the socket's place: exit code %d: %s", code, output)
	}
	c.ok(os.Remove(c.driver.Socket))
}

// SIGTERM while a call waits for LVM: the call ends well, new ones are refused, and then the driver ends.
func TestTerminationDrains(t *testing.T) {
	c := newCO(t)
	v := c.volume("v", block)
	release := c.holdGroup()
	type answer struct {
		s   *csi.Snapshot
		err error
	}
	done := make(chan answer, 1)
	go func() {
		s, err := c.trySnapshot("s", v.GetVolumeId())
		done <- answer{s, err}
	}()
	time.Sleep(time.Second)
	c.driver.Signal(syscall.SIGTERM)
	time.Sleep(time.Second)
	select {
	case a := <-done:
		t.Fatalf("the call has ended before LVM: %v, %v", a.s, a.err)
	default:
	}
	release()
	if a := <-done; a.err != nil || !a.s.GetReadyToUse() {
		t.Errorf("the call that was running: %v, %v", a.s, a.err)
	}
	c.driver.WaitStopped()
	c.driver.Start()
	c.snapshot("s", v)
	if lvs := c.lvs(); len(lvs) != 2 {
		t.Errorf("LVs: %v", lvs)
	}
}

// What the driver cannot work without is named at its start.
func TestRefusesToStart(t *testing.T) {
	vg := labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool"})
	old := t.TempDir()
	script := "#!/bin/sh\necho '  LVM version:     2.02.98(2) (2012-10-15)'\n"
	if err := os.WriteFile(filepath.Join(old, "lvm"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	args := func(group string) []string {
		dir := t.TempDir()
		return []string{"--endpoint", "unix://" + filepath.Join(dir, "s"), "--node-id", "node-1", "--volume-group", group, "--work-dir", dir}
	}
	for what, test := range map[string]struct {
		args  []string
		env   []string
		words []string
	}{
		"no such group":      {args: args("nosuchgroup"), words: []string{"nosuchgroup", "vgcreate"}},
		"none of two groups": {args: args("nosuchgroup,nosucheither"), words: []string{"vgcreate nosuchgroup", "vgcreate nosucheither"}},
		"no group":           {args: args("")[:4], words: []string{"--volume-group"}},
		"not a group":        {args: args("-a"), words: []string{"--volume-group", "-a"}},
		"no LVM":             {args: args(vg.Name), env: []string{"PATH=" + t.TempDir()}, words: []string{"LVM", "apt-get install lvm2"}},
		"an old LVM":         {args: args(vg.Name), env: []string{"PATH=" + old}, words: []string{"2.02.98", "too old", "2.03.11"}},
		"no socket":          {args: append(args(vg.Name), "--endpoint", "tcp://:1"), words: []string{"unix://"}},
		"a node's name":      {args: append(args(vg.Name), "--node-id", "a/b"), words: []string{"a/b"}},
		"an unknown flag":    {args: append(args(vg.Name), "--nosuchflag"), words: []string{"nosuchflag"}},
	} {
		t.Run(what, func(t *testing.T) {
			code, output := driverproc.Run(t, test.env, test.args...)
			if code <= 0 {
				t.Errorf("exit code %d", code)
			}
			for _, word := range test.words {
				if !strings.Contains(output, word) {
					t.Errorf("%q is not named:\n%s", word, output)
				}
			}
		})
	}
}

// Metrics are served when asked for, profiles only when those are asked for, too.
func TestMetricsAddress(t *testing.T) {
	vg := labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool"})
	for _, tt := range []struct {
		flags    []string
		profiles int
	}{
		{nil, http.StatusNotFound},
		{[]string{"--enable-pprof"}, http.StatusOK},
	} {
		d := driverproc.Start(t, driverproc.Options{Groups: []string{vg.Name}, Flags: append([]string{"--metrics-address=127.0.0.1:9090"}, tt.flags...)})
		get := func(path string) (int, string) {
			t.Helper()
			res, err := http.Get("http://127.0.0.1:9090" + path)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			return res.StatusCode, string(body)
		}
		if code, body := get("/metrics"); code != http.StatusOK || !strings.Contains(body, `lvmsnap_lvm_command_duration_seconds_count{result="ok",verb="vgs",volume_group="`+vg.Name) {
			t.Errorf("metrics with %q: %d\n%s", tt.flags, code, body)
		}
		for _, path := range []string{"/debug/pprof/heap?debug=1", "/debug/pprof/profile?seconds=1"} {
			if code, _ := get(path); code != tt.profiles {
				t.Errorf("%s with %q: %d, want %d", path, tt.flags, code, tt.profiles)
			}
		}
		d.Stop()
	}
}
