package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// driver is the real driver as a process, and its CSI services.
type driver struct {
	process    *exec.Cmd
	log        string
	controller csi.ControllerClient
	node       csi.NodeClient
	mounted    []string
}

func startDriver(ctx context.Context, dir string) (*driver, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	socket, logPath := filepath.Join(dir, "csi.sock"), filepath.Join(dir, "driver.log")
	args := []string{"--endpoint", "unix://" + socket, "--volume-group", group, "--node-id", "demo-node", "--work-dir", filepath.Join(dir, "work")}
	logFile, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	process := exec.Command(filepath.Join(filepath.Dir(self), "lvmsnap"), args...)
	process.Stdout, process.Stderr = logFile, logFile
	say("# lvmsnap --endpoint unix:///csi/csi.sock --volume-group %s", group)
	if err := process.Start(); err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return nil, err
	}
	d := &driver{process: process, log: logPath, controller: csi.NewControllerClient(conn), node: csi.NewNodeClient(conn)}
	ready, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if _, err := csi.NewIdentityClient(conn).Probe(ready, &csi.ProbeRequest{}); err != nil {
		return nil, errors.Join(fmt.Errorf("the driver does not start: %w", err), d.stop())
	}
	return d, nil
}

// stop ends the driver; its log is shown when it did not end well.
func (d *driver) stop() error {
	err := d.process.Process.Signal(syscall.SIGTERM)
	if err = errors.Join(err, d.process.Wait()); err == nil {
		return nil
	}
	text, _ := os.ReadFile(d.log)
	return fmt.Errorf("the driver: %w\n%s", err, text)
}

// timed says how long a CSI call took.
func timed(what string, call func() error) error {
	start := time.Now()
	err := call()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	say("%-56s %4d ms", what, time.Since(start).Milliseconds())
	return nil
}

func capability() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: "ext4"}},
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
	}
}

func (d *driver) createVolume(ctx context.Context, name string, source *csi.VolumeContentSource) (id string, err error) {
	err = timed("CreateVolume "+name, func() error {
		res, err := d.controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
			Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: sizeMiB << 20},
			VolumeCapabilities: []*csi.VolumeCapability{capability()}, VolumeContentSource: source,
		})
		id = res.GetVolume().GetVolumeId()
		return err
	})
	return id, err
}

func (d *driver) createSnapshot(ctx context.Context, name, volume string) (id string, err error) {
	err = timed("CreateSnapshot "+name, func() error {
		res, err := d.controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume})
		id = res.GetSnapshot().GetSnapshotId()
		if err == nil && !res.GetSnapshot().GetReadyToUse() {
			err = errors.New("it is not ready to use")
		}
		return err
	})
	return id, err
}

func (d *driver) listSnapshots(ctx context.Context, want int) error {
	var list []*csi.ListSnapshotsResponse_Entry
	err := timed("ListSnapshots", func() error {
		res, err := d.controller.ListSnapshots(ctx, &csi.ListSnapshotsRequest{})
		list = res.GetEntries()
		if err == nil && len(list) != want {
			err = fmt.Errorf("%d snapshots, want %d", len(list), want)
		}
		return err
	})
	for _, e := range list {
		s := e.GetSnapshot()
		say("  %s  size %d MiB  cut at %s  ready %t", s.GetSnapshotId(), s.GetSizeBytes()>>20,
			s.GetCreationTime().AsTime().Format(time.RFC3339Nano), s.GetReadyToUse())
	}
	return err
}

func (d *driver) deleteVolume(ctx context.Context, id string) error {
	return timed("DeleteVolume", func() error {
		_, err := d.controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: id})
		return err
	})
}

func (d *driver) deleteSnapshot(ctx context.Context, id string) error {
	return timed("DeleteSnapshot", func() error {
		_, err := d.controller.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: id})
		return err
	})
}

// mount stages and publishes as kubelet does.
func (d *driver) mount(ctx context.Context, volume, target string) (string, error) {
	staging := target + "-staging"
	if err := os.MkdirAll(staging, 0o750); err != nil {
		return "", err
	}
	return target, timed("NodeStageVolume, NodePublishVolume", func() error {
		if _, err := d.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
			VolumeId: volume, StagingTargetPath: staging, VolumeCapability: capability(),
		}); err != nil {
			return err
		}
		d.mounted = append(d.mounted, staging, target)
		_, err := d.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
			VolumeId: volume, StagingTargetPath: staging, TargetPath: target, VolumeCapability: capability(),
		})
		return err
	})
}

func (d *driver) unmount(ctx context.Context, volume, target string) error {
	return timed("NodeUnpublishVolume, NodeUnstageVolume", func() error {
		if _, err := d.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: volume, TargetPath: target}); err != nil {
			return err
		}
		_, err := d.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: volume, StagingTargetPath: target + "-staging"})
		return err
	})
}

// unmountAll takes away what a failure left mounted.
func (d *driver) unmountAll() {
	for i := len(d.mounted) - 1; i >= 0; i-- {
		_ = syscall.Unmount(d.mounted[i], syscall.MNT_DETACH)
	}
}
