package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The heart of a User Mode Linux beats in its init: every beatInterval it writes a number to a file of the host's
// file system and then, past all caches, to a disk that the machine has for nothing else. The runner watches that
// disk's file. So a beat needs all that a test needs, too: a clock, a scheduler, the host's file system, the
// block layer, and the thread and the interrupts that carry requests to the files of the disks and back.
const (
	beatInterval = 2 * time.Second
	// beatDevice is the one disk that no command is told of, and LVM does not see.
	beatDevice = "/dev/ubda"
	// beatBytes is what direct I/O writes at once.
	beatBytes = 4096
	// beatDiskBytes is enough for the kernel to look for partitions without a complaint.
	beatDiskBytes = 1 << 20
)

// The files that beats go to: on the host's file system, and the disk.
const (
	beatFile     = "beat"
	beatDiskFile = "beat.img"
)

func (j *job) beatDisk() string { return filepath.Join(j.DiskDir, beatDiskFile) }

// makeBeatFiles makes on the host what startBeating opens in the machine.
func (j *job) makeBeatFiles() error {
	if err := os.WriteFile(j.path(beatFile), nil, 0o600); err != nil {
		return err
	}
	return makeSparse(j.beatDisk(), beatDiskBytes)
}

// startBeating lets the machine's heart beat until the function that it returns is called.
func startBeating(private *os.File) (stop func(), err error) {
	onHost, err := unix.Openat(int(private.Fd()), beatFile, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", beatFile, err)
	}
	onDisk, err := unix.Open(beatDevice, unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", beatDevice, err)
	}
	// Memory as direct I/O wants it.
	page, err := unix.Mmap(-1, 0, beatBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("memory for beats: %w", err)
	}
	stopped := make(chan struct{})
	go func() {
		for number := 1; ; number++ {
			if err := beat(number, onHost, onDisk, page); err != nil {
				complain(fmt.Errorf("the heart stops: %w", err))
				return
			}
			select {
			case <-stopped:
				return
			case <-time.After(beatInterval):
			}
		}
	}()
	return func() { close(stopped) }, nil
}

// beat writes its number and the machine's own clock.
func beat(number, onHost, onDisk int, page []byte) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return err
	}
	text := fmt.Sprintf("%d at %d.%03d s\n", number, now.Sec, now.Nsec/1e6)
	clear(page)
	copy(page, text)
	if _, err := unix.Pwrite(onHost, page[:len(text)], 0); err != nil {
		return fmt.Errorf("beat on the host's file system: %w", err)
	}
	if _, err := unix.Pwrite(onDisk, page, 0); err != nil {
		return fmt.Errorf("beat on %s: %w", beatDevice, err)
	}
	return nil
}

// lastBeat is what the file called name says of the last beat, or nothing.
func lastBeat(name string) string {
	file, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer file.Close()
	text := make([]byte, 128)
	n, _ := file.Read(text)
	return strings.TrimSpace(strings.TrimRight(string(text[:n]), "\x00"))
}

// pulse tells a machine that hangs from one that is slow.
type pulse struct {
	limit  time.Duration
	beat   string
	silent time.Duration
}

// pulseInterval is how often the runner feels the pulse.
const pulseInterval = time.Second

// feel takes the last beat that can be seen, and the time since feel was last called. It returns whether the
// machine has been silent for longer than the limit.
//
// Only time in which this process ran counts, for then a machine of the same host could have run: where the host
// was suspended, or so loaded that even a look a second comes late, the time in between is nobody's fault.
func (p *pulse) feel(beat string, elapsed time.Duration) (hung bool) {
	if beat != p.beat {
		p.beat, p.silent = beat, 0
		return false
	}
	p.silent += min(elapsed, 2*pulseInterval)
	return p.limit > 0 && p.silent >= p.limit
}
