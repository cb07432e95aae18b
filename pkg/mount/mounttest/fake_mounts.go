package mounttest

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/lvmsnap/lvmsnap/pkg/mount"
)

// Mount implements mount.Mounts.
func (f *Fake) Mount(_ context.Context, path, target, fsType string, flags []string, readOnly bool) error {
	if err := mount.CheckFlags(flags); err != nil {
		return err
	}
	mode := "rw"
	if readOnly {
		mode = "ro"
	}
	unlock, err := f.begin("Mount", path, target, fsType, mode)
	if err != nil {
		return err
	}
	defer unlock()
	if err := mount.EnsureTarget(target, true); err != nil {
		return err
	}
	d, err := f.device(path)
	switch {
	case err != nil:
		return err
	case d.content != fsType:
		return fmt.Errorf("mount %s on %s: wrong fs type", path, target)
	case f.mounted(path) && d.fsRO != readOnly:
		return fmt.Errorf("%w: %s is mounted already, and not the same way", mount.ErrInUse, path)
	case fsType == mount.Btrfs:
		for other, o := range f.devices {
			if other != path && o.content == mount.Btrfs && o.fsid == d.fsid && f.mounted(other) {
				return fmt.Errorf("mount %s: %w: %s has the same fsid", path, fs.ErrExist, other)
			}
		}
	}
	d.fsRO = readOnly
	f.add(point{device: path, Point: mount.Point{
		Path: target, Root: "/", FSType: fsType, ReadOnly: readOnly, Options: append([]string{mode, "relatime"}, flags...),
	}})
	return nil
}

func (f *Fake) add(p point) {
	f.nextID++
	p.ID = f.nextID
	f.points = append(f.points, p)
}

// BindDir implements mount.Mounts.
func (f *Fake) BindDir(_ context.Context, source, target string, readOnly bool) error {
	unlock, err := f.begin("BindDir", target, source, fmt.Sprint(readOnly))
	if err != nil {
		return err
	}
	defer unlock()
	if err := mount.CheckPath(source); err != nil {
		return err
	}
	if err := mount.EnsureTarget(target, true); err != nil {
		return err
	}
	i := f.top(source)
	if i < 0 {
		_, err := os.Stat(source)
		if err == nil {
			err = fmt.Errorf("the fake binds mount points only, and %s is none", source)
		}
		return err
	}
	p := f.points[i]
	p.Path, p.busy = target, false
	p.ReadOnly = p.ReadOnly || readOnly
	f.add(p)
	return nil
}

// BindDevice implements mount.Mounts.
func (f *Fake) BindDevice(_ context.Context, path, target string, readOnly bool) error {
	unlock, err := f.begin("BindDevice", target, path, fmt.Sprint(readOnly))
	if err != nil {
		return err
	}
	defer unlock()
	if err := mount.EnsureTarget(target, false); err != nil {
		return err
	}
	d, err := f.device(path)
	if err != nil {
		return err
	}
	d.readOnly = readOnly
	f.add(point{device: path, Point: mount.Point{Path: target, Root: path, Block: true}})
	return nil
}

// Unmount implements mount.Mounts.
func (f *Fake) Unmount(_ context.Context, path string) error {
	unlock, err := f.begin("Unmount", path)
	if err != nil {
		return err
	}
	defer unlock()
	if err := mount.CheckPath(path); err != nil {
		return err
	}
	for i := f.top(path); i >= 0; i = f.top(path) {
		inside := func(p point) bool { return strings.HasPrefix(p.Path, path+"/") }
		if f.points[i].busy || slices.ContainsFunc(f.points, inside) {
			return fmt.Errorf("%w: %s is busy", mount.ErrInUse, path)
		}
		f.points = slices.Delete(f.points, i, i+1)
	}
	return nil
}

// Remove implements mount.Mounts.
func (f *Fake) Remove(_ context.Context, path string) error {
	unlock, err := f.begin("Remove", path)
	if err != nil {
		return err
	}
	defer unlock()
	if f.top(path) >= 0 {
		return fmt.Errorf("%w: %s is mounted", mount.ErrInUse, path)
	}
	return mount.RemoveTarget(path)
}

// show is a point as the kernel shows it now.
func (f *Fake) show(p point) mount.Point {
	if d := f.devices[p.device]; d != nil {
		if p.Block {
			p.ReadOnly = d.readOnly
		} else {
			p.FSReadOnly = d.fsRO
		}
	}
	return p.Point
}

// At implements mount.Mounts.
func (f *Fake) At(_ context.Context, path string) (*mount.Point, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := mount.CheckPath(path); err != nil {
		return nil, err
	}
	i := f.top(path)
	if i < 0 {
		return nil, nil
	}
	p := f.show(f.points[i])
	return &p, nil
}

// Of implements mount.Mounts.
func (f *Fake) Of(_ context.Context, path string) ([]mount.Point, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var points []mount.Point
	for _, p := range f.points {
		if p.device == path && f.devices[path] != nil {
			points = append(points, f.show(p))
		}
	}
	return points, nil
}

// Usage implements mount.Mounts.
func (f *Fake) Usage(_ context.Context, path string) (mount.Usage, error) {
	if f.Before != nil {
		if err := f.Before("Usage", path); err != nil {
			return mount.Usage{}, err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := mount.CheckPath(path); err != nil {
		return mount.Usage{}, err
	}
	if _, err := os.Lstat(path); err != nil {
		return mount.Usage{}, err
	}
	i := f.top(path)
	if i < 0 {
		return mount.Usage{TotalBytes: 1 << 30, AvailableBytes: 1 << 30}, nil
	}
	d, err := f.device(f.points[i].device)
	if err != nil {
		return mount.Usage{}, err
	}
	if f.points[i].Block {
		return mount.Usage{Block: true, TotalBytes: d.bytes}, nil
	}
	const used = 1 << 20
	return mount.Usage{
		TotalBytes: d.fsBytes, UsedBytes: used, AvailableBytes: d.fsBytes - used,
		TotalInodes: 1000, UsedInodes: 11, AvailableInodes: 989,
	}, nil
}
