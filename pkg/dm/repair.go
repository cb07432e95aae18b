package dm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Repairs are what undoes in the kernel what an interrupted LVM command has left there. Whoever changes something has to
// know that no LVM command of anybody is at work: see lvm.Client.Exclusively.
type Repairs interface {
	// Devices lists the devices of a volume group.
	Devices(ctx context.Context, group string) ([]Device, error)
	// Resume lets the I/O of a suspended device go on, by the name that Devices gives it; with the table that was loaded
	// meanwhile, if there is one. One that is not suspended stays as it is. A thin volume waits until its pool is resumed.
	Resume(ctx context.Context, device string) error
	// ClearTable forgets the table that was loaded into a device, if there is one, and that Resume would have put in place of its
	// present one.
	ClearTable(ctx context.Context, device string) error
	// HasThin says whether an active thin pool has a thin device of this id.
	HasThin(ctx context.Context, group, pool string, id uint32) (bool, error)
	// DeleteThin removes a thin device with its blocks from an active thin pool. One that is not there is no error.
	DeleteThin(ctx context.Context, group, pool string, id uint32) error
	// SetTransactionID counts a transaction of an active thin pool. It is refused when the id is not from.
	SetTransactionID(ctx context.Context, group, pool string, from, to uint64) error
}

const (
	cmdDevSuspend = 6 // without flagSuspend: resume
	cmdTableClear = 10
	cmdTargetMsg  = 14

	messageAt = 8 // struct dm_target_msg: u64 sector, char message[]
)

// Resume implements Repairs.
func (c *Control) Resume(ctx context.Context, device string) error {
	_, _, _, err := c.call(ctx, cmdDevSuspend, device, 0)
	return err
}

// ClearTable implements Repairs.
func (c *Control) ClearTable(ctx context.Context, device string) error {
	_, _, _, err := c.call(ctx, cmdTableClear, device, 0)
	return err
}

// HasThin implements Repairs.
//
// The pool is asked to make a snapshot of the device under the device's own id. It never can: the kernel looks first whether
// the new id is taken (EEXIST) and then for the origin (ENODATA), and neither changes anything. That is one ioctl, where
// thin_ls needs the pool's only metadata snapshot. Linux, __create_snap() in drivers/md/dm-thin-metadata.c.
func (c *Control) HasThin(ctx context.Context, group, pool string, id uint32) (bool, error) {
	switch err := c.poolMessage(ctx, group, pool, fmt.Sprintf("create_snap %d %d", id, id)); {
	case errors.Is(err, unix.EEXIST):
		return true, nil
	case errors.Is(err, unix.ENODATA):
		return false, nil
	case err == nil:
		return false, fmt.Errorf("thin pool %s/%s made device %d a snapshot of itself", group, pool, id)
	default:
		return false, err
	}
}

// DeleteThin implements Repairs.
func (c *Control) DeleteThin(ctx context.Context, group, pool string, id uint32) error {
	err := c.poolMessage(ctx, group, pool, fmt.Sprintf("delete %d", id))
	if errors.Is(err, unix.ENODATA) {
		return nil
	}
	return err
}

// SetTransactionID implements Repairs.
func (c *Control) SetTransactionID(ctx context.Context, group, pool string, from, to uint64) error {
	return c.poolMessage(ctx, group, pool, fmt.Sprintf("set_transaction_id %d %d", from, to))
}

// poolMessage sends a message to the device that carries the thin-pool target.
func (c *Control) poolMessage(ctx context.Context, group, pool, text string) error {
	for _, name := range poolDeviceNames(group, pool) {
		_, target, _, err := c.call(ctx, cmdTableStatus, name, flagNoFlush)
		if errors.Is(err, ErrNoDevice) || (err == nil && target != thinPoolTarget) {
			continue
		}
		if err != nil {
			return err
		}
		file, err := c.open()
		if err != nil {
			return err
		}
		_, err = await(ctx, name, func() (struct{}, error) { return struct{}{}, message(file, name, text) })
		return err
	}
	return fmt.Errorf("%w: thin pool %s/%s is not active", ErrNoDevice, group, pool)
}

// message sends a text to the first target of a device.
func message(file *os.File, name, text string) error {
	buf := make([]byte, headerBytes+messageAt+len(text)+1) // sector 0, and a NUL at the end
	h := (*header)(unsafe.Pointer(&buf[0]))                //nolint:gosec // the buffer is larger than the header and lives on
	h.Version = [3]uint32{4, 0, 0}
	h.DataSize = uint32(len(buf)) //nolint:gosec // some hundred bytes
	h.DataStart = headerBytes
	copy(h.Name[:], name)
	copy(buf[headerBytes+messageAt:], text)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), request(cmdTargetMsg), uintptr(unsafe.Pointer(&buf[0]))) //nolint:gosec // as the ioctl wants it
	if errors.Is(errno, unix.ENXIO) {
		return fmt.Errorf("%w: %s", ErrNoDevice, name)
	}
	if errno != 0 {
		return fmt.Errorf("message %q to %s: %w", text, name, errno)
	}
	return nil
}
