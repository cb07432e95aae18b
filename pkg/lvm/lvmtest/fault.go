package lvmtest

import (
	"slices"
	"sync"
)

// Match picks the command that a fault hits.
type Match func(args []string) bool

// Any picks every command.
func Any(args []string) bool { return true }

// Verb picks by the command's name, and by further words that it must have: Verb("lvcreate", "--snapshot").
func Verb(verb string, words ...string) Match {
	return func(args []string) bool {
		if len(args) == 0 || args[0] != verb {
			return false
		}
		for _, w := range words {
			if !slices.Contains(args, w) {
				return false
			}
		}
		return true
	}
}

// Changes picks every command that is not a report.
func Changes(args []string) bool {
	return len(args) > 0 && args[0] != "lvs" && args[0] != "vgs"
}

// Nth picks the nth (from 1) of the commands that match picks, counted from now on.
func Nth(n int, match Match) Match {
	return func(args []string) bool {
		if !match(args) {
			return false
		}
		n--
		return n == 0
	}
}

type faultKind int

const (
	faultNone faultKind = iota
	faultFail
	faultHang
	faultCrashBefore
	faultCrashAfter
	faultDies // in the middle
)

type fault struct {
	kind     faultKind
	match    Match
	text     string
	exitCode int
	hang     *Hang
	dies     string // where: phantomOption, ...
}

func (l *LVM) addFault(f *fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = append(l.faults, f)
}

// ClearFaults takes back the faults that have not hit yet.
func (l *LVM) ClearFaults() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.faults = nil
}

// takeFault returns the first fault that matches, which is used up with it.
func (l *LVM) takeFault(args []string) fault {
	for i, f := range l.faults {
		if f.match(args) {
			l.faults = slices.Delete(l.faults, i, i+1)
			return *f
		}
	}
	return fault{}
}

// FailNext makes the next command that matches fail, without effect, with LVM's error text and exit code.
func (l *LVM) FailNext(match Match, text string, exitCode int) {
	l.addFault(&fault{kind: faultFail, match: match, text: text, exitCode: exitCode})
}

// CrashNext makes the next command that matches end with lvm.ErrOutcomeUnknown, after it was carried out or
// without.
func (l *LVM) CrashNext(match Match, carriedOut bool) {
	kind := faultCrashBefore
	if carriedOut {
		kind = faultCrashAfter
	}
	l.addFault(&fault{kind: kind, match: match})
}

// PhantomNext makes the next lvcreate in a thin pool that matches die between LVM's commit and the pool's: the
// volume is in LVM's metadata with its tags, its id is not in the pool, and LVM's transaction id is one ahead
// of the pool's. The caller gets lvm.ErrOutcomeUnknown. The next command that changes the pool makes the
// volume, out of the origin as it is by then.
//
// An lvcreate of a COW snapshot dies between its two commits: a plain, writable volume has the name and the tags, and if the
// origin is active a device of the COW is left over. Nothing makes a snapshot of it; it has to be removed, after it was
// activated, or else the device stays, and the name cannot be used for a snapshot of an active origin again.
func (l *LVM) PhantomNext(match Match) {
	l.addFault(&fault{kind: faultDies, match: match, dies: phantomOption})
}

// JamNext makes the next lvcreate in a thin pool that matches die between what the pool did and its counting of it: the volume
// is there, with the content of that moment, and every change of the pool fails until the transaction is counted.
func (l *LVM) JamNext(match Match) {
	l.addFault(&fault{kind: faultDies, match: match, dies: jamOption})
}

// Hang is a command that does not come back.
type Hang struct {
	begun, released chan struct{}
	once            sync.Once
}

// Begun is closed when the command hangs.
func (h *Hang) Begun() <-chan struct{} { return h.begun }

// Release lets the command be carried out, whether its caller still waits or not.
func (h *Hang) Release() { h.once.Do(func() { close(h.released) }) }

// HangNext makes the next command that matches hang before it takes effect, until released. When its context
// ends first, the caller gets hostexec.ErrStillRunning and the group stays busy.
func (l *LVM) HangNext(match Match) *Hang {
	h := &Hang{begun: make(chan struct{}), released: make(chan struct{})}
	l.addFault(&fault{kind: faultHang, match: match, hang: h})
	return h
}
