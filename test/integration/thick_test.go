//go:build lab

package integration_test

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

func ofType(t string) func(*csi.CreateVolumeRequest) {
	return func(req *csi.CreateVolumeRequest) { req.Parameters = map[string]string{"type": t} }
}

// newThickCO is a group with room for thick volumes beside its pool.
func newThickCO(t *testing.T, flags ...string) *co {
	t.Helper()
	return newCOWith(t, labtest.Options{Disks: 2, ThinPool: "pool", PoolSize: "3g"}, driverproc.Options{Flags: flags})
}

// patient makes a volume whose content takes longer than a call, as csi-provisioner does: again and again.
func (c *co) patient(name string, k kind, options ...func(*csi.CreateVolumeRequest)) *csi.Volume {
	c.t.Helper()
	res, _ := untilDone(c, name, func() (*csi.CreateVolumeResponse, error) {
		return c.Controller.CreateVolume(c.context(), c.volumeRequest(name, k, options...))
	})
	return res.GetVolume()
}

// Whatever a snapshot is made of, it restores into both types of class, and keeps its moment.
func TestThickRestore(t *testing.T) {
	c := newThickCO(t)
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			c := c.in(t)
			t.Cleanup(c.deleteAll)
			v := c.patient("origin", k, ofType("thick"))
			origin := c.use(v, k)
			origin.write("v1")
			s := c.snapshot("s", v)
			origin.write("v2")

			r := c.patient("thick", k, fromSnapshot(s), ofType("thick"))
			restored := c.use(r, k) // side by side with its origin
			restored.holds("v1")
			thin := c.patient("thin", k, fromSnapshot(s), ofType("thin"))
			toThin := c.use(thin, k)
			toThin.holds("v1")
			clone := c.use(c.patient("clone", k, fromVolume(v)), k)
			clone.holds("v2")

			back := c.snapshot("thin", thin)
			toThin.write("v3")
			c.use(c.patient("thick again", k, fromSnapshot(back), ofType("thick")), k).holds("v1")
			restored.write("v4")
			origin.holds("v2")
			clone.holds("v2")
			toThin.holds("v3")
		})
	}
}

// The origin, its snapshots and what was made of them go in any order, and a new volume takes the origin's name.
func TestThickDeletions(t *testing.T) {
	c := newThickCO(t)
	for i, order := range []string{"v12", "v21", "1v2", "2v1", "12v", "21v"} {
		v := c.patient("v", block, ofType("thick"))
		u := c.use(v, block)
		u.write("one")
		first := c.snapshot("1", v)
		u.write("two")
		second := c.snapshot("2", v)
		u.release()
		left := map[rune]*csi.Snapshot{'1': first, '2': second}
		for _, what := range order {
			if what == 'v' {
				c.deleteVolume(v)
				if i == 0 {
					again := c.patient("v", block, ofType("thick"))
					c.deleteVolume(again)
				}
				continue
			}
			c.deleteSnapshot(left[what])
			delete(left, what)
			for name, s := range left {
				r := c.patient("r", block, fromSnapshot(s))
				probe := c.use(r, block)
				probe.holds(map[rune]string{'1': "one", '2': "two"}[name])
				probe.release()
				c.deleteVolume(r)
			}
		}
		if lvs := c.lvs(); len(lvs) > 0 {
			t.Errorf("order %s: left behind: %v", order, lvs)
		}
	}
}

