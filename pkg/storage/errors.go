package storage

import (
	"errors"
	"fmt"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// The engine's errors. Every error that leaves the engine wraps exactly one of these, a context error, or is
// an internal failure after a verified undo; pkg/driver turns them into gRPC codes in one table (status.go).
// The text that is wrapped around them says what is wrong, with which object, and what to do about it.
var (
	// ErrInvalid: the request cannot be right, whatever the state of the node (InvalidArgument).
	ErrInvalid = errors.New("invalid request")
	// ErrSizeRange: no size that LVM can make lies in the requested range (OutOfRange).
	ErrSizeRange = errors.New("size out of range")
	// ErrNotFound: the object does not exist here (NotFound; deletions treat it as success).
	ErrNotFound = errors.New("not found")
	// ErrConflict: an object of that name exists and differs from the request (AlreadyExists).
	ErrConflict = errors.New("already exists and differs")
	// ErrNoSpace: the pool, the group or its metadata area has no room, or the data that is asked for lives
	// on another node; the scheduler should try elsewhere or later (ResourceExhausted).
	ErrNoSpace = errors.New("not enough room")
	// ErrInUse: something still needs the object (FailedPrecondition).
	ErrInUse = errors.New("in use")
	// ErrDamaged: the object exists but cannot be used, or the pool is misconfigured; a person has to look
	// (FailedPrecondition).
	ErrDamaged = errors.New("not usable")
	// ErrPending: another call works on the same object; try again (Aborted).
	ErrPending = errors.New("operation pending")
	// ErrBusy: there are too many calls already, or a disk does not answer; nothing was begun (Unavailable).
	ErrBusy = errors.New("not available at the moment")
	// ErrOtherNode: the handle is well-formed and belongs to another node (Unavailable).
	ErrOtherNode = errors.New("belongs to another node")
)

// classify gives an error of the LVM client its meaning for a caller. Errors that have one already, context
// errors and unknown ones stay as they are.
func classify(err error) error {
	if err == nil {
		return nil
	}
	for _, own := range []error{
		ErrPending, ErrInvalid, ErrSizeRange, ErrNotFound, ErrConflict, ErrNoSpace, ErrInUse, ErrDamaged, ErrBusy, ErrOtherNode,
	} {
		if errors.Is(err, own) {
			return err
		}
	}
	for _, row := range []struct{ from, to error }{
		// Still running or unknown: only a retry can tell, and it must not look final.
		{hostexec.ErrStillRunning, ErrPending},
		{lvm.ErrOutcomeUnknown, ErrPending},
		{lvm.ErrBusy, ErrBusy},
		{lvm.ErrStuck, ErrBusy},
		{lvm.ErrNotLocked, ErrBusy},
		{lvm.ErrLocked, ErrPending},
		{lvm.ErrNotFound, ErrNotFound},
		{lvm.ErrExists, ErrConflict},
		{lvm.ErrNoSpace, ErrNoSpace},
		{lvm.ErrMetadataFull, ErrNoSpace},
		{lvm.ErrInUse, ErrInUse},
		{lvm.ErrFrozen, ErrInUse},
		{lvm.ErrPoolJammed, ErrDamaged},
		{lvm.ErrPoolReadOnly, ErrDamaged},
		{lvm.ErrSuspended, ErrDamaged},
		{lvm.ErrGroupNotFound, ErrDamaged},
		{dm.ErrNoDevice, ErrDamaged},
	} {
		if errors.Is(err, row.from) {
			return fmt.Errorf("%w: %w", row.to, err)
		}
	}
	return err
}
