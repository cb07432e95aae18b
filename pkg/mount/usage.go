package mount

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// Usage implements Mounts.
func (h *Host) Usage(_ context.Context, path string) (Usage, error) {
	parent, name, err := h.tree.openParent(path)
	if err != nil {
		return Usage{}, err
	}
	defer func() { _ = parent.Close() }()
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return Usage{}, &os.PathError{Op: "open", Path: path, Err: err}
	}
	at := os.NewFile(uintptr(fd), path)
	defer func() { _ = at.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return Usage{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		size, err := deviceSize(fdPath(at))
		return Usage{Block: true, TotalBytes: size}, err
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return Usage{}, &os.PathError{Op: "statfs", Path: path, Err: err}
	}
	// As df does: available is what an ordinary user can still write. xfs and btrfs may report more free than
	// there is for a moment; CSI wants no negative numbers.
	u := Usage{
		TotalBytes:     toBytes(fs.Blocks, fs.Frsize),
		AvailableBytes: toBytes(fs.Bavail, fs.Frsize),
	}
	u.UsedBytes = max(0, u.TotalBytes-toBytes(fs.Bfree, fs.Frsize))
	if fs.Files != 0 {
		u.TotalInodes = toBytes(fs.Files, 1)
		u.AvailableInodes = toBytes(fs.Ffree, 1)
		u.UsedInodes = max(0, u.TotalInodes-u.AvailableInodes)
	}
	return u, nil
}

func toBytes(blocks uint64, size int64) int64 {
	const most = 1<<63 - 1
	if size > 0 && blocks > uint64(most)/uint64(size) {
		return most
	}
	return int64(blocks) * size //nolint:gosec // checked above
}