// A snapshot is cut while a volume is being copied, and the driver is killed in the middle of the copy: the next one
// finishes it, unasked, and half a copy is never served.
func TestThickKilledWhileCopying(t *testing.T) {
	c := newThickCO(t, "--copy-rate-limit=64Mi")
	v := c.patient("origin", ext4, ofType("thick"))
	u := c.use(v, ext4)
	u.write("v1")
	s := c.snapshot("s", v)
	u.write("v2")
	requests := []*csi.CreateVolumeRequest{
		c.volumeRequest("restore", ext4, fromSnapshot(s)),
		c.volumeRequest("clone", ext4, fromVolume(v)),
	}
	for _, req := range requests {
		_, err := c.Controller.CreateVolume(c.context(), req)
		c.fails(req.GetName(), err, codes.Aborted, "content")
		// Only who asks for its health by its id, which nobody has been told yet, learns of it.
		id := storage.Handle{NodeHash: storage.NodeHash(driverproc.NodeID), LV: storage.VolumeLV(req.GetName())}.String()
		health, err := c.Controller.ControllerGetVolumeHealth(c.context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: id})
		c.ok(err)
		if entries := health.GetVolumeHealth().GetHealthStatuses(); len(entries) != 1 || entries[0].GetReason() != "ContentIncomplete" ||
			entries[0].GetStatus() != csi.VolumeHealthErrorType_INACCESSIBLE || !strings.Contains(entries[0].GetMessage(), "content") {
			t.Errorf("health of %s: %v", req.GetName(), health)
		}
		_, err = c.Controller.ControllerGetVolume(c.context(), &csi.ControllerGetVolumeRequest{VolumeId: id})
		c.fails(req.GetName(), err, codes.NotFound, "content")
	}
	start := time.Now()
	c.snapshot("meanwhile", v)
	t.Logf("a snapshot beside two copies took %s", time.Since(start))
	list, err := c.Controller.ListVolumes(c.context(), &csi.ListVolumesRequest{})
	c.ok(err)
	if len(list.GetEntries()) != 1 {
		t.Errorf("half a copy is listed: %v", list)
	}
	c.driver.Kill()
	c.driver.Start()
	for deadline := time.Now().Add(callTimeout); len(list.GetEntries()) < 3 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		list, err = c.Controller.ListVolumes(c.context(), &csi.ListVolumesRequest{})
		c.ok(err)
	}
	for i, want := range []string{"v1", "v2"} {
		res, aborted := untilDone(c, want, func() (*csi.CreateVolumeResponse, error) {
			return c.Controller.CreateVolume(c.context(), requests[i])
		})
		if aborted > 0 {
			t.Errorf("%s was not finished by itself", requests[i].GetName())
		}
		c.use(res.GetVolume(), ext4).holds(want)
	}
	if lvs := strings.Join(c.lvs(), " "); strings.Contains(lvs, "csi-c-") || len(c.lvs()) != 5 {
		t.Errorf("LVs: %s", lvs)
	}
}

// Another tenant's blocks are never read, though the driver be killed while it overwrites them.
func TestThickOldBlocks(t *testing.T) {
	c := newThickCO(t, "--copy-rate-limit=200Mi")
	secret := pattern("another tenant's secret")
	fill := func(u *use) {
		t.Helper()
		f, err := os.OpenFile(u.target, os.O_WRONLY, 0)
		c.ok(err)
		for at := int64(0); at < volumeBytes; at += patternBytes {
			_, err := f.WriteAt(secret, at)
			c.ok(err)
		}
		c.ok(f.Sync())
		c.ok(f.Close())
	}
	for round := range 2 {
		v := c.patient(fmt.Sprint("tenant ", round), block, ofType("thick"))
		u := c.use(v, block)
		fill(u)
		u.release()
		c.deleteVolume(v)
		done := make(chan struct{})
		next := c.volumeRequest(fmt.Sprint("next ", round), block, ofType("thick"))
		go func() {
			defer close(done)
			_, _ = c.Controller.CreateVolume(c.context(), next)
		}()
		time.Sleep(time.Duration(300+700*round) * time.Millisecond)
		c.driver.Kill()
		c.driver.Start()
		<-done
		res, _ := untilDone(c, "next", func() (*csi.CreateVolumeResponse, error) {
			return c.Controller.CreateVolume(c.context(), next)
		})
		u = c.use(res.GetVolume(), block)
		f, err := os.Open(u.target)
		c.ok(err)
		block, zeroes := make([]byte, patternBytes), make([]byte, patternBytes)
		for at := int64(0); at < volumeBytes; at += patternBytes {
			if _, err := f.ReadAt(block, at); err != nil || !bytes.Equal(block, zeroes) {
				t.Fatalf("at %d: %.60q, %v", at, block, err)
			}
		}
		_ = f.Close()
		u.release()
		c.deleteVolume(res.GetVolume())
	}
}

