// Command lab gives any command a machine with real device-mapper.
//
//	lab [flags] [--] COMMAND ARGS...
//
// COMMAND runs as root with empty disks of its own (LAB_DISKS), an LVM that sees
// nothing but those (LVM_SYSTEM_DIR) and a TMPDIR in memory. Its standard output,
// standard error and exit code become the lab's; its standard input is empty. The
// disks are thrown away afterwards.
//
// There are two kinds of machine. "native" is this machine, where the caller is
// root and the kernel has device-mapper: the disks are loop devices, and COMMAND
// gets mount and process namespaces of its own. "uml" is User Mode Linux, an
// ordinary process which needs no rights; its root is the host's file system, so
// that a program built a second ago runs in it, and what it writes to its working
// directory stays.
//
// The program plays several parts, told apart by argv[0] as busybox does:
//
//   - lab: what the user started. It makes the directories, forwards signals, and
//     cleans up should the runner be killed.
//   - lab-runner: owns the machine. It sees the end of lab as the end of a pipe,
//     so that killing lab with SIGKILL leaves nothing behind either.
//   - lab-warden: process 1 of the namespace which keeps User Mode Linux together.
//   - lab-init: process 1 of the machine, in both modes.
//   - modprobe: inside User Mode Linux, modprobe with the right module directory.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/pflag"
)

// Exit codes of the lab itself, beside COMMAND's own and 128+n for signals. They
// follow timeout(1) and sysexits.h.
const (
	exitUsage       = 2
	exitUnavailable = 69
	exitHung        = 75
	exitTimeout     = 124
	exitBroken      = 125
	exitNotExec     = 126
	exitNotFound    = 127
	exitSignal      = 128
)

// The parts that the program plays, as the base name of argv[0].
const (
	roleRunner   = "lab-runner"
	roleWarden   = "lab-warden"
	roleInit     = "lab-init"
	roleModprobe = "modprobe"
)

func main() {
	// The kernel binds the parent-death signal to the thread which forked, and this
	// goroutine starts every child: it must own a thread that lives as long as we do.
	runtime.LockOSThread()
	os.Exit(dispatch(os.Args))
}

func dispatch(args []string) int {
	switch filepath.Base(args[0]) {
	case roleRunner:
		return runnerMain(args)
	case roleWarden:
		return wardenMain(args)
	case roleInit:
		return initMain(args[0])
	case roleModprobe:
		return modprobeMain(args)
	}
	return labMain(args[1:])
}

// labMain is the lab as the user sees it.
func labMain(args []string) int {
	opts, err := parseOptions(args, os.Getenv)
	if errors.Is(err, pflag.ErrHelp) {
		return 0
	}
	if err != nil {
		complain(err)
		return exitUsage
	}
	if opts.listPackages {
		for _, name := range packageNames(opts.mode) {
			fmt.Println(name)
		}
		return 0
	}
	mode, err := chooseMode(opts.mode, os.Geteuid(), deviceMapperVersion)
	if err != nil {
		complain(err)
		return exitUnavailable
	}
	if err := ensurePackages(mode, opts.install); err != nil {
		complain(err)
		return exitUnavailable
	}
	if opts.check {
		fmt.Println(mode)
		return 0
	}
	return runFront(mode, opts)
}

// complain reports a failure of the lab itself, marked as such because the
// command's own messages go to the same place.
func complain(err error) {
	fmt.Fprintf(os.Stderr, "lab: %v\n", err)
}
