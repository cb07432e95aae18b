package hostexec

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func sh(script string, args ...string) Command {
	return Command{Name: "sh", Args: append([]string{"-c", script, "sh"}, args...)}
}

func TestRun(t *testing.T) {
	for name, c := range map[string]struct {
		cmd            Command
		stdout, stderr string
		code           int
	}{
		"success":      {sh("echo out; echo err >&2"), "out\n", "err\n", 0},
		"exit code":    {sh("echo out; exit 42"), "out\n", "", 42},
		"stdin":        {Command{Name: "cat", Stdin: []byte("a\x00b")}, "a\x00b", "", 0},
		"empty stdin":  {Command{Name: "cat", Stdin: []byte{}}, "", "", 0},
		"no stdin":     {Command{Name: "cat"}, "", "", 0},
		"unread stdin": {Command{Name: "true", Stdin: bytes.Repeat([]byte("x"), 1<<20)}, "", "", 0},
		"no shell":     {Command{Name: "echo", Args: []string{"$HOME", "*", ";", "`id`", "a b"}}, "$HOME * ; `id` a b\n", "", 0},
		"environment":  {Command{Name: "sh", Args: []string{"-c", "echo $LC_ALL $ADDED"}, Env: []string{"ADDED=x"}}, "C x\n", "", 0},
		"large output": {sh("head -c 300000 /dev/zero"), strings.Repeat("\x00", 300000), "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("LC_ALL", "de_DE.UTF-8")
			res, err := Host{}.Run(t.Context(), c.cmd)
			if err != nil || string(res.Stdout) != c.stdout || string(res.Stderr) != c.stderr || res.ExitCode != c.code {
				t.Errorf("stdout %.100q, stderr %.100q, exit code %d, %v", res.Stdout, res.Stderr, res.ExitCode, err)
			}
		})
	}
}

func TestRunFailures(t *testing.T) {
	if _, err := (Host{}).Run(t.Context(), Command{Name: "no-such-program"}); !errors.Is(err, exec.ErrNotFound) || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("missing program: %v", err)
	}
	if res, err := (Host{}).Run(t.Context(), sh("kill -TERM $$")); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("killed by a signal: %+v, %v", res, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	file := filepath.Join(t.TempDir(), "begun")
	if _, err := (Host{}).Run(ctx, Command{Name: "touch", Args: []string{file}}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled before the start: %v", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("it was started nevertheless")
	}
}

// waitFor is for what other processes do.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

func fileHas(path, want string) func() bool {
	return func() bool {
		data, err := os.ReadFile(path)
		return err == nil && strings.TrimSpace(string(data)) == want
	}
}

// TestStillRunning: the program goes on when its caller gives up, and what it does appears.
func TestStillRunning(t *testing.T) {
	dir := t.TempDir()
	begun, effect, release := filepath.Join(dir, "begun"), filepath.Join(dir, "effect"), filepath.Join(dir, "release")
	gaveUp := errors.New("the caller gave up")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := Host{}.Run(ctx, sh(`echo yes >"$1"; while ! [ -e "$3" ]; do sleep 0.02; done; echo out; echo done >"$2"`, begun, effect, release))
		done <- err
	}()
	waitFor(t, "it begins", fileHas(begun, "yes"))
	cancel(gaveUp)
	if err := <-done; !errors.Is(err, ErrStillRunning) || !errors.Is(err, gaveUp) {
		t.Errorf("error %v, want still running", err)
	}
	if _, err := os.Stat(effect); err == nil {
		t.Error("it was over already")
	}
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "it ends in its own time", fileHas(effect, "done"))
}

// TestInterruptible: the program and its children are killed, although a child holds the output open.
func TestInterruptible(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pids")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	cmd := sh(`sleep 60 & echo $$ $! >"$1"; wait`, file)
	cmd.Interruptible = true
	go func() {
		_, err := Host{}.Run(ctx, cmd)
		done <- err
	}()
	var pids []string
	waitFor(t, "it begins", func() bool {
		data, _ := os.ReadFile(file)
		pids = strings.Fields(string(data))
		return len(pids) == 2
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) || errors.Is(err, ErrStillRunning) {
		t.Errorf("error %v", err)
	}
	for _, s := range pids {
		pid, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		waitFor(t, "process "+s+" is gone", func() bool {
			state, err := os.ReadFile("/proc/" + s + "/stat")
			return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) || (err == nil && strings.Contains(string(state), ") Z ")) // nobody may reap it
		})
	}
}

func TestProcessGroup(t *testing.T) {
	res, err := Host{}.Run(t.Context(), sh(`cut -d" " -f5 /proc/$$/stat; echo $$`))
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(string(res.Stdout))
	if len(words) != 2 || words[0] != words[1] {
		t.Errorf("process group and pid are %q", words)
	}
	if own := strconv.Itoa(syscall.Getpgrp()); words[0] == own {
		t.Error("it is in the caller's process group")
	}
}

func TestStart(t *testing.T) {
	p, err := Host{}.Start(sh(`while read line; do echo "out $line"; echo "err $line" >&2; echo "report $line" >&3; done; exit 7`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(p.Stdin, "one\ntwo\n"); err != nil {
		t.Fatal(err)
	}
	if err := p.Stdin.Close(); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(p.Output)
	if err != nil || string(out) != "out one\nerr one\nout two\nerr two\n" {
		t.Errorf("output %q, %v", out, err)
	}
	report, err := io.ReadAll(p.Report)
	if err != nil || string(report) != "report one\nreport two\n" {
		t.Errorf("report %q, %v", report, err)
	}
	if code, err := p.Wait(); code != 7 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if err := errors.Join(p.Output.Close(), p.Report.Close()); err != nil {
		t.Error(err)
	}
	if _, err := (Host{}).Start(Command{Name: "no-such-program"}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("missing program: %v", err)
	}
	p, err = Host{}.Start(sh("kill -TERM $$"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Wait(); err == nil {
		t.Error("killed by a signal, and no error")
	}
	_ = errors.Join(p.Stdin.Close(), p.Output.Close(), p.Report.Close())
}

// TestStartLeaksNothing: a program gets its three pipes and nothing else that the driver has open.
func TestStartLeaksNothing(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "marker")
	f, err := os.Create(marker)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	before := openFiles(t)
	for range 20 {
		p, err := Host{}.Start(Command{Name: "ls", Args: []string{"-l", "/proc/self/fd"}})
		if err != nil {
			t.Fatal(err)
		}
		out, err := io.ReadAll(p.Output)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(out), marker) {
			t.Errorf("it has the files %s", out)
		}
		_ = p.Stdin.Close()
		if _, err := p.Wait(); err != nil {
			t.Error(err)
		}
		if err := errors.Join(p.Output.Close(), p.Report.Close()); err != nil {
			t.Error(err)
		}
	}
	if after := openFiles(t); after > before+2 { // the runtime may open its own
		t.Errorf("%d files are open, before it were %d", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestNamespaceCommand(t *testing.T) {
	cmd := Host{Namespace: true}.command(Command{Name: "lvm", Args: []string{"lvs", "--", "vg0"}})
	if got := strings.Join(cmd.Args, " "); got != "/usr/bin/nsenter --target 1 --mount -- lvm lvs -- vg0" {
		t.Errorf("command %q", got)
	}
}
