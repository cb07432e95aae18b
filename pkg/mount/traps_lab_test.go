//go:build lab

package mount_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/mount"
	"github.com/lvmsnap/lvmsnap/pkg/mount/mounttest"
)

const (
	tenant     = 1000
	trapTurn   = 100 * time.Microsecond // short, so that a call meets several
	trapWait   = time.Minute
	trapRounds = 12
)

// trap is kubelet's directory, in which a tenant swaps something for a link that leads out of it, all the time; and beside it what
// must stay as it is.
type trap struct {
	*testing.T
	host                    *mount.Host
	device                  string
	kubelet, outside, flips string
	devices                 []string // major:minor of what is mounted outside
	before                  string
	fell, refused           int
}

// A tenant who can write to a directory on the way to a target, or to the one that it is in, swaps it for a link while the driver
// works. Nothing outside of kubelet's directory is mounted on, unmounted or removed, and what is reported done is done.
func TestTraps(t *testing.T) {
	for _, kubeletDir := range []bool{false, true} { // a tenant that is uid 0 can only be told by --kubelet-dir
		for _, flips := range []string{"pods/p", "pods/p/target", "pods/p/staging"} {
			t.Run(fmt.Sprintf("kubeletDir=%t/%s", kubeletDir, flips), func(t *testing.T) {
				m := newMachine(t)
				k := &trap{T: t, device: m.NewDevice(t, mounttest.DeviceBytes), kubelet: filepath.Join(m.Dir, "kubelet"), outside: filepath.Join(m.Dir, "outside")}
				k.flips = filepath.Join(k.kubelet, flips)
				k.host = m.Host.(*mount.Host)
				owner := tenant
				if kubeletDir {
					k.host, owner = mount.NewHost(hostexec.Host{}, k.kubelet), 0
				}
				must(t, k.host.Format(t.Context(), k.device, mount.Ext4))
				k.build(owner)
				stop := k.swap(filepath.Join(k.outside, strings.TrimPrefix(flips, "pods/")))
				defer stop()
				for deadline, rounds := time.Now().Add(trapWait), 0; rounds < trapRounds || k.refused == 0 || k.fell == 0; rounds++ {
					if time.Now().After(deadline) {
						t.Fatalf("%d calls succeeded, %d were refused: the swaps do not meet them", k.fell, k.refused)
					}
					k.round(rounds)
				}
				t.Logf("%d calls succeeded, %d were refused", k.fell, k.refused)
			})
		}
	}
}

// build makes the same names inside and outside.
func (k *trap) build(owner int) {
	k.Helper()
	for _, dir := range []string{"pods/p/target", "pods/p/staging"} {
		must(k.T, os.MkdirAll(filepath.Join(k.kubelet, dir), 0o755))
	}
	for _, dir := range []string{"pods", "pods/p"} {
		must(k.T, os.Chown(filepath.Join(k.kubelet, dir), owner, owner))
	}
	for _, dir := range []string{"p/target", "p/staging"} {
		path := filepath.Join(k.outside, dir)
		must(k.T, os.MkdirAll(path, 0o755))
		must(k.T, unix.Mount("none", path, "tmpfs", 0, "size=64k"))
		k.Cleanup(func() { must(k.T, unix.Unmount(path, 0)) })
		var st unix.Stat_t
		must(k.T, unix.Stat(path, &st))
		k.devices = append(k.devices, fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
		must(k.T, os.WriteFile(filepath.Join(path, "victim"), nil, 0o600))
	}
	must(k.T, os.Mkdir(filepath.Join(k.outside, "p/empty"), 0o755))
	must(k.T, os.WriteFile(filepath.Join(k.outside, "p/node"), nil, 0o600))
	k.before = k.seen()
	k.Cleanup(func() { // what could not be unmounted while it was swapped, and what was mounted on a directory that the tenant was moving
		for _, name := range []string{"node", "target", "target.link", "staging", "staging.link"} {
			var err error
			for err == nil {
				err = unix.Unmount(filepath.Join(k.kubelet, "pods/p", name), unix.UMOUNT_NOFOLLOW)
			}
		}
	})
}

// seen is what there is outside, and what is mounted there.
func (k *trap) seen() string {
	k.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	must(k.T, err)
	var out []string
	for line := range strings.Lines(string(table)) {
		if strings.Contains(line, " "+k.outside+"/") {
			out = append(out, strings.Join(strings.Fields(line)[:6], " "))
		}
	}
	must(k.T, filepath.WalkDir(k.outside, func(path string, _ fs.DirEntry, err error) error {
		out = append(out, path)
		return err
	}))
	slices.Sort(out)
	return strings.Join(out, "\n")
}

// swap swaps what the tenant can for a link, and back, until it is stopped. It ends with what was there.
func (k *trap) swap(to string) (stop func()) {
	k.Helper()
	link := k.flips + ".link"
	must(k.T, os.Symlink(to, link))
	quit := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-quit:
				if n%2 == 0 {
					return
				}
			default:
			}
			// A mount point cannot be renamed: then there is nothing to swap until it is unmounted.
			if err := unix.Renameat2(unix.AT_FDCWD, k.flips, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE); err != nil {
				n--
				select {
				case <-quit:
					return
				default:
				}
			}
			_ = unix.Nanosleep(&unix.Timespec{Nsec: trapTurn.Nanoseconds()}, nil)
		}
	})
	return sync.OnceFunc(func() { close(quit); swapping.Wait() })
}

