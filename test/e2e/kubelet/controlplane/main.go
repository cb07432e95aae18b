// controlplane runs a command of the lab beside a control plane of real programs, on this machine: inside User Mode Linux they
// would need thirty times as long. `unshare --net` gives both a network that exists nowhere else and ends with them; this
// program makes the interfaces in it, and connects the lab's machine to it.
//
//	unshare --net controlplane LAB FLAGS... -- COMMAND ARGS...
//
// COMMAND finds in $E2E_CONTROL the directory with ca.crt, and the tokens that tokens.csv has.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
)

// The network: the machine is 10.77.0.2, its pods are 10.88.0.0/24, and the API server listens where the Service kubernetes is, so
// that pods reach it without a kube-proxy.
const (
	hostAddress    = "10.77.0.1/24"
	machineAddress = "10.77.0.2"
	podNetwork     = "10.88.0.0/24"
	serviceAddress = "10.96.0.1"
	services       = "10.96.0.0/24"
)

func main() {
	// Programs end when the thread that started them does.
	runtime.LockOSThread()
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "controlplane:", err)
		code = 1
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	if len(args) < 2 || os.Getenv("E2E_BIN") == "" || os.Getenv("E2E_LOGS") == "" {
		return 0, errors.New("usage: E2E_BIN=DIR E2E_LOGS=DIR unshare --net controlplane LAB [FLAGS] -- COMMAND [ARGS]")
	}
	dir, err := os.MkdirTemp("", "e2e")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	socket := filepath.Join(dir, "switch")
	if err := network(socket); err != nil {
		return 0, err
	}
	c := &control{dir: dir}
	defer c.stop()
	if err := c.start(); err != nil {
		return 0, err
	}
	lab := exec.Command(args[0], append([]string{"--network", socket}, args[1:]...)...)
	lab.Stdin, lab.Stdout, lab.Stderr = os.Stdin, os.Stdout, os.Stderr
	lab.Env = append(os.Environ(), "E2E_CONTROL="+dir)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	if err := lab.Start(); err != nil {
		return 0, err
	}
	go func() {
		for s := range signals {
			_ = lab.Process.Signal(s) // it ends its machine in good order
		}
	}()
	err = lab.Wait()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}
