//go:build lab

package ctl_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/google/go-cmp/cmp"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const metricsAddress = "127.0.0.1:9191"

// told is how often users were told of something, by the driver's metrics and by its log, which have to agree.
func (r *machine) told() map[string]int {
	r.t.Helper()
	res, err := http.Get("http://" + metricsAddress + "/metrics")
	r.ok(err)
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	r.ok(err)
	out := map[string]int{}
	for line := range strings.Lines(string(text)) {
		rest, ok := strings.CutPrefix(line, `lvmsnap_notices_total{reason="`)
		if !ok {
			continue
		}
		reason, count, _ := strings.Cut(rest, `"} `)
		var n int
		_, err := fmt.Sscan(count, &n)
		r.ok(err)
		if n > 0 {
			out[reason] = n
		}
	}
	return out
}

// awaits waits until the driver has told of something so often.
func (r *machine) awaits(reason string, n int) {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); r.told()[reason] < n; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("%s was not told %d times: %v", reason, n, r.told())
		}
	}
}

// finds checks what doctor finds, and what it says of some of it.
func (r *machine) finds(what string, got report, want []string, says map[string]string) {
	r.t.Helper()
	slices.Sort(want)
	if diff := cmp.Diff(want, found(got.Findings)); diff != "" {
		r.t.Errorf("%s (-want +got):\n%s\n%+v", what, diff, got)
	}
	for _, f := range got.Findings {
		if word := says[f.Reason]; !strings.Contains(f.Message+"\n"+f.Cure, word) || f.Fixable {
			r.t.Errorf("%s: %+v does not say %q", what, f, word)
		}
	}
	if len(got.Fixed) > 0 {
		r.t.Errorf("%s: put right, by nothing: %+v", what, got.Fixed)
	}
}

func (r *machine) thick(name string, parameters map[string]string) string {
	r.t.Helper()
	req := volumeRequest(name)
	req.CapacityRange = &csi.CapacityRange{RequiredBytes: 16 * mib}
	for k, v := range parameters {
		req.Parameters[k] = v
	}
	req.Parameters["type"] = "thick"
	res, err := r.driver.Controller.CreateVolume(r.t.Context(), req)
	r.ok(err)
	return lvOf(res.GetVolume().GetVolumeId())
}

// synchronized waits until a RAID volume has nothing to do.
func (r *machine) synchronized(lv string) {
	r.t.Helper()
	kernel := &dm.Control{}
	defer kernel.Close()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		st, err := kernel.RAIDStatus(r.t.Context(), r.vg.Name, lv)
		r.ok(err)
		if st.Action == "idle" && st.SyncedBytes == st.TotalBytes && st.Failed == 0 {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%s does not synchronize: %+v", lv, st)
		}
	}
}

// A group's metadata area fills, and a disk of it fails: doctor says so, and the driver has told of each once, and of its end. Neither is
// what --fix could put right.
func TestLabDisks(t *testing.T) {
	disks := labtest.FragileDisks(t, 2)
	group := labtest.FragileGroup(t, "fragile", disks...)
	r := &machine{t, group, driverproc.Start(t, driverproc.Options{Groups: []string{group.Name}, Flags: []string{"--metrics-address", metricsAddress}}), t.TempDir()}
	raid := r.thick("raid", map[string]string{"raidType": "raid1", "mirrors": "1"})
	linear := r.thick("linear", nil)
	raidPath, linearPath := group.Name+"/"+raid, group.Name+"/"+linear
	small := []string{group.Name + " MetadataAreaSmall"}
	r.finds("an area of 1 MiB", r.doctor(), small, map[string]string{"MetadataAreaSmall": "vgextend --metadatasize 16m"})

	// It holds 521472 bytes; see pkg/lvm.
	tags := func(option string, from, to int) {
		argv := []string{"vgchange"}
		for i := from; i < to; i++ {
			argv = append(argv, option, fmt.Sprintf("filler%0990d", i))
		}
		labtest.Run(t, append(argv, group.Name)...)
	}
	tags("--addtag", 0, 430)
	r.awaits("MetadataAreaLow", 1)
	tags("--addtag", 430, 500)
	r.awaits("MetadataAreaFull", 1)
	r.finds("a full area", r.doctor("--fix"), []string{group.Name + " MetadataAreaFull"}, map[string]string{"MetadataAreaFull": "vgextend --metadatasize"})
	tags("--deltag", 0, 500)
	r.awaits("GroupRecovered", 2)

	for _, lv := range []string{raid, linear} {
		labtest.Run(t, "lvchange", "--activate", "y", "--ignoreactivationskip", group.Name+"/"+lv)
	}
	r.synchronized(raid)
	failing := slices.IndexFunc(disks, func(d labtest.FragileDisk) bool {
		return strings.Contains(labtest.Run(t, "lvs", "--noheadings", "-o", "devices", linearPath), d.Path())
	})
	disks[failing].Fail()
	f, err := os.OpenFile(group.Device(raid), os.O_WRONLY, 0)
	r.ok(err)
	defer f.Close()
	_, err = f.WriteAt(make([]byte, mib), 0)
	r.ok(err)
	r.ok(f.Sync()) // the other disk has it
	r.awaits("RAIDDegraded", 1)
	r.awaits("GroupDiskMissing", 1)
	got := r.diagnosis("--fix")
	r.finds("a disk that fails", got, []string{
		group.Name + " GroupDiskMissing", raidPath + " RAIDDegraded", raidPath + " DiskMissing", linearPath + " DiskMissing",
	}, map[string]string{"GroupDiskMissing": "vgextend --restoremissing " + group.Name, "RAIDDegraded": "lvconvert --repair " + raidPath})
	if len(got.Failed) != 1 || !strings.Contains(got.Failed[0], "nothing is put right while a disk of the group is missing") {
		t.Errorf("--fix without a disk: %q", got.Failed)
	}

	disks[failing].Heal()
	labtest.Run(t, "lvchange", "--refresh", raidPath)
	r.synchronized(raid)
	r.awaits("RAIDRecovered", 1)
	r.awaits("GroupRecovered", 3)
	r.finds("the disk is back", r.doctor(), small, nil)
	told := r.told()
	delete(told, "RAIDRecovering") // it may take less time than from one look to the next
	if diff := cmp.Diff(map[string]int{
		"MetadataAreaLow": 1, "MetadataAreaFull": 1, "GroupDiskMissing": 1, "GroupRecovered": 3, "RAIDDegraded": 1, "RAIDRecovered": 1,
	}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	for reason, n := range told {
		if lines := strings.Count(r.driver.Log(), `reason="`+reason+`"`); lines != n {
			t.Errorf("%s: %d lines in the log, and the metric says %d", reason, lines, n)
		}
	}
}
