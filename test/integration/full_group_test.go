//go:build lab

package integration_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// take gives all free extents of the group but for so many to an LV of the administrator's.
func (c *co) take(name string, but int64) {
	c.t.Helper()
	labtest.Run(c.t, "lvcreate", "--yes", "--wipesignatures", "n", "--zero", "n", "--name", name, "--extents", fmt.Sprint(c.free()-but), c.vg.Name)
	if free := c.free(); free != but {
		c.t.Fatalf("%d extents are free, want %d", free, but)
	}
}

// free are the group's free extents.
func (c *co) free() (n int64) {
	c.t.Helper()
	_, err := fmt.Sscan(labtest.Run(c.t, "vgs", "--noheadings", "--options", "vg_free_count", c.vg.Name), &n)
	c.ok(err)
	return n
}

func (u *use) expand(size int64) error {
	_, err := u.Node.NodeExpandVolume(u.context(), &csi.NodeExpandVolumeRequest{
		VolumeId: u.id, VolumePath: u.target, StagingTargetPath: u.staging, VolumeCapability: u.capability(writer),
		CapacityRange: &csi.CapacityRange{RequiredBytes: size},
	})
	return err
}

// The group has not one free extent. What would take some is refused, with the numbers, and nothing of it is begun; what there is is read,
// written and snapshotted, in the pool and out of it; a deletion frees its extents, and then the very same calls succeed.
func TestFullGroup(t *testing.T) {
	c := newCOWith(t, labtest.Options{ThinPool: "pool", PoolSize: "256m"}, driverproc.Options{})
	thick := func(req *csi.CreateVolumeRequest) { req.Parameters = map[string]string{"type": "thick"} }
	all := func(change ...func(*csi.CreateVolumeRequest)) func(*csi.CreateVolumeRequest) {
		return func(req *csi.CreateVolumeRequest) {
			for _, f := range change {
				f(req)
			}
		}
	}
	v := c.patient("v", block, thick, ofSize(32*mib))
	u := c.use(v, block)
	one := u.random(1)
	s := c.snapshot("s", v)
	two := u.random(2)
	small := c.use(c.patient("small", block, thick, ofSize(16*mib)), block)
	inPool := c.use(c.volume("in the pool", block, ofSize(32*mib)), block)
	ballast := c.patient("ballast", block, thick, ofSize(144*mib))
	c.take("theirs", 0)

	requests := map[string]*csi.CreateVolumeRequest{
		"volume":  c.volumeRequest("new", block, all(thick, ofSize(16*mib))),
		"restore": c.volumeRequest("restored", block, all(thick, fromSnapshot(s))),
		"clone":   c.volumeRequest("cloned", block, all(thick, fromVolume(v))),
	}
	lvs, devices := c.lvs(), c.devices()
	words := []string{"has 0 B free", c.vg.Name, "vgextend"}
	for range 2 { // the second time, too
		for name, req := range requests {
			_, err := c.Controller.CreateVolume(c.context(), req)
			c.fails(name, err, codes.ResourceExhausted, words...)
		}
		_, err := c.trySnapshot("late", v.GetVolumeId())
		c.fails("COW snapshot", err, codes.ResourceExhausted, words...)
		c.fails("expansion", small.expand(32*mib), codes.ResourceExhausted, words...)
		if now := c.lvs(); !slices.Equal(now, lvs) || c.devices() != devices {
			t.Errorf("what was refused was begun: %v, were %v; devices:\n%s\nwere:\n%s", now, lvs, c.devices(), devices)
		}
	}
	capacity, err := c.Controller.GetCapacity(c.context(), &csi.GetCapacityRequest{Parameters: map[string]string{"type": "thick"}})
	if err != nil || capacity.GetAvailableCapacity() != 0 || capacity.GetMaximumVolumeSize().GetValue() != 0 {
		t.Errorf("capacity of the group: %v, %v", capacity, err)
	}

	// What there is goes on, and what takes no extents.
	if u.sum() != two {
		t.Error("the volume does not hold what was written to it")
	}
	three := u.random(3) // its snapshot has room for all of it
	inPool.random(4)
	toPool := c.use(c.patient("into the pool", block, fromSnapshot(s), ofType("thin")), block)
	if toPool.sum() != one {
		t.Error("the snapshot, restored into the pool, has other data")
	}
	toPool.release()
	thin, err := c.trySnapshot("thin", inPool.id)
	c.ok(err)
	c.deleteSnapshot(thin)

	c.deleteVolume(ballast)
	if got := c.free(); got != 36 {
		t.Errorf("%d extents are free after the deletion, want 36", got)
	}
	for _, name := range []string{"volume", "restore", "clone"} {
		res, _ := untilDone(c, name, func() (*csi.CreateVolumeResponse, error) {
			return c.Controller.CreateVolume(c.context(), requests[name])
		})
		made := c.use(res.GetVolume(), block)
		switch got := made.sum(); {
		case name == "restore" && got != one, name == "clone" && got != three:
			t.Errorf("%s: other data", name)
		}
		made.release()
	}
	c.ok(small.expand(32 * mib))
	c.deleteSnapshot(c.snapshot("late", v))
	if u.sum() != three {
		t.Error("the volume does not hold what was written to it while the group was full")
	}
	for _, x := range []*use{u, small, inPool} {
		x.release()
	}
	c.deleteAllBut("theirs")
	c.poolIsSound()
}

