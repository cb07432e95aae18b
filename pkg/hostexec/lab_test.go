//go:build lab

package hostexec

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// TestLabNamespace runs programs from a mount namespace of the test's own, as a container's is, in that of
// process 1.
func TestLabNamespace(t *testing.T) {
	labtest.Require(t)
	// The thread is thrown away with its namespace: it is never unlocked.
	type answer struct{ inside, outside, started string }
	dir := t.TempDir()
	done := make(chan answer)
	go func() {
		runtime.LockOSThread()
		var a answer
		defer func() { done <- a }()
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Error(err)
			return
		}
		if err := unix.Mount("hidden", dir, "tmpfs", 0, ""); err != nil {
			t.Error(err)
			return
		}
		if err := os.WriteFile(filepath.Join(dir, "hidden"), nil, 0o600); err != nil {
			t.Error(err)
			return
		}
		list := Command{Name: "ls", Args: []string{dir}, Stdin: []byte("x")}
		for host, out := range map[Host]*string{{}: &a.inside, {Namespace: true}: &a.outside} {
			res, err := host.Run(t.Context(), list)
			if err != nil || res.ExitCode != 0 {
				t.Errorf("%+v: exit code %d, %v: %s", host, res.ExitCode, err, res.Stderr)
			}
			*out = strings.TrimSpace(string(res.Stdout))
		}
		p, err := Host{Namespace: true}.Start(Command{Name: "sh", Args: []string{"-c", `ls "$1" >&3; echo $LC_ALL`, "sh", dir}})
		if err != nil {
			t.Error(err)
			return
		}
		_ = p.Stdin.Close()
		report, _ := io.ReadAll(p.Report)
		out, _ := io.ReadAll(p.Output)
		if code, err := p.Wait(); code != 0 || err != nil {
			t.Errorf("exit code %d, %v: %s", code, err, out)
		}
		a.started = string(bytes.TrimSpace(append(report, out...)))
		_, _ = p.Output.Close(), p.Report.Close()
	}()
	a := <-done
	if a.inside != "hidden" {
		t.Errorf("in the own namespace: %q", a.inside)
	}
	if a.outside != "" || a.started != "C" {
		t.Errorf("in that of process 1: %q, %q", a.outside, a.started)
	}
	if res, err := (Host{Namespace: true}).Run(t.Context(), Command{Name: "sh", Args: []string{"-c", "exit 9"}}); err != nil || res.ExitCode != 9 {
		t.Errorf("exit code %d, %v, want 9", res.ExitCode, err)
	}
	if res, err := (Host{Namespace: true}).Run(t.Context(), Command{Name: "no-such-program"}); err == nil && res.ExitCode == 0 {
		t.Error("a program that does not exist has succeeded")
	}
}
