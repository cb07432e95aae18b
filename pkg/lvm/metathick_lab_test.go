//go:build lab

package lvm_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// TestThickMetadata makes thick volumes of every layout for which the lab has disks (`bin/lab --disks 4`: all of them), and
// whatever else takes extents of a group. After each step the metadata says what lvs and vgs say, free extents first of all.
func TestThickMetadata(t *testing.T) {
	env := labConfig(t)
	disks := len(labtest.Disks(t))
	vg := labtest.VolumeGroup(t, labtest.Options{Name: "vg1", Disks: disks})
	labtest.Run(t, "modprobe", "dm-raid")
	client := lvm.NewClient(lvm.Exec{Runner: hostexec.Host{}, Env: env}, vg.Name)
	reader := &lvm.DiskReader{}
	defer reader.Close()
	if err := reader.Locate(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	free := int64(0)
	check := func(what string) {
		t.Helper()
		m, err := reader.Metadata(vg.Name)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		lvs, err := client.LVs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(onDisk(lvs), onDisk(m.LVs)); diff != "" {
			t.Errorf("%s: lvs (-) and the disks (+) differ:\n%s", what, diff)
		}
		info, err := client.VG(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.FreeBytes != info.FreeBytes || m.SizeBytes != info.SizeBytes {
			t.Errorf("%s: %d of %d bytes are free, vgs says %d of %d", what, m.FreeBytes, m.SizeBytes, info.FreeBytes, info.SizeBytes)
		}
		free = m.FreeBytes
	}
	check("at first")
	made := map[string]bool{}
	for _, c := range []struct {
		disks int
		o     lvm.ThickVolumeOptions
	}{
		{1, lvm.ThickVolumeOptions{Name: "linear", SizeBytes: 20 * mib}},
		{2, lvm.ThickVolumeOptions{Name: "striped", SizeBytes: 20 * mib, Layout: lvm.LayoutStriped, Stripes: 2}},
		{2, lvm.ThickVolumeOptions{Name: "raid1", SizeBytes: 20 * mib, Layout: lvm.LayoutRAID1, Mirrors: 1}},
		{3, lvm.ThickVolumeOptions{Name: "striped3", SizeBytes: 20 * mib, Layout: lvm.LayoutStriped, Stripes: 3, StripeBytes: 256 << 10}},
		{3, lvm.ThickVolumeOptions{Name: "raid1-3", SizeBytes: 20 * mib, Layout: lvm.LayoutRAID1, Mirrors: 2}},
		{4, lvm.ThickVolumeOptions{Name: "raid5", SizeBytes: 20 * mib, Layout: lvm.LayoutRAID5, Stripes: 3, StripeBytes: 64 << 10}},
		{4, lvm.ThickVolumeOptions{Name: "raid10", SizeBytes: 20 * mib, Layout: lvm.LayoutRAID10, Stripes: 2, Mirrors: 1}},
	} {
		if disks < c.disks {
			continue
		}
		o, before := c.o, free
		made[o.Name] = true
		if err := client.CreateThickVolume(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		check(o.Name)
		if took := o.AllocatedBytes(extent); before-free != took {
			t.Errorf("%s took %d bytes, not %d", o.Name, before-free, took)
		}
	}
	if active := labtest.Run(t, "dmsetup", "ls"); strings.Contains(active, "vg1") {
		t.Errorf("something is active: %s", active)
	}
	for _, line := range []string{
		"lvchange -ay -K vg1/raid1", "lvcreate -s -pr -L 8m -n s1 vg1/raid1", "lvcreate -s -pr -l 100%ORIGIN -n s2 vg1/striped",
		"lvcreate -s -pr -ky -L 8m -n s3 vg1/raid5", "lvextend -L 12m vg1/s1", "lvextend -L 40m vg1/striped", "lvextend -L 60m vg1/raid5",
		"lvextend -L 60m vg1/linear", "lvrename vg1/raid1 vg1/r-1", "lvremove -y vg1/s2", "lvcreate -y --type thin-pool -L 64m -n pool vg1",
		"lvcreate -V 1g --thinpool pool -n thin vg1", "lvcreate -y --type raid1 -m1 --nosync -L 8m -n nosync vg1",
		"lvcreate -y --type raid1 -m1 -L 16m -n r2 vg1", "lvremove -y vg1/r-1", "lvchange -pr vg1/linear", "pvchange -xn " + vg.Disks[disks-1],
	} {
		if strings.Contains(line, "vg1/raid5") && !made["raid5"] {
			continue
		}
		labtest.Run(t, strings.Fields(line)...)
		check(line)
	}
	if *update {
		labtest.Run(t, "vgcfgbackup", "-q", "-f", "testdata/vgcfgbackup.thick.txt", vg.Name)
		text := fmt.Sprint(free) + "\n" + labtest.Run(t, "lvs", "--noheadings", "-o", "lv_name,lv_attr", vg.Name)
		if err := os.WriteFile("testdata/vgcfgbackup.thick.lvs", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
