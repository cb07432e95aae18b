//go:build lab

package lvm_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// Whatever an administrator does behind the driver's back, the next look at the disks sees it, and it is what
// lvs says.
func TestDiskReaderSeesEveryChange(t *testing.T) {
	vg := labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool", PoolSize: "256m", Disks: 1})
	env, err := lvm.WriteConfig(t.Context(), hostexec.Host{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	client := lvm.NewClient(lvm.Exec{Runner: hostexec.Host{}, Env: env}, vg.Name)
	reader := &lvm.DiskReader{}
	defer reader.Close()
	if err := reader.Locate(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	check := func(t *testing.T, what string) {
		t.Helper()
		want, err := client.LVs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m, err := reader.Metadata(vg.Name)
		if err != nil { // other disks: what Client.View does
			if err = reader.Locate(t.Context(), client); err == nil {
				m, err = reader.Metadata(vg.Name)
			}
		}
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		info, err := client.VG(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if m.Sequence != info.Sequence || m.ExtentBytes != info.ExtentBytes {
			t.Errorf("%s: seqno %d, want %d", what, m.Sequence, info.Sequence)
		}
		if free := m.TextLimitBytes - m.TextBytes; free < info.MetadataFreeBytes-1024 || free > info.MetadataFreeBytes+1024 {
			t.Errorf("%s: %d bytes of metadata are free, %d by vgs", what, free, info.MetadataFreeBytes)
		}
		if diff := cmp.Diff(onDisk(want), onDisk(m.LVs)); diff != "" {
			t.Errorf("%s: lvs (-) and the disks (+) differ:\n%s", what, diff)
		}
	}
	disk := labtest.Disk(t)
	path := func(lv string) string { return vg.Name + "/" + lv }
	check(t, "at first")
	for _, argv := range [][]string{
		{"lvcreate", "--type", "thin", "-V", "16m", "-n", "v", "--thinpool", path("pool"), "--addtag", "a=b", "--addtag", "x.y"},
		{"lvcreate", "-s", "-n", "s", "-pr", path("v")},
		{"lvchange", "--addtag", "later", path("v")},
		{"lvchange", "--deltag", "a=b", path("v")},
		{"lvextend", "-L", "32m", path("v")},
		{"lvrename", path("s"), path("t")},
		{"lvcreate", "-s", "-n", "r", "-kn", path("t")},
		{"lvremove", "-y", path("v")},
		{"lvchange", "-pr", path("r")},
		{"lvchange", "-kn", path("t")},
		{"lvcreate", "-y", "-L", "16m", "-n", "thick", vg.Name},
		{"lvcreate", "-y", "-s", "-L", "8m", "-n", "cow", path("thick")},
		{"lvextend", "-L", "512m", path("pool")},
		{"vgextend", vg.Name, disk},
		{"lvcreate", "-y", "-L", "16m", "-n", "second", vg.Name, disk},
		{"lvremove", "-y", path("second")},
		{"vgreduce", vg.Name, disk},
		{"lvremove", "-y", path("thick")},
	} {
		labtest.Run(t, argv...)
		check(t, fmt.Sprint(argv))
	}
	for i := range 40 { // round the ring of the metadata area, several times
		labtest.Run(t, "lvchange", "--addtag", fmt.Sprintf("tag%d.%0500d", i, i), path("t"))
		if i%8 == 7 {
			check(t, "many changes")
		}
	}
	// A group that is gone is an error, not a memory.
	labtest.Run(t, "lvremove", "-y", vg.Name)
	labtest.Run(t, "vgrename", vg.Name, vg.Name+"x")
	if m, err := reader.Metadata(vg.Name); err == nil {
		t.Errorf("a renamed group is still read: %+v", m)
	}
	labtest.Run(t, "vgrename", vg.Name+"x", vg.Name)
}

// onDisk leaves what the metadata can say.
func onDisk(lvs []lvm.LV) map[string]lvm.LV {
	out := map[string]lvm.LV{}
	for _, lv := range lvs {
		attr := []byte(lv.Attr)
		for i := range attr {
			switch i {
			case 0, 1, 9: // type, permission, skip
			default:
				attr[i] = 'X'
			}
		}
		if lv.Attr.Type() == lvm.TypeThinPool && lv.Attr.Zero() {
			attr[7] = 'z'
		}
		lv.Attr, lv.DataPercent, lv.MetadataPercent = lvm.Attr(attr), -1, -1
		if lv.SegType == "linear" {
			lv.SegType = "striped" // the same on disk
		}
		out[lv.Name] = lv
	}
	return out
}

// Reading is never half of a commit, and does not slow down with the number of readers.
func TestDiskReaderWhileLVMWrites(t *testing.T) {
	vg := labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool", PoolSize: "256m"})
	env, err := lvm.WriteConfig(t.Context(), hostexec.Host{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	shell := lvm.NewShell(hostexec.Host{}, env)
	client := lvm.NewClient(shell, vg.Name)
	reader := &lvm.DiskReader{}
	defer reader.Close()
	if err := reader.Locate(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	done := make(chan error, 1)
	reads := 0
	go func() {
		last := uint64(0)
		for {
			m, err := reader.Metadata(vg.Name)
			if err == nil && m.Sequence < last {
				err = fmt.Errorf("seqno went from %d back to %d", last, m.Sequence)
			}
			if err != nil {
				done <- err
				return
			}
			last = m.Sequence
			reads++
			select {
			case <-stop:
				done <- nil
				return
			default:
				time.Sleep(time.Millisecond)
			}
		}
	}()
	for i := range 30 {
		name := fmt.Sprint("v", i)
		if err := client.CreateThinVolume(t.Context(), lvm.ThinVolumeOptions{Name: name, Pool: "pool", SizeBytes: 4 << 20}); err != nil {
			t.Fatal(err)
		}
		m, err := reader.Metadata(vg.Name)
		if err != nil || len(m.LVs) != i+2 {
			t.Fatalf("after creating %s: %d LVs, %v", name, len(m.LVs), err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
	t.Logf("%d reads", reads)
	if err := shell.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
