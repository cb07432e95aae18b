//go:build lab

package mount_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/mount"
	"github.com/lvmsnap/lvmsnap/pkg/mount/mounttest"
)

func TestContract(t *testing.T) { mounttest.Contract(t, newMachine) }

// fsyncFile writes a file and makes it durable without committing the whole file system: on btrfs that is what
// makes a log tree.
func fsyncFile(t *testing.T, path, content string) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		_, err = f.WriteString(content)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func wantFile(t *testing.T, path, content string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != content {
		t.Errorf("%s = %q, %v; want %q", path, got, err, content)
	}
}

// TestCloneOfMounted is the way of a snapshot of a volume in use: what was fsynced before the cut is in the clone,
// both are mounted at once, and each goes its own way.
func TestCloneOfMounted(t *testing.T) {
	for _, fsType := range mounttest.FSTypes {
		for _, readOnly := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/ro=%t", fsType, readOnly), func(t *testing.T) {
				m, ctx := newMachine(t), t.Context()
				origin, orig, clone := m.NewDevice(t, mounttest.DeviceBytes), filepath.Join(m.Dir, "orig"), filepath.Join(m.Dir, "clone")
				must(t, m.Host.Format(ctx, origin, fsType))
				must(t, m.Host.Mount(ctx, origin, orig, fsType, nil, false))
				fsyncFile(t, filepath.Join(orig, "one"), "1")
				mustProgram(t, "sync", "-f", orig)
				for i := range 5 {
					fsyncFile(t, filepath.Join(orig, fmt.Sprint("log", i)), "fsynced")
				}
				if fsType == mount.Btrfs && logRoot(t, origin) == "0" {
					t.Fatal("the original has no log tree: this tests nothing")
				}
				copied := m.Copy(t, origin)
				fsyncFile(t, filepath.Join(orig, "later"), "1")
				must(t, m.Host.NewIdentity(ctx, copied, fsType))
				must(t, m.Host.Mount(ctx, copied, clone, fsType, nil, readOnly))
				wantFile(t, filepath.Join(clone, "one"), "1")
				for i := range 5 {
					wantFile(t, filepath.Join(clone, fmt.Sprint("log", i)), "fsynced")
				}
				if _, err := os.Stat(filepath.Join(clone, "later")); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("the clone has what was written after the cut: %v", err)
				}
				if !readOnly {
					fsyncFile(t, filepath.Join(clone, "own"), "clone")
				}
				fsyncFile(t, filepath.Join(orig, "own"), "original")
				must(t, m.Host.Unmount(ctx, clone))
				must(t, m.Host.Unmount(ctx, orig))
				fsckClean(t, fsType, origin)
				fsckClean(t, fsType, copied)
				// In the other order, with the kernel knowing both.
				must(t, m.Host.Mount(ctx, copied, clone, fsType, nil, readOnly))
				must(t, m.Host.Mount(ctx, origin, orig, fsType, nil, false))
				wantFile(t, filepath.Join(orig, "own"), "original")
				if !readOnly {
					wantFile(t, filepath.Join(clone, "own"), "clone")
				}
			})
		}
	}
}

func logRoot(t *testing.T, dev string) string {
	t.Helper()
	for line := range strings.Lines(mustProgram(t, "btrfs", "inspect-internal", "dump-super", dev)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "log_root" {
			return f[1]
		}
	}
	t.Fatal("dump-super does not show log_root")
	return ""
}

func fsckClean(t *testing.T, fsType, dev string) {
	t.Helper()
	switch fsType {
	case mount.Ext4:
		mustProgram(t, "e2fsck", "-fn", dev)
	case mount.XFS:
		mustProgram(t, "xfs_repair", "-n", dev)
	case mount.Btrfs:
		mustProgram(t, "btrfs", "check", "--readonly", dev)
	}
}

// TestBtrfstuneBreaksALog keeps the reason for renewBtrfs true. When this fails, btrfstune has learned to keep
// a log, and the comment there can be amended.
func TestBtrfstuneBreaksALog(t *testing.T) {
	m, ctx := newMachine(t), t.Context()
	origin, orig := m.NewDevice(t, mounttest.DeviceBytes), filepath.Join(m.Dir, "orig")
	must(t, m.Host.Format(ctx, origin, mount.Btrfs))
	must(t, m.Host.Mount(ctx, origin, orig, mount.Btrfs, nil, false))
	mustProgram(t, "sync", "-f", orig)
	fsyncFile(t, filepath.Join(orig, "log"), "fsynced")
	copied := m.Copy(t, origin)
	mustProgram(t, "btrfstune", "-m", copied)
	if err := m.Host.Mount(ctx, copied, filepath.Join(m.Dir, "clone"), mount.Btrfs, nil, false); err == nil {
		t.Error("a btrfs with a log can be mounted after btrfstune -m")
	} else {
		t.Logf("as expected: %v", err)
	}
}

