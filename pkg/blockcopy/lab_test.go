//go:build lab

package blockcopy

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// lab is a volume group with a thin pool of 64 KiB chunks.
func lab(t testing.TB) *labtest.Group {
	t.Helper()
	return labtest.VolumeGroup(t, labtest.Options{
		ThinPool: "pool", PoolSize: "256m", PoolMetadataSize: "4m", ChunkSize: "64k",
	})
}

func thick(t testing.TB, g *labtest.Group, name string, size int) string {
	t.Helper()
	// Wiping and zeroing are left out: the tests bring what they find there.
	labtest.Run(t, "lvcreate", "-y", "-Wn", "-Zn", "-L", fmt.Sprint(size, "b"), "-n", name, g.Name)
	return g.Device(name)
}

func thin(t testing.TB, g *labtest.Group, name string, size int) string {
	t.Helper()
	labtest.Run(t, "lvcreate", "-V", fmt.Sprint(size, "b"), "--thinpool", g.ThinPool, "-n", name, g.Name)
	return g.Device(name)
}

// fill writes data that does not repeat from an offset on.
func fill(t testing.TB, device string, offset, n int, seed byte) {
	t.Helper()
	f, err := os.OpenFile(device, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = io.CopyN(io.NewOffsetWriter(f, int64(offset)), rand.NewChaCha8([32]byte{seed}), int64(n))
	if err := errors.Join(err, f.Sync()); err != nil {
		t.Fatal(err)
	}
}

// sum is the checksum of a part of a device, read past the page cache.
func sum(t testing.TB, device string, offset, n int64) [32]byte {
	t.Helper()
	d, err := openSource(device)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	buf, err := unix.Mmap(-1, 0, mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(buf) }()
	h := sha256.New()
	if copied, err := io.CopyBuffer(struct{ io.Writer }{h}, struct{ io.Reader }{io.NewSectionReader(d, offset, n)}, buf); err != nil || copied != n {
		t.Fatal(copied, err)
	}
	return [32]byte(h.Sum(nil))
}

func zeroSum(n int64) [32]byte {
	h := sha256.New()
	for page := make([]byte, mib); n > 0; n -= mib {
		_, _ = h.Write(page[:min(n, mib)])
	}
	return [32]byte(h.Sum(nil))
}

// dataPercent is how full the pool is, as lvs says it.
func dataPercent(t testing.TB, g *labtest.Group) float64 {
	t.Helper()
	percent, err := strconv.ParseFloat(strings.TrimSpace(labtest.Run(t, "lvs", "--noheadings", "-o", "data_percent", g.Name+"/"+g.ThinPool)), 64)
	if err != nil {
		t.Fatal(err)
	}
	return percent
}

// TestLabThick: a copy over garbage, into a larger volume, has the data, the zeroes between it and zeroes behind it.
func TestLabThick(t *testing.T) {
	g := lab(t)
	source, destination := thick(t, g, "source", 64*mib), thick(t, g, "destination", 96*mib)
	if _, err := Zero(t.Context(), source, Options{}); err != nil {
		t.Fatal(err)
	}
	fill(t, source, 0, 20*mib, 1)
	fill(t, source, 40*mib+4096, 4096, 2)
	fill(t, destination, 0, 96*mib, 3)
	p, err := Copy(t.Context(), Request{Source: source, Destination: destination, SizeBytes: 64 * mib}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if sum(t, source, 0, 64*mib) != sum(t, destination, 0, 64*mib) {
		t.Error("the copy differs")
	}
	if sum(t, destination, 64*mib, 32*mib) != zeroSum(32*mib) {
		t.Error("what is behind the copy is not zero")
	}
	if p.DurableBytes != 96*mib || p.TotalBytes != 96*mib {
		t.Errorf("%+v", p)
	}
}

// TestLabThin: a thin volume stays thin.
func TestLabThin(t *testing.T) {
	g := lab(t)
	source, destination := thin(t, g, "source", 512*mib), thin(t, g, "destination", 512*mib)
	fill(t, source, 0, 8*mib, 1)
	fill(t, source, 300*mib+64<<10, 64<<10, 2)
	before := dataPercent(t, g)
	p, err := Copy(t.Context(), Request{Source: source, Destination: destination, SizeBytes: 512 * mib, DestinationZeroed: true}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if sum(t, source, 0, 512*mib) != sum(t, destination, 0, 512*mib) {
		t.Error("the copy differs")
	}
	if after := dataPercent(t, g); after != 2*before {
		t.Errorf("the pool was %v %% full, is %v %%", before, after)
	}
	if written := p.TotalBytes - p.ZeroBytes; written != 8*mib+64<<10 {
		t.Errorf("%d bytes were written", written)
	}
}

// TestLabThinWithGarbage: thin volumes have no command to write zeroes, so zeroes are written.
func TestLabThinWithGarbage(t *testing.T) {
	g := lab(t)
	source, destination := thin(t, g, "source", 64*mib), thin(t, g, "destination", 64*mib)
	fill(t, source, 10*mib, mib, 1)
	fill(t, destination, 0, 64*mib, 2)
	if _, err := Copy(t.Context(), Request{Source: source, Destination: destination, SizeBytes: 32 * mib}, Options{}); err != nil {
		t.Fatal(err)
	}
	if sum(t, source, 0, 64*mib) != sum(t, destination, 0, 64*mib) {
		t.Error("the copy differs")
	}
	if d, err := openDestination(destination); err != nil || d.punch(0, mib) {
		t.Errorf("the thin volume did punch, or: %v", err)
	} else {
		d.Close()
	}
}

// TestLabZero: no byte of what was there is left, whichever way the device is zeroed.
func TestLabZero(t *testing.T) {
	g := lab(t)
	for kind, device := range map[string]string{"thick": thick(t, g, "thick", 200*mib), "thin": thin(t, g, "thin", 200*mib)} {
		t.Run(kind, func(t *testing.T) {
			fill(t, device, 0, 200*mib, 1)
			var checkpoints []int64
			p, err := Zero(t.Context(), device, Options{CheckpointInterval: 1, OnCheckpoint: func(p Progress) {
				checkpoints = append(checkpoints, p.DurableBytes)
			}})
			if err != nil {
				t.Fatal(err)
			}
			if sum(t, device, 0, 200*mib) != zeroSum(200*mib) {
				t.Error("not all is zero")
			}
			if len(checkpoints) < 2 || p.DurableBytes != 200*mib {
				t.Errorf("checkpoints %v, %+v", checkpoints, p)
			}
		})
	}
}

// TestLabPunch: a device that can zero by itself does, for free, and gives back its space.
func TestLabPunch(t *testing.T) {
	labtest.Require(t)
	file := filepath.Join(t.TempDir(), "disk")
	data := make([]byte, 100*mib)
	garbage(data)
	put(t, file, data)
	device := strings.TrimSpace(labtest.Run(t, "losetup", "--find", "--show", file))
	defer labtest.Run(t, "losetup", "--detach", device)
	if _, err := Zero(t.Context(), device, Options{Limiter: rate.NewLimiter(0, 0)}); err != nil {
		t.Fatal(err)
	}
	if sum(t, device, 0, 100*mib) != zeroSum(100*mib) {
		t.Error("not all is zero")
	}
	var stat unix.Stat_t
	if err := unix.Stat(file, &stat); err != nil || stat.Blocks != 0 {
		t.Errorf("%d blocks are left, %v", stat.Blocks, err)
	}
}

// TestLabInUse: what is mounted, or below another device, is not touched; nor is one device copied onto itself under
// another name.
func TestLabInUse(t *testing.T) {
	g := lab(t)
	source, destination := thick(t, g, "source", 32*mib), thick(t, g, "destination", 32*mib)
	req := Request{Source: source, Destination: destination, SizeBytes: 32 * mib}
	refused := func(why string, want error) {
		t.Helper()
		before := sum(t, req.Destination, 0, 32*mib)
		if _, err := Copy(t.Context(), req, Options{}); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: copied, or: %v", why, err)
		}
		if _, err := Zero(t.Context(), req.Destination, Options{}); want != nil && !errors.Is(err, want) {
			t.Errorf("%s: zeroed, or: %v", why, err)
		}
		if want != nil && sum(t, req.Destination, 0, 32*mib) != before {
			t.Errorf("%s: overwritten", why)
		}
	}
	labtest.Run(t, "mkfs.ext4", "-q", destination)
	dir := t.TempDir()
	labtest.Run(t, "mount", destination, dir)
	refused("mounted", unix.EBUSY)
	labtest.Run(t, "umount", dir)
	labtest.Run(t, "dmsetup", "create", "above-"+g.Name, "--table", "0 8 linear "+destination+" 0")
	refused("below another device", unix.EBUSY)
	labtest.Run(t, "dmsetup", "remove", "above-"+g.Name)

	node := filepath.Join(t.TempDir(), "node")
	var stat unix.Stat_t
	if err := errors.Join(unix.Stat(source, &stat), unix.Mknod(node, unix.S_IFBLK|0o600, int(stat.Rdev))); err != nil {
		t.Fatal(err)
	}
	req.Destination = node
	if _, err := Copy(t.Context(), req, Options{}); err == nil || !strings.Contains(err.Error(), "same device") {
		t.Errorf("copied onto itself, or: %v", err)
	}
}

// TestLabFullPool: the error says what is full, and after the pool has grown the copy goes on.
func TestLabFullPool(t *testing.T) {
	g := lab(t)
	labtest.Run(t, "lvchange", "--errorwhenfull", "y", g.Name+"/"+g.ThinPool) // or writes wait for a minute first
	source, destination := thick(t, g, "source", 320*mib), thin(t, g, "destination", 320*mib)
	fill(t, source, 0, 320*mib, 1)
	req := Request{Source: source, Destination: destination, SizeBytes: 320 * mib, DestinationZeroed: true}
	p, err := Copy(t.Context(), req, Options{CheckpointInterval: 1})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), destination) || !strings.Contains(err.Error(), "extend the pool") {
		t.Errorf("a full pool: %v", err)
	}
	t.Logf("%v; %v", err, p)
	if p.DurableBytes == 0 || p.DurableBytes > 256*mib {
		t.Errorf("a full pool: %+v", p)
	}
	labtest.Run(t, "lvextend", "-L", "400m", g.Name+"/"+g.ThinPool)
	if _, err := Copy(t.Context(), req, Options{OffsetBytes: p.DurableBytes}); err != nil {
		t.Fatal(err)
	}
	if sum(t, source, 0, 320*mib) != sum(t, destination, 0, 320*mib) {
		t.Error("the copy differs")
	}
}

// TestLabBrokenSource: what cannot be read is an error that says where, and not zeroes.
func TestLabBrokenSource(t *testing.T) {
	g := lab(t)
	source, destination := thick(t, g, "source", 32*mib), thick(t, g, "destination", 32*mib)
	broken := "broken-" + g.Name
	labtest.Run(t, "dmsetup", "create", broken, "--table", fmt.Sprintf("0 %d linear %s 0\n%d 8 error\n%d %d linear %s 0",
		10*mib/512, source, 10*mib/512, 10*mib/512+8, 22*mib/512-8, source))
	t.Cleanup(func() { labtest.Run(t, "dmsetup", "remove", broken) })
	labtest.Run(t, "dmsetup", "mknodes", broken) // without udev, nobody has
	p, err := Copy(t.Context(), Request{Source: "/dev/mapper/" + broken, Destination: destination, SizeBytes: 32 * mib}, Options{CheckpointInterval: 1})
	if !errors.Is(err, unix.EIO) || !strings.Contains(err.Error(), "in the block at byte 8388608: read /dev/mapper/"+broken) {
		t.Error(err)
	}
	if p.DurableBytes > 10*mib {
		t.Errorf("%d bytes are durable", p.DurableBytes)
	}
}
