package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// wardenMain is process 1 of a namespace around linux.uml, whose command line is
// args[2:]: with this process the kernel ends all of them, and a User Mode Linux
// is many processes. It cannot be process 1 itself, for which the abort() at the
// end of a kernel panic does nothing.
func wardenMain(args []string) int {
	if os.Getpid() != 1 || len(args) < 3 {
		complain(errors.New("the warden is started by the lab only"))
		return exitUsage
	}
	pid, err := syscall.ForkExec(args[2], args[2:], &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{os.Stdin.Fd(), os.Stdout.Fd(), os.Stderr.Fd()},
	})
	if err != nil {
		complain(err)
		return exitBroken
	}
	done := make(chan struct{})
	defer close(done)
	go keepTimer(pid, filepath.Join(args[1], startedFile), done)
	if _, err := reap(pid); err != nil {
		complain(err)
	}
	return 0
}

// reap waits for the child called pid as process 1 must, taking in whatever
// becomes an orphan meanwhile.
func reap(pid int) (unix.WaitStatus, error) {
	for {
		var status unix.WaitStatus
		reaped, err := unix.Wait4(-1, &status, 0, nil)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
		if reaped == pid && (status.Exited() || status.Signaled()) {
			return status, nil
		}
	}
}
