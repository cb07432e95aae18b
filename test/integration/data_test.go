//go:build lab

package integration_test

import (
	"errors"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
)

// forEachKind runs a test on every file system and on a block device, with one driver.
func forEachKind(t *testing.T, test func(c *co, k kind)) {
	c := newCO(t)
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			c := c.in(t)
			t.Cleanup(c.deleteAll) // runs after everything is released
			test(c, k)
		})
	}
}

// The promise of a snapshot: what was there when it was cut, whatever happened since, and nothing else changed.
func TestRestore(t *testing.T) {
	forEachKind(t, func(c *co, k kind) {
		v := c.volume("origin", k)
		origin := c.use(v, k)
		origin.write("v1")
		s := c.snapshot("s", v)
		if s.GetSizeBytes() != volumeBytes || s.GetSourceVolumeId() != v.GetVolumeId() {
			c.t.Errorf("snapshot: %v", s)
		}
		origin.write("v2")

		// Side by side with its origin.
		restored := c.volume("restored", k, fromSnapshot(s))
		if restored.GetContentSource().GetSnapshot().GetSnapshotId() != s.GetSnapshotId() {
			c.t.Errorf("the content source is not echoed: %v", restored)
		}
		copied := c.use(restored, k)
		copied.holds("v1")
		origin.holds("v2")
		copied.write("v3")
		origin.holds("v2")
		copied.holds("v3")

		// Again, with a copy of the copy.
		again := c.use(c.volume("again", k, fromSnapshot(c.snapshot("s2", restored))), k)
		copied.write("v4")
		again.holds("v3")
		copied.holds("v4")
		origin.holds("v2")
		// The first snapshot is still what it was.
		c.use(c.volume("late", k, fromSnapshot(s)), k).holds("v1")
		for _, u := range []*use{origin, copied, again} {
			u.release()
		}
		// What was released is there when it is used again.
		c.use(v, k).holds("v2")
		c.use(restored, k).holds("v4")
	})
}

// Unmounted volumes are snapshotted as well, and a snapshot outlives its source.
func TestDeleteSourceThenRestore(t *testing.T) {
	forEachKind(t, func(c *co, k kind) {
		v := c.volume("origin", k)
		origin := c.use(v, k)
		origin.write("v1")
		mounted := c.snapshot("mounted", v)
		origin.write("v2")
		origin.release()
		unmounted := c.snapshot("unmounted", v)
		c.deleteVolume(v)
		if list, err := c.Controller.ListSnapshots(c.context(), &csi.ListSnapshotsRequest{SourceVolumeId: v.GetVolumeId()}); err != nil || len(list.GetEntries()) != 2 {
			c.t.Errorf("snapshots of a deleted volume: %v, %v", list, err)
		}
		if again := c.snapshot("mounted", v); again.GetCreationTime().AsTime() != mounted.GetCreationTime().AsTime() {
			c.t.Errorf("a retry after the deletion of the source: %v, want %v", again, mounted)
		}
		first := c.use(c.volume("v1", k, fromSnapshot(mounted)), k)
		second := c.use(c.volume("v2", k, fromSnapshot(unmounted)), k)
		c.deleteSnapshot(mounted)
		c.deleteSnapshot(unmounted)
		first.holds("v1")
		second.holds("v2")
		first.write("v3")
		second.holds("v2")
	})
}

func TestRestoreLarger(t *testing.T) {
	forEachKind(t, func(c *co, k kind) {
		v := c.volume("origin", k)
		origin := c.use(v, k)
		origin.write("v1")
		s := c.snapshot("s", v)
		larger := c.use(c.volume("larger", k, fromSnapshot(s), ofSize(gib)), k)
		larger.holds("v1")
		larger.hasSize(gib)
		clone := c.use(c.volume("clone", k, fromVolume(v), ofSize(gib)), k)
		clone.holds("v1")
		clone.hasSize(gib)
		origin.hasSize(volumeBytes)
		clone.write("v2")
		origin.holds("v1")
	})
}

func TestExpandOnline(t *testing.T) {
	forEachKind(t, func(c *co, k kind) {
		v := c.volume("v", k)
		u := c.use(v, k)
		u.write("v1")
		s := c.snapshot("before", v)
		for range 2 {
			res, err := c.Node.NodeExpandVolume(c.context(), &csi.NodeExpandVolumeRequest{
				VolumeId: v.GetVolumeId(), VolumePath: u.target, StagingTargetPath: u.staging,
				CapacityRange: &csi.CapacityRange{RequiredBytes: gib}, VolumeCapability: k.capability(writer),
			})
			c.ok(err)
			if res.GetCapacityBytes() != gib {
				c.t.Errorf("expanded: %v", res)
			}
		}
		u.hasSize(gib)
		u.holds("v1")
		if s.GetSizeBytes() != volumeBytes {
			c.t.Errorf("snapshot of %d bytes", s.GetSizeBytes())
		}
		if after := c.snapshot("after", v); after.GetSizeBytes() != gib {
			c.t.Errorf("a snapshot after the expansion has %d bytes", after.GetSizeBytes())
		}
		c.use(c.volume("small", k, fromSnapshot(s)), k).hasSize(volumeBytes)
	})
}

func TestReadOnly(t *testing.T) {
	forEachKind(t, func(c *co, k kind) {
		v := c.volume("v", k)
		u := c.use(v, k)
		u.write("v1")
		s := c.snapshot("s", v)
		u.release()

		published := c.useAs(v, k, k.capability(writer), true)
		published.refusesWrites()
		published.holds("v1")
		published.release()

		// What backup tools do: a restore that is only read.
		reader := k.capability(csi.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY)
		backup := c.volume("backup", k, fromSnapshot(s), func(req *csi.CreateVolumeRequest) {
			req.VolumeCapabilities = []*csi.VolumeCapability{reader}
		})
		read := c.useAs(backup, k, reader, true)
		read.refusesWrites()
		read.holds("v1")
		read.release()

		again := c.use(v, k)
		again.holds("v1")
		again.write("v2")
	})
}

func (u *use) refusesWrites() {
	u.t.Helper()
	want := unix.EROFS
	if u.block {
		want = unix.EPERM
	}
	if err := u.tryWrite("x"); !errors.Is(err, want) {
		u.t.Errorf("%s: write to what is read-only: %v", u.name, err)
	}
}

// A file system can be restored as a block device: backup tools read it so.
func TestRestoreFilesystemAsBlock(t *testing.T) {
	c := newCO(t)
	v := c.volume("v", ext4)
	u := c.use(v, ext4)
	u.write("v1")
	s := c.snapshot("s", v)
	u.write("v2")
	device := c.use(c.volume("device", block, fromSnapshot(s)), block)
	device.hasSize(volumeBytes)
	c.fsType(device.target, "ext4")
}
