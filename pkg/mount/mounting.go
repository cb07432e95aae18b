package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount implements Mounts.
func (h *Host) Mount(ctx context.Context, device, target, fsType string, flags []string, readOnly bool) error {
	if err := CheckFlags(flags); err != nil {
		return err
	}
	t, err := h.tree.ensureTarget(target, true)
	if err != nil {
		return err
	}
	defer t.close()
	if fsType == Ext4 {
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
	// Of the target mount(8) is told by our file descriptor, which nobody can swap for something else, and told to leave that
	// alone, since it would look up the name of it.
	on := t
	if h.mountTree != h.tree {
		if on, err = h.mountTree.ensureTarget(target, true); err != nil {
			return err
		}
		defer on.close()
	}
	place := fmt.Sprintf("/proc/%d/fd/%d/.", os.Getpid(), on.place.Fd())
	// Not by mount-utils: it writes what mount(8) says to its log, and mount(8) quotes the option that it
	// does not like.
	res, err := h.change(ctx, "mount", append(args, "--no-canonicalize", commonName(device), place)...)
	if err != nil {
		return fmt.Errorf("mount %s on %s: %w", device, target, err)
	}
	if res.ExitCode != 0 {
		text := strings.ReplaceAll(strings.TrimSpace(string(res.Stderr)), place, target)
		return fmt.Errorf("mount %s on %s as %s: exit code %d: %s", device, target, fsType, res.ExitCode, maskFlags(text, flags))
	}
	return h.verify(ctx, t, target, device)
}

// commonName is the name that mount(8) would have found for a device, and others look for in the mount table.
func commonName(device string) string {
	resolved, err := filepath.EvalSymlinks(device)
	if err != nil {
		return device
	}
	if name, err := os.ReadFile(filepath.Join("/sys/class/block", filepath.Base(resolved), "dm/name")); err == nil {
		return "/dev/mapper/" + strings.TrimSpace(string(name))
	}
	return resolved
}

// verify looks whether the device's file system is on top at the target.
func (h *Host) verify(ctx context.Context, t *target, path, device string) error {
	at, err := h.atName(t.parent, t.name)
	if err != nil {
		return err
	}
	of, err := h.Of(ctx, device)
	if err != nil {
		return err
	}
	if at == nil || !slices.ContainsFunc(of, func(p Point) bool { return p.ID == at.ID }) {
		return fmt.Errorf("mount of %s succeeded, but the mount table does not show it on %s", device, path)
	}
	return nil
}

// BindDir implements Mounts.
func (h *Host) BindDir(_ context.Context, source, target string, readOnly bool) error {
	parent, name, err := h.tree.openParent(source)
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }()
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: source, Err: err}
	}
	from := os.NewFile(uintptr(fd), source)
	defer func() { _ = from.Close() }()
	t, err := h.tree.ensureTarget(target, true)
	if err != nil {
		return err
	}
	defer t.close()
	return bind(from, t, source, target, readOnly)
}

// BindDevice implements Mounts.
func (h *Host) BindDevice(_ context.Context, device, target string, readOnly bool) error {
	t, err := h.tree.ensureTarget(target, false)
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
	return bind(node, t, device, target, false)
}

// bind makes source appear at the target in one step. The mount is made detached, set read-only and then moved
// into place, all by file descriptors: there is no moment in which a read-only target can be written to (nor
// one in which a crash leaves it so), and no path that could be swapped meanwhile.
func bind(from *os.File, t *target, source, path string, readOnly bool) error {
	tree, err := unix.OpenTree(int(from.Fd()), "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if errors.Is(err, unix.ENOSYS) {
		return bindInSteps(from, t, readOnly)
	}
	if err != nil {
		return fmt.Errorf("bind %s: open_tree: %w", source, err)
	}
	defer func() { _ = unix.Close(tree) }()
	if readOnly {
		attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
		err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &attr)
		if errors.Is(err, unix.ENOSYS) {
			return bindInSteps(from, t, readOnly)
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

// keptFlags are the options of a mount that a remount would take away, as statfs and mount(2) call them.
var keptFlags = map[int64]uintptr{
	unix.ST_NOSUID: unix.MS_NOSUID, unix.ST_NODEV: unix.MS_NODEV, unix.ST_NOEXEC: unix.MS_NOEXEC,
	unix.ST_NOATIME: unix.MS_NOATIME, unix.ST_NODIRATIME: unix.MS_NODIRATIME, unix.ST_RELATIME: unix.MS_RELATIME,
}

// bindInSteps is for kernels before 5.12, which cannot set a detached mount read-only: a bind, and a remount because bind ignores
// all other options.
func bindInSteps(from *os.File, t *target, readOnly bool) error {
	if err := unix.Mount(fdPath(from), fdPath(t.place), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", from.Name(), t.place.Name(), err)
	}
	if !readOnly {
		return nil
	}
	on := within(t.parent, t.name)
	var st unix.Statfs_t
	err := unix.Statfs(on, &st)
	if err == nil {
		flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT | unix.MS_RDONLY)
		for has, flag := range keptFlags {
			if st.Flags&has != 0 {
				flags |= flag
			}
		}
		err = unix.Mount("", on, "", flags, "")
	}
	if err != nil { // a writable mount must not stay
		err = fmt.Errorf("bind %s to %s read-only: %w", from.Name(), t.place.Name(), err)
		if undo := unix.Unmount(on, unix.UMOUNT_NOFOLLOW); undo != nil && !errors.Is(undo, unix.EINVAL) {
			err = errors.Join(err, fmt.Errorf("undo: unmount %s: %w", t.place.Name(), undo))
		}
	}
	return err
}

// Unmount implements Mounts. It calls the kernel and not umount(8): that one follows a symbolic link in the
// last component, and tells busy from not mounted only by its prose.
func (h *Host) Unmount(_ context.Context, path string) error {
	parent, name, err := h.tree.openParent(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }()
	// Mounts can lie on top of each other, if a CO mixed up two paths; kubelet cannot clean up while one is left.
	const enough = 16
	for range enough {
		at, around, err := mountIDs(parent, name)
		if err != nil || at == around {
			return err
		}
		err = unix.Unmount(within(parent, name), unix.UMOUNT_NOFOLLOW)
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
