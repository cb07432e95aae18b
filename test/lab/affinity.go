package main

import (
	"fmt"
	"math/rand/v2"
	"runtime"

	"golang.org/x/sys/unix"
)

// onOneCPU calls start so that the processes it starts, and their children, stay on one CPU.
//
// User Mode Linux is one kernel process that traces its guest's processes: at every system call of the guest
// they hand over to each other and never run at the same time. On one CPU that is a context switch; on two it is
// the waking of a sleeping CPU, which takes so much longer that the machine is half as fast (docs/adr/0005).
func onOneCPU(start func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return fmt.Errorf("sched_getaffinity: %w", err)
	}
	one.Set(chooseCPU(&allowed))
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return fmt.Errorf("sched_setaffinity: %w", err)
	}
	err := start()
	if restored := unix.SchedSetaffinity(0, &allowed); err == nil && restored != nil {
		err = fmt.Errorf("sched_setaffinity: %w", restored)
	}
	return err
}

// chooseCPU takes a CPU that no other lab has, or else any.
func chooseCPU(allowed *unix.CPUSet) int {
	var cpus []int
	for cpu := 0; len(cpus) < allowed.Count(); cpu++ {
		if allowed.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	for _, cpu := range cpus {
		if claimCPU(cpu) {
			return cpu
		}
	}
	return cpus[rand.IntN(len(cpus))] //nolint:gosec // nobody gains from guessing it
}

// claimCPU holds a CPU until this process ends, by an abstract unix socket (unix(7)): it leaves nothing behind,
// however its owner ends.
func claimCPU(cpu int) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@lvmsnap-lab-cpu-%d", cpu)}); err != nil {
		_ = unix.Close(fd)
		return false
	}
	return true
}
