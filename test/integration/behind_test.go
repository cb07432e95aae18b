//go:build lab

package integration_test

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// lists checks which snapshots the driver lists now, by their LVs.
func (c *co) lists(when string, lvs ...string) {
	c.t.Helper()
	res, err := c.Controller.ListSnapshots(c.context(), &csi.ListSnapshotsRequest{})
	c.ok(err)
	var got []string
	for _, entry := range res.GetEntries() {
		got = append(got, lvOf(entry.GetSnapshot().GetSnapshotId()))
	}
	slices.Sort(got)
	slices.Sort(lvs)
	if !slices.Equal(got, lvs) {
		c.t.Errorf("%s, the driver lists %v, want %v", when, got, lvs)
	}
}

// Whatever an administrator does to the group by plain LVM commands, the driver's next answer knows it, and so
// does the next thing that it makes.
func TestChangesBehindTheDriversBack(t *testing.T) {
	c := newCOWith(t, labtest.Options{ThinPool: "pool", PoolSize: "512m"}, driverproc.Options{})
	v := c.volume("v", block, ofSize(8*mib))
	s := c.snapshot("s", v)
	volume, snapshot := lvOf(v.GetVolumeId()), lvOf(s.GetSnapshotId())
	path := func(lv string) string { return c.vg.Name + "/" + lv }
	driverTag := "lvmsnap.driver=csi.lvmsnap.io"

	c.lists("at first", snapshot)
	labtest.Run(t, "lvcreate", "-s", "-n", "theirs", path(volume))
	c.lists("after lvcreate of a foreign snapshot", snapshot)
	byHand := storage.SnapshotLV("by hand")
	labtest.Run(t, "lvcreate", "-s", "-pr", "-n", byHand, "--addtag", driverTag, "--addtag", "lvmsnap.name=by+hand",
		"--addtag", "lvmsnap.created=1763705555123456789", "--addtag", "lvmsnap.source="+volume, path(volume))
	c.lists("after lvcreate with the driver's record", snapshot, byHand)
	if again := c.snapshot("by hand", v); lvOf(again.GetSnapshotId()) != byHand {
		t.Errorf("a call for the snapshot that was made by hand made another one: %v", again)
	}
	labtest.Run(t, "lvremove", "-y", path(byHand))
	c.lists("after lvremove", snapshot)

	labtest.Run(t, "lvchange", "--deltag", driverTag, path(snapshot))
	c.lists("after lvchange --deltag")
	_, err := c.trySnapshot("s", v.GetVolumeId())
	c.fails("a snapshot whose LV is foreign now", err, codes.AlreadyExists, snapshot, "lvrename")
	labtest.Run(t, "lvchange", "--addtag", driverTag, path(snapshot))
	c.lists("after lvchange --addtag", snapshot)

	labtest.Run(t, "lvrename", path(snapshot), path("aside"))
	c.lists("after lvrename")
	_, err = c.Controller.CreateVolume(c.context(), c.volumeRequest("restored", block, fromSnapshot(s)))
	c.fails("restore of a snapshot that was renamed", err, codes.NotFound, s.GetSnapshotId())
	labtest.Run(t, "lvrename", path("aside"), path(snapshot))
	c.lists("after lvrename back", snapshot)
	c.volume("restored", block, fromSnapshot(s))

	labtest.Run(t, "lvextend", "-L", "16m", path(volume))
	list, err := c.Controller.ListVolumes(c.context(), &csi.ListVolumesRequest{})
	c.ok(err)
	for _, entry := range list.GetEntries() {
		if got := entry.GetVolume(); got.GetVolumeId() == v.GetVolumeId() && got.GetCapacityBytes() != 16*mib {
			t.Errorf("after lvextend, the driver lists %d bytes", got.GetCapacityBytes())
		}
	}
	if s := c.snapshot("larger", v); s.GetSizeBytes() != 16*mib {
		t.Errorf("after lvextend, a snapshot has %d bytes", s.GetSizeBytes())
	}
	available := func() int64 {
		t.Helper()
		res, err := c.Controller.GetCapacity(c.context(), &csi.GetCapacityRequest{})
		c.ok(err)
		return res.GetAvailableCapacity()
	}
	before := available()
	labtest.Run(t, "lvextend", "-L", "1g", path("pool"))
	if after := available(); after < before+400*mib {
		t.Errorf("after lvextend of the pool, the capacity is %d, was %d", after, before)
	}
	labtest.Run(t, "lvrename", path("pool"), path("pond"))
	c.vg.ThinPool = "pond"
	c.volume("in the renamed pool", block, ofSize(4*mib))

	labtest.Run(t, "lvremove", "-y", path(volume))
	_, err = c.trySnapshot("of nothing", v.GetVolumeId())
	c.fails("snapshot of a volume that was removed", err, codes.NotFound, v.GetVolumeId())
	c.lists("after lvremove of their origin", snapshot, storage.SnapshotLV("larger"))
	c.deleteAllBut("theirs")
}

