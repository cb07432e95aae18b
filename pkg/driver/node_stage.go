package driver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/mount"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// mountWish is how a file system is wanted: the capability, with "ro" and "rw" taken out of its flags.
type mountWish struct {
	fsType   string // empty: whatever is there
	flags    []string
	readOnly bool
}

func wishOf(c capability) mountWish {
	w := mountWish{fsType: c.fsType, readOnly: c.readOnly() || slices.Contains(c.mountFlags, "ro")}
	for _, flag := range c.mountFlags {
		if flag != "ro" && flag != "rw" {
			w.flags = append(w.flags, flag)
		}
	}
	return w
}

// NodeStageVolume implements csi.NodeServer.
func (n *node) NodeStageVolume(ctx context.Context, req *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	c, err := parseCapability(req.GetVolumeCapability())
	if err == nil {
		err = mount.CheckFlags(c.mountFlags)
	}
	// The id comes last: a malformed one is NotFound, and everything that is missing is found before.
	if err == nil {
		err = checkFields(req.GetVolumeId(), pathField{"staging_target_path", req.GetStagingTargetPath()})
	}
	if err != nil {
		return nil, classify(err)
	}
	return exclusive(ctx, n, req.GetVolumeId(), func(ctx context.Context) (*csi.NodeStageVolumeResponse, error) {
		return &csi.NodeStageVolumeResponse{}, n.stage(ctx, req.GetVolumeId(), req.GetStagingTargetPath(), c)
	})
}

func (n *node) stage(ctx context.Context, id, path string, c capability) (err error) {
	vol, err := n.engine.Volume(ctx, id)
	if err != nil {
		return err
	}
	if err := checkAccess(vol, c); err != nil {
		return err
	}
	wasActive := vol.Active
	if vol, err = n.engine.Activate(ctx, id); err != nil {
		return err
	}
	defer func() {
		// A CO need not unstage what could not be staged.
		if err != nil && !wasActive {
			if undo := n.engine.Deactivate(ctx, id); undo != nil {
				klog.FromContext(ctx).Error(undo, "The volume of a failed NodeStageVolume stays active", "volume", id)
			}
		}
	}()
	if c.access == storage.AccessMount {
		return n.stageMount(ctx, vol, path, wishOf(c))
	}
	// A block volume needs nothing more than its device. What a mount would have had to do first must never be
	// done once the workload has the device: it is recorded as done.
	if vol.Init != storage.InitDone {
		return n.engine.Initialized(ctx, id)
	}
	return nil
}

// checkAccess compares a capability with what the volume was made for.
func checkAccess(vol storage.Volume, c capability) error {
	if vol.Access != c.access {
		return failedPrecondition("volume_capability.access_type is %s, and volume %s was made for %s", c.access, vol.ID, vol.Access)
	}
	if c.fsType != "" && vol.FSType != "" && c.fsType != vol.FSType {
		return fmt.Errorf("%w: volume_capability.mount.fs_type is %s, and volume %s has %s", storage.ErrInvalid, c.fsType, vol.ID, vol.FSType)
	}
	return nil
}

func (n *node) stageMount(ctx context.Context, vol storage.Volume, path string, wish mountWish) error {
	points, places, err := n.mountsOf(ctx, vol, path)
	if err != nil {
		return err
	}
	staged := places[0]
	switch {
	case staged.at != nil && !staged.ours:
		return fmt.Errorf("%w: something else is mounted on staging_target_path %s (%s)", storage.ErrConflict, path, staged.at.FSType)
	case staged.ours && vol.Init == storage.InitDone:
		return wish.metBy(*staged.at, path)
	case staged.ours && vol.Init == storage.InitClone && len(points) == 1:
		// A stage that was cut short before it was over: nobody else has seen this mount. Begin again.
		if err := n.mounts.Unmount(ctx, path); err != nil {
			return err
		}
	case len(points) > 0 && vol.Init != storage.InitDone:
		// Whoever mounted it may have written to it, so that neither mkfs nor a new identity is safe.
		return fmt.Errorf("%w: volume %s waits for %q and is mounted already on %v; unmount it", storage.ErrInUse, vol.ID, vol.Init, pathsOf(points))
	}
	fsType, err := n.prepare(ctx, vol, path, wish)
	if err != nil || fsType == "" {
		return err
	}
	return n.mounts.Mount(ctx, vol.DevicePath, path, fsType, wish.flags, wish.readOnly)
}

// visibleFlags are those that the mount table shows word for word.
var visibleFlags = []string{"noatime", "nodiratime", "nosuid", "nodev", "noexec"}

// metBy says whether an existing mount is what is wanted, as far as the kernel tells: it does not keep flags
// as they were given, so only those that it shows word for word are compared.
func (w mountWish) metBy(p mount.Point, path string) error {
	switch {
	case w.fsType != "" && w.fsType != p.FSType:
		return fmt.Errorf("%w: %s is staged as %s, not as %s", storage.ErrConflict, path, p.FSType, w.fsType)
	case w.readOnly != p.ReadOnly:
		return fmt.Errorf("%w: %s is staged with read-only %t, not %t", storage.ErrConflict, path, p.ReadOnly, w.readOnly)
	}
	for _, flag := range visibleFlags {
		if slices.Contains(w.flags, flag) && !slices.Contains(p.Options, flag) {
			return fmt.Errorf("%w: %s is staged with other mount flags", storage.ErrConflict, path)
		}
	}
	return nil
}

