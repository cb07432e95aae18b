package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// tree is where the paths of requests lead.
type tree struct {
	root string // "" is our own; the host's is /proc/1/root
	// below, when set, is the directory that all paths are in, and below which there are no symbolic links.
	below string
}

// maxLinks is the kernel's own limit (path_resolution(7)).
const maxLinks = 40

// openParent opens the directory that a path's last component is in, one component after the other, each in the one before, so
// that nobody can swap one for something else once it was looked at. A symbolic link is followed only when nobody but root can
// have made it, and below t.below none is. What comes of it is to be used by its file descriptor.
func (t tree) openParent(path string) (*os.File, string, error) {
	if err := CheckPath(path); err != nil {
		return nil, "", err
	}
	dir, name := filepath.Split(path)
	w, err := startWalk(t.root, path)
	if err != nil {
		return nil, "", err
	}
	if t.below != "" {
		var inside bool
		if dir, inside = t.inside(dir); !inside {
			return nil, "", errors.Join(fmt.Errorf("%w: %s is not in %s", ErrPath, path, t.below), w.at.Close())
		}
		err = w.walk(t.below, true)
	}
	if err == nil {
		err = w.walk(dir, t.below == "")
	}
	if err != nil {
		return nil, "", errors.Join(err, w.at.Close())
	}
	return w.at, name, nil
}

// inside is a directory seen from t.below.
func (t tree) inside(dir string) (string, bool) {
	below := []string{t.below}
	if resolved, err := filepath.EvalSymlinks(t.below); err == nil { // as the mount table has it
		below = append(below, resolved)
	}
	for _, b := range below {
		if rest, ok := strings.CutPrefix(dir, b+"/"); ok {
			return rest, true
		}
	}
	return "", false
}

// walker is on its way along a path.
type walker struct {
	root, path string
	at         *os.File // O_PATH
	safe       bool     // nobody but root can have changed what was met so far
	links      int
}

func startWalk(root, path string) (*walker, error) {
	w := &walker{root: root + "/", path: path, safe: true}
	fd, err := unix.Open(w.root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: w.root, Err: err}
	}
	w.at = os.NewFile(uintptr(fd), w.root)
	return w, nil
}

// walk goes on to a directory.
func (w *walker) walk(dir string, links bool) error {
	for rest := strings.Split(dir, "/"); len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		link, err := w.step(name, links)
		if err != nil {
			return err
		}
		if link != "" {
			rest = append(strings.Split(link, "/"), rest...)
		}
	}
	return nil
}

// step goes into a directory, or returns where a link leads, from where the walker is then.
func (w *walker) step(name string, links bool) (link string, err error) {
	if err := w.look(); err != nil {
		return "", err
	}
	fd, err := unix.Openat(int(w.at.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: w.path, Err: err}
	}
	next := os.NewFile(uintptr(fd), filepath.Join(w.at.Name(), name))
	defer func() { _ = next.Close() }()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", &os.PathError{Op: "stat", Path: next.Name(), Err: err}
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		w.at, next = next, w.at
		return "", nil
	case unix.S_IFLNK:
		if !links || !w.safe || !trusted(st.Uid) {
			return "", fmt.Errorf("%w: %s: %s is a symbolic link, which may be somebody's trap", ErrPath, w.path, next.Name())
		}
	default:
		return "", &os.PathError{Op: "open", Path: w.path, Err: unix.ENOTDIR}
	}
	if w.links++; w.links > maxLinks {
		return "", &os.PathError{Op: "open", Path: w.path, Err: unix.ELOOP}
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", &os.PathError{Op: "readlink", Path: next.Name(), Err: err}
	}
	link = string(buf[:n])
	if filepath.IsAbs(link) {
		start, err := startWalk(strings.TrimSuffix(w.root, "/"), w.path)
		if err != nil {
			return "", err
		}
		w.at, start.at = start.at, w.at
		_ = start.at.Close()
	}
	return link, nil
}

// look finds out who can change what is in the directory.
func (w *walker) look() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(w.at.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: w.at.Name(), Err: err}
	}
	byOthers := st.Mode&unix.S_IWOTH != 0 || st.Mode&unix.S_IWGRP != 0 && st.Gid != 0
	// In a sticky directory only its owner can replace what is root's.
	w.safe = w.safe && trusted(st.Uid) && (!byOthers || st.Mode&unix.S_ISVTX != 0)
	return nil
}

func trusted(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// fdPath names an open file so that it cannot be swapped: for this process's calls of the kernel.
func fdPath(f *os.File) string { return fmt.Sprint("/proc/self/fd/", f.Fd()) }

// within names something in an open directory.
func within(dir *os.File, name string) string { return fdPath(dir) + "/" + name }

// mountIDs are those of the mount that is seen at a name, and of the one that the directory is in: two, when something is mounted
// on the name. Zeroes: the name is not there.
func mountIDs(parent *os.File, name string) (at, around int, err error) {
	if around, err = mountID(parent, ""); err == nil {
		at, err = mountID(parent, name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	return at, around, err
}

// mountID does not hold what is mounted there any longer than it takes: that would make it busy for whoever unmounts it.
func mountID(parent *os.File, name string) (int, error) {
	var stx unix.Statx_t
	flags := unix.AT_SYMLINK_NOFOLLOW | unix.AT_NO_AUTOMOUNT | unix.AT_EMPTY_PATH | unix.AT_STATX_DONT_SYNC
	if err := unix.Statx(int(parent.Fd()), name, flags, unix.STATX_MNT_ID, &stx); err != nil {
		return 0, &os.PathError{Op: "stat", Path: filepath.Join(parent.Name(), name), Err: err}
	}
	if stx.Mask&unix.STATX_MNT_ID != 0 {
		return int(stx.Mnt_id), nil //nolint:gosec // a small number
	}
	return mountIDOfOpen(parent, name)
}

// mountIDOfOpen is for kernels before 5.8.
func mountIDOfOpen(parent *os.File, name string) (int, error) {
	if name == "" {
		name = "."
	}
	fd, err := unix.Openat(int(parent.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: filepath.Join(parent.Name(), name), Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	text, err := os.ReadFile(fmt.Sprint("/proc/self/fdinfo/", fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var id int
		if _, err := fmt.Sscanf(line, "mnt_id: %d", &id); err == nil {
			return id, nil
		}
	}
	return 0, fmt.Errorf("the kernel does not say which mount %s is", filepath.Join(parent.Name(), name))
}