// A group's metadata area ends long before its disks do, with a thousand snapshots or two. What is there can be
// used, found and deleted; nothing new is begun.
func TestMetadataAreaFull(t *testing.T) {
	c := newCO(t)
	v := c.volume("v", block)
	s, spare := c.snapshot("s", v), c.snapshot("spare", v)
	u := c.use(v, block)
	u.write("v1")
	// An area of 1 MiB (1020 KiB) holds 521472 bytes; see pkg/lvm.
	fill := func(option string) {
		argv := []string{"vgchange"}
		for i := range 500 {
			argv = append(argv, option, fmt.Sprintf("filler%0990d", i))
		}
		labtest.Run(t, append(argv, c.vg.Name)...)
	}
	fill("--addtag")

	words := []string{"metadata area", c.vg.Name, "of 521472 bytes", "%", "delete snapshots", "vgextend --metadatasize"}
	_, err := c.trySnapshot("late", v.GetVolumeId())
	c.fails("snapshot", err, codes.ResourceExhausted, words...)
	_, err = c.Controller.CreateVolume(c.context(), c.volumeRequest("late", block, ofSize(4*mib)))
	c.fails("volume", err, codes.ResourceExhausted, words...)
	_, err = c.Controller.CreateVolume(c.context(), c.volumeRequest("restored", block, fromSnapshot(s)))
	c.fails("restore", err, codes.ResourceExhausted, words...)
	capacity, err := c.Controller.GetCapacity(c.context(), &csi.GetCapacityRequest{})
	if err != nil || capacity.GetAvailableCapacity() != 0 {
		t.Errorf("capacity: %v, %v", capacity, err)
	}
	brim := c.fillToTheBrim()
	_, err = c.trySnapshot("late", v.GetVolumeId())
	c.fails("snapshot at the brim", err, codes.ResourceExhausted, append(words, "(100.0%)")...)
	c.snapshot("s", v)
	u.holds("v1")
	c.lists("at the brim", lvOf(s.GetSnapshotId()), lvOf(spare.GetSnapshotId()))
	c.deleteSnapshot(spare)
	labtest.Run(t, append(brim, c.vg.Name)...)
	c.lists("with a full metadata area", lvOf(s.GetSnapshotId()))

	fill("--deltag")
	c.snapshot("late", v)
	c.volume("restored", block, fromSnapshot(s))
	u.release()
	c.deleteAll()
}

// fillToTheBrim adds tags to the group until LVM takes none of 8 bytes any more, and returns the command that removes them.
func (c *co) fillToTheBrim() (undo []string) {
	c.t.Helper()
	undo = []string{"vgchange"}
	// Of 1000 bytes 8 at once, 4, 2, 1; then one of 500, and so on. What fits once may fit again.
	for n, length := 8, 1000; length >= 8; {
		add, remove := []string{"--addtag"}, []string{}
		for i := range n {
			tag := fmt.Sprintf("t%0*d", length-1, len(undo)+i)
			add, remove = append(add, tag, "--addtag"), append(remove, "--deltag", tag)
		}
		out, err := exec.Command("vgchange", append(add[:len(add)-1], c.vg.Name)...).CombinedOutput()
		switch {
		case err == nil:
			undo = append(undo, remove...)
		case !strings.Contains(string(out), "exceeds maximum metadata size"):
			c.t.Fatalf("%v: %s", err, out)
		case n > 1:
			n /= 2
		default:
			length /= 2
		}
	}
	return undo
}