// A clone of a clone, a clone of a clean file system, with the original unmounted but known to the kernel, and
// one with more copies of the super block.
func TestBtrfsClones(t *testing.T) {
	m, ctx := newMachine(t), t.Context()
	dev := m.NewDevice(t, mounttest.DeviceBytes)
	must(t, m.Host.Format(ctx, dev, mount.Btrfs))
	dir := filepath.Join(m.Dir, "first")
	must(t, m.Host.Mount(ctx, dev, dir, mount.Btrfs, nil, false))
	fsyncFile(t, filepath.Join(dir, "file"), "1")
	must(t, m.Host.Unmount(ctx, dir))
	devices := []string{dev}
	for range 3 {
		next := m.Copy(t, devices[len(devices)-1])
		// What udev does (btrfs ready) when a device appears: the kernel takes note of a second device of that fsid.
		mustProgram(t, "btrfs", "device", "scan", next)
		must(t, m.Host.NewIdentity(ctx, next, mount.Btrfs))
		devices = append(devices, next)
	}
	fsids := map[string]bool{}
	for i, dev := range devices {
		fsckClean(t, mount.Btrfs, dev)
		fsid := mustProgram(t, "blkid", "-p", "-s", "UUID", "-o", "value", dev)
		if fsids[fsid] {
			t.Errorf("two file systems have the fsid %s", fsid)
		}
		fsids[fsid] = true
		dir := filepath.Join(m.Dir, fmt.Sprint("m", i))
		must(t, m.Host.Mount(ctx, dev, dir, mount.Btrfs, nil, false))
		wantFile(t, filepath.Join(dir, "file"), "1")
		for copyNumber := range 2 {
			out := mustProgram(t, "btrfs", "inspect-internal", "dump-super", "-s", fmt.Sprint(copyNumber), dev)
			if !strings.Contains(out, "[match]") || !strings.Contains(out, fsid) {
				t.Errorf("copy %d of the super block of %s:\n%s", copyNumber, dev, out)
			}
		}
	}
}

