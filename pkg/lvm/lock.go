package lvm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
)

// ErrLocked: an LVM command of somebody has the volume group's lock.
var ErrLocked = errors.New("an LVM command is at work in the volume group")

// Locker has LVM's own locks of volume groups.
type Locker interface {
	// Acquire takes the lock of a group, for as long as nobody runs an LVM command on it; ErrLocked when somebody does all
	// the time.
	Acquire(ctx context.Context, group string) (release func(), err error)
}

// FileLocks are LVM's own locks of volume groups, taken as LVM takes them for a change: flock(2) on a file of the locking
// directory, exclusively. The kernel gives up the lock of a command that dies. lvm.conf(5), global/locking_dir;
// lvm2: lib/locking/file_locking.c, lib/misc/lvm-flock.c
type FileLocks struct {
	Dir string
	// Patience is how long to wait for a command that is at work; default 10 s.
	Patience time.Duration
}

var _ Locker = FileLocks{}

const (
	lockPatience = 10 * time.Second
	lockInterval = 10 * time.Millisecond
)

// Acquire implements Locker.
func (l FileLocks) Acquire(ctx context.Context, group string) (release func(), err error) {
	if err := ValidateName(group); err != nil {
		return nil, err
	}
	patience := l.Patience
	if patience <= 0 {
		patience = lockPatience
	}
	path := filepath.Join(l.Dir, "V_"+group)
	for deadline := time.Now().Add(patience); ; {
		f, err := tryLock(path)
		switch {
		case err == nil:
			return func() { unlock(f, path) }, nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil, fmt.Errorf("LVM's lock of volume group %s: %w", group, err)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("%w: %s has been locked for %s (`fuser -v %s` shows by whom)", ErrLocked, group, patience, path)
		}
		select {
		case <-time.After(lockInterval):
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %s: %w", ErrLocked, group, context.Cause(ctx))
		}
	}
}

// tryLock takes the lock if nobody has it. LVM unlinks the file when it gives a lock up, so that what was locked has to be what
// the next one would open.
func tryLock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600) //nolint:gosec // LVM's directory and a validated name
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		same, err := isAt(f, path)
		if same {
			return f, nil
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
	}
}

func isAt(f *os.File, path string) (bool, error) {
	locked, err := f.Stat()
	if err != nil {
		return false, err
	}
	now, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(locked, now), err
}

// unlock removes the file first, as LVM does: whoever waits for it finds that it is another one, and tries again.
func unlock(f *os.File, path string) {
	_ = os.Remove(path)
	_ = f.Close()
}

// LockingDir asks LVM where its locks are. What is found there is as the host's own commands see it.
func LockingDir(ctx context.Context, runner hostexec.Runner, env []string) (string, error) {
	res, err := runner.Run(ctx, hostexec.Command{
		Name: "lvm", Args: []string{"lvmconfig", "--typeconfig", "full", "global/locking_dir"},
		Env: append([]string{"LVM_SUPPRESS_FD_WARNINGS=1"}, env...), Interruptible: true,
	})
	if err != nil {
		return "", fmt.Errorf("ask LVM for its locking directory: %w", err)
	}
	name, value, _ := strings.Cut(strings.TrimSpace(string(res.Stdout)), "=")
	dir := strings.Trim(value, `"`)
	if res.ExitCode != 0 || name != "locking_dir" || !filepath.IsAbs(dir) {
		return "", fmt.Errorf("ask LVM for its locking directory: lvmconfig exit code %d: %q %s",
			res.ExitCode, res.Stdout, strings.TrimSpace(string(res.Stderr)))
	}
	return dir, nil
}

// Exclusively runs fn, with what the group holds, while no LVM command of anybody is at work in it, and none can begin. So fn
// must not run one.
func (c *Client) Exclusively(ctx context.Context, fn func(Metadata) error) error {
	if c.locks == nil {
		m, err := c.View(ctx)
		if err != nil {
			return err
		}
		return fn(m)
	}
	if _, err := c.View(ctx); err != nil { // LVM finds the disks now, if it has to be asked for them
		return err
	}
	release, err := c.locks.Acquire(ctx, c.group)
	if err != nil {
		return err
	}
	defer release()
	if c.reader == nil {
		return errNoMetadata
	}
	m, err := c.reader.Metadata(c.group)
	if err != nil {
		return fmt.Errorf("read the metadata of volume group %s from its disks: %w", c.group, err)
	}
	return fn(m)
}
