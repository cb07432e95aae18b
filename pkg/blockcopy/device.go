package blockcopy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// device is an open block device, or in tests a file.
type device struct {
	*os.File
	size        int64
	cannotPunch atomic.Bool
}

func openSource(path string) (*device, error) { return openDevice(path, unix.O_RDONLY) }

// openDestination claims the device: with O_EXCL and without O_CREAT, a block device that a file system or another
// device has claimed is EBUSY (open(2)).
func openDestination(path string) (*device, error) { return openDevice(path, unix.O_RDWR|unix.O_EXCL) }

// openDevice opens without the page cache, which a copy would only push other data out of. os.OpenFile adds O_CLOEXEC.
func openDevice(path string, flags int) (*device, error) {
	file, err := os.OpenFile(path, flags|unix.O_DIRECT, 0) //nolint:gosec // devices that somebody else names are this package's work
	if errors.Is(err, unix.EINVAL) {
		// A file on a file system without direct I/O (open(2)), in a test; every block device has it.
		file, err = os.OpenFile(path, flags, 0) //nolint:gosec // as above
	}
	if err != nil {
		return nil, err
	}
	size, err := file.Seek(0, io.SeekEnd) // stat(2) has no size of a block device
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &device{File: file, size: size}, nil
}

// same compares device numbers: without udev, one device has several nodes (/dev/mapper/x and /dev/dm-0).
func (d *device) same(other *device) bool {
	var a, b unix.Stat_t
	if unix.Fstat(int(d.Fd()), &a) != nil || unix.Fstat(int(other.Fd()), &b) != nil {
		return false
	}
	if a.Mode&unix.S_IFMT == unix.S_IFBLK && b.Mode&unix.S_IFMT == unix.S_IFBLK {
		return a.Rdev == b.Rdev
	}
	return a.Dev == b.Dev && a.Ino == b.Ino
}

// punch has the device itself make a range read zeroes and give back the space. False means that it could not, and
// perhaps did a part: zeroes have to be written.
//
// For a block device the kernel takes this as REQ_OP_WRITE_ZEROES with leave to unmap and without a fallback
// (block/fops.c, blkdev_fallocate): unlike after a discard, zeroes are promised. FALLOC_FL_ZERO_RANGE would add only
// the fallback, which is to write zeroes, and that we do in blocks which the context can end in between.
func (d *device) punch(offset, n int64) bool {
	for !d.cannotPunch.Load() {
		err := unix.Fallocate(int(d.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, n)
		if err == nil {
			return true
		}
		// EINTR: Go's runtime sends signals to its own threads, and fallocate(2) is not restarted after them.
		// EOPNOTSUPP is usual: thin volumes, origins of COW snapshots and many disks cannot. What any other error
		// means, the write will tell.
		if !errors.Is(err, unix.EINTR) {
			d.cannotPunch.Store(true)
		}
	}
	return false
}

// explain adds what to do about an error.
func explain(err error) error {
	var advice string
	switch {
	case errors.Is(err, unix.EBUSY):
		advice = "it is mounted, below another device or being copied to: unmount it, or wait"
	case errors.Is(err, unix.ENOSPC):
		advice = "the thin pool below it is full: extend the pool, then continue"
	case errors.Is(err, unix.EIO):
		advice = "a disk failed, a COW snapshot overflowed or a pool's metadata is full: the kernel's log says which"
	default:
		return err
	}
	return fmt.Errorf("%w (%s)", err, advice)
}
