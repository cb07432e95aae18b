package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// runCommand runs the job's command as process 1 must, reaping whatever becomes
// an orphan, and returns its exit code. The error says why it could not be run.
func runCommand(j *job, env []string, stdout, stderr *os.File) (int, error) {
	path, err := findCommand(j.Argv[0], j.WorkDir, env)
	if err != nil {
		return startFailure(j, err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return exitBroken, err
	}
	defer null.Close()
	pid, err := syscall.ForkExec(path, j.Argv, &syscall.ProcAttr{
		Dir:   j.WorkDir,
		Env:   env,
		Files: []uintptr{null.Fd(), stdout.Fd(), stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return startFailure(j, err)
	}
	for {
		var status unix.WaitStatus
		reaped, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return exitBroken, fmt.Errorf("waiting for the command: %w", err)
		case reaped == pid && status.Signaled():
			return exitSignal + int(status.Signal()), nil
		case reaped == pid && status.Exited():
			return status.ExitStatus(), nil
		}
	}
}

// startFailure answers as a shell would.
func startFailure(j *job, err error) (int, error) {
	code := exitNotExec
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		code = exitNotFound
	}
	return code, fmt.Errorf("%s in %s: %w", j.Argv[0], j.WorkDir, err)
}

// findCommand looks name up in env's PATH; a name with a slash is relative to
// dir.
func findCommand(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, nil
	}
	for _, entry := range env {
		if path, found := strings.CutPrefix(entry, "PATH="); found {
			if err := os.Setenv("PATH", path); err != nil {
				return "", err
			}
		}
	}
	return exec.LookPath(name)
}
