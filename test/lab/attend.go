package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// errHung is the end of a machine whose heart stood still.
var errHung = errors.New("the machine hung")

// attend waits until the machine has ended, or must: then it still runs.
func attend(j *job, m machine, ended <-chan result, stop <-chan int) (r result, running bool) {
	var expired <-chan time.Time
	if j.Timeout > 0 {
		expired = time.After(j.Timeout)
	}
	ticker := time.NewTicker(pulseInterval)
	defer ticker.Stop()
	heart := pulse{limit: j.HungAfter}
	looked := time.Now()
	for {
		select {
		case r := <-ended:
			return r, false
		case code := <-stop:
			// go test sends SIGQUIT to a test that takes too long, and then waits a little.
			if code == exitSignal+int(unix.SIGQUIT) {
				code = diagnoseUntil(m, stop, code)
			}
			return result{code: code}, true
		case <-expired:
			return result{exitTimeout, fmt.Errorf("ended after %s (--timeout)", j.Timeout)}, true
		case <-ticker.C:
			now := time.Now()
			elapsed := now.Sub(looked)
			looked = now
			beat, watched := m.beat()
			if !watched || !heart.feel(beat, elapsed) {
				continue
			}
			if code, hung := examine(m, &heart, stop); hung {
				return result{code, fmt.Errorf("%w (no heartbeat for %.0f s)", errHung, heart.silent.Seconds())}, true
			} else if code != 0 {
				return result{code: code}, true
			}
			looked = time.Now()
		}
	}
}

// examine says what is known of a machine whose heart stands still, and whether it hangs. The code is not 0 when
// the machine must end, for this or another reason.
func examine(m machine, heart *pulse, stop <-chan int) (code int, hung bool) {
	began := time.Now()
	complain(fmt.Errorf("no heartbeat of the machine for %.0f s; what is known of it follows", heart.silent.Seconds()))
	if code := diagnoseUntil(m, stop, 0); code != 0 {
		return code, false
	}
	beat, watched := m.beat()
	if watched && beat == heart.beat {
		return exitHung, true
	}
	// The questions are interrupts to the machine, and may have woken it; or it was only very slow.
	complain(fmt.Errorf("the machine came back to life after %.0f s, and goes on",
		(heart.silent + time.Since(began)).Seconds()))
	heart.feel(beat, 0)
	return 0, false
}

// diagnoseUntil has a machine diagnosed until it is done or stopped, and returns the code for the one or the other.
func diagnoseUntil(m machine, stop <-chan int, code int) int {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		m.diagnose(os.Stderr, quit)
	}()
	select {
	case <-done:
	case code = <-stop:
		close(quit)
		<-done
	}
	return code
}

// reportHung tells the front that the machine was declared hung, and ends a line of the output that the machine
// did not: what follows may be the output of the next machine.
func reportHung(j *job) {
	if last, err := lastByte(j.path(stdoutFile)); err == nil && last != '\n' {
		_, _ = os.Stdout.WriteString("\n")
	}
	_, _ = os.NewFile(verdictFd, "verdict").Write([]byte{1})
}

// lastByte of a file; an empty one has none.
func lastByte(name string) (byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	if _, err := file.Seek(-1, io.SeekEnd); err != nil {
		return 0, err
	}
	var last [1]byte
	_, err = file.Read(last[:])
	return last[0], err
}
