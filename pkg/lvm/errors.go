package lvm

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// What LVM's messages mean. A CommandError matches one of them with errors.Is, or none.
var (
	ErrNotFound        = errors.New("no such logical volume")
	ErrGroupNotFound   = errors.New("no such volume group")
	ErrExists          = errors.New("a logical volume of that name exists")
	ErrNoSpace         = errors.New("not enough free space")
	ErrMetadataFull    = errors.New("the volume group's metadata area is full")
	ErrInUse           = errors.New("the logical volume is in use")
	ErrPoolJammed      = errors.New("the thin pool's metadata and LVM's disagree")
	ErrPoolReadOnly    = errors.New("the thin pool is read-only")
	ErrSuspended       = errors.New("a device is suspended")
	ErrNothingToChange = errors.New("nothing to change")
	ErrOriginActive    = errors.New("the origin of COW snapshots cannot be resized while it is active")
)

// ErrHasSnapshots: the volume is the origin of COW snapshots, which would be removed with it.
var ErrHasSnapshots = errors.New("the logical volume has COW snapshots")

// ErrOutcomeUnknown: LVM went away in the middle of a command that may or may not have been carried out. Look
// before trying again.
var ErrOutcomeUnknown = errors.New("LVM went away during the command, its outcome is unknown")

// ErrFrozen: LVM could not suspend the volume, because somebody has frozen its file system already; it undoes what it had begun, as far as
// it can.
var ErrFrozen = errors.New("its file system is frozen, and LVM cannot freeze it too: fsfreeze --unfreeze, or wait for who did it")

// ErrNotLocked: LVM gave up waiting for the volume group's lock, because of a signal or because the lock cannot be had. It had
// not begun.
var ErrNotLocked = errors.New("LVM did not get the volume group's lock, nothing was changed; try again")

// ErrBusy: too many calls wait for the volume group already.
var ErrBusy = errors.New("too many operations are waiting for the volume group")

// messages is the one table from LVM's English (LC_ALL=C) to errors. More specific rows come first.
var messages = []struct {
	pattern *regexp.Regexp
	err     error
}{
	{regexp.MustCompile(`(?i)Can't get lock for`), ErrNotLocked}, // and then "Cannot process volume group"
	{regexp.MustCompile(`(?i)suspend ioctl on .* failed: Device or resource busy`), ErrFrozen},
	{regexp.MustCompile(`(?i)already contain thin device|incompatible with current transaction|transaction_?id.*(mismatch|expected)`), ErrPoolJammed},
	{regexp.MustCompile(`(?i)Cannot send messages to thin pool \S+ \S+ with read only metadata`), ErrPoolReadOnly},
	{regexp.MustCompile(`(?i)metadata.*too large|exceeds maximum metadata size|Insufficient .*metadata (area )?space`), ErrMetadataFull},
	{regexp.MustCompile(`(?i)Volume group "[^"]*" not found|Cannot process volume group`), ErrGroupNotFound},
	{regexp.MustCompile(`(?i)Snapshot origin volumes can be resized only while inactive`), ErrOriginActive},
	{regexp.MustCompile(`(?i)Failed to find logical volume|(LV|Logical volume|Pool) \S+ not found in (VG|volume group)|Couldn't find volume`), ErrNotFound},
	{regexp.MustCompile(`(?i)already exists in volume group|LV named .* already exists`), ErrExists},
	{regexp.MustCompile(`(?i)insufficient free space|Insufficient suitable|not enough free|free space in (thin )?pool.*reached threshold|Insufficient free (extents|space)`), ErrNoSpace},
	{regexp.MustCompile(`(?i)Logical volume \S+ in use\.|contains a filesystem in use|in use by another device|is used by another device|Device or resource busy|is in use: not deactivating|open count`), ErrInUse},
	{regexp.MustCompile(`(?i)matches existing size|New size .* not larger|already that size`), ErrNothingToChange},
	{regexp.MustCompile(`(?i)is suspended|suspended device`), ErrSuspended},
}

// CommandError is an LVM command that failed. Its text is LVM's own.
type CommandError struct {
	Args     []string // the command line, without "lvm"
	ExitCode int      // lvm(8): 5 failed, 3 bad arguments, 2 no such command
	Text     string   // LVM's error messages, joined by "; "
}

// Error says which command failed on what, and why in LVM's words.
func (e *CommandError) Error() string {
	text := e.Text
	if text == "" {
		text = "no message"
	}
	for _, hint := range []error{ErrNotLocked, ErrFrozen} { // LVM's words do not say what to do
		if e.Is(hint) {
			text += " (" + hint.Error() + ")"
		}
	}
	return fmt.Sprintf("%s failed (exit code %d): %s", commandName(e.Args), e.ExitCode, text)
}

// Is matches the sentinel errors of this package.
func (e *CommandError) Is(target error) bool {
	for _, m := range messages {
		if m.pattern.MatchString(e.Text) {
			return m.err == target
		}
	}
	return false
}

// commandName is the verb and its last argument, which is the object: what a person needs to know.
func commandName(args []string) string {
	switch len(args) {
	case 0:
		return "lvm"
	case 1:
		return args[0]
	default:
		return strings.Join([]string{args[0], args[len(args)-1]}, " ")
	}
}
