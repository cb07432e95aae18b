// Command demo shows the driver's main job on a machine with real LVM (make demo): a volume is written,
// snapshotted, overwritten, restored and deleted, all by CSI calls to the real driver. Everything that it says
// is checked: it fails when the restored data is not the old data, or when something is left behind.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	disk, _, _ := strings.Cut(os.Getenv("LAB_DISKS"), ",")
	if disk == "" {
		return errors.New("no disk to show it on: run `make demo`")
	}
	dir, err := os.MkdirTemp("", "lvmsnap-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	step("A disk, a volume group and a thin pool, as an administrator makes them")
	for _, argv := range [][]string{
		{"vgcreate", "--quiet", "--metadatasize", "8m", group, disk},
		{"lvcreate", "--quiet", "--type", "thin-pool", "--extents", "80%VG", "--name", "pool", group},
	} {
		say("# %s", strings.Join(argv, " "))
		if err := command(ctx, argv...); err != nil {
			return err
		}
	}
	d, err := startDriver(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	return story(ctx, d, dir)
}

const (
	group   = "demo"
	sizeMiB = 1024
)

// story is the main job, step by step.
func story(ctx context.Context, d *driver, dir string) error {
	step("CreateVolume: 1 GiB, ext4")
	volume, err := d.createVolume(ctx, "pvc-orders", nil)
	if err != nil {
		return err
	}
	defer d.unmountAll()
	orders, err := d.mount(ctx, volume, filepath.Join(dir, "orders"))
	if err != nil {
		return err
	}
	if err := write(orders, "v1: 100 orders"); err != nil {
		return err
	}

	if err := picture(ctx); err != nil {
		return err
	}

	step("CreateSnapshot: while it is mounted")
	snapshot, err := d.createSnapshot(ctx, "snapshot-nightly", volume)
	if err != nil {
		return err
	}
	if err := write(orders, "v2: everything was deleted by mistake"); err != nil {
		return err
	}
	if err := d.listSnapshots(ctx, 1); err != nil {
		return err
	}

	step("CreateVolume: restored from the snapshot")
	restored, err := d.createVolume(ctx, "pvc-orders-restored", &csi.VolumeContentSource{
		Type: &csi.VolumeContentSource_Snapshot{Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: snapshot}},
	})
	if err != nil {
		return err
	}
	old, err := d.mount(ctx, restored, filepath.Join(dir, "restored"))
	if err != nil {
		return err
	}
	if err := errors.Join(expect(old, "v1: 100 orders"), expect(orders, "v2: everything was deleted by mistake")); err != nil {
		return err
	}
	if err := picture(ctx); err != nil {
		return err
	}

	step("Delete everything, the source first: nothing depends on the order")
	if err := errors.Join(d.unmount(ctx, volume, orders), d.deleteVolume(ctx, volume), expect(old, "v1: 100 orders"),
		d.deleteSnapshot(ctx, snapshot), expect(old, "v1: 100 orders"),
		d.unmount(ctx, restored, old), d.deleteVolume(ctx, restored), d.listSnapshots(ctx, 0)); err != nil {
		return err
	}
	return empty(ctx)
}

// write replaces the content of the one file in a mounted volume, durably.
func write(mounted, text string) error {
	path := filepath.Join(mounted, "orders.txt")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	say("write  %-28s %q", short(path), text)
	return nil
}

// expect reads it back.
func expect(mounted, want string) error {
	path := filepath.Join(mounted, "orders.txt")
	got, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if string(got) != want {
		return fmt.Errorf("%s reads %q, want %q", path, got, want)
	}
	say("read   %-28s %q", short(path), got)
	return nil
}

func short(path string) string {
	return filepath.Join(filepath.Base(filepath.Dir(path)), filepath.Base(path))
}

var steps int

func step(title string) {
	steps++
	fmt.Printf("\n%d. %s\n", steps, title)
}

func say(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }
