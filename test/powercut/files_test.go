//go:build powercut

package powercut_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// fileSystems are those that are written to while the power is cut, with the least size of each and what checks it.
var fileSystems = []struct {
	name  string
	bytes int64
	check []string
}{
	{"ext4", 64 << 20, []string{"e2fsck", "-fn"}},
	{"xfs", 320 << 20, []string{"xfs_repair", "-n"}},
}

const (
	fileSlots = 16
	filePause = 20 * time.Millisecond // one CPU is for all
	stageTime = time.Minute
)

// files is a client with a mounted file system. It writes file after file, each renamed and durable before the next one is begun,
// and keeps a record outside of the machine of how many there were.
type files struct {
	*node
	fs, id          string
	check           []string
	capability      *csi.VolumeCapability
	staging, target string
	record          *os.File
	fileRecord
}

type fileRecord struct {
	Sequence uint64 // as the other clients' records have it
	Done     uint64 // so many files were durable
}

// openFiles makes the client's volume, or finds it.
func (n *node) openFiles() (all []*files) {
	n.Helper()
	for _, one := range fileSystems {
		path := filepath.Join(n.records, "files-"+one.name)
		dir := filepath.Join(os.Getenv("TMPDIR"), "files-"+one.name)
		f := &files{node: n, fs: one.name, check: one.check, staging: filepath.Join(dir, "staging"), target: filepath.Join(dir, "target")}
		n.ok(os.MkdirAll(f.staging, 0o755))
		last, err := lastRecord(path)
		n.ok(err)
		if last != nil {
			n.ok(json.Unmarshal(last, &f.fileRecord))
		}
		f.record, err = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		n.ok(err)
		f.capability = &csi.VolumeCapability{
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
			AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: one.name}},
		}
		ctx, cancel := context.WithTimeout(context.Background(), stageTime)
		defer cancel()
		res, err := n.driver.Controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
			Name: "files " + one.name, CapacityRange: &csi.CapacityRange{RequiredBytes: one.bytes}, VolumeCapabilities: []*csi.VolumeCapability{f.capability},
		})
		n.ok(err)
		f.id = res.GetVolume().GetVolumeId()
		all = append(all, f)
	}
	return all
}

func (f *files) lv() string { return filepath.Base(f.id) }

// mount also has the file system replay its log.
func (f *files) mount() {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stageTime)
	defer cancel()
	_, err := f.driver.Node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId: f.id, StagingTargetPath: f.staging, VolumeCapability: f.capability,
	})
	f.ok(err)
	_, err = f.driver.Node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId: f.id, StagingTargetPath: f.staging, TargetPath: f.target, VolumeCapability: f.capability,
	})
	f.ok(err)
}

func (f *files) unmount() {
	f.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stageTime)
	defer cancel()
	_, err := f.driver.Node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: f.id, TargetPath: f.target})
	f.ok(err)
	_, err = f.driver.Node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: f.id, StagingTargetPath: f.staging})
	f.ok(err)
}

func (f *files) path(n uint64) string {
	return filepath.Join(f.target, fmt.Sprint("file", n%fileSlots))
}

func content(n uint64) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%020d\n", n), int(200*(1+n%7)))
}

// verify reads what the power cut has left: every file that was durable, and at most the one that was being written beside. Then the
// file system's own program checks it.
func (f *files) verify() {
	f.Helper()
	f.mount()
	next := f.Done + 1
	for n := next; n > 0 && n+fileSlots > next; n-- {
		got, err := os.ReadFile(f.path(n))
		switch {
		case n == next && err == nil && bytes.Equal(got, content(n)):
			f.Done = n
		case n == next && n <= fileSlots && errors.Is(err, fs.ErrNotExist):
		case n == next && n > fileSlots && bytes.Equal(got, content(n-fileSlots)):
		case n == next || err != nil || !bytes.Equal(got, content(n)):
			f.Errorf("%s: %d files were durable; of number %d there are %d bytes, %.20q, %v", f.fs, next-1, n, len(got), got, err)
		}
	}
	f.unmount()
	lv := group + "/" + f.lv()
	labtest.Run(f.T, "lvchange", "--activate", "y", "--ignoreactivationskip", lv)
	labtest.Run(f.T, append(f.check, "/dev/"+lv)...)
	labtest.Run(f.T, "lvchange", "--activate", "n", lv)
	fmt.Printf("%s: %d files, %d of them durable as was reported; it is clean\n", f.fs, f.Done, next-1)
}

// work goes on until the power is cut.
func (f *files) work() error {
	for ; ; time.Sleep(filePause) {
		if err := f.put(f.Done + 1); err != nil {
			return fmt.Errorf("%s: the writer: %w", f.fs, err)
		}
		f.Done++
		if err := f.save(); err != nil {
			return err
		}
	}
}

// put replaces a file.
func (f *files) put(n uint64) error {
	temporary := f.path(n) + ".tmp"
	if err := durably(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, content(n)); err != nil {
		return err
	}
	if err := os.Rename(temporary, f.path(n)); err != nil {
		return err
	}
	return durably(f.target, os.O_RDONLY, nil)
}

func durably(path string, flags int, text []byte) error {
	file, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return err
	}
	if len(text) > 0 {
		_, err = file.Write(text)
	}
	return errors.Join(err, file.Sync(), file.Close())
}

func (f *files) save() error {
	f.Sequence++
	line, err := json.Marshal(f.fileRecord)
	if err != nil {
		return err
	}
	if _, err := f.record.Write(append(line, '\n')); err != nil {
		return err
	}
	if err := f.record.Sync(); err != nil {
		return err
	}
	f.mark(fmt.Sprintf("files-%s:%d", f.fs, f.Sequence))
	return nil
}
