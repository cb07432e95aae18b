package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount implements Mounts.
func (h *Host) Mount(ctx context.Context, device, target, fsType string, flags []string, readOnly bool) error {
	if err := CheckFlags(flags); err != nil {
		return err
	}
	t, err := ensureTarget(target, true)
	if err != nil {
		return err
	}
	defer t.close()
	others, err := h.Of(ctx, device)
	if err != nil {
		return err
	}
	if fsType == Ext4 && len(others) == 0 {
		if err := h.check(ctx, device); err != nil {
			return err
		}
	}
	var options []string
	if fsType == XFS {
		// A clone has its original's UUID, and so has the original of a clone that was mounted first.
		options = append(options, "nouuid")
	}
	if readOnly {
		options = append(options, "ro")
	}
	args := []string{"-t", fsType}
	if options = append(options, flags...); len(options) > 0 {
		args = append(args, "-o", strings.Join(options, ","))
	}
	// Not by mount-utils: it writes what mount(8) says to its log, and mount(8) quotes the option that it
	// does not like.
	res, err := h.change(ctx, "mount", append(args, device, target)...)
	if err != nil {
		return fmt.Errorf("mount %s on %s: %w", device, target, err)
	}
	if res.ExitCode != 0 {
		return fmt.Errorf("mount %s on %s as %s: exit code %d: %s",
			device, target, fsType, res.ExitCode, maskFlags(strings.TrimSpace(string(res.Stderr)), flags))
	}
	return h.verify(ctx, target, device)
}

// verify looks whether the device's file system is on top at the target: mount(8) takes a path, and whoever
// could replace the target between our check and its mount could have it mounted somewhere else.
func (h *Host) verify(ctx context.Context, target, device string) error {
	at, err := h.At(ctx, target)
	if err != nil {
		return err
	}
	of, err := h.Of(ctx, device)
	if err != nil {
		return err
	}
	if at == nil || !slices.ContainsFunc(of, func(p Point) bool { return p.ID == at.ID }) {
		return fmt.Errorf("mount of %s succeeded, but the mount table does not show it on %s", device, target)
	}
	return nil
}

// BindDir implements Mounts.
func (h *Host) BindDir(_ context.Context, source, target string, readOnly bool) error {
	if err := CheckPath(source); err != nil {
		return err
	}
	t, err := ensureTarget(target, true)
	if err != nil {
		return err
	}
	defer t.close()
	fd, err := unix.Open(source, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: source, Err: err}
	}
	from := os.NewFile(uintptr(fd), source)
	defer func() { _ = from.Close() }()
	return h.bind(from, t, source, target, readOnly)
}

// BindDevice implements Mounts.
func (h *Host) BindDevice(_ context.Context, device, target string, readOnly bool) error {
	t, err := ensureTarget(target, false)
	if err != nil {
		return err
	}
	defer t.close()
	// The path of a volume's device is a link to its node, which is wanted.
	fd, err := unix.Open(device, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: device, Err: err}
	}
	node := os.NewFile(uintptr(fd), device)
	defer func() { _ = node.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: device, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return fmt.Errorf("%s is not a block device", device)
	}
	// Before it can be seen: a node that is bound read-only still lets everybody write to the device.
	if err := setDeviceReadOnly(device, readOnly); err != nil {
		return err
	}
	return h.bind(node, t, device, target, false)
}

// bind makes source appear at the target in one step. The mount is made detached, set read-only and then moved
// into place, all by file descriptors: there is no moment in which a read-only target can be written to (nor
// one in which a crash leaves it so), and no path that could be swapped meanwhile.
func (h *Host) bind(from *os.File, t *target, source, path string, readOnly bool) error {
	tree, err := unix.OpenTree(int(from.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.ENOSYS) {
		return h.bindByPath(source, path, readOnly)
	}
	if err != nil {
		return fmt.Errorf("bind %s: open_tree: %w", source, err)
	}
	defer func() { _ = unix.Close(tree) }()
	if readOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr)
		if errors.Is(err, unix.ENOSYS) {
			return h.bindByPath(source, path, readOnly)
		}
		if err != nil {
			return fmt.Errorf("bind %s: mount_setattr: %w", source, err)
		}
	}
	err = unix.MoveMount(tree, "", int(t.place.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("bind %s to %s: move_mount: %w", source, path, err)
	}
	return nil
}

// bindByPath is for kernels before 5.12, which cannot set a detached mount read-only: a bind, and a remount
// because bind ignores all other options.
func (h *Host) bindByPath(source, path string, readOnly bool) error {
	options := []string{"bind"}
	if readOnly {
		options = append(options, "ro")
	}
	if err := h.mounter.MountSensitiveWithoutSystemd(source, path, "", options, nil); err != nil {
		// The bind may have been made and the remount have failed: a writable mount must not stay.
		if undo := unix.Unmount(path, unix.UMOUNT_NOFOLLOW); undo != nil && !errors.Is(undo, unix.EINVAL) {
			err = errors.Join(err, fmt.Errorf("undo: unmount %s: %w", path, undo))
		}
		return err
	}
	return nil
}

// Unmount implements Mounts. It calls the kernel and not umount(8): that one follows a symbolic link in the
// last component, and tells busy from not mounted only by its prose.
func (h *Host) Unmount(ctx context.Context, path string) error {
	// Mounts can lie on top of each other, if a CO mixed up two paths; kubelet cannot clean up while one is left.
	const enough = 16
	for range enough {
		at, err := h.At(ctx, path)
		if err != nil || at == nil {
			return err
		}
		err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
		switch {
		case err == nil:
		case errors.Is(err, unix.EBUSY):
			return fmt.Errorf("%w: %s is busy: a process has files open or its working directory there, or something is mounted inside", ErrInUse, path)
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT): // unmounted meanwhile
		default:
			return &os.PathError{Op: "unmount", Path: path, Err: err}
		}
	}
	return fmt.Errorf("%s is still mounted after %d unmounts", path, enough)
}
