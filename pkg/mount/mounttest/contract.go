package mounttest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/mount"
)

// Machine is a Host or a Fake, and what a test needs to play with it.
type Machine struct {
	Host interface {
		mount.FileSystems
		mount.Mounts
	}
	Dir       string                                      // for targets; its mounts go away after the test
	NewDevice func(t *testing.T, bytes int64) string      // blank
	Copy      func(t *testing.T, from string) string      // a new device with the content of another, which may be mounted
	Resize    func(t *testing.T, device string, to int64) // grows a device
}

// DeviceBytes is enough for every file system (mkfs.xfs wants 300 MiB).
const DeviceBytes = 512 << 20

// FSTypes are all file systems.
var FSTypes = []string{mount.Ext4, mount.XFS, mount.Btrfs}

// Contract is what the node service relies on.
func Contract(t *testing.T, newMachine func(t *testing.T) Machine) {
	for _, fsType := range FSTypes {
		t.Run(fsType, func(t *testing.T) { contractFS(t, newMachine(t), fsType) })
	}
	t.Run("device node", func(t *testing.T) { contractDevice(t, newMachine(t)) })
	t.Run("probe", func(t *testing.T) { contractProbe(t, newMachine(t)) })
	t.Run("paths", func(t *testing.T) { contractPaths(t, newMachine(t)) })
}

func contractFS(t *testing.T, m Machine, fsType string) {
	ctx := t.Context()
	dev := m.NewDevice(t, DeviceBytes)
	must(t, m.Host.Format(ctx, dev, fsType))
	must(t, m.Host.Format(ctx, dev, fsType)) // over what a crashed attempt left
	if got, err := m.Host.Probe(ctx, dev); got != fsType || err != nil {
		t.Fatalf("Probe = %q, %v", got, err)
	}
	staging, target := filepath.Join(m.Dir, "staging"), filepath.Join(m.Dir, "target")
	must(t, m.Host.Mount(ctx, dev, staging, fsType, []string{"noatime"}, false))
	at := contractAt(t, m, staging)
	if at.FSType != fsType || at.ReadOnly || at.FSReadOnly || at.Block || at.Root != "/" || !slices.Contains(at.Options, "noatime") {
		t.Errorf("At = %+v", at)
	}
	wantErr(t, "Format of a mounted device", m.Host.Format(ctx, dev, fsType), mount.ErrInUse)

	contractClone(t, m, dev, fsType)

	must(t, m.Host.BindDir(ctx, staging, target, true))
	if p := contractAt(t, m, target); !p.ReadOnly || p.FSReadOnly {
		t.Errorf("a read-only bind: %+v", p)
	}
	if of, err := m.Host.Of(ctx, dev); err != nil || len(of) != 2 {
		t.Errorf("Of = %+v, %v; want both mounts", of, err)
	}
	contractGrow(t, m, dev, staging)

	wantErr(t, "Remove of a mounted target", m.Host.Remove(ctx, target), mount.ErrInUse)
	for range 2 { // the second time there is nothing to do
		must(t, m.Host.Unmount(ctx, target))
		must(t, m.Host.Remove(ctx, target))
		must(t, m.Host.Unmount(ctx, staging))
	}
	if of, err := m.Host.Of(ctx, dev); err != nil || len(of) != 0 {
		t.Errorf("after unmounting Of = %+v, %v", of, err)
	}
	must(t, m.Host.Mount(ctx, dev, staging, fsType, nil, true))
	if p := contractAt(t, m, staging); !p.ReadOnly || !p.FSReadOnly {
		t.Errorf("a read-only mount: %+v", p)
	}
	must(t, m.Host.Unmount(ctx, staging))
}

// contractClone has a copy of a mounted file system mounted beside it.
func contractClone(t *testing.T, m Machine, dev, fsType string) {
	t.Helper()
	ctx := t.Context()
	clone, dir := m.Copy(t, dev), filepath.Join(m.Dir, "clone")
	if fsType == mount.Btrfs {
		if err := m.Host.Mount(ctx, clone, dir, fsType, nil, false); err == nil {
			t.Error("two btrfs with one fsid can be mounted")
			must(t, m.Host.Unmount(ctx, dir))
		}
	}
	must(t, m.Host.NewIdentity(ctx, clone, fsType))
	must(t, m.Host.NewIdentity(ctx, clone, fsType)) // after a crash
	must(t, m.Host.Mount(ctx, clone, dir, fsType, nil, false))
	if fsType == mount.Btrfs {
		wantErr(t, "NewIdentity of a mounted device", m.Host.NewIdentity(ctx, clone, fsType), mount.ErrInUse)
	}
	of, err := m.Host.Of(ctx, clone)
	if at := contractAt(t, m, dir); err != nil || len(of) != 1 || of[0].ID != at.ID {
		t.Errorf("Of the clone = %+v, %v; want the mount %+v", of, err, at)
	}
	must(t, m.Host.Unmount(ctx, dir))
}

func contractGrow(t *testing.T, m Machine, dev, staging string) {
	t.Helper()
	ctx := t.Context()
	must(t, m.Host.Grow(ctx, dev, staging))
	before, err := m.Host.Usage(ctx, staging)
	must(t, err)
	if before.Block || before.TotalBytes < DeviceBytes/2 || before.AvailableBytes <= 0 || before.UsedBytes < 0 {
		t.Errorf("Usage = %+v", before)
	}
	m.Resize(t, dev, 2*DeviceBytes)
	wantErr(t, "Grow through a read-only mount", m.Host.Grow(ctx, dev, filepath.Join(m.Dir, "target")), mount.ErrReadOnly)
	for range 2 {
		must(t, m.Host.Grow(ctx, dev, staging))
		after, err := m.Host.Usage(ctx, staging)
		must(t, err)
		if after.TotalBytes < before.TotalBytes+DeviceBytes*9/10 {
			t.Errorf("grown by %d bytes Usage went from %+v to %+v", DeviceBytes, before, after)
		}
	}
}

