package main

import (
	"errors"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// drainLimit is how long the output of a machine that was told to end may take.
const drainLimit = 5 * time.Second

// machine is what a command runs on.
type machine interface {
	// start boots the machine with the job's command. It is called from the main
	// goroutine only, for the parent-death signal's sake.
	start() error
	// wait returns the command's exit code once the machine has ended and all output
	// has been passed on.
	wait() (int, error)
	// beat is the last beat of the machine's heart; a machine without one, or at its
	// end, is not watched.
	beat() (beat string, watched bool)
	// diagnose writes what there is to know about a machine that does not answer,
	// until it is told to stop.
	diagnose(w io.Writer, stop <-chan struct{})
	// kill ends the machine at once and with all that it runs.
	kill()
	// tearDown gives back what the machine holds of the host.
	tearDown() error
}

// runnerMain owns the machine: args are the role and the private directory.
func runnerMain(args []string) int {
	stop := make(chan int, 8)
	watchSignals(stop)
	watchLifeline(stop)
	if len(args) != 2 {
		complain(errors.New("the runner is started by the lab only"))
		return exitUsage
	}
	j, err := loadJob(args[1])
	if err != nil {
		complain(err)
		return exitBroken
	}
	// The front removes these too, but it may be gone.
	defer j.removeFiles()

	var m machine = &umlMachine{job: j}
	if j.Mode == modeNative {
		m = &nativeMachine{job: j}
	}
	code, err := runMachine(j, m, stop)
	if err != nil {
		complain(err)
	}
	if errors.Is(err, errHung) {
		reportHung(j)
	}
	return code
}

// result is how a machine ended.
type result struct {
	code int
	err  error
}

func runMachine(j *job, m machine, stop <-chan int) (code int, err error) {
	defer func() {
		if tearErr := m.tearDown(); tearErr != nil {
			err = errors.Join(err, tearErr)
			if code == 0 {
				code = exitBroken
			}
		}
	}()
	if err := m.start(); err != nil {
		return exitBroken, err
	}
	ended := make(chan result, 1)
	go func() {
		code, err := m.wait()
		ended <- result{code, err}
	}()
	r, running := attend(j, m, ended, stop)
	if !running {
		return r.code, r.err
	}
	m.kill()
	select {
	case <-ended:
	case <-time.After(drainLimit):
		// Whoever reads our output, a pager perhaps, does not.
	}
	return r.code, r.err
}

// watchSignals sends 128+n to stop when a signal asks the lab to end.
func watchSignals(stop chan<- int) {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, endingSignals...)
	// Caught rather than ignored: an ignored signal would stay so in the command. A
	// write to a closed pipe then is an error, and ends the lab in good order.
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE)
	go func() {
		for sig := range signals {
			if number, ok := sig.(syscall.Signal); ok {
				offer(stop, exitSignal+int(number))
			}
		}
	}()
}

// The files that the front passes to the runner, as its ExtraFiles has them.
const (
	lifelineFd = iota + 3
	_          // the lock
	verdictFd
)

// watchLifeline ends the machine when the lab that the user started is gone.
func watchLifeline(stop chan<- int) {
	// The lock only has to stay open here, but must not do so in the machine.
	for fd := lifelineFd; fd <= verdictFd; fd++ {
		unix.CloseOnExec(fd)
	}
	lifeline := os.NewFile(lifelineFd, "lifeline")
	go func() {
		_, _ = io.Copy(io.Discard, lifeline)
		offer(stop, exitSignal+int(unix.SIGKILL))
	}()
}

func offer(stop chan<- int, code int) {
	select {
	case stop <- code:
	default: // it is ending already
	}
}

// recordMachine notes the process group of the machine for killMachine.
func (j *job) recordMachine(pid int) error {
	return os.WriteFile(j.path(machineFile), []byte(strconv.Itoa(pid)), 0o600)
}