// The data are full, writers get errors, and the group has no extents for more. When it has, the driver extends the pool, unasked, and
// writers go on.
func TestFullPoolGrows(t *testing.T) {
	c := newCOWith(t, labtest.Options{ThinPool: "pool", PoolSize: "256m", ChunkSize: "64k", PoolMetadataSize: "4m"}, growing("--overprovision-ratio=20"))
	keep := c.volume("keep", block, ofSize(32*mib))
	u := c.use(keep, block)
	one := u.random(1)
	s := c.snapshot("s", keep)
	two := u.random(2)
	hose := c.use(c.volume("hose", block, ofSize(256*mib)), block)
	c.take("theirs", 0)
	labtest.Run(t, "lvchange", "--errorwhenfull", "y", c.vg.Name+"/pool")
	if err := hose.flood(0, 256*mib); !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EIO) {
		t.Fatalf("the writer: %v", err)
	}
	if mode := c.poolStatus()[4]; mode != "out_of_data_space" {
		t.Fatalf("the pool is %s", mode)
	}
	c.until("the condition", func() bool { return strings.Contains(c.health(keep), "PoolCannotGrow") })
	c.says("health", c.health(keep), "PoolOutOfDataSpace", "PoolCannotGrow", "vgextend "+c.vg.Name)
	if u.sum() != two {
		t.Error("the volume does not hold what was written to it")
	}
	labtest.Run(t, "lvremove", "--yes", c.vg.Name+"/theirs")
	c.until("growth of a pool that is full", func() bool { st := c.poolStatus(); return st[4] == "rw" && used(st[2]) <= 70 })
	c.until("recovery", func() bool { return c.health(keep) == "" })
	c.ok(hose.flood(0, 256*mib))
	c.sameAs(keep, s, u, one, two)
	hose.release()
	c.poolIsSound()
}

// sameAs: a volume and its snapshot hold what they did, and another can be cut.
func (c *co) sameAs(v *csi.Volume, s *csi.Snapshot, u *use, one, two [32]byte) {
	c.t.Helper()
	c.snapshot("afterwards", v)
	if u.sum() != two {
		c.t.Error("the volume does not hold what was written to it")
	}
	r := c.use(c.volume("restored", block, fromSnapshot(s)), block)
	if r.sum() != one {
		c.t.Error("the snapshot has other data")
	}
	r.release()
	u.release()
}

// The metadata are full, the pool is read-only, and the group has no extents for more. When it has, the driver extends them, unasked, and
// the pool is writable again.
func TestReadOnlyPoolGrows(t *testing.T) {
	c := newCOWith(t, labtest.Options{ThinPool: "pool", PoolSize: "1g", ChunkSize: "64k", ExtentSize: "1m", PoolMetadataSize: "2m"},
		growing("--overprovision-ratio=20"))
	keep := c.volume("keep", block, ofSize(32*mib))
	u := c.use(keep, block)
	one := u.random(1)
	s := c.snapshot("s", keep)
	two := u.random(2)
	c.take("theirs", 0)
	large := ofSize(700 * mib)
	base := c.volume("base", block, large)
	b := c.use(base, block)
	c.ok(b.flood(0, 600*mib))
	var clones []*use
	for i := range 12 {
		clone, err := c.Controller.CreateVolume(c.context(), c.volumeRequest(fmt.Sprint("clone ", i), block, fromVolume(base), large))
		c.ok(err)
		clones = append(clones, c.use(clone.GetVolume(), block))
	}
	var failed error
	for i := 0; failed == nil && i < len(clones); i++ {
		failed = clones[i].scatter()
	}
	if !errors.Is(failed, unix.EIO) || c.poolStatus()[4] != "ro" {
		t.Fatalf("the pool is not read-only: writer %v, pool %v", failed, c.poolStatus())
	}
	c.until("the condition", func() bool { return strings.Contains(c.health(keep), "PoolCannotGrow") })
	c.says("health", c.health(keep), "PoolReadOnly", "PoolCannotGrow")
	if u.sum() != two {
		t.Error("the volume does not hold what was written to it")
	}
	labtest.Run(t, "lvremove", "--yes", c.vg.Name+"/theirs")
	c.until("growth of a pool that is read-only", func() bool { st := c.poolStatus(); return st[4] == "rw" && used(st[1]) <= 70 })
	c.until("recovery", func() bool { return c.health(keep) == "" })
	for _, x := range clones {
		c.ok(x.scatter())
		x.release()
	}
	c.sameAs(keep, s, u, one, two)
	b.release()
	c.poolIsSound()
}
