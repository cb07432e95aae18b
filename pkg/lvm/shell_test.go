package lvm_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

const (
	goodDocument = "{\n    \"log\": [\n        {\"log_type\":\"print\", \"log_message\":\"done, by the %s\"},\n    ]\n}\n"
	failDocument = "{\n    \"log\": [\n" +
		"        {\"log_type\":\"error\", \"log_message\":\"Failed to find logical volume \\\"vg0/x\\\"\"},\n" +
		"        {\"log_type\":\"status\", \"log_context\":\"shell\", \"log_ret_code\":\"5\"}\n    ]\n}\n"
)

// by says who answered: the shell or exec.
func by(t *testing.T, out lvm.Output, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if len(out.Log) == 0 {
		t.Fatalf("empty answer %+v", out)
	}
	return strings.TrimPrefix(out.Log[len(out.Log)-1].Message, "done, by the ")
}

func wantBy(t *testing.T, shell *lvm.Shell, want string) {
	t.Helper()
	out, err := shell.Run(t.Context(), "lvs", "vg0")
	if got := by(t, out, err); got != want {
		t.Errorf("the command was run by the %s, want the %s", got, want)
	}
}

func TestShellAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScriptedRunner(t)
		shell := lvm.NewShell(r, []string{"LVM_SYSTEM_DIR=/x"})
		wantBy(t, shell, "shell")
		r.script(func(c *conversation, _ string) { c.report(failDocument) })
		out, err := shell.Run(t.Context(), "lvremove", "--yes", "vg0/x")
		if err != nil || out.ExitCode != 5 {
			t.Errorf("exit code %d, %v, want 5", out.ExitCode, err)
		}
		r.script(func(c *conversation, _ string) { // with log/prefix="  ", and in pieces
			for _, line := range strings.Split(strings.TrimSpace(fmt.Sprintf(goodDocument, "shell")), "\n") {
				c.report("  " + line + "\n")
			}
		})
		if out, err := shell.Run(t.Context(), "lvs", "vg0"); by(t, out, err) != "shell" {
			t.Error("an indented report was not understood")
		}
		if got := r.commands(); !strings.Contains(got[0], "LVM_SYSTEM_DIR=/x") || len(got) != 1 {
			t.Errorf("started %q", got)
		}
		if err := shell.Close(t.Context()); err != nil {
			t.Error(err)
		}
		wantBy(t, shell, "exec") // closed
	})
}