// A read-only target is so at once, and takes no writes.
func TestReadOnlyBindRefusesWrites(t *testing.T) {
	m, ctx := newMachine(t), t.Context()
	dev, staging, target := m.NewDevice(t, mounttest.DeviceBytes), filepath.Join(m.Dir, "staging"), filepath.Join(m.Dir, "target")
	must(t, m.Host.Format(ctx, dev, mount.Ext4))
	must(t, m.Host.Mount(ctx, dev, staging, mount.Ext4, []string{"nosuid", "noexec"}, false))
	must(t, m.Host.BindDir(ctx, staging, target, true))
	if err := os.WriteFile(filepath.Join(target, "file"), nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("write through a read-only bind: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(staging, "file"), nil, 0o600))
	at, err := m.Host.At(ctx, target)
	must(t, err)
	if !slices.Contains(at.Options, "nosuid") || !slices.Contains(at.Options, "noexec") {
		t.Errorf("the bind lost options of its source: %v", at.Options)
	}
	// Busy: an open file.
	f, err := os.Open(filepath.Join(target, "file"))
	must(t, err)
	if err := m.Host.Unmount(ctx, target); !errors.Is(err, mount.ErrInUse) {
		t.Errorf("Unmount of a busy target: %v", err)
	}
	must(t, f.Close())
	must(t, m.Host.Unmount(ctx, target))
}

// Kernels before 5.12 cannot do it in one step; the other way comes to the same.
func TestBindInSteps(t *testing.T) {
	m, ctx := newMachine(t), t.Context()
	dev, staging := m.NewDevice(t, mounttest.DeviceBytes), filepath.Join(m.Dir, "staging")
	host := m.Host.(*mount.Host)
	must(t, host.Format(ctx, dev, mount.XFS))
	must(t, host.Mount(ctx, dev, staging, mount.XFS, []string{"nosuid"}, false))
	for _, readOnly := range []bool{false, true} {
		target := filepath.Join(m.Dir, fmt.Sprint(readOnly))
		must(t, mount.BindInSteps(staging, target, readOnly))
		at, err := host.At(ctx, target)
		if err != nil || at == nil || at.ReadOnly != readOnly || at.FSReadOnly || !slices.Contains(at.Options, "nosuid") {
			t.Errorf("readOnly %t: %+v, %v", readOnly, at, err)
		}
		if now, old, err := mount.MountIDs(target); err != nil || now != at.ID || old != at.ID {
			t.Errorf("mount %d, as an old kernel tells %d, %v; want %d", now, old, err, at.ID)
		}
	}
}

// A bind of a device's node that is read-only does not stop writes: the device must be.
func TestReadOnlyDeviceRefusesWrites(t *testing.T) {
	m, ctx := newMachine(t), t.Context()
	// On device-mapper, as a volume is: loop devices have a read-only flag of their own.
	loop, target := m.NewDevice(t, mounttest.DeviceBytes), filepath.Join(m.Dir, "target")
	table := fmt.Sprintf("0 %d linear %s 0", mounttest.DeviceBytes/512, loop)
	t.Setenv("DM_DISABLE_UDEV", "1")
	mustProgram(t, "dmsetup", "create", "labro", "--table", table)
	defer mustProgram(t, "dmsetup", "remove", "labro")
	dev := "/dev/mapper/labro"
	write := func() error {
		f, err := os.OpenFile(target, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(bytes.Repeat([]byte("x"), 4096), 0)
		return errors.Join(err, f.Close())
	}
	must(t, m.Host.BindDevice(ctx, dev, target, true))
	if err := write(); !errors.Is(err, unix.EPERM) {
		t.Errorf("write to a read-only device: %v", err)
	}
	// A snapshot or an extension reloads and resumes.
	mustProgram(t, "dmsetup", "load", "labro", "--table", table)
	mustProgram(t, "dmsetup", "suspend", "labro")
	mustProgram(t, "dmsetup", "resume", "labro")
	if err := write(); !errors.Is(err, unix.EPERM) {
		t.Errorf("write to a read-only device after a resume: %v", err)
	}
	must(t, m.Host.Unmount(ctx, target))
	must(t, m.Host.BindDevice(ctx, dev, target, false))
	must(t, write())
	must(t, m.Host.Unmount(ctx, target))
}

func TestProbeNeverTakesTroubleForBlank(t *testing.T) {
	m, ctx := newMachine(t), t.Context()
	t.Setenv("DM_DISABLE_UDEV", "1")
	mustProgram(t, "dmsetup", "create", "laberr", "--table", "0 204800 error")
	defer mustProgram(t, "dmsetup", "remove", "laberr")
	table := m.NewDevice(t, mounttest.DeviceBytes)
	f, err := os.OpenFile(table, os.O_WRONLY, 0)
	must(t, err)
	mbr := make([]byte, 512)
	mbr[446+4], mbr[446+8], mbr[446+13], mbr[510], mbr[511] = 0x83, 8, 8, 0x55, 0xaa
	_, err = f.WriteAt(mbr, 0)
	must(t, errors.Join(err, f.Close()))
	// An ext4, and the super block of a btrfs at its place.
	both, other := m.NewDevice(t, mounttest.DeviceBytes), m.NewDevice(t, mounttest.DeviceBytes)
	must(t, m.Host.Format(ctx, both, mount.Ext4))
	must(t, m.Host.Format(ctx, other, mount.Btrfs))
	mustProgram(t, "dd", "if="+other, "of="+both, "bs=4096", "count=1", "skip=16", "seek=16", "conv=fsync")
	for name, dev := range map[string]string{
		"unreadable": "/dev/mapper/laberr", "partition table": table, "two file systems": both, "not a device": images[table], "a directory": m.Dir,
	} {
		got, err := m.Host.Probe(ctx, dev)
		t.Logf("%s: %q, %v", name, got, err)
		if got == "" && err == nil {
			t.Errorf("%s looks blank", name)
		}
	}
}

// kubelet's directory may be a symbolic link of the administrator; the mount table has no links.
func TestParentsMayBeLinks(t *testing.T) {
	m, ctx := newMachine(t), t.Context()
	dev := m.NewDevice(t, mounttest.DeviceBytes)
	must(t, m.Host.Format(ctx, dev, mount.Ext4))
	// And with what the mount table escapes.
	must(t, os.Mkdir(filepath.Join(m.Dir, "real dir"), 0o700))
	must(t, os.Symlink("real dir", filepath.Join(m.Dir, "kubelet")))
	path := filepath.Join(m.Dir, "kubelet", `a b\c`)
	must(t, m.Host.Mount(ctx, dev, path, mount.Ext4, nil, false))
	at, err := m.Host.At(ctx, path)
	if err != nil || at == nil || at.Path != filepath.Join(m.Dir, "real dir", `a b\c`) {
		t.Errorf("At = %+v, %v", at, err)
	}
	must(t, m.Host.Unmount(ctx, path))
	if of, _ := m.Host.Of(ctx, dev); len(of) != 0 {
		t.Errorf("left: %+v", of)
	}
}

func TestMountErrorsKeepFlagsSecret(t *testing.T) {
	m, ctx := newMachine(t), t.Context()
	dev := m.NewDevice(t, mounttest.DeviceBytes)
	must(t, m.Host.Format(ctx, dev, mount.Ext4))
	err := m.Host.Mount(ctx, dev, filepath.Join(m.Dir, "m"), mount.Ext4, []string{"password=hunter2"}, false)
	if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "password") {
		t.Errorf("Mount = %v", err)
	}
}

// A journal that has to be replayed, and an ext4 that is marked as having errors, are dealt with by Mount.
func TestExt4Repair(t *testing.T) {
	m, ctx := newMachine(t), t.Context()
	dev, dir := m.NewDevice(t, mounttest.DeviceBytes), filepath.Join(m.Dir, "m")
	must(t, m.Host.Format(ctx, dev, mount.Ext4))
	mustProgram(t, "debugfs", "-w", "-R", "ssv state 2", dev) // EXT2_ERROR_FS
	must(t, m.Host.Mount(ctx, dev, dir, mount.Ext4, nil, false))
	must(t, m.Host.Unmount(ctx, dir))
	if out := mustProgram(t, "dumpe2fs", "-h", dev); !strings.Contains(out, "Filesystem state:         clean\n") {
		t.Errorf("the file system was not repaired:\n%s", out)
	}
}
