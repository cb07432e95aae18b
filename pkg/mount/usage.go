package mount

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// Usage implements Mounts.
func (h *Host) Usage(_ context.Context, path string) (Usage, error) {
	if err := CheckPath(path); err != nil {
		return Usage{}, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return Usage{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		size, err := deviceSize(path)
		return Usage{Block: true, TotalBytes: size}, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
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
