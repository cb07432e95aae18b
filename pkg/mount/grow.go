package mount

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Grow implements FileSystems.
func (h *Host) Grow(ctx context.Context, device, path string) error {
	at, err := h.at(tree{}, path) // a path of the mount table
	if err != nil {
		return err
	}
	if at == nil || at.Block {
		return fmt.Errorf("grow: no file system is mounted on %s", path)
	}
	need, err := needGrow(device, path, at.FSType)
	if err != nil || !need {
		return err
	}
	if at.FSReadOnly || at.ReadOnly {
		return fmt.Errorf("%w: %s; its file system grows when it is next mounted writable", ErrReadOnly, path)
	}
	// All three are done at once, and are content if there is nothing to do.
	switch at.FSType {
	case Ext4:
		return h.mustChange(ctx, "resize2fs", device)
	case XFS:
		return h.mustChange(ctx, "xfs_growfs", "-d", path)
	case Btrfs:
		return h.mustChange(ctx, "btrfs", "filesystem", "resize", "max", path)
	default:
		return fmt.Errorf("grow: cannot grow a file system of type %s", at.FSType)
	}
}

// needGrow compares the sizes of the mounted file system and its device, by the kernel's own account. It may be
// wrong in one direction only: ext4 and xfs leave a rest alone that is too small for a group of its own.
func needGrow(device, path, fsType string) (bool, error) {
	deviceBytes, err := deviceSize(device)
	if err != nil {
		return false, err
	}
	var fsBytes, blockBytes int64
	switch fsType {
	case Ext4:
		fsBytes, blockBytes, err = ext4Size(device)
	case XFS:
		fsBytes, blockBytes, err = xfsSize(path)
	case Btrfs:
		fsBytes, blockBytes, err = btrfsSize(path)
	default:
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("size of the file system on %s: %w", path, err)
	}
	return deviceBytes-fsBytes >= blockBytes, nil
}

func deviceSize(device string) (size int64, err error) {
	f, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Seek(0, io.SeekEnd)
}

// ext4Size reads the super block, which a mounted ext4 keeps in the device's page cache. statfs does not help: it
// leaves out the file system's own blocks.
func ext4Size(device string) (fsBytes, blockBytes int64, err error) {
	f, err := os.Open(device)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	const offset, size = 1024, 1024
	sb := make([]byte, size)
	if _, err := f.ReadAt(sb, offset); err != nil {
		return 0, 0, err
	}
	// struct ext4_super_block: s_blocks_count_lo, s_log_block_size, s_magic, s_blocks_count_hi.
	if magic := binary.LittleEndian.Uint16(sb[0x38:]); magic != 0xef53 {
		return 0, 0, fmt.Errorf("%w: no ext4 super block on %s", ErrDamaged, device)
	}
	log := binary.LittleEndian.Uint32(sb[0x18:])
	if log > 6 { // 64 KiB, the largest block
		return 0, 0, fmt.Errorf("%w: ext4 super block of %s", ErrDamaged, device)
	}
	blocks := int64(binary.LittleEndian.Uint32(sb[0x4:])) | int64(binary.LittleEndian.Uint32(sb[0x150:]))<<32
	return blocks << (10 + log), 1 << (10 + log), nil
}

// fsIoctl calls an ioctl of a file system, which fills buf.
func fsIoctl(path string, request uintptr, buf []byte) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), request, uintptr(unsafe.Pointer(&buf[0]))) //nolint:gosec // an ioctl takes a pointer
	if errno != 0 {
		return &os.PathError{Op: "ioctl", Path: path, Err: errno}
	}
	return nil
}

// XFS_IOC_FSGEOMETRY_V1 of the kernel's xfs_fs.h: _IOR('X', 100, struct xfs_fsop_geom_v1).
const (
	xfsGeometry     = 0x80705864
	xfsGeometrySize = 0x70
)

func xfsSize(path string) (fsBytes, blockBytes int64, err error) {
	buf := make([]byte, xfsGeometrySize)
	if err := fsIoctl(path, xfsGeometry, buf); err != nil {
		return 0, 0, err
	}
	block := int64(binary.NativeEndian.Uint32(buf))
	return int64(binary.NativeEndian.Uint64(buf[32:])) * block, block, nil //nolint:gosec // datablocks
}

// BTRFS_IOC_DEV_INFO of the kernel's btrfs.h: _IOWR(0x94, 30, struct btrfs_ioctl_dev_info_args).
const (
	btrfsDevInfo     = 0xd000941e
	btrfsDevInfoSize = 4096
)

func btrfsSize(path string) (fsBytes, blockBytes int64, err error) {
	buf := make([]byte, btrfsDevInfoSize)
	binary.NativeEndian.PutUint64(buf, 1) // devid; a clone of a file system on one device has no other
	if err := fsIoctl(path, btrfsDevInfo, buf); err != nil {
		return 0, 0, err
	}
	// devid 8, uuid 16, bytes_used 8, total_bytes 8. The device is used in sectors of 4 KiB or the page size.
	return int64(binary.NativeEndian.Uint64(buf[32:])), 64 << 10, nil //nolint:gosec // a size
}