// round makes the calls that a node service makes, whatever became of the one before.
func (k *trap) round(n int) {
	k.Helper()
	ctx := k.Context()
	in := func(name string) string { return filepath.Join(k.kubelet, "pods/p", name) }
	calls := []struct {
		what string
		call func() error
	}{
		{"BindDevice", func() error { return k.host.BindDevice(ctx, k.device, in("node"), false) }},
		{"Unmount of a node", func() error { return k.host.Unmount(ctx, in("node")) }},
		{"Remove of a node", func() error { return k.host.Remove(ctx, in("node")) }},
		{"Remove", func() error { return k.host.Remove(ctx, in("empty")) }},
		{"BindDir", func() error { return k.host.BindDir(ctx, in("staging"), in("target"), true) }},
		{"Unmount", func() error { return k.host.Unmount(ctx, in("target")) }},
		{"Remove of a target", func() error { return k.host.Remove(ctx, in("target")) }},
		{"BindDir on a new target", func() error { return k.host.BindDir(ctx, in("staging"), in("target"), false) }},
		{"Unmount of the new target", func() error { return k.host.Unmount(ctx, in("target")) }},
		{"Unmount of the stage", func() error { return k.host.Unmount(ctx, in("staging")) }},
	}
	if n%6 == 0 { // they start programs
		mounting := calls[0]
		mounting.what, mounting.call = "Mount", func() error { return k.host.Mount(ctx, k.device, in("staging"), mount.Ext4, nil, false) }
		calls = slices.Insert(calls, 4, mounting)
	}
	var did []string
	for _, c := range calls {
		err := c.call()
		switch {
		case err == nil:
			k.fell++
		case errors.Is(err, mount.ErrPath), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENOTDIR):
			k.refused++
		}
		did = append(did, fmt.Sprintf("%s: %v", c.what, err))
	}
	if now := k.seen(); now != k.before {
		k.Fatalf("round %d: the driver was led outside.\n%s\nBefore:\n%s\nand now:\n%s", n, strings.Join(did, "\n"), k.before, now)
	}
	k.nothingElse(did)
}

// nothingElse: nothing of what is outside is shown inside.
func (k *trap) nothingElse(did []string) {
	k.Helper()
	table, err := os.ReadFile("/proc/self/mountinfo")
	must(k.T, err)
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); strings.HasPrefix(f[4], k.kubelet+"/") && slices.Contains(k.devices, f[2]) {
			k.Fatalf("what is outside is mounted in kubelet's directory: %s\n%s", line, strings.Join(did, "\n"))
		}
	}
}
