package labtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// FragileDisk is a part of a disk of the lab, below a device of its own, which can fail.
type FragileDisk struct {
	t           testing.TB
	name, table string
}

const fragileSectors = 768 << 20 >> 9

func newFragileDisk(t testing.TB, disk string, n int) FragileDisk {
	t.Helper()
	f := FragileDisk{t: t, name: fmt.Sprintf("fragile%dx%d", os.Getpid(), n)}
	// Not at the disk's own begin, where LVM would find a label twice.
	f.table = fmt.Sprintf("0 %d linear %s %d", fragileSectors, disk, 2048+n*fragileSectors)
	Run(t, "dmsetup", "create", f.name, "--table", f.table)
	Run(t, "dmsetup", "mknodes", f.name) // where there is no udevd
	return f
}

// Path is of its device.
func (f FragileDisk) Path() string { return "/dev/mapper/" + f.name }

func (f FragileDisk) load(table string) {
	f.t.Helper()
	Run(f.t, "dmsetup", "suspend", "--noflush", "--nolockfs", f.name)
	Run(f.t, "dmsetup", "load", f.name, "--table", table)
	Run(f.t, "dmsetup", "resume", f.name)
}

// Fail makes every access an error, from now on.
func (f FragileDisk) Fail() { f.t.Helper(); f.load(fmt.Sprintf("0 %d error", fragileSectors)) }

// Heal brings the disk back, as it was when it failed.
func (f FragileDisk) Heal() { f.t.Helper(); f.load(f.table) }

var globalFilter = regexp.MustCompile(`global_filter = \[.*\]`)

// FragileDisks are so many disks that can fail, and the only ones that LVM sees until the end of the test.
func FragileDisks(t *testing.T, n int) []FragileDisk {
	t.Helper()
	disk := Disk(t)
	Run(t, "modprobe", "dm-raid")
	var disks []FragileDisk
	for i := range n {
		disks = append(disks, newFragileDisk(t, disk, i))
	}
	t.Cleanup(func() {
		for _, d := range disks {
			Run(t, "dmsetup", "remove", "--retry", d.name)
		}
	})
	// The administrator's configuration, in which these are the disks.
	conf, err := os.ReadFile(filepath.Join(os.Getenv(envSystemDir), "lvm.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if !globalFilter.Match(conf) {
		t.Fatalf("no filter in\n%s", conf)
	}
	dir := t.TempDir()
	conf = globalFilter.ReplaceAll(conf, []byte(`global_filter = [ "a|^/dev/mapper/fragile|", "r|.*|" ]`))
	if err := os.WriteFile(filepath.Join(dir, "lvm.conf"), conf, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(envSystemDir, dir)
	return disks
}

// FragileGroup makes a volume group of them, which is removed at the end of the test.
func FragileGroup(t *testing.T, name string, disks ...FragileDisk) *Group {
	t.Helper()
	group := &Group{Name: fmt.Sprintf("%s%d", name, os.Getpid())}
	for _, d := range disks {
		group.Disks = append(group.Disks, d.Path())
	}
	Run(t, append([]string{"vgcreate", "-y", group.Name}, group.Disks...)...)
	t.Cleanup(func() {
		for _, d := range disks {
			d.Heal()
		}
		Run(t, "vgremove", "-ff", "-y", group.Name)
	})
	return group
}
