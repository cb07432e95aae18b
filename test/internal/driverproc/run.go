package driverproc

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
)

// Run runs the driver's binary to its end, for what it must refuse, and returns its exit code and what it
// wrote. The environment is the test's with env added.
func Run(t testing.TB, env []string, args ...string) (exitCode int, output string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(t), args...)
	cmd.Env = append(os.Environ(), env...)
	text, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("lvmsnap %v: %v\n%s", args, errors.Join(err, ctx.Err()), text)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}
