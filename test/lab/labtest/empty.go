package labtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/test/lab/internal/release"
)

// edgeBytes is how much of either end of a disk holds signatures: those of LVM,
// file systems and partition tables at the start, of MD and GPT at the end.
const edgeBytes = 1 << 20

// emptyDisk frees a disk and wipes it, without a single command if there is
// nothing to do: inside User Mode Linux these are slow.
func emptyDisk(disk string) error {
	if err := release.Disk(disk, os.Environ()); err != nil {
		return err
	}
	file, err := openExclusively(disk)
	if err != nil {
		return err
	}
	if err := wipeEdges(file); err != nil {
		return errors.Join(fmt.Errorf("wiping %s: %w", disk, err), file.Close())
	}
	return file.Close()
}

// openExclusively opens a disk that nobody uses. Its last user may still be on the
// way out: the kernel closes some devices in the background.
func openExclusively(disk string) (*os.File, error) {
	const attempts = 50
	for attempt := 1; ; attempt++ {
		file, err := os.OpenFile(disk, os.O_RDWR|os.O_SYNC|unix.O_EXCL, 0)
		if !errors.Is(err, unix.EBUSY) || attempt == attempts {
			return file, err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func wipeEdges(disk *os.File) error {
	size, err := disk.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	zeroes, have := make([]byte, edgeBytes), make([]byte, edgeBytes)
	for _, offset := range []int64{0, max(size-edgeBytes, 0)} {
		if _, err := disk.ReadAt(have, offset); err != nil {
			return err
		}
		if bytes.Equal(have, zeroes) {
			continue
		}
		if _, err := disk.WriteAt(zeroes, offset); err != nil {
			return err
		}
	}
	return nil
}
