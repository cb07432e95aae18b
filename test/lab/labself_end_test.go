//go:build labself

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// How a machine can end other than by the end of its command.

const readyThenSleep = "touch ready; sleep 1000"

func TestSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT} {
		t.Run(sig.String(), func(t *testing.T) {
			run := newLab(t, "--", "sh", "-c", readyThenSleep)
			run.startAndWait(t)
			_ = run.Process.Signal(sig)
			if code := run.exit(t); code != 128+int(sig) {
				t.Errorf("exit code %d, want %d", code, 128+int(sig))
			}
			if left := run.left(); len(left) > 0 {
				t.Errorf("left behind when the lab ended:\n%s", strings.Join(left, "\n"))
			}
		})
	}
}

// TestInterruptWhileOutputIsStuck has a reader that does not read.
func TestInterruptWhileOutputIsStuck(t *testing.T) {
	run := newLab(t, "--", "sh", "-c", "head -c 1000000 /dev/zero; "+readyThenSleep)
	run.Stdout = nil
	if _, err := run.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	run.startAndWait(t)
	_ = run.Process.Signal(syscall.SIGINT)
	if code := run.exit(t); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
}

// TestOddDirectories is about where the lab puts its own files.
func TestOddDirectories(t *testing.T) {
	hidden, err := os.MkdirTemp("/dev/shm", "ls-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(hidden)
	long := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{hidden, long} {
		run := newLab(t, "--disks", strconv.Itoa(maxDisks), "--", "sh", "-c", "test -b /dev/ubdp && exit 4")
		run.Env = append(run.Env, "TMPDIR="+dir)
		run.wantExit(t, 4)
		if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	}
}

// TestInterruptAtOnce sends the signal before there is a machine.
func TestInterruptAtOnce(t *testing.T) {
	for _, delay := range []time.Duration{5 * time.Millisecond, 20 * time.Millisecond, 100 * time.Millisecond} {
		run := newLab(t, "--", "sleep", "1000")
		if err := run.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(delay)
		_ = run.Process.Signal(syscall.SIGINT)
		if err := run.Wait(); err == nil {
			t.Error("no error")
		}
		run.checkNothingLeft(t)
	}
}

func TestKillFront(t *testing.T) {
	run := newLab(t, "--", "sh", "-c", readyThenSleep)
	run.startAndWait(t)
	_ = run.Process.Kill()
	_ = run.Wait()
}

func TestKillRunner(t *testing.T) {
	run := newLab(t, "--", "sh", "-c", readyThenSleep)
	run.startAndWait(t)
	_ = syscall.Kill(run.pidOf(t, roleRunner), syscall.SIGKILL)
	if code := run.exit(t); code != 137 {
		t.Errorf("exit code %d, want 137", code)
	}
}

// TestKillBoth leaves nobody to remove the files; but no process may be left.
func TestKillBoth(t *testing.T) {
	run := newLab(t, "--", "sh", "-c", readyThenSleep)
	run.startAndWait(t)
	runner := run.pidOf(t, roleRunner)
	_ = syscall.Kill(runner, syscall.SIGSTOP) // or it would notice the end of the front
	_ = run.Process.Kill()
	_ = syscall.Kill(runner, syscall.SIGKILL)
	_ = run.Wait()
	for range 100 {
		if len(run.processes()) == 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if left := run.processes(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// The next lab removes what this one could not.
	next := newLab(t, "--", "true")
	next.Env = append(os.Environ(), "TMPDIR="+run.tmp)
	next.wantExit(t, 0)
}

func TestTimeout(t *testing.T) {
	run := newLab(t, "--timeout", "4s", "--", "sh", "-c", readyThenSleep)
	run.wantExit(t, exitTimeout)
	if !strings.Contains(run.stderr.String(), "ended after 4s") {
		t.Errorf("got %q", run.stderr.String())
	}
}

func TestPanic(t *testing.T) {
	// The pause is for the machine's init, which passes on what the command says, on the same CPU.
	run := newLab(t, "--", "sh", "-c", "echo before; sleep 0.5; echo c >/proc/sysrq-trigger; sleep 1000")
	run.wantExit(t, exitBroken)
	if !strings.Contains(run.stderr.String(), "Kernel panic - not syncing") || run.stdout.String() != "before\n" {
		t.Errorf("stdout %q, stderr %q", run.stdout.String(), run.stderr.String())
	}
}

// TestPowerCut ends the kernel itself, as the kernel's own death would.
func TestPowerCut(t *testing.T) {
	run := newLab(t, "--", "sh", "-c", readyThenSleep)
	run.startAndWait(t)
	for pid, line := range run.processes() {
		if strings.Contains(line, "rootfstype=hostfs") && !strings.HasPrefix(line, roleWarden) {
			number, err := strconv.Atoi(pid)
			if err != nil {
				t.Fatal(err)
			}
			_ = syscall.Kill(number, syscall.SIGKILL)
		}
	}
	if code := run.exit(t); code != exitBroken {
		t.Errorf("exit code %d, want %d", code, exitBroken)
	}
}

// TestWithoutNamespace is the lab where it may not make a process namespace: as
// root in a container, and as an ordinary user.
func TestWithoutNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("every other test is this one already")
	}
	for name, prefix := range map[string][]string{
		"container": {"--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"},
		"user":      {"--reuid", "65534", "--regid", "65534", "--clear-groups"},
	} {
		for _, how := range []string{"runs", "interrupted", "killed"} {
			t.Run(name+" "+how, func(t *testing.T) {
				script := "lvm version >/dev/null && touch ready && exit 3"
				if how != "runs" {
					script = readyThenSleep
				}
				run := newLab(t, "--", "sh", "-c", script)
				wrapped := exec.Command("setpriv", append(append(prefix, "--"), run.Args...)...)
				wrapped.Env, wrapped.Dir, wrapped.Stdout, wrapped.Stderr = run.Env, "/tmp", run.Stdout, run.Stderr
				run.Cmd = wrapped
				run.Dir = run.tmp + "-work"
				if err := os.Mkdir(run.Dir, 0o777); err != nil {
					t.Fatal(err)
				}
				defer os.RemoveAll(run.Dir)
				for _, dir := range []string{run.tmp, run.Dir} {
					if err := os.Chmod(dir, 0o777); err != nil {
						t.Fatal(err)
					}
				}
				switch run.startAndWait(t); how {
				case "runs":
					if code := run.exit(t); code != 3 {
						t.Errorf("exit code %d, want 3\n%s", code, run.stderr.String())
					}
				case "interrupted":
					_ = run.Process.Signal(syscall.SIGINT)
					if code := run.exit(t); code != 130 {
						t.Errorf("exit code %d, want 130", code)
					}
				case "killed":
					_ = run.Process.Kill()
					_ = run.Wait()
				}
			})
		}
	}
}
