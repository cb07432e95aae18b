//go:build lab

package labtest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

func TestThinPool(t *testing.T) {
	for range 2 { // the second time, on a disk that was used before
		t.Run("", func(t *testing.T) {
			group := labtest.VolumeGroup(t, labtest.Options{
				ThinPool: "pool", PoolSize: "1g", PoolMetadataSize: "8m", ChunkSize: "128k",
			})
			labtest.Run(t, "lvcreate", "-V", "1g", "--thinpool", "pool", "-n", "a", group.Name)
			got := strings.TrimSpace(labtest.Run(t, "lvs", "--noheadings", "-o", "chunk_size", "--units", "k",
				group.Name+"/pool"))
			if got != "128.00k" {
				t.Errorf("chunk size %q, want 128.00k", got)
			}
		})
	}
}

func TestTwoGroups(t *testing.T) {
	a := labtest.VolumeGroup(t, labtest.Options{MetadataSize: "16m"})
	b := labtest.VolumeGroup(t, labtest.Options{Name: "other"})
	if a.Disks[0] == b.Disks[0] {
		t.Errorf("both groups are on %s", a.Disks[0])
	}
}

// TestCleanup leaves behind what a failing test would.
func TestCleanup(t *testing.T) {
	var group *labtest.Group
	t.Run("mess", func(t *testing.T) {
		mounts := t.TempDir() // before the group, so that it is removed after it
		group = labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool", PoolSize: "1g"})
		for _, kind := range []string{"ext4", "btrfs", "xfs"} {
			labtest.Run(t, "lvcreate", "-V", "1g", "--thinpool", "pool", "-n", kind, group.Name)
			labtest.Run(t, "mkfs."+kind, group.Device(kind))
			target := filepath.Join(mounts, "a "+kind)
			if err := os.Mkdir(target, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount(group.Device(kind), target, kind, 0, ""); err != nil {
				t.Fatal(err)
			}
		}
		labtest.Run(t, "dmsetup", "suspend", group.Name+"-ext4")
	})
	if out := labtest.Run(t, "dmsetup", "ls"); !strings.Contains(out, "No devices found") {
		t.Errorf("devices are left: %s", out)
	}
	labtest.VolumeGroup(t, labtest.Options{Name: group.Name, Disks: 2})
}
