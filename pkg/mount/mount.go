// Package mount makes file systems on devices and mounts them. Everything it knows about what is mounted where
// comes from the kernel's mount table, never from memory: the driver may have been restarted in between.
package mount

import (
	"context"
	"errors"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
)

// The errors that callers tell apart.
var (
	// ErrInUse: the device or the mount is busy.
	ErrInUse = errors.New("in use")
	// ErrDamaged: what is on the device cannot be used as it is; a person has to look.
	ErrDamaged = errors.New("not usable")
	// ErrPath: the path is not one that a privileged process may work on.
	ErrPath = errors.New("unsafe path")
	// ErrFlag: a mount flag is malformed. The text never has the flag in it: it may be a secret.
	ErrFlag = errors.New("mount flag")
	// ErrReadOnly: the file system is mounted read-only, and what was asked for writes.
	ErrReadOnly = errors.New("mounted read-only")
)

// The file systems that Format can make.
const (
	Ext4  = "ext4"
	XFS   = "xfs"
	Btrfs = "btrfs"
)

// Point is an entry of the kernel's mount table.
type Point struct {
	ID     int    // of the mount; no two mounts have the same
	Path   string // with the symbolic links of its parents resolved
	Root   string // the part of the file system that is mounted; "/" is all of it
	FSType string // empty for a device node
	// Block: not a file system but a block device's node, bound onto a file.
	Block bool
	// ReadOnly: writes through this mount are refused. For a device node: the device itself is read-only,
	// because a read-only bind of a node does not stop anybody from writing to the device.
	ReadOnly bool
	// FSReadOnly: the file system itself is read-only, through whichever mount. When ReadOnly is not set, the
	// kernel has turned it so after an error.
	FSReadOnly bool
	Options    []string // of this mount: noatime, nosuid and the like
}

// Usage is how full something is.
type Usage struct {
	Block                                    bool // a device: only TotalBytes is known
	TotalBytes, UsedBytes, AvailableBytes    int64
	TotalInodes, UsedInodes, AvailableInodes int64 // 0: the file system does not count them (btrfs)
}

// FileSystems makes and changes file systems on devices. What changes a device runs to its end whatever
// becomes of ctx (hostexec.Command.Interruptible), so that no caller believes it over while it goes on.
type FileSystems interface {
	// Probe says what is on the device: "" is a device on which nothing was found, and only that. Anything that
	// is unreadable, ambiguous or partitioned is an error and never looks blank.
	Probe(ctx context.Context, device string) (string, error)
	// Format makes a file system on the device, whatever is on it: call it only for a device that is recorded
	// as never written.
	Format(ctx context.Context, device, fsType string) error
	// NewIdentity gives the copy of a file system what it needs to be mounted beside its original. The device
	// must not be mounted (ErrInUse). It can be repeated, and interrupted.
	NewIdentity(ctx context.Context, device, fsType string) error
	// Grow makes the file system that is mounted at path as large as its device. It is no error if it is so already.
	Grow(ctx context.Context, device, path string) error
}

// Mounts mounts and unmounts.
type Mounts interface {
	// Mount mounts the device's file system on the directory target, which is made if it is missing. The flags
	// are the user's, and are neither logged nor part of an error.
	Mount(ctx context.Context, device, target, fsType string, flags []string, readOnly bool) error
	// BindDir makes the directory source appear at target, which is made if it is missing.
	BindDir(ctx context.Context, source, target string, readOnly bool) error
	// BindDevice makes the device's node appear at target, a file which is made if it is missing. readOnly
	// makes the device itself read-only or writable, for all who use it.
	BindDevice(ctx context.Context, device, target string, readOnly bool) error
	// Unmount unmounts what is at path. Nothing there, or no such path, is no error; ErrInUse if it is busy.
	Unmount(ctx context.Context, path string) error
	// Remove removes an empty target that nothing is mounted on. A path that is gone is no error.
	Remove(ctx context.Context, path string) error
	// At says what is mounted on exactly this path; nil is nothing.
	At(ctx context.Context, path string) (*Point, error)
	// Of lists the mounts of the device's file system and of its node. A device that is gone has none.
	Of(ctx context.Context, device string) ([]Point, error)
	// Usage of the file system at path, or of the device whose node is there.
	Usage(ctx context.Context, path string) (Usage, error)
}

// Host does it on this machine.
type Host struct {
	runner hostexec.Runner
	table  string // the mount table
	tree   tree
	// mountTree is the tree as the programs see it that runner runs.
	mountTree tree
}

var (
	_ FileSystems = (*Host)(nil)
	_ Mounts      = (*Host)(nil)
)

// NewHost runs file system programs by runner. Binds are made in the driver's own mount namespace, where mount(8) has to be seen,
// too: kubelet's directory must be mounted into a container with bidirectional propagation. All paths of requests must be in
// kubeletDir, unless it is empty.
func NewHost(runner hostexec.Runner, kubeletDir string) *Host {
	h := &Host{runner: runner, table: "/proc/self/mountinfo", tree: tree{below: kubeletDir}}
	h.mountTree = h.tree
	if host, ok := runner.(hostexec.Host); ok && host.Namespace {
		h.mountTree.root = "/proc/1/root"
	}
	return h
}
