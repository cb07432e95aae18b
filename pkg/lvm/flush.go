package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
)

// Flusher is a MetadataReader that can make durable what LVM has written.
type Flusher interface {
	// Flush returns when all that was written to the group's disks is safe from a power cut.
	Flush(ctx context.Context, c *Client) error
}

// flush is the end of a turn that changed something, or of the first one, since nobody knows whether the last driver came to
// this. LVM writes metadata and COW headers past the page cache, and does not flush the disks' own caches: a snapshot was lost that
// had been reported ready, when the power was cut before somebody else's flush. (A thin pool flushes with its commits.)
func (g *Group) flush(ctx context.Context, c *Client) error {
	if c.reader == nil || !g.unflushed.Load() {
		return nil
	}
	g.unflushed.Store(false) // whatever is changed meanwhile is another turn's
	done := make(chan error, 1)
	go func() { done <- c.reader.Flush(ctx, c) }()
	var err error
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		g.unflushed.Store(true)
		return fmt.Errorf("%w: volume group %s: the disks cannot be flushed: %w", ErrOutcomeUnknown, g.name, err)
	}
	return nil
}

// Flush implements Flusher, if the reader does.
func (b *boundedReader) Flush(ctx context.Context, c *Client) error {
	if f, ok := b.MetadataReader.(Flusher); ok {
		return f.Flush(ctx, c)
	}
	return nil
}

// Flush implements Flusher.
func (r *DiskReader) Flush(ctx context.Context, c *Client) error {
	r.mu.Lock()
	disks := slices.Clone(r.disks) // a disk that hangs must not keep readers waiting; os.File outlives a Close during a Sync
	r.mu.Unlock()
	if len(disks) == 0 {
		paths, err := c.PhysicalVolumes(ctx)
		if err != nil {
			return err
		}
		disks, err = openDisks(paths)
		defer closeAll(disks)
		if err != nil {
			return err
		}
	}
	var errs []error
	for _, disk := range disks {
		if err := disk.Sync(); err != nil && answers(disk.Name()) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// answers says whether a disk can be read. One that cannot is dead: nobody will find anything on it, flushed or not, and a group
// that goes on without it (a RAID volume's) must not wait for it.
func answers(path string) bool {
	disk, err := openDirect(path)
	if err != nil {
		return false
	}
	defer func() { _ = disk.Close() }()
	_, err = readDirect(disk, 0, sectorBytes, new([]byte))
	return err == nil
}

// missingDisk is what LVM has for the path of a physical volume that it does not find. pvs(8)
const missingDisk = "[unknown]"

// openDisks opens physical volumes for Sync, which for a block device also sends it a flush, whoever wrote to it. Those that are
// missing are left out.
func openDisks(paths []string) (disks []*os.File, err error) {
	for _, path := range paths {
		if path == missingDisk {
			continue
		}
		disk, err := os.Open(path) //nolint:gosec // a path that LVM gave
		if err != nil {
			return disks, err
		}
		disks = append(disks, disk)
	}
	return disks, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
