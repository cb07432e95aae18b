package lvm

import "context"

// ThinVolumeOptions describe an empty thin volume.
type ThinVolumeOptions struct {
	Name      string
	Pool      string
	SizeBytes int64 // a multiple of the extent size, or LVM rounds up
	Tags      []string
}

// CreateThinVolume makes an inactive thin volume, which nothing but Activate activates (not the boot, nor
// `vgchange -ay`). The volume and its tags are committed in one step. lvcreate(8)
func (c *Client) CreateThinVolume(ctx context.Context, o ThinVolumeOptions) error {
	if err := validateNames(o.Name, o.Pool); err != nil {
		return err
	}
	if err := validateSize(o.SizeBytes); err != nil {
		return err
	}
	args := []string{
		"lvcreate", "--type", "thin", "--virtualsize", bytesArg(o.SizeBytes), "--name", o.Name,
		"--setactivationskip", "y", "--activate", "n",
	}
	args, err := tagArgs(args, "--addtag", o.Tags)
	if err != nil {
		return err
	}
	_, err = c.run(ctx, append(args, "--thinpool", c.path(o.Pool))...)
	return err
}

// ThinSnapshotOptions describe a thin snapshot.
type ThinSnapshotOptions struct {
	Name     string
	Origin   string
	Writable bool
	Tags     []string
}

// CreateThinSnapshot cuts an inactive thin snapshot of the origin, which may be mounted: LVM freezes its file
// system for the moment of the cut. lvcreate(8), lvmthin(7)
func (c *Client) CreateThinSnapshot(ctx context.Context, o ThinSnapshotOptions) error {
	if err := validateNames(o.Name, o.Origin); err != nil {
		return err
	}
	permission := "r"
	if o.Writable {
		permission = "rw"
	}
	args := []string{"lvcreate", "--snapshot", "--name", o.Name, "--permission", permission, "--setactivationskip", "y"}
	args, err := tagArgs(args, "--addtag", o.Tags)
	if err != nil {
		return err
	}
	_, err = c.run(ctx, append(args, c.path(o.Origin))...)
	return err
}
