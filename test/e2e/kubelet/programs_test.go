//go:build lab

package kubelet_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/test/e2e/kube"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// programs are those that this test runs by itself; all else runs in pods.
type programs struct {
	t   *testing.T
	dir string
}

func newPrograms(t *testing.T) *programs {
	t.Helper()
	labtest.Require(t)
	p := &programs{t: t, dir: t.TempDir()}
	t.Cleanup(p.showLogs)
	return p
}

// start starts a program, which ends with the test. One that ends by itself fails the test.
func (p *programs) start(name, path string, args ...string) {
	p.t.Helper()
	log, err := os.Create(filepath.Join(kube.Environment(p.t, "E2E_LOGS"), name+".log")) // on the host, to be read afterwards
	if err != nil {
		p.t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("%v (make e2e-kubelet builds the programs)", err)
	}
	var mu sync.Mutex
	over, done := false, make(chan struct{})
	go func() {
		defer close(done)
		err := cmd.Wait()
		mu.Lock()
		defer mu.Unlock()
		if !over {
			p.t.Errorf("%s ended by itself: %v", name, err)
		}
	}()
	p.t.Cleanup(func() {
		mu.Lock()
		over = true
		mu.Unlock()
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		<-done
		kill.Stop()
		_ = log.Close()
	})
}

// built is a program of $E2E_BIN.
func (p *programs) built(name string) string {
	p.t.Helper()
	return filepath.Join(kube.Environment(p.t, "E2E_BIN"), name)
}

func (p *programs) write(name, text string) string {
	p.t.Helper()
	file := filepath.Join(p.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	return file
}

// showLogs says, when the test has failed, what the programs and the containers wrote last.
func (p *programs) showLogs() {
	if !p.t.Failed() {
		return
	}
	files := map[string]string{}
	programs, _ := filepath.Glob(filepath.Join(kube.Environment(p.t, "E2E_LOGS"), "*.log"))
	for _, file := range programs {
		files[filepath.Base(file)] = file
	}
	containers, _ := filepath.Glob("/var/log/pods/*/*/*.log")
	for _, file := range containers {
		files[file] = file
	}
	const enough = 5 << 10
	for name, file := range files {
		text, _ := os.ReadFile(file)
		if len(text) > enough {
			text = append([]byte("..."), text[len(text)-enough:]...)
		}
		p.t.Logf("the log of %s:\n%s", name, text)
	}
}
