package mount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// CheckPath says whether a path of a request may be worked on by a privileged process: absolute, without
// detours, not the root. Errors wrap ErrPath.
func CheckPath(path string) error {
	switch {
	case !filepath.IsAbs(path):
		return fmt.Errorf("%w: %q is not absolute", ErrPath, path)
	case filepath.Clean(path) != path:
		return fmt.Errorf("%w: %q is not in its shortest form (%q)", ErrPath, path, filepath.Clean(path))
	case path == "/":
		return fmt.Errorf("%w: %q is the root", ErrPath, path)
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("%w: %q has control characters in it", ErrPath, path)
	case len(path) >= unix.PathMax:
		return fmt.Errorf("%w: the path is longer than %d bytes", ErrPath, unix.PathMax-1)
	}
	return nil
}

// target is a place to mount on, held open so that it cannot be swapped for something else.
type target struct {
	parent *os.File
	name   string
	place  *os.File // O_PATH
}

func (t *target) close() {
	_ = t.parent.Close()
	_ = t.place.Close()
}

// ensureTarget opens the target, and makes it if it is missing: a directory, or an empty file. Its parents are kubelet's; the
// target itself must not be a symbolic link, whoever made it. The error of a path that is not what it should be wraps ErrPath.
func (t tree) ensureTarget(path string, dir bool) (*target, error) {
	parent, name, err := t.openParent(path)
	if err != nil {
		return nil, err
	}
	if dir {
		err = unix.Mkdirat(int(parent.Fd()), name, 0o750)
	} else {
		var fd int
		fd, err = unix.Openat(int(parent.Fd()), name, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC|unix.O_WRONLY, 0o640)
		if err == nil {
			err = unix.Close(fd)
		}
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, errors.Join(&os.PathError{Op: "create", Path: path, Err: err}, parent.Close())
	}
	out, err := openTarget(parent, name, path, dir)
	if err != nil {
		return nil, errors.Join(err, parent.Close())
	}
	return out, nil
}

func openTarget(parent *os.File, name, path string, dir bool) (*target, error) {
	// Verified on the open file, not by name: what was checked is what will be mounted on.
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	place := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(&os.PathError{Op: "stat", Path: path, Err: err}, place.Close())
	}
	want, what := uint32(unix.S_IFREG), "a regular file"
	if dir {
		want, what = unix.S_IFDIR, "a directory"
	}
	if st.Mode&unix.S_IFMT != want {
		return nil, errors.Join(fmt.Errorf("%w: %s is not %s (mode %#o)", ErrPath, path, what, st.Mode), place.Close())
	}
	return &target{parent: parent, name: name, place: place}, nil
}

// Remove implements Mounts. It never removes anything that could be data: only an empty directory or file.
func (h *Host) Remove(_ context.Context, path string) error {
	parent, name, err := h.tree.openParent(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }()
	if at, around, err := mountIDs(parent, name); err != nil {
		return err
	} else if at != around {
		return fmt.Errorf("%w: %s is still mounted", ErrInUse, path)
	}
	return removeTarget(parent, name, path)
}

// EnsureTarget makes the directory or the empty file at path if it is missing, and refuses anything else that
// is there. It is for fakes.
func EnsureTarget(path string, dir bool) error {
	t, err := tree{}.ensureTarget(path, dir)
	if err != nil {
		return err
	}
	t.close()
	return nil
}

// RemoveTarget removes what EnsureTarget made.
func RemoveTarget(path string) error {
	parent, name, err := tree{}.openParent(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = parent.Close() }()
	return removeTarget(parent, name, path)
}

func removeTarget(parent *os.File, name, path string) error {
	var st unix.Stat_t
	err := unix.Fstatat(int(parent.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	flags := 0
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		flags = unix.AT_REMOVEDIR // which fails unless it is empty
	case st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != 0:
		return fmt.Errorf("%w: %s is neither a directory nor an empty file, so the driver did not make it", ErrPath, path)
	}
	if err := unix.Unlinkat(int(parent.Fd()), name, flags); err != nil && !errors.Is(err, fs.ErrNotExist) {
		if errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("%w: %s", ErrInUse, path)
		}
		return &os.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}
