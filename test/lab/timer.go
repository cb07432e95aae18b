package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// timerPeriod is how long a machine may stand still for want of its timer.
const timerPeriod = 100 * time.Millisecond

// keepTimer sends the kernel process of a User Mode Linux the signal of its timer, again and again until done is closed.
//
// Its timer is set for one event at a time, and the handler of each sets the next. A signal that arrives in the wrong
// moment of the handler is dropped (arch/um/os-Linux/signal.c, unblock_signals: not while SIGALRM is active), and then
// there is never another one: nothing wakes up by time or is preempted, for ever, as long as one process is busy. A signal
// too many does no harm: the handler finds out what is due and sets the timer. Before there is a handler it would
// be deadly, hence the file by which the machine's init says that it runs.
func keepTimer(pid int, started string, done <-chan struct{}) {
	ticker := time.NewTicker(timerPeriod)
	defer ticker.Stop()
	running := false
	for {
		select {
		case <-done:
			return
		case <-ticker.C:
		}
		if !running {
			_, err := os.Stat(started)
			running = err == nil
		}
		if running {
			_ = unix.Kill(pid, unix.SIGALRM)
		}
	}
}
