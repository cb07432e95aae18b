package mount

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	k8smount "k8s.io/mount-utils"
)

// At implements Mounts.
func (h *Host) At(_ context.Context, path string) (*Point, error) { return h.at(h.tree, path) }

func (h *Host) at(t tree, path string) (*Point, error) {
	parent, name, err := t.openParent(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = parent.Close() }()
	return h.atName(parent, name)
}

// atName is what is mounted on a name in an open directory: the last of several.
func (h *Host) atName(parent *os.File, name string) (*Point, error) {
	id, around, err := mountIDs(parent, name)
	if err != nil || id == around {
		return nil, err
	}
	entries, err := k8smount.ParseMountInfo(h.table)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.ID == id {
			p, _ := h.point(e)
			return &p, p.askDevice()
		}
	}
	return nil, nil // unmounted meanwhile
}

// Of implements Mounts.
func (h *Host) Of(_ context.Context, device string) ([]Point, error) {
	rdev, err := deviceNumber(device)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	entries, err := k8smount.ParseMountInfo(h.table)
	if err != nil {
		return nil, err
	}
	var points []Point
	for _, e := range entries {
		p, number := h.point(e)
		if number != rdev {
			continue // somebody else's device is not even opened: that may fail, or hang
		}
		if err := p.askDevice(); err != nil {
			return nil, err
		}
		points = append(points, p)
	}
	return points, nil
}

// point turns an entry of the table into a Point, and says which block device it shows; 0 is none.
func (h *Host) point(e k8smount.MountInfo) (Point, uint64) {
	p := Point{
		ID:         e.ID,
		Path:       unescape(e.MountPoint),
		Root:       unescape(e.Root),
		FSType:     e.FsType,
		ReadOnly:   slices.Contains(e.MountOptions, "ro"),
		FSReadOnly: slices.Contains(e.SuperOptions, "ro"),
		Options:    e.MountOptions,
	}
	switch {
	case (e.FsType == "devtmpfs" || e.FsType == "tmpfs") && p.Root != "/":
		// A bind of something in /dev. Only here is the path itself looked at: stat of just any mount point
		// might hang for ever (nfs).
		number, err := deviceNumber(p.Path)
		if err != nil {
			return p, 0 // a file, or unmounted meanwhile: in any case no device
		}
		p.Block, p.FSType, p.FSReadOnly = true, "", false
		return p, number
	case e.Major != 0:
		return p, unix.Mkdev(uint32(e.Major), uint32(e.Minor)) //nolint:gosec // device numbers are 32 bits
	case strings.HasPrefix(e.Source, "/dev/"):
		// btrfs has a device number of its own; the source is the device that was mounted.
		number, err := deviceNumber(unescape(e.Source))
		if err != nil {
			return p, 0 // a device that is gone is not the one in question
		}
		return p, number
	}
	return p, 0
}

// askDevice: of a device's node it is the device that says whether it can be written to.
func (p *Point) askDevice() (err error) {
	if p.Block {
		p.ReadOnly, err = deviceReadOnly(p.Path)
	}
	if errors.Is(err, unix.ENXIO) || errors.Is(err, fs.ErrNotExist) {
		err = nil // the node of a device that is gone
	}
	return err
}

// deviceNumber of a block device.
func deviceNumber(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return 0, &os.PathError{Op: "stat", Path: path, Err: unix.ENOTBLK}
	}
	return st.Rdev, nil
}

// unescape undoes the octal escapes of the mount table (space, tab, newline, backslash and #).
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
