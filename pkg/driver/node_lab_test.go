//go:build lab

package driver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/mount"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// labRig is the node service with real file systems and mounts, over an engine that is a fake and devices that
// are loop devices.
type labRig struct {
	*nodeRig
	scratch string
}

func newLabRig(t *testing.T) *labRig {
	disks := os.Getenv("LAB_DISKS")
	if disks == "" {
		t.Fatal(`LAB_DISKS is not set: run this in the lab (go test -tags lab -exec "lab --")`)
	}
	disk, _, _ := strings.Cut(disks, ",")
	r := &labRig{nodeRig: newNodeRig(t), scratch: filepath.Join(t.TempDir(), "scratch")}
	host := mount.NewHost(hostexec.Host{}, "")
	r.srv = NewNode(NodeOptions{NodeID: "node-1", Engine: r, FileSystems: host, Mounts: host})
	r.run("mkfs.ext4", "-q", "-F", disk)
	r.ok(os.Mkdir(r.scratch, 0o700))
	r.ok(unix.Mount(disk, r.scratch, "ext4", 0, ""))
	t.Cleanup(func() { r.ok(unix.Unmount(r.scratch, 0)) })
	return r
}

func (r *labRig) run(name string, args ...string) string {
	r.t.Helper()
	res, err := hostexec.Host{}.Run(context.WithoutCancel(r.t.Context()), hostexec.Command{Name: name, Args: args})
	if err != nil || res.ExitCode != 0 {
		r.t.Fatalf("%s %v: %v %s%s", name, args, err, res.Stdout, res.Stderr)
	}
	return strings.TrimSpace(string(res.Stdout))
}

// addLoop makes a volume, whose image is a copy of another one's if there is one.
func (r *labRig) addLoop(v storage.Volume, from string, bytes int64) *storage.Volume {
	r.t.Helper()
	image := filepath.Join(r.scratch, v.Name)
	if from != "" {
		r.run("cp", "--sparse=always", filepath.Join(r.scratch, from), image)
	} else {
		r.ok(os.WriteFile(image, nil, 0o600))
	}
	r.ok(os.Truncate(image, bytes))
	vol := r.add(v)
	vol.DevicePath, vol.SizeBytes = r.run("losetup", "-f", "--show", image), bytes
	r.t.Cleanup(func() { r.run("losetup", "-d", vol.DevicePath) })
	return vol
}

func (r *labRig) write(path, content string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func (r *labRig) wantFile(path, content string) {
	r.t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != content {
		r.t.Errorf("%s = %q, %v; want %q", path, got, err, content)
	}
}

// A volume and its restored snapshot, both in use at once, from the first stage to the last unstage.
func TestLabNode(t *testing.T) {
	const size = 512 << 20
	for _, fsType := range fsTypes {
		t.Run(fsType, func(t *testing.T) {
			r := newLabRig(t)
			c, stage := nodeCap(modeSNMW, ""), r.staging
			v := r.addLoop(storage.Volume{Name: "origin", FSType: fsType, Init: storage.InitFormat}, "", size)
			for range 2 {
				r.ok(r.stage(v.ID, c))
				r.ok(r.publish(v.ID, "one", c, false))
			}
			r.ok(r.write(r.target("one/file"), "precious"))

			clone := r.addLoop(storage.Volume{Name: "clone", FSType: fsType, Init: storage.InitClone}, "origin", 2*size)
			r.ok(r.write(r.target("one/later"), "x"))
			r.staging = filepath.Join(r.dir, "staging2")
			reader := nodeCap(modeMNRO, "")
			for range 2 {
				r.ok(r.stage(clone.ID, reader))
				r.ok(r.publish(clone.ID, "two", reader, false))
			}
			r.wantFile(r.target("two/file"), "precious")
			if _, err := os.Stat(r.target("two/later")); err == nil {
				t.Error("the clone has what was written after the cut")
			}
			if err := r.write(r.target("two/x"), ""); !errors.Is(err, unix.EROFS) {
				t.Errorf("write to a read-only volume: %v", err)
			}
			usage, err := r.stats(clone.ID, r.target("two"))
			r.ok(err)
			if usage[0].GetTotal() < size*3/2 {
				t.Errorf("the clone did not grow into its volume: %v", usage)
			}
			r.wantHealth(clone.ID, "")
			r.ok(r.unpublish(clone.ID, "two"))
			r.ok(r.unstage(clone.ID))
			// And now to be written to.
			r.ok(r.stage(clone.ID, c))
			r.ok(r.publish(clone.ID, "two", c, false))
			r.ok(r.write(r.target("two/file"), "changed"))
			r.wantFile(r.target("one/file"), "precious")
			r.ok(r.unpublish(clone.ID, "two"))
			r.ok(r.unstage(clone.ID))

			r.staging = stage
			r.ok(os.Truncate(filepath.Join(r.scratch, "origin"), 2*size))
			r.run("losetup", "-c", v.DevicePath)
			r.ok(r.publish(v.ID, "ro", c, true))
			for range 2 {
				_, err = r.expand(v.ID, r.target("ro"), c, 2*size)
				r.ok(err)
			}
			usage, err = r.stats(v.ID, r.target("ro"))
			r.ok(err)
			if usage[0].GetTotal() < size*3/2 {
				t.Errorf("the volume did not grow: %v", usage)
			}
			f, err := os.Open(r.target("one/file"))
			r.ok(err)
			r.want("unpublish of a target in use", r.unpublish(v.ID, "one"), codes.FailedPrecondition)
			r.ok(f.Close())
			for range 2 {
				r.ok(r.unpublish(v.ID, "one"))
				r.ok(r.unpublish(v.ID, "ro"))
				r.ok(r.unstage(v.ID))
			}
			// Its data is gone: never again formatted.
			r.run("wipefs", "-q", "-a", v.DevicePath)
			r.want("stage of what has no file system", r.stage(v.ID, c), codes.FailedPrecondition)
		})
	}
}

func TestLabNodeBlock(t *testing.T) {
	r := newLabRig(t)
	v := r.addLoop(storage.Volume{Name: "b", Access: storage.AccessBlock}, "", 64<<20)
	c := nodeBlockCap(modeSNMW)
	r.ok(r.stage(v.ID, c))
	write := func(target string) error {
		f, err := os.OpenFile(r.target(target), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(make([]byte, 4096), 0)
		return errors.Join(err, f.Sync(), f.Close())
	}
	for range 2 {
		r.ok(r.publish(v.ID, "one", c, true))
		r.ok(r.publish(v.ID, "two", c, true))
	}
	if err := write("one"); !errors.Is(err, unix.EPERM) {
		t.Errorf("write to a read-only device: %v", err)
	}
	r.want("a writer beside readers", r.publish(v.ID, "three", c, false), codes.FailedPrecondition)
	r.ok(r.unpublish(v.ID, "one"))
	r.ok(r.unpublish(v.ID, "two"))
	r.ok(r.publish(v.ID, "three", c, false))
	r.ok(write("three"))
	usage, err := r.stats(v.ID, r.target("three"))
	if err != nil || len(usage) != 1 || usage[0].GetTotal() != 64<<20 {
		t.Errorf("%v, %v", usage, err)
	}
	single := nodeBlockCap(csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER)
	r.want("a second target", r.publish(v.ID, "four", single, false), codes.FailedPrecondition)
	r.want("unstage while published", r.unstage(v.ID), codes.FailedPrecondition)
	for range 2 {
		r.ok(r.unpublish(v.ID, "three"))
		r.ok(r.unstage(v.ID))
	}
}