func TestShellDies(t *testing.T) {
	for name, c := range map[string]struct {
		script func(*conversation, string)
		want   error
	}{
		"without a word":     {func(c *conversation, _ string) { c.die() }, lvm.ErrOutcomeUnknown},
		"in the middle":      {func(c *conversation, _ string) { c.report(goodDocument[:30]); c.die() }, lvm.ErrOutcomeUnknown},
		"writes garbage":     {func(c *conversation, _ string) { c.report("lvm: symbol lookup error\n") }, lvm.ErrOutcomeUnknown},
		"writes broken JSON": {func(c *conversation, _ string) { c.report("{\n    \"log\": [ nonsense\n}\n") }, lvm.ErrOutcomeUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newScriptedRunner(t)
				shell := lvm.NewShell(r, nil)
				wantBy(t, shell, "shell")
				r.script(c.script)
				if _, err := shell.Run(t.Context(), "lvremove", "--yes", "vg0/x"); !errors.Is(err, c.want) {
					t.Errorf("error %v, want %v", err, c.want)
				}
				wantBy(t, shell, "exec") // for a while
				time.Sleep(9 * time.Second)
				wantBy(t, shell, "exec")
				time.Sleep(2 * time.Second)
				wantBy(t, shell, "shell")
				if err := shell.Close(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestShellDiesBetweenCommands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScriptedRunner(t)
		shell := lvm.NewShell(r, nil)
		wantBy(t, shell, "shell")
		r.kill()
		synctest.Wait() // its end is noticed, and it is started anew
		wantBy(t, shell, "shell")
		// Its end is not noticed yet: the command cannot be written, so it was not run and goes by exec.
		r.closeStdin()
		wantBy(t, shell, "exec")
		time.Sleep(11 * time.Second)
		wantBy(t, shell, "shell")
		if got := len(r.commands()); got != 4 { // three shells and an exec
			t.Errorf("%d processes: %q", got, r.commands())
		}
		r.kill()
		synctest.Wait()
		if err := shell.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestShellCannotStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScriptedRunner(t)
		r.failStarts(1)
		shell := lvm.NewShell(r, nil)
		wantBy(t, shell, "exec")
		wantBy(t, shell, "exec")
		time.Sleep(11 * time.Second)
		wantBy(t, shell, "shell")
		if err := shell.Close(t.Context()); err != nil {
			t.Error(err)
		}
		r.failStarts(100)
		if _, err := shell.Run(t.Context(), "lvs", "vg0"); err == nil || errors.Is(err, lvm.ErrOutcomeUnknown) {
			t.Errorf("no LVM at all: %v", err)
		}
	})
}

// TestShellSlow: a caller gives up, the command goes on, and the next one waits for it.
func TestShellSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScriptedRunner(t)
		shell := lvm.NewShell(r, nil)
		var finished atomic.Bool
		r.script(func(c *conversation, _ string) {
			time.Sleep(time.Minute)
			finished.Store(true)
			c.report(fmt.Sprintf(goodDocument, "shell, late"))
		})
		gaveUp := errors.New("the caller gave up")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, gaveUp)
		defer cancel()
		if _, err := shell.Run(ctx, "lvcreate", "vg0/x"); !errors.Is(err, hostexec.ErrStillRunning) || !errors.Is(err, gaveUp) {
			t.Errorf("error %v, want still running", err)
		}
		ctx, cancel = context.WithTimeoutCause(t.Context(), time.Second, gaveUp)
		defer cancel()
		// This one was never begun, and says so.
		if _, err := shell.Run(ctx, "lvcreate", "vg0/y"); !errors.Is(err, gaveUp) || errors.Is(err, hostexec.ErrStillRunning) {
			t.Errorf("error %v", err)
		}
		if err := shell.Close(ctx); err == nil {
			t.Error("closed in the middle of a command")
		}
		if finished.Load() {
			t.Error("not slow")
		}
		synctest.Wait()
		time.Sleep(2 * time.Minute)
		if !finished.Load() || len(r.commands()) != 1 {
			t.Errorf("finished %t, processes %q", finished.Load(), r.commands())
		}
		if got := strings.Join(r.lines(), "; "); got != "lvcreate vg0/x" {
			t.Errorf("the shell was told %q", got)
		}
		if err := shell.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestShellNextWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScriptedRunner(t)
		shell := lvm.NewShell(r, nil)
		r.script(func(c *conversation, _ string) {
			time.Sleep(time.Minute)
			c.report(fmt.Sprintf(goodDocument, "shell, late"))
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _ = shell.Run(ctx, "lvcreate", "vg0/x")
		start := time.Now()
		wantBy(t, shell, "shell") // its own answer, not the late one
		if waited := time.Since(start); waited != 59*time.Second {
			t.Errorf("waited %s, want 59s", waited)
		}
		if err := shell.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestShellLimits: what the shell could not take as one line goes by exec.
func TestShellLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newScriptedRunner(t)
		shell := lvm.NewShell(r, nil)
		many := append([]string{"lvchange"}, strings.Fields(strings.Repeat("--addtag t ", 30))...)
		out, err := shell.Run(t.Context(), append(many, "vg0/x")...)
		if got := by(t, out, err); got != "exec" {
			t.Errorf("62 words were run by the %s", got)
		}
		out, err = shell.Run(t.Context(), "lvchange", "--addtag", strings.Repeat("t", 4096), "vg0/x")
		if got := by(t, out, err); got != "exec" {
			t.Errorf("a long line was run by the %s", got)
		}
		wantBy(t, shell, "shell")
		if err := shell.Close(t.Context()); err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := shell.Run(ctx, "lvs", "vg0"); !errors.Is(err, context.Canceled) {
			t.Errorf("with a canceled context: %v", err)
		}
	})
}
