// Package labtest helps Go tests which run on the lab's machine (see test/lab).
//
// Such tests have the build tag lab. Run without the lab they fail; they never
// skip, so that a green run means that they ran.
package labtest

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/test/lab/internal/release"
)

// The environment of a command in the lab.
const (
	envDisks     = "LAB_DISKS"
	envMode      = "LAB_MODE_ACTIVE"
	envSystemDir = "LVM_SYSTEM_DIR"
)

// Require fails the test unless it runs in the lab.
func Require(t testing.TB) {
	t.Helper()
	if os.Getenv(envDisks) == "" || os.Getenv(envMode) == "" {
		t.Fatal("run this test in the lab: make test-lab")
	}
}

// Mode is the kind of machine the test runs on: "native" or "uml".
func Mode(t testing.TB) string {
	t.Helper()
	Require(t)
	return os.Getenv(envMode)
}

// Disks lists the lab's disks, whether they are in use or not. Take one with
// Disk or VolumeGroup.
func Disks(t testing.TB) []string {
	t.Helper()
	Require(t)
	return strings.Split(os.Getenv(envDisks), ",")
}

// errBusy says that someone else has a disk.
var errBusy = errors.New("in use")

// Disk takes a free disk for the time of the test, empty. It fails the test when
// all disks are taken.
func Disk(t testing.TB) string {
	t.Helper()
	disks := Disks(t)
	for _, disk := range disks {
		lock, err := lockDisk(disk)
		if errors.Is(err, errBusy) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			defer lock.Close()
			if err := clear(disk); err != nil {
				t.Errorf("disk not given back: %v", err)
			}
		})
		if err := clear(disk); err != nil {
			t.Fatal(err)
		}
		return disk
	}
	t.Fatalf("all %d disks of the lab are in use: give it more of them with --disks", len(disks))
	return ""
}

// lockDisk takes a disk for this test, against those in other processes as well
// as in this one: flock is between open files.
func lockDisk(disk string) (*os.File, error) {
	name := filepath.Join(os.Getenv(envSystemDir), filepath.Base(disk)+".lock")
	lock, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return lock, nil
	}
	lock.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errBusy
	}
	return nil, fmt.Errorf("locking %s: %w", disk, err)
}

// clear makes a disk empty again.
func clear(disk string) error {
	if err := release.Disk(disk, os.Environ()); err != nil {
		return err
	}
	if _, err := output("wipefs", "-a", "-f", disk); err != nil {
		return err
	}
	// Gives the memory back, and a new volume its zeroes. Where the device cannot
	// discard, wiping the signatures must do.
	_, _ = output("blkdiscard", "-f", disk)
	return nil
}

// Options describe a volume group; the zero value is a plain one.
type Options struct {
	// Name of the group; by default a new one, without the hyphens which
	// device-mapper would double.
	Name string
	// Disks is the number of physical volumes, by default 1.
	Disks int
	// ExtentSize and MetadataSize go to vgcreate, in LVM's notation ("4m").
	ExtentSize   string
	MetadataSize string
	// ThinPool is the name of a thin pool to make; by default there is none.
	ThinPool string
	// PoolSize is the pool's size ("2g") or share ("50%VG"); by default "80%VG".
	PoolSize string
	// PoolMetadataSize and ChunkSize go to lvcreate, in LVM's notation.
	PoolMetadataSize string
	ChunkSize        string
	// PoolArgs are further arguments for the lvcreate of the pool.
	PoolArgs []string
}

// Group is a volume group of the test's own.
type Group struct {
	Name string
	// Disks are its physical volumes.
	Disks []string
	// ThinPool is the name of its thin pool, if it has one.
	ThinPool string
}

// Device is the path of one of the group's logical volumes.
func (g *Group) Device(lv string) string { return "/dev/" + g.Name + "/" + lv }

// groups numbers the groups of this process.
var groups atomic.Int64

// VolumeGroup makes a volume group on free disks of the lab, and removes it, with
// all that is in it, at the end of the test.
func VolumeGroup(t testing.TB, opts Options) *Group {
	t.Helper()
	Require(t)
	group := &Group{Name: opts.Name, ThinPool: opts.ThinPool}
	if group.Name == "" {
		group.Name = fmt.Sprintf("lab%dx%d", os.Getpid(), groups.Add(1))
	}
	for range max(opts.Disks, 1) {
		group.Disks = append(group.Disks, Disk(t))
	}
	argv := []string{"vgcreate", "-y"}
	argv = option(argv, "--physicalextentsize", opts.ExtentSize)
	argv = option(argv, "--metadatasize", opts.MetadataSize)
	Run(t, append(append(argv, group.Name), group.Disks...)...)
	if opts.ThinPool == "" {
		return group
	}
	size := opts.PoolSize
	if size == "" {
		size = "80%VG"
	}
	flag := "--size"
	if strings.Contains(size, "%") {
		flag = "--extents"
	}
	argv = []string{"lvcreate", "-y", "--type", "thin-pool", "--name", opts.ThinPool, flag, size}
	argv = option(argv, "--poolmetadatasize", opts.PoolMetadataSize)
	argv = option(argv, "--chunksize", opts.ChunkSize)
	Run(t, append(append(argv, opts.PoolArgs...), group.Name)...)
	return group
}

func option(argv []string, flag, value string) []string {
	if value == "" {
		return argv
	}
	return append(argv, flag, value)
}

// Run runs a command as the administrator would, and returns its standard output.
// It fails the test if the command fails.
func Run(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := output(argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func output(argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	// The messages are for people who read English, and for tests.
	cmd.Env = append(os.Environ(), "LC_ALL=C", "LVM_SUPPRESS_FD_WARNINGS=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", strings.Join(argv, " "), err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.String(), nil
}
