package hostexec

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
)

const (
	// envApart tells a process that it is the one that works.
	envApart = "LVMSNAP_APART"
	// codeFD is where it writes its exit code.
	codeFD = ReportFD
	// signalCode and more is the exit code for a signal's end, as of a shell.
	signalCode = 128
)

// Apart runs work in a process of its own, with this one's arguments, and returns its exit code. For the main function of programs
// that ask what may not answer (pkg/bounded): a thread that hangs in the kernel ends by no signal and no exit, and the process is not
// gone for whoever waits for it (a shell, kubectl exec) before its last thread is. This one waits until the work is done, and no longer.
func Apart(work func() int) int {
	if os.Getenv(envApart) != "" {
		_ = os.Unsetenv(envApart)
		syscall.CloseOnExec(codeFD)
		signal.Ignore(syscall.SIGTTOU) // it writes to the terminal from the background: termios(3), TOSTOP
		return report(work())
	}
	code, err := apart()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// report gives back what others wait for the end of, which a process that cannot end would keep.
func report(code int) int {
	_ = errors.Join(os.Stdin.Close(), os.Stdout.Close(), os.Stderr.Close())
	_, _ = os.NewFile(codeFD, "exit code").Write([]byte{byte(code)}) //nolint:gosec // an exit code
	return code
}

// apart starts the other process, hands signals on, and waits for its exit code.
func apart() (code int, err error) {
	runtime.LockOSThread() // Pdeathsig is for the death of the thread that starts the process
	defer runtime.UnlockOSThread()
	codeR, codeW, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer codeR.Close()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...) //nolint:gosec // the same program with the same arguments
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), envApart+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{codeW}
	// A group of its own: a terminal's Ctrl-C comes here, and is handed on once.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := errors.Join(cmd.Start(), codeW.Close()); err != nil {
		return 0, err
	}
	done := make(chan []byte, 1)
	go func() {
		said := make([]byte, 1)
		n, _ := codeR.Read(said)
		done <- said[:n]
	}()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s)
		case said := <-done:
			if len(said) > 0 {
				return int(said[0]), nil
			}
			return ended(cmd), nil
		}
	}
}

// ended is the exit code of a process that did not say one.
func ended(cmd *exec.Cmd) int {
	_ = cmd.Wait()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return signalCode + int(status.Signal())
	}
	return cmd.ProcessState.ExitCode()
}