// prepare does what the volume has to go through before its mount. It returns the type of the file system to
// mount, or "" when that was mounted on the way.
func (n *node) prepare(ctx context.Context, vol storage.Volume, path string, wish mountWish) (string, error) {
	if vol.Init == storage.InitFormat {
		fsType := cmp.Or(wish.fsType, vol.FSType, fsTypes[0])
		if err := n.fs.Format(ctx, vol.DevicePath, fsType); err != nil {
			return "", err
		}
		// Before the mount: from then on there may be data, and a crash must not lead to a second mkfs.
		return fsType, n.engine.Initialized(ctx, vol.ID)
	}
	fsType, err := n.probe(ctx, vol, wish)
	if err != nil || vol.Init == storage.InitDone {
		return fsType, err
	}
	return n.firstMountOfClone(ctx, vol, path, fsType, wish)
}

// probe finds the file system that must be there, and never makes up for one that is not: this volume was
// restored from something or has been used, and mkfs would put an end to what can still be saved.
func (n *node) probe(ctx context.Context, vol storage.Volume, wish mountWish) (string, error) {
	fsType, err := n.fs.Probe(ctx, vol.DevicePath)
	switch {
	case err != nil:
		return "", err
	case fsType == "":
		return "", fmt.Errorf("%w: no file system was found on volume %s, which is not a new one; it is not formatted, because data may be lost. Look at %s, or restore a snapshot",
			storage.ErrDamaged, vol.ID, vol.DevicePath)
	case !slices.Contains(fsTypes, fsType):
		return "", fmt.Errorf("%w: volume %s has %s on it, and only %v can be mounted", storage.ErrDamaged, vol.ID, fsType, fsTypes)
	case wish.fsType != "" && wish.fsType != fsType:
		return "", fmt.Errorf("%w: volume_capability.mount.fs_type is %s, and volume %s has %s on it", storage.ErrInvalid, wish.fsType, vol.ID, fsType)
	}
	return fsType, nil
}

// firstMountOfClone gives a clone an identity and mounts it writable, whatever is wanted: its log has to be
// replayed and its file system may have to grow into a larger volume. Only then is it recorded as ready. It
// can be cut short anywhere and begun again.
func (n *node) firstMountOfClone(ctx context.Context, vol storage.Volume, path, fsType string, wish mountWish) (again string, err error) {
	if err := n.fs.NewIdentity(ctx, vol.DevicePath, fsType); err != nil {
		return "", err
	}
	flags := wish.flags
	if wish.readOnly {
		flags = nil // it is mounted once more, and some flags go with ro only (norecovery)
	}
	if err := n.mounts.Mount(ctx, vol.DevicePath, path, fsType, flags, false); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			// Joined as text: an unmount that fails too must not decide about the code.
			if undo := n.mounts.Unmount(ctx, path); undo != nil {
				err = fmt.Errorf("%w (and it stays mounted: %v)", err, undo) //nolint:errorlint // on purpose
			}
		}
	}()
	if err := n.fs.Grow(ctx, vol.DevicePath, path); err != nil {
		return "", err
	}
	if !wish.readOnly {
		return "", n.engine.Initialized(ctx, vol.ID)
	}
	if err := n.mounts.Unmount(ctx, path); err != nil {
		return "", err
	}
	return fsType, n.engine.Initialized(ctx, vol.ID)
}

// NodeUnstageVolume implements csi.NodeServer.
func (n *node) NodeUnstageVolume(ctx context.Context, req *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	id, path := req.GetVolumeId(), req.GetStagingTargetPath()
	if err := checkFields(id, pathField{"staging_target_path", path}); err != nil {
		return nil, err
	}
	return exclusive(ctx, n, id, func(ctx context.Context) (*csi.NodeUnstageVolumeResponse, error) {
		return &csi.NodeUnstageVolumeResponse{}, n.unstage(ctx, id, path)
	})
}

func (n *node) unstage(ctx context.Context, id, path string) error {
	vol, err := n.engine.Volume(ctx, id)
	switch {
	case errors.Is(err, storage.ErrOtherNode):
		return nil // never staged here
	case errors.Is(err, storage.ErrNotFound):
		// Someone removed the volume under its mount; what is left of that must not keep the pod from ending.
		return n.mounts.Unmount(ctx, path)
	case err != nil:
		return err
	}
	points, places, err := n.mountsOf(ctx, vol, path)
	if err != nil {
		return err
	}
	staged := places[0]
	if left := targets(points, staged.at); len(left) > 0 {
		return fmt.Errorf("%w: volume %s is still published on %v", storage.ErrInUse, id, pathsOf(left))
	}
	// Another volume's mount means that this one is not staged there, which is what is wanted. A mount of
	// this volume from before its device went away counts as its own.
	if staged.ours || staged.at != nil && !vol.Active {
		if err := n.mounts.Unmount(ctx, path); err != nil {
			return err
		}
	}
	return n.engine.Deactivate(ctx, id)
}
