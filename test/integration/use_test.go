//go:build lab

package integration_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// use is a volume that is staged and published.
type use struct {
	*co
	kind
	id              string
	staging, target string
	inUse           bool
}

// use stages and publishes a volume for a writer; the end of the test releases it.
func (c *co) use(v *csi.Volume, k kind) *use {
	c.t.Helper()
	return c.useAs(v, k, k.capability(writer), false)
}

func (c *co) useAs(v *csi.Volume, k kind, vc *csi.VolumeCapability, readOnly bool) *use {
	c.t.Helper()
	dir := c.place()
	u := &use{co: c, kind: k, id: v.GetVolumeId(), staging: filepath.Join(dir, "staging"), target: filepath.Join(dir, "target")}
	_, err := c.Node.NodeStageVolume(c.context(), &csi.NodeStageVolumeRequest{
		VolumeId: u.id, StagingTargetPath: u.staging, VolumeCapability: vc,
	})
	c.ok(err)
	u.inUse = true
	c.t.Cleanup(u.release)
	_, err = c.Node.NodePublishVolume(c.context(), &csi.NodePublishVolumeRequest{
		VolumeId: u.id, StagingTargetPath: u.staging, TargetPath: u.target, VolumeCapability: vc, Readonly: readOnly,
	})
	c.ok(err)
	return u
}

// release unpublishes and unstages the volume.
func (u *use) release() {
	u.t.Helper()
	if !u.inUse {
		return
	}
	u.inUse = false
	_, err := u.Node.NodeUnpublishVolume(u.context(), &csi.NodeUnpublishVolumeRequest{VolumeId: u.id, TargetPath: u.target})
	if err == nil {
		_, err = u.Node.NodeUnstageVolume(u.context(), &csi.NodeUnstageVolumeRequest{VolumeId: u.id, StagingTargetPath: u.staging})
	}
	if err != nil {
		u.t.Errorf("releasing %s: %v", u.id, err)
	}
}

const patternBytes = 1 << 20

// pattern is text, over and over again.
func pattern(text string) []byte {
	return bytes.Repeat([]byte(text+"\n"), patternBytes/(len(text)+1)+1)[:patternBytes]
}

// offsets are where a pattern is written to a device.
var offsets = []int64{0, volumeBytes/2 + 4096, volumeBytes - patternBytes}

// tryWrite writes a pattern to the volume, durably.
func (u *use) tryWrite(text string) error {
	if !u.block {
		return writeFile(filepath.Join(u.target, "file"), pattern(text))
	}
	f, err := os.OpenFile(u.target, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for _, offset := range offsets {
		_, e := f.WriteAt(pattern(text), offset)
		err = errors.Join(err, e)
	}
	return errors.Join(err, f.Sync(), f.Close())
}

func writeFile(path string, content []byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func (u *use) write(text string) {
	u.t.Helper()
	u.ok(u.tryWrite(text))
}

// holds checks that the volume holds that pattern.
func (u *use) holds(text string) {
	u.t.Helper()
	path, at := filepath.Join(u.target, "file"), []int64{0}
	if u.block {
		path, at = u.target, offsets
	}
	f, err := os.Open(path)
	u.ok(err)
	defer f.Close()
	for _, offset := range at {
		got := make([]byte, patternBytes)
		if _, err := f.ReadAt(got, offset); err != nil {
			u.t.Errorf("%s: reading %s: %v", u.name, u.id, err)
		} else if !bytes.Equal(got, pattern(text)) {
			line, _, _ := bytes.Cut(got, []byte("\n"))
			u.t.Errorf("%s: %s holds %.40q at %d, want %q", u.name, u.id, line, offset, text)
		}
	}
}

// size is what the workload sees: the device's size, or the file system's.
func (u *use) size() int64 {
	u.t.Helper()
	if !u.block {
		var st unix.Statfs_t
		u.ok(unix.Statfs(u.target, &st))
		return int64(st.Blocks) * st.Bsize
	}
	f, err := os.Open(u.target)
	u.ok(err)
	defer f.Close()
	n, err := f.Seek(0, io.SeekEnd)
	u.ok(err)
	return n
}

// hasSize checks that the volume has that size, less what the file system takes for itself.
func (u *use) hasSize(want int64) {
	u.t.Helper()
	got := u.size()
	if u.block && got != want || got > want || got < want*85/100 {
		u.t.Errorf("%s: the workload sees %d bytes of %d", u.name, got, want)
	}
}

// checkers are the file systems' own checks, which change nothing.
var checkers = map[string][]string{
	"ext4":  {"e2fsck", "-fn"},
	"xfs":   {"xfs_repair", "-n"},
	"btrfs": {"btrfs", "check", "--readonly"},
}

// isClean has the file system of a volume that is not in use checked.
func (c *co) isClean(id string, k kind) {
	c.t.Helper()
	c.withDevice(id, func(device string) {
		c.t.Helper()
		labtest.Run(c.t, append(checkers[k.name], device)...)
	})
}

// withDevice activates an LV, as an administrator can.
func (c *co) withDevice(id string, fn func(device string)) {
	c.t.Helper()
	lv := fmt.Sprintf("%s/%s", c.vg.Name, lvOf(id))
	labtest.Run(c.t, "lvchange", "--activate", "y", "--ignoreactivationskip", lv)
	fn(c.vg.Device(lvOf(id)))
	labtest.Run(c.t, "lvchange", "--activate", "n", lv)
}

// fsType checks what blkid finds on a device.
func (c *co) fsType(device, want string) {
	c.t.Helper()
	if got := strings.TrimSpace(labtest.Run(c.t, "blkid", "-p", "-s", "TYPE", "-o", "value", device)); got != want {
		c.t.Errorf("%s has %q on it, want %q", device, got, want)
	}
}
