package hostexec

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

// envApartTest has the test's binary do something apart, as a program does.
const envApartTest = "TEST_APART"

func apartMain(what string) {
	worker := os.Getenv(envApart) != ""
	code := Apart(func() int {
		_, _ = os.Stdout.WriteString("said")
		switch what {
		case "signal":
			came := make(chan os.Signal, 1)
			signal.Notify(came, syscall.SIGTERM)
			if err := syscall.Kill(os.Getppid(), syscall.SIGTERM); err != nil {
				return 1
			}
			<-came
		case "killed":
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return 7
	})
	if worker && what == "hangs" {
		select {} // as one whose thread does not come back from the kernel; until the other process is gone
	}
	os.Exit(code)
}

// The exit code is that of the work, and who waits for it or for its output does not wait for a process that does not end.
func TestApart(t *testing.T) {
	for what, want := range map[string]int{"": 7, "hangs": 7, "signal": 7, "killed": 128 + 9} {
		t.Run(what, func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), envApartTest+"=x"+what)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, os.Stderr
			err := cmd.Run()
			if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != want || !strings.HasPrefix(out.String(), "said") {
				t.Errorf("%v, %q", err, out.String())
			}
		})
	}
}
