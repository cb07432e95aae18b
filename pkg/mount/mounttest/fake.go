// Package mounttest has a fake of package mount, with behavior, and the contract that the fake and the real
// thing both keep.
package mounttest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/lvmsnap/lvmsnap/pkg/mount"
)

// Fake is a machine with devices, file systems and a mount table. Targets are made and removed for real, so
// that whoever looks at the paths sees what a CO would see.
type Fake struct {
	// Before, if set, is called without locks before each operation that changes something, with the
	// operation's name and its device or target: it can fail the operation, or block it. Set it before use.
	Before func(op, on string) error

	mu      sync.Mutex
	devices map[string]*device
	points  []point
	nextID  int
	log     []string
}

type device struct {
	bytes    int64
	readOnly bool
	content  string // a file system, "" is blank, anything else is none that we know
	fsBytes  int64
	fsid     int
	fsRO     bool // while mounted
}

type point struct {
	mount.Point
	device string
	busy   bool
}

var (
	_ mount.FileSystems = (*Fake)(nil)
	_ mount.Mounts      = (*Fake)(nil)
)

// NewFake is a machine without devices.
func NewFake() *Fake { return &Fake{devices: map[string]*device{}, nextID: 100} }

// AddDevice adds a blank device, or changes the size of one that is there.
func (f *Fake) AddDevice(path string, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.devices[path]; d != nil {
		d.bytes = bytes
		return
	}
	f.devices[path] = &device{bytes: bytes}
}

// RemoveDevice makes a device go away.
func (f *Fake) RemoveDevice(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.devices, path)
}

// CopyDevice copies what is on one device to another, as a snapshot does.
func (f *Fake) CopyDevice(from, to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	src, dst := f.devices[from], f.devices[to]
	dst.content, dst.fsBytes, dst.fsid = src.content, src.fsBytes, src.fsid
}

// SetContent puts something on a device: a file system's type, or something that is none.
func (f *Fake) SetContent(path, content string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d := f.devices[path]
	f.nextID++
	d.content, d.fsBytes, d.fsid = content, d.bytes, f.nextID
}

// FSBytes is the size of the file system on the device.
func (f *Fake) FSBytes(path string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.devices[path].fsBytes
}

// FSID of the file system on the device.
func (f *Fake) FSID(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.devices[path].fsid
}

// TurnReadOnly does what the kernel does to a file system with errors.
func (f *Fake) TurnReadOnly(path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.devices[path].fsRO = true
}

// SetBusy opens a file on the mount at path, or closes it.
func (f *Fake) SetBusy(path string, busy bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if i := f.top(path); i >= 0 {
		f.points[i].busy = busy
	}
}

// Log is the operations that changed something, in order: "Format /dev/x ext4".
func (f *Fake) Log() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.log)
}

// Reset forgets the log.
func (f *Fake) Reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.log = nil
}

// begin calls the hook and takes the lock; unlock must be called if there is no error.
func (f *Fake) begin(op string, args ...string) (unlock func(), err error) {
	if f.Before != nil {
		if err := f.Before(op, args[0]); err != nil {
			return nil, err
		}
	}
	f.mu.Lock()
	f.log = append(f.log, strings.Join(append([]string{op}, args...), " "))
	return f.mu.Unlock, nil
}

// beginOn is begin for an operation on a device.
func (f *Fake) beginOn(op, path string, args ...string) (d *device, unlock func(), err error) {
	if unlock, err = f.begin(op, append([]string{path}, args...)...); err != nil {
		return nil, nil, err
	}
	if d, err = f.device(path); err != nil {
		unlock()
		return nil, nil, err
	}
	return d, unlock, nil
}

func (f *Fake) device(path string) (*device, error) {
	if d := f.devices[path]; d != nil {
		return d, nil
	}
	return nil, &os.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
}

// mounted says that a file system on the device is mounted; a bound node does not count.
func (f *Fake) mounted(path string) bool {
	return slices.ContainsFunc(f.points, func(p point) bool { return p.device == path && !p.Block })
}

// top is the index of the mount on top at path, -1 if there is none.
func (f *Fake) top(path string) int {
	for i, p := range slices.Backward(f.points) {
		if p.Path == path {
			return i
		}
	}
	return -1
}

func isFS(content string) bool {
	return content == mount.Ext4 || content == mount.XFS || content == mount.Btrfs
}

// Probe implements mount.FileSystems. Unknown content that begins with "?" is an error, as ambiguous or
// partitioned devices are.
func (f *Fake) Probe(_ context.Context, path string) (string, error) {
	if f.Before != nil {
		if err := f.Before("Probe", path); err != nil {
			return "", err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	d, err := f.device(path)
	if err != nil {
		return "", err
	}
	if strings.HasPrefix(d.content, "?") {
		return "", fmt.Errorf("%w: %s is ambiguous", mount.ErrDamaged, path)
	}
	return d.content, nil
}

// Format implements mount.FileSystems.
func (f *Fake) Format(_ context.Context, path, fsType string) error {
	d, unlock, err := f.beginOn("Format", path, fsType)
	if err != nil {
		return err
	}
	defer unlock()
	switch {
	case !isFS(fsType):
		return fmt.Errorf("cannot make a file system of type %q", fsType)
	case f.mounted(path):
		return fmt.Errorf("%w: %s is mounted", mount.ErrInUse, path)
	}
	f.nextID++
	d.content, d.fsBytes, d.fsid = fsType, d.bytes, f.nextID
	return nil
}

// NewIdentity implements mount.FileSystems.
func (f *Fake) NewIdentity(_ context.Context, path, fsType string) error {
	d, unlock, err := f.beginOn("NewIdentity", path, fsType)
	if err != nil {
		return err
	}
	defer unlock()
	switch {
	case !isFS(fsType):
		return fmt.Errorf("%w: a %s cannot be cloned", mount.ErrDamaged, fsType)
	case fsType != mount.Btrfs:
		return nil
	case f.mounted(path):
		return fmt.Errorf("%w: %s is mounted", mount.ErrInUse, path)
	case d.content != mount.Btrfs:
		return fmt.Errorf("%w: no btrfs on %s", mount.ErrDamaged, path)
	}
	f.nextID++
	d.fsid = f.nextID
	return nil
}

// Grow implements mount.FileSystems.
func (f *Fake) Grow(_ context.Context, path, target string) error {
	d, unlock, err := f.beginOn("Grow", path, target)
	if err != nil {
		return err
	}
	defer unlock()
	i := f.top(target)
	switch {
	case i < 0 || f.points[i].Block:
		return fmt.Errorf("grow: no file system is mounted on %s", target)
	case d.fsBytes >= d.bytes:
		return nil
	case d.fsRO || f.points[i].ReadOnly:
		return fmt.Errorf("%w: %s", mount.ErrReadOnly, target)
	}
	d.fsBytes = d.bytes
	return nil
}
