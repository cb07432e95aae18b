package ctl_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/ctl"
	"github.com/lvmsnap/lvmsnap/pkg/dm"
)

// modules is the host's list of kernel modules that can be loaded.
func (n *fakeNode) modules(list string) {
	n.t.Helper()
	var name unix.Utsname
	n.ok(unix.Uname(&name))
	dir := filepath.Join(n.root, "lib/modules", unix.ByteSliceToString(name.Release[:]))
	n.ok(os.MkdirAll(dir, 0o750))
	n.ok(os.WriteFile(filepath.Join(dir, "modules.dep"), []byte(list), 0o600))
}

// A container has no list of the host's modules, which the kernel loads nevertheless.
func TestModules(t *testing.T) {
	for name, tt := range map[string]struct {
		list string
		want []string
	}{
		"no list":           {"", []string{}},
		"all":               {"kernel/drivers/md/dm-thin-pool.ko.xz: x\nkernel/drivers/md/dm-snapshot.ko.xz: x\nkernel/drivers/md/dm-raid.ko.xz: x\n", []string{}},
		"no snapshots":      {"kernel/drivers/md/dm-thin-pool.ko.xz: x\nkernel/drivers/md/dm-raid.ko.xz: x\n", []string{"ModuleMissing"}},
		"none of the three": {"kernel/drivers/md/dm-mod.ko: \n", []string{"ModuleMissing", "ModuleMissing", "ModuleMissing"}},
	} {
		n := newNode(t)
		n.kernel.targets = []string{"linear"}
		if tt.list != "" {
			n.modules(tt.list)
		}
		if got, _ := n.doctor(); !slices.Equal(reasons(got.Findings), tt.want) {
			t.Errorf("%s: %+v", name, got.Findings)
		}
	}
}

// What LVM's filters hide of the groups is a finding, and what they should hide, and nothing else.
func TestFilters(t *testing.T) {
	const a, b = "a|/dev/sda|data|g\n", "b|/dev/sdb|data|g\n"
	for name, tt := range map[string]struct {
		seen, there string
		want        []string
	}{
		"all is seen":            {a + b, a + b, []string{}},
		"by another path":        {"a|/dev/mapper/mpatha|data|g\n", a, []string{}},
		"one is hidden":          {a + "b|[unknown]|data|g\n", a + b, []string{"PhysicalVolumeHidden"}},
		"all are hidden":         {"", a + b, []string{"PhysicalVolumeHidden", "PhysicalVolumeHidden"}},
		"of another group":       {a, a + "c|/dev/sdc|theirs|h\n", []string{}},
		"of another of its name": {a, a + "c|/dev/sdc|data|h\n", []string{}},
		"a volume is seen":       {a + "|/dev/data/csi-v-x||\n", a, []string{"LVsAreScanned"}},
		"by its other name":      {a + "|/dev/mapper/data-csi--v--x||\n|/dev/mapper/data-y||\n", a, []string{"LVsAreScanned"}},
		"a disk named like one":  {a + "b|/dev/mapper/data-crypt|data|g\n", a + "b|/dev/mapper/data-crypt|data|g\n", []string{}},
		"another group's volume": {a + "|/dev/data2/x||\n|/dev/mapper/data2-x||\n|/dev/mapper/data--2-x||\n|/dev/mapper/mpatha||\n", a, []string{}},
	} {
		n := newNode(t)
		pvs := func(text string) func([]string) (string, int) {
			return func(args []string) (string, int) {
				if args[0] == "pvs" {
					return strings.ReplaceAll("  "+text, "\n", "\n  "), 0
				}
				return n.lvm(args)
			}
		}
		n.programs["lvm"], n.programs["lvm without settings"] = pvs(tt.seen), pvs(tt.there)
		if got, _ := n.doctor(); !slices.Equal(reasons(got.Findings), tt.want) {
			t.Errorf("%s: %+v", name, got.Findings)
		}
	}
}

// Where the current directory is read-only, as in the driver's container, the bundle is in the work directory.
func TestBundleInAReadOnlyRoot(t *testing.T) {
	n, _, _ := shop(t)
	work := t.TempDir()
	t.Chdir("/proc") // where nobody can make a file, root included
	if code := n.ctl("support-bundle", "--work-dir", work); code != ctl.ExitOK {
		t.Fatalf("exit code %d: %s", code, n.err.String())
	}
	file := strings.TrimSpace(n.out.String())
	if info, err := os.Stat(file); err != nil || filepath.Dir(file) != work || info.Size() == 0 {
		t.Errorf("%q: %v", file, err)
	}
}

type devices []dm.Device

func (d devices) Devices(context.Context, string) ([]dm.Device, error) { return d, nil }

// A disk below encryption may be called as a volume is, and is one that LVM has to see.
func TestWithoutVolumes(t *testing.T) {
	n := newNode(t)
	n.programs["lvm"] = func([]string) (string, int) { return "", 5 } // there is no filter
	uuid := strings.Repeat("u", 32)
	got := ctl.WithoutVolumes(t.Context(), programs{n}, devices{{Name: "data-crypt", UUID: "CRYPT-LUKS2-x"}, {Name: "data-pool-tpool", UUID: "LVM-" + uuid + uuid + "-tpool"}}, []string{"data"})
	if want := `devices/filter=["a|^/dev/mapper/data-crypt$|","r|^/dev/data/|","r|^/dev/mapper/data-|"]`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