func contractDevice(t *testing.T, m Machine) {
	ctx := t.Context()
	dev := m.NewDevice(t, DeviceBytes)
	one, two := filepath.Join(m.Dir, "one"), filepath.Join(m.Dir, "two")
	must(t, m.Host.BindDevice(ctx, dev, one, false))
	if p := contractAt(t, m, one); !p.Block || p.ReadOnly || p.FSType != "" {
		t.Errorf("At a node = %+v", p)
	}
	if u, err := m.Host.Usage(ctx, one); err != nil || u != (mount.Usage{Block: true, TotalBytes: DeviceBytes}) {
		t.Errorf("Usage of a node = %+v, %v", u, err)
	}
	// The device is read-only for all or for none.
	must(t, m.Host.BindDevice(ctx, dev, two, true))
	of, err := m.Host.Of(ctx, dev)
	if err != nil || len(of) != 2 || !of[0].ReadOnly || !of[1].ReadOnly {
		t.Errorf("Of = %+v, %v", of, err)
	}
	must(t, m.Host.Unmount(ctx, two))
	must(t, m.Host.Remove(ctx, two))
	must(t, m.Host.Unmount(ctx, one))
	must(t, m.Host.BindDevice(ctx, dev, one, false))
	if p := contractAt(t, m, one); p.ReadOnly {
		t.Errorf("writable again: %+v", p)
	}
	wantErr(t, "Remove of a bound node", m.Host.Remove(ctx, one), mount.ErrInUse)
	must(t, m.Host.Unmount(ctx, one))
	must(t, m.Host.Remove(ctx, one))
	if _, err := os.Lstat(one); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the target is left: %v", err)
	}
}

func contractProbe(t *testing.T, m Machine) {
	ctx := t.Context()
	if got, err := m.Host.Probe(ctx, m.NewDevice(t, DeviceBytes)); got != "" || err != nil {
		t.Errorf("Probe of a blank device = %q, %v", got, err)
	}
	if got, err := m.Host.Probe(ctx, filepath.Join(m.Dir, "no-such-device")); err == nil {
		t.Errorf("Probe of a missing device = %q, nil: it looks blank", got)
	}
	if of, err := m.Host.Of(ctx, filepath.Join(m.Dir, "no-such-device")); err != nil || len(of) != 0 {
		t.Errorf("Of a missing device = %v, %v", of, err)
	}
	wantErr(t, "NewIdentity of a blank device", m.Host.NewIdentity(ctx, m.NewDevice(t, DeviceBytes), mount.Btrfs), mount.ErrDamaged)
	if err := m.Host.Format(ctx, m.NewDevice(t, DeviceBytes), "vfat"); err == nil {
		t.Error("Format as vfat succeeds")
	}
}

func contractPaths(t *testing.T, m Machine) {
	ctx := t.Context()
	dev := m.NewDevice(t, DeviceBytes)
	must(t, m.Host.Format(ctx, dev, mount.Ext4))
	link, file, full := filepath.Join(m.Dir, "link"), filepath.Join(m.Dir, "file"), filepath.Join(m.Dir, "full")
	elsewhere := t.TempDir()
	must(t, os.Symlink(elsewhere, link))
	must(t, os.WriteFile(file, []byte("data"), 0o600))
	must(t, os.MkdirAll(filepath.Join(full, "data"), 0o700))
	for _, target := range []string{link, file, "relative", m.Dir + "/../up", "/"} {
		wantErr(t, "Mount on "+target, m.Host.Mount(ctx, dev, target, mount.Ext4, nil, false), mount.ErrPath)
	}
	for _, target := range []string{link, full, "relative", m.Dir + "/../up"} {
		wantErr(t, "BindDevice on "+target, m.Host.BindDevice(ctx, dev, target, false), mount.ErrPath)
	}
	wantErr(t, "Remove of a link", m.Host.Remove(ctx, link), mount.ErrPath)
	wantErr(t, "Remove of a file with data", m.Host.Remove(ctx, file), mount.ErrPath)
	if err := m.Host.Remove(ctx, full); err == nil {
		t.Error("Remove of a directory with something in it succeeds")
	}
	must(t, m.Host.Remove(ctx, filepath.Join(m.Dir, "no", "such", "path")))
	must(t, m.Host.Unmount(ctx, filepath.Join(m.Dir, "no", "such", "path")))
	wantErr(t, "a malformed flag", m.Host.Mount(ctx, dev, filepath.Join(m.Dir, "ok"), mount.Ext4, []string{"a,b"}, false), mount.ErrFlag)
	if of, err := m.Host.Of(ctx, dev); err != nil || len(of) != 0 {
		t.Errorf("something was mounted: %+v, %v", of, err)
	}
}

func contractAt(t *testing.T, m Machine, path string) mount.Point {
	t.Helper()
	at, err := m.Host.At(context.WithoutCancel(t.Context()), path)
	must(t, err)
	if at == nil {
		t.Fatalf("nothing is mounted on %s", path)
	}
	return *at
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}
