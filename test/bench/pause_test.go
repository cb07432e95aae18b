//go:build lab

package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
)

const (
	// watch is how long a writer is watched; it is the same with a cut and without one, because whoever watches
	// longer sees longer stalls.
	watch      = time.Second
	beforeCut  = 100 * time.Millisecond
	blockBytes = 4 << 10
	fileBytes  = 4 << 20
	// mountedBytes is enough for an xfs.
	mountedBytes = 512 << 20
)

// measurePause measures the longest stall of a workload while a snapshot of its volume is cut by the driver, by
// an administrator, and by nobody.
func (l *lab) measurePause(fs string, cuts int) {
	l.b.Helper()
	id, target, release := l.mount(fs)
	defer release()
	path := filepath.Join(target, "file")
	l.ok(os.WriteFile(path, make([]byte, fileBytes), 0o600))
	var snapshot string
	ways := []struct {
		via       string
		cut, undo func() error
	}{
		{viaGRPC, func() (err error) {
			snapshot, err = l.createSnapshot("pause", id)
			return err
		}, func() error { return l.deleteSnapshot(snapshot) }},
		{viaExec, func() error {
			return l.execute(viaExec, []string{"lvcreate", "--snapshot", "--permission", "r", "--name", rawName(0), l.lv(id)})
		}, func() error { return l.execute(viaExec, []string{"lvremove", "--yes", l.vg.Name + "/" + rawName(0)}) }},
		{viaNone, func() error { return nil }, func() error { return nil }},
	}
	for range cuts {
		for _, way := range ways {
			stall, err := longestStall(path, way.cut)
			l.ok(errors.Join(err, way.undo()))
			l.write(fmt.Sprintf("Pause/fs=%s/snapshots=%d/via=%s", fs, len(l.snapshots), way.via), 1,
				values{}.nanoseconds("stall-ns", stall))
		}
	}
}

// mount makes a volume with a file system and mounts it, through the driver.
func (l *lab) mount(fs string) (id, target string, release func()) {
	l.b.Helper()
	capability := &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: fs}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
	res, err := l.driver.Controller.CreateVolume(l.ctx, &csi.CreateVolumeRequest{
		Name: "mounted-" + fs, CapacityRange: &csi.CapacityRange{RequiredBytes: mountedBytes},
		VolumeCapabilities: []*csi.VolumeCapability{capability},
	})
	l.ok(err)
	id = res.GetVolume().GetVolumeId()
	dir := l.b.TempDir()
	staging, target := filepath.Join(dir, "staging"), filepath.Join(dir, "target")
	_, err = l.driver.Node.NodeStageVolume(l.ctx, &csi.NodeStageVolumeRequest{
		VolumeId: id, StagingTargetPath: staging, VolumeCapability: capability,
	})
	l.ok(err)
	_, err = l.driver.Node.NodePublishVolume(l.ctx, &csi.NodePublishVolumeRequest{
		VolumeId: id, StagingTargetPath: staging, TargetPath: target, VolumeCapability: capability,
	})
	l.ok(err)
	return id, target, func() {
		_, unpublish := l.driver.Node.NodeUnpublishVolume(l.ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: target})
		_, unstage := l.driver.Node.NodeUnstageVolume(l.ctx, &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: staging})
		l.ok(errors.Join(unpublish, unstage, l.deleteVolume(id)))
	}
}

// longestStall is the longest time between two completed writes while a snapshot is cut.
func longestStall(path string, cut func() error) (time.Duration, error) {
	type result struct {
		stall time.Duration
		err   error
	}
	stop, done := make(chan struct{}), make(chan result)
	go func() {
		stall, err := overwrite(path, stop)
		done <- result{stall, err}
	}()
	began := time.Now()
	time.Sleep(beforeCut)
	err := cut()
	time.Sleep(max(beforeCut, watch-time.Since(began)))
	close(stop)
	writer := <-done
	return writer.stall, errors.Join(err, writer.err)
}

// overwrite overwrites a file, one durable block after the other, and tells the longest time that one took.
func overwrite(path string, stop <-chan struct{}) (longest time.Duration, err error) {
	runtime.LockOSThread() // a workload has a thread of its own
	defer runtime.UnlockOSThread()
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_DIRECT|unix.O_DSYNC, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	// O_DIRECT wants aligned memory.
	block, err := unix.Mmap(-1, 0, blockBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unix.Munmap(block)) }()
	last := time.Now()
	for offset := int64(0); ; offset = (offset + blockBytes) % fileBytes {
		if _, err := f.WriteAt(block, offset); err != nil {
			return 0, err
		}
		now := time.Now()
		longest, last = max(longest, now.Sub(last)), now
		select {
		case <-stop:
			return longest, nil
		default:
		}
	}
}
