package storage_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// area is a metadata area of a million bytes.
type area struct {
	onDisks
	used, looks atomic.Int64
}

func (a *area) Metadata(group string) (lvm.Metadata, error) {
	m, err := a.onDisks.Metadata(group)
	a.looks.Add(1)
	m.TextBytes, m.TextLimitBytes = a.used.Load(), 1_000_000
	return m, err
}

// use is how much of it is used from now on, and seen to be.
func (a *area) use(t *testing.T, bytes int64) {
	t.Helper()
	a.used.Store(bytes)
	before := a.looks.Load()
	eventually(t, "two looks", func() bool { return a.looks.Load() > before+2 }) // one of which began afterwards, and has ended
}

// A metadata area that fills is told of once however snapshots come and go, and so is a disk that is missing.
func TestNoticesOfGroups(t *testing.T) {
	l := newListener(t)
	disks := &area{onDisks: onDisks{l.LVM}}
	l.reader = disks
	l.restart(t)
	stop := l.running(t)
	disks.use(t, 790_000)
	l.heardOnly(t)
	for range 3 {
		disks.use(t, 810_000)
		disks.use(t, 760_000)
	}
	checkNotice(t, l.awaits(t, storage.MetadataAreaLow), []storage.Object{nodeObject}, group, "above 95%", "vgextend --metadatasize")
	disks.use(t, 960_000)
	checkNotice(t, l.awaits(t, storage.MetadataAreaFull), []storage.Object{nodeObject}, group, "960000 of 1000000", "vgextend --metadatasize")
	disks.use(t, 940_000)
	checkNotice(t, l.awaits(t, storage.GroupRecovered), []storage.Object{nodeObject}, group, "MetadataAreaFull is over")
	disks.use(t, 740_000)
	l.SetMissingPVs(group, 1)
	checkNotice(t, l.awaits(t, storage.GroupDiskMissing), []storage.Object{nodeObject}, group, "1 of the disks", "vgextend --restoremissing")
	l.SetMissingPVs(group, 0)
	disks.use(t, 740_000)
	stop()
	l.heardOnly(t, storage.MetadataAreaLow, storage.MetadataAreaFull, storage.GroupDiskMissing,
		storage.GroupRecovered, storage.GroupRecovered, storage.GroupRecovered)
}

// A command that hangs is told of though the looks of the watch wait behind it, and that it has ended.
func TestNoticesOfAStuckGroup(t *testing.T) {
	l := newListener(t)
	v, err := l.CreateVolume(l.context(t), claimed(storage.VolumeSpec{Name: "v", RequiredBytes: 8 * mib, Access: storage.AccessBlock}))
	must(t, err)
	stop := l.running(t)
	hang := l.HangNext(snapshotCreation)
	done := make(chan error, 1)
	go func() {
		_, err := l.CreateSnapshot(l.context(t), snapshotSpec(v, 0))
		done <- err
	}()
	<-hang.Begun()
	l.offset.Store(int64(stuckAfter + time.Minute))
	checkNotice(t, l.awaits(t, storage.GroupStuck), []storage.Object{nodeObject}, group+" is stuck", "its command lvcreate", "kernel log")
	l.offset.Store(int64(stuckAfter + 32*time.Minute))
	eventually(t, "a second notice", func() bool { return len(l.all()) == 2 })
	hang.Release()
	must(t, <-done)
	checkNotice(t, l.awaits(t, storage.GroupRecovered), []storage.Object{nodeObject}, group, "GroupStuck is over")
	stop()
	l.heardOnly(t, storage.GroupStuck, storage.GroupStuck, storage.GroupRecovered)
}

// A RAID volume loses a disk, gets a new one and is whole: the node and the claim are told of each, once.
func TestNoticesOfRAID(t *testing.T) {
	l := newListener(t)
	spec := claimed(thickSpec("v"))
	spec.Class.Layout = storage.Layout{RAIDType: "raid1", Mirrors: 1}
	v, err := l.CreateVolume(l.context(t), spec)
	must(t, err)
	l.write(t, v, "v1")
	stop := l.running(t)
	lv, both := lvName(t, v.ID), []storage.Object{nodeObject, claimOf("v")}
	l.FailImages(group, lv, 1)
	checkNotice(t, l.awaits(t, storage.RAIDDegraded), both, group+"/"+lv, "1 of the 2 devices", "lvconvert --repair")
	l.SetRecovering(group, lv, true)
	l.FailImages(group, lv, 0)
	checkNotice(t, l.awaits(t, storage.RAIDRecovering), both, group+"/"+lv, "onto a new disk", "4.0 MiB of 8.0 MiB")
	l.SetRecovering(group, lv, false)
	checkNotice(t, l.awaits(t, storage.RAIDRecovered), both, group+"/"+lv, "whole again")
	stop()
	l.heardOnly(t, storage.RAIDDegraded, storage.RAIDRecovering, storage.RAIDRecovered)
}

// What became of a RAID volume that is not active nobody knows.
func TestNoNoticeOfAnInactiveRAID(t *testing.T) {
	l := newListener(t)
	spec := claimed(thickSpec("v"))
	spec.Class.Layout = storage.Layout{RAIDType: "raid1", Mirrors: 1}
	v, err := l.CreateVolume(l.context(t), spec)
	must(t, err)
	l.write(t, v, "v1")
	l.FailImages(group, lvName(t, v.ID), 1)
	stop := l.running(t)
	l.awaits(t, storage.RAIDDegraded)
	must(t, l.Deactivate(l.context(t), v.ID))
	l.SetPoolUsage(group, pool, (1<<30)*96/100, 10)
	l.awaits(t, storage.PoolDataLow) // it has looked
	_, err = l.Activate(l.context(t), v.ID)
	must(t, err)
	l.SetPoolUsage(group, pool, 10*mib, 10)
	l.awaits(t, storage.PoolRecovered) // and again
	stop()
	l.heardOnly(t, storage.RAIDDegraded, storage.PoolDataLow, storage.PoolRecovered)
}
