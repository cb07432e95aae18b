//go:build lab

package integration_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// A group without a pool, or with two, and pools that do not exist: the call says what to do.
func TestPoolErrors(t *testing.T) {
	c := newCOWith(t, labtest.Options{}, driverproc.Options{})
	withPool := func(pool string) func(*csi.CreateVolumeRequest) {
		return func(req *csi.CreateVolumeRequest) { req.Parameters = map[string]string{"thinPool": pool} }
	}
	create := func(options ...func(*csi.CreateVolumeRequest)) error {
		_, err := c.Controller.CreateVolume(c.context(), c.volumeRequest("v", block, options...))
		return err
	}
	c.fails("no pool", create(), codes.InvalidArgument, c.vg.Name, "lvcreate --type thin-pool")
	for _, pool := range []string{"one", "two"} {
		labtest.Run(t, "lvcreate", "-y", "--type", "thin-pool", "-L", "64m", "-n", pool, c.vg.Name)
	}
	c.fails("two pools", create(), codes.InvalidArgument, "one", "two", "thinPool")
	c.fails("an unknown pool", create(withPool("three")), codes.InvalidArgument, "three", "one", "two")
	c.fails("an unknown parameter", create(func(req *csi.CreateVolumeRequest) {
		req.Parameters = map[string]string{"thinpool": "one"}
	}), codes.InvalidArgument, "thinpool", "thinPool", "volumeGroup", "type")
	c.ok(create(withPool("one"), ofSize(4*mib)))
}

// Of several groups the first is the default; a class names another one, and what is made of a snapshot stays with it unless
// its class says otherwise: then it is copied.
func TestTwoGroups(t *testing.T) {
	second := labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool"})
	c := newCOWith(t, labtest.Options{ThinPool: "pool"}, driverproc.Options{Groups: []string{second.Name}})
	inGroup := func(name string) func(*csi.CreateVolumeRequest) {
		return func(req *csi.CreateVolumeRequest) { req.Parameters = map[string]string{"volumeGroup": name} }
	}
	first := c.volume("first", block)
	v := c.volume("second", block, inGroup(second.Name))
	u := c.use(v, block)
	u.write("v1")
	s := c.snapshot("s", v)
	u.write("v2")
	restored := c.volume("restored", block, fromSnapshot(s))
	moved := c.patient("moved", block, fromSnapshot(s), inGroup(c.vg.Name))
	c.use(restored, block).holds("v1")
	c.use(moved, block).holds("v1")
	u.holds("v2")

	want := []string{lvOf(first.GetVolumeId()), lvOf(moved.GetVolumeId())}
	slices.Sort(want)
	if got := c.lvs(); !slices.Equal(got, want) {
		t.Errorf("in the first group: %v, want %v", got, want)
	}
	there := labtest.Run(t, "lvs", "--noheadings", "-o", "lv_name", second.Name)
	for _, id := range []string{v.GetVolumeId(), s.GetSnapshotId(), restored.GetVolumeId()} {
		if !strings.Contains(there, lvOf(id)) {
			t.Errorf("%s is not in the second group:\n%s", id, there)
		}
	}
	list, err := c.Controller.ListVolumes(c.context(), &csi.ListVolumesRequest{})
	if err != nil || len(list.GetEntries()) != 4 {
		t.Errorf("volumes: %v, %v", list, err)
	}
}

// Nothing of the driver's is active unless it is staged: not at boot, and not by an administrator's vgchange.
func TestNotActivatedAutomatically(t *testing.T) {
	c := newCO(t)
	v := c.volume("v", ext4)
	u := c.use(v, ext4)
	u.write("v1")
	s := c.snapshot("s", v)
	active := func() []string {
		return strings.Fields(labtest.Run(t, "lvs", "--noheadings", "-o", "lv_name", "-S", "lv_active=active && lv_name=~^csi-", c.vg.Name))
	}
	if got := active(); len(got) != 1 || got[0] != lvOf(v.GetVolumeId()) {
		t.Errorf("active while the volume is staged: %v", got)
	}
	u.release()
	for _, how := range []string{"-aay", "-ay"} {
		labtest.Run(t, "vgchange", "-an", c.vg.Name)
		labtest.Run(t, "vgchange", how, c.vg.Name)
		if got := active(); len(got) > 0 {
			t.Errorf("active after vgchange %s: %v", how, got)
		}
	}
	// Nobody can tell what an inactive pool holds. What is in it is neither reported nor taken for lost.
	labtest.Run(t, "vgchange", "-an", c.vg.Name)
	_, err := c.trySnapshot("s", v.GetVolumeId())
	c.fails("retry with an inactive pool", err, codes.Unavailable, "not active", "lvchange --activate y "+c.vg.Name+"/pool")
	_, err = c.Controller.CreateVolume(c.context(), c.volumeRequest("v", ext4))
	c.fails("retry with an inactive pool", err, codes.Unavailable, "not active")
	_, err = c.Controller.CreateVolume(c.context(), c.volumeRequest("restored", ext4, fromSnapshot(s)))
	c.fails("restore from an inactive pool", err, codes.Unavailable)
	// The driver activates it at its start.
	c.driver.Restart()
	if again := c.snapshot("s", v); again.GetCreationTime().AsTime() != s.GetCreationTime().AsTime() {
		t.Errorf("the snapshot is another one: %v, was %v", again, s)
	}
	c.use(c.volume("restored", ext4, fromSnapshot(s)), ext4).holds("v1")
	c.use(v, ext4).holds("v1")
}

// fill writes to an LV of the administrator's until the pool is that full.
func (c *co) fill(percent float64, poolBytes int64) {
	c.t.Helper()
	labtest.Run(c.t, "lvcreate", "--type", "thin", "-V", fmt.Sprintf("%db", poolBytes), "-n", "filler", "--thinpool", c.vg.Name+"/pool")
	f, err := os.OpenFile(c.vg.Device("filler"), os.O_WRONLY, 0)
	c.ok(err)
	defer f.Close()
	chunk := make([]byte, mib)
	for offset := int64(0); float64(offset) < float64(poolBytes)*percent/100; offset += mib {
		chunk[0]++
		_, err := f.WriteAt(chunk, offset)
		c.ok(err)
	}
	c.ok(f.Sync())
}

// Nothing is created in a pool that is nearly full: what is there needs the rest.
func TestPoolReserve(t *testing.T) {
	const poolBytes = 256 * mib
	c := newCOWith(t, labtest.Options{ThinPool: "pool", PoolSize: fmt.Sprintf("%db", poolBytes)}, driverproc.Options{})
	v := c.volume("v", block, ofSize(8*mib))
	s := c.snapshot("early", v)
	spare := c.snapshot("spare", v)
	c.fill(96, poolBytes)

	words := []string{c.vg.Name + "/pool", "256 MiB", "%", "5%", "--pool-data-reserve"}
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
	health, err := c.Controller.ControllerListVolumeHealth(c.context(), &csi.ControllerListVolumeHealthRequest{})
	if err != nil || len(health.GetEntries()) != 1 {
		t.Errorf("health: %v, %v", health, err)
	}
	// What exists can be used, found and deleted, and asked for again.
	c.snapshot("early", v)
	c.use(v, block).release()
	c.deleteSnapshot(spare)
	if lvs := c.lvs(); len(lvs) != 3 {
		t.Errorf("LVs: %v", lvs)
	}

	labtest.Run(t, "lvremove", "-y", c.vg.Name+"/filler")
	c.snapshot("late", v)
	c.volume("restored", block, fromSnapshot(s))
	c.deleteAll()
}
