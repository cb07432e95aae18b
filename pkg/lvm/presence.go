package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The driver and lvmsnapctl have files of their own beside LVM's locks, locked by flock(2): the kernel gives up the lock of
// whoever dies. The files stay, so that what is locked is always what the next one opens (docs/adr/0022).

// ErrDriverRuns: a driver is at work on the volume group.
var ErrDriverRuns = errors.New("a driver is at work on the volume group")

// ErrMetadataSnapshotHeld: a thin pool has one metadata snapshot, and somebody else has it.
var ErrMetadataSnapshotHeld = errors.New("the pool's metadata snapshot is in use")

// Announce says for as long as a driver runs that it does. Several may: they are all heard of.
func (l FileLocks) Announce(ctx context.Context, group string) (release func(), err error) {
	f, err := l.hold(ctx, group, "", unix.LOCK_SH)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: `lvmsnapctl doctor --fix` is putting %s right", ErrLocked, group)
	}
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// probePatience is longer than anybody looks whether a driver runs, who has its lock for that moment.
const probePatience = 100 * time.Millisecond

// Alone keeps every driver from starting on a group; ErrDriverRuns when one is at work there.
func (l FileLocks) Alone(ctx context.Context, group string) (release func(), err error) {
	l.Patience = probePatience
	f, err := l.hold(ctx, group, "", unix.LOCK_EX)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: %s", ErrDriverRuns, group)
	}
	if err != nil {
		return nil, err
	}
	return func() { f.Close() }, nil
}

// DriverRuns says whether a driver is at work on a group, by looking: nothing is made that is not there.
func (l FileLocks) DriverRuns(group string) (bool, error) {
	path, err := l.path(group, "")
	if err != nil {
		return false, err
	}
	f, err := os.Open(path) //nolint:gosec // LVM's directory and a validated name
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	for deadline := time.Now().Add(probePatience); ; time.Sleep(lockInterval) { // another may be looking
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return false, err
		}
		if time.Now().After(deadline) {
			return true, nil
		}
	}
}

// path of the file for a group, or for one pool of it. There is no = in LVM's names.
func (l FileLocks) path(group, pool string) (string, error) {
	if err := ValidateName(group); err != nil {
		return "", err
	}
	name := "lvmsnap=" + group
	if pool != "" {
		if err := ValidateName(pool); err != nil {
			return "", err
		}
		name += "=" + pool
	}
	return filepath.Join(l.Dir, name), nil
}

func (l FileLocks) hold(ctx context.Context, group, pool string, how int) (*os.File, error) {
	path, err := l.path(group, pool)
	if err != nil {
		return nil, err
	}
	patience := l.Patience
	if patience <= 0 {
		patience = lockPatience
	}
	if err := os.MkdirAll(l.Dir, 0o700); err != nil { // as LVM makes it, with its first command that locks
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // LVM's directory and validated names
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(patience); ; {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
		}
		select {
		case <-time.After(lockInterval):
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("%s: %w", path, context.Cause(ctx)), f.Close())
		}
	}
}

// MetadataSnapshots is what the kernel does with a thin pool's one metadata snapshot; dm.Control.
type MetadataSnapshots interface {
	// MetadataSnapshot is the block of its root; 0: there is none.
	MetadataSnapshot(ctx context.Context, group, pool string) (root uint64, err error)
	ReserveMetadataSnapshot(ctx context.Context, group, pool string) error
	ReleaseMetadataSnapshot(ctx context.Context, group, pool string) error
}

// What the file of a pool says of its metadata snapshot, for whoever comes after one that died.
const (
	markReserving = "reserving" // and it may have done so
	markReserved  = "reserved " // followed by the root
)

// WithMetadataSnapshot runs fn while the pool has a metadata snapshot, which it has for nobody else of ours meanwhile, and is
// released whatever happens: one that was left by somebody who was killed, at the next call. One that is not ours is left
// alone: ErrMetadataSnapshotHeld.
func (l FileLocks) WithMetadataSnapshot(
	ctx context.Context, kernel MetadataSnapshots, group, pool string, fn func(context.Context) error,
) (err error) {
	f, err := l.hold(ctx, group, pool, unix.LOCK_EX)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return fmt.Errorf("%w: another lvmsnapctl or driver reads the metadata of %s/%s", ErrMetadataSnapshotHeld, group, pool)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := releaseLeft(ctx, kernel, f, group, pool); err != nil {
		return err
	}
	if err := writeMark(f, markReserving); err != nil {
		return err
	}
	refused := kernel.ReserveMetadataSnapshot(ctx, group, pool)
	if errors.Is(refused, unix.EBUSY) { // somebody else's, since we looked
		return errors.Join(heldByAnother(group, pool), writeMark(f, ""))
	}
	defer func() {
		ctx := context.WithoutCancel(ctx)
		root, failed := kernel.MetadataSnapshot(ctx, group, pool)
		if failed == nil && root != 0 {
			failed = kernel.ReleaseMetadataSnapshot(ctx, group, pool)
		}
		if failed == nil {
			failed = writeMark(f, "")
		}
		err = errors.Join(err, failed)
	}()
	if refused != nil {
		return refused
	}
	root, err := kernel.MetadataSnapshot(ctx, group, pool)
	if err != nil {
		return err
	}
	if err := writeMark(f, markReserved+strconv.FormatUint(root, 10)); err != nil {
		return err
	}
	return fn(ctx)
}

// releaseLeft releases the metadata snapshot of somebody of ours who was killed: nobody has the file's lock but the caller.
func releaseLeft(ctx context.Context, kernel MetadataSnapshots, f *os.File, group, pool string) error {
	root, err := kernel.MetadataSnapshot(ctx, group, pool)
	if err != nil || root == 0 {
		return err
	}
	if !marks(f, root) {
		return heldByAnother(group, pool)
	}
	return kernel.ReleaseMetadataSnapshot(ctx, group, pool)
}

// marks says whether a pool's file has the mark of a metadata snapshot.
func marks(f *os.File, root uint64) bool {
	mark := make([]byte, 64)
	n, _ := f.ReadAt(mark, 0) // an empty file says nothing
	text := string(mark[:n])
	return text == markReserving || text == markReserved+strconv.FormatUint(root, 10)
}

// OwnMetadataSnapshot says whether a metadata snapshot is one of ours, who is at work or was killed, by looking.
func (l FileLocks) OwnMetadataSnapshot(group, pool string, root uint64) (bool, error) {
	path, err := l.path(group, pool)
	if err != nil {
		return false, err
	}
	f, err := os.Open(path) //nolint:gosec // LVM's directory and validated names
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	return marks(f, root), nil
}

func heldByAnother(group, pool string) error {
	return fmt.Errorf("%w: %s/%s, not by lvmsnap; if nobody is reading it: dmsetup message %s 0 release_metadata_snap",
		ErrMetadataSnapshotHeld, group, pool, poolDevice(group, pool))
}

// poolDevice is the device-mapper name of the layer that carries a pool in use.
func poolDevice(group, pool string) string {
	double := func(s string) string { return strings.ReplaceAll(s, "-", "--") }
	return double(group) + "-" + double(pool) + "-tpool"
}

func writeMark(f *os.File, text string) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(text), 0)
	return err
}