// A snapshot with little room grows before it is full.
func TestCOWGrowsUnderLoad(t *testing.T) {
	c := newThickCO(t)
	v := c.patient("v", block, ofType("thick"))
	u := c.use(v, block)
	u.write("v1")
	res, err := c.Controller.CreateSnapshot(c.context(), &csi.CreateSnapshotRequest{
		Name: "s", SourceVolumeId: v.GetVolumeId(), Parameters: map[string]string{"cowSize": "20%"},
	})
	c.ok(err)
	f, err := os.OpenFile(u.target, os.O_WRONLY, 0)
	c.ok(err)
	block := pattern("overwritten")
	for at := int64(0); at < volumeBytes; at += patternBytes {
		_, err := f.WriteAt(block, at)
		c.ok(err)
		if at%(8*patternBytes) == 0 {
			c.ok(f.Sync())
			time.Sleep(200 * time.Millisecond) // 40 MiB/s
		}
	}
	c.ok(f.Close())
	s, err := c.Controller.GetSnapshot(c.context(), &csi.GetSnapshotRequest{SnapshotId: res.GetSnapshot().GetSnapshotId()})
	c.ok(err)
	if !s.GetSnapshot().GetReadyToUse() {
		t.Fatalf("it was lost: %v\n%s", s, labtest.Run(t, "lvs", c.vg.Name))
	}
	c.use(c.patient("r", kind{name: "block", block: true}, fromSnapshot(s.GetSnapshot())), kind{name: "block", block: true}).holds("v1")
}

// A COW that has to grow in a full group is in the health of its volume, as long as it is there.
func TestCOWThatCannotGrow(t *testing.T) {
	c := newThickCO(t)
	v := c.patient("v", block, ofType("thick"), ofSize(64*mib))
	u := c.use(v, block)
	res, err := c.Controller.CreateSnapshot(c.context(), &csi.CreateSnapshotRequest{
		Name: "s", SourceVolumeId: v.GetVolumeId(), Parameters: map[string]string{"cowSize": "16Mi"},
	})
	c.ok(err)
	labtest.Run(t, "lvcreate", "--yes", "--wipesignatures", "n", "--zero", "n", "--name", "theirs", "--extents", "100%FREE", c.vg.Name)
	f, err := os.OpenFile(u.target, os.O_WRONLY, 0)
	c.ok(err)
	for n := range int64(13) {
		_, err := f.WriteAt(pattern("overwritten"), n*patternBytes)
		c.ok(err)
	}
	c.ok(f.Sync())
	c.ok(f.Close())
	health := func() []*csi.VolumeHealth_VolumeHealthEntry {
		res, err := c.Controller.ControllerGetVolumeHealth(c.context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: v.GetVolumeId()})
		c.ok(err)
		return res.GetVolumeHealth().GetHealthStatuses()
	}
	entries := health()
	for deadline := time.Now().Add(callTimeout); len(entries) == 0 && time.Now().Before(deadline); entries = health() {
		time.Sleep(50 * time.Millisecond)
	}
	if len(entries) != 1 || entries[0].GetStatus() != csi.VolumeHealthErrorType_DEGRADED || entries[0].GetReason() != "COWCannotGrow" ||
		!strings.Contains(entries[0].GetMessage(), lvOf(res.GetSnapshot().GetSnapshotId())) ||
		!strings.Contains(entries[0].GetMessage(), "% full and cannot grow") {
		t.Errorf("health: %v", entries)
	}
	t.Logf("%v", entries)
	c.deleteSnapshot(res.GetSnapshot())
	if entries := health(); len(entries) > 0 {
		t.Errorf("the snapshot is gone: %v", entries)
	}
	labtest.Run(t, "lvremove", "--yes", c.vg.Name+"/theirs")
}
