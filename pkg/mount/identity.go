package mount

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// NewIdentity implements FileSystems.
//
// ext4: nothing to do. The kernel tells ext4s apart by their device; the UUID only seeds checksums, and changing
// it means to rewrite all of them on an unmounted file system whose journal has been replayed.
//
// xfs: nothing to do. Its refusal of a second mount of one UUID is switched off by nouuid at each mount (Mount
// does). To change the UUID the log would have to be clean, that is, the clone mounted once with nouuid.
//
// btrfs: the kernel finds the devices of a file system by its fsid, so the fsid must change before the first
// mount: otherwise mounting the clone fails while the original is mounted, or, worse, mounts the wrong one.
func (h *Host) NewIdentity(_ context.Context, device, fsType string) error {
	switch fsType {
	case Ext4, XFS:
		return nil
	case Btrfs:
		return renewBtrfs(device)
	default:
		return fmt.Errorf("%w: %s has a %s on it, which this driver cannot clone", ErrDamaged, device, fsType)
	}
}

// renewBtrfs gives the btrfs on the device a new fsid, as `btrfstune -m` does (the METADATA_UUID feature, Linux
// 5.0: the fsid changes, and metadata blocks go on to carry the old one, now called metadata_uuid), but by
// writing the super block and nothing else.
//
// btrfstune itself must not be used on a clone. Device-mapper's suspend does not freeze a mounted btrfs (seen in
// the lab, Linux 6.1: log_root is the same in a snapshot that was cut under a suspend), so that the snapshot has
// a log tree as soon as somebody called fsync since the last commit. btrfstune -m (btrfs-progs 6.2) commits two
// transactions and keeps the log, which then belongs to a generation that is gone: it exits with 0, and the next
// mount fails with "parent transid verify failed ... failed to read log tree". What is left to do then is
// `btrfs rescue zero-log`, which throws fsynced data away. Not touched, the log is replayed by the first mount.
// TestBtrfstuneBreaksALog watches over all this.
func renewBtrfs(device string) (err error) {
	f, err := openExclusive(device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	primary, err := readSuper(f, superOffsets[0])
	if err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	if err := primary.checkRenewable(); err != nil {
		return fmt.Errorf("%s: %w", device, err)
	}
	if err := primary.renew(); err != nil {
		return err
	}
	// The copies first: the one at 64 KiB is the only one that a mount reads, so until it is written the file
	// system is the old one and all of this can be repeated. Copies are rewritten by each commit, and one that
	// is not a super block of this file system is none of our business.
	for _, offset := range superOffsets[1:] {
		mirror, err := readSuper(f, offset)
		if err != nil || !mirror.sameFileSystem(primary) {
			continue
		}
		mirror.takeIdentity(primary)
		if err := mirror.write(f, offset); err != nil {
			return err
		}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := primary.write(f, superOffsets[0]); err != nil {
		return err
	}
	return f.Sync()
}

// setDeviceReadOnly makes the device refuse writes (or take them again), whoever has it open.
func setDeviceReadOnly(device string, readOnly bool) (err error) {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	value := 0
	if readOnly {
		value = 1
	}
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.BLKROSET, value); err != nil {
		return &os.PathError{Op: "BLKROSET", Path: device, Err: err}
	}
	return nil
}

func deviceReadOnly(device string) (bool, error) {
	f, err := os.Open(device)
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	value, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET)
	if err != nil {
		return false, &os.PathError{Op: "BLKROGET", Path: device, Err: err}
	}
	return value != 0, nil
}
