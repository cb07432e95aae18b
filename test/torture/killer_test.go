//go:build lab

package torture_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The killer is a process of its own: the stops of a traced process are its tracer's to wait for, and the test's process, whose
// child LVM is, must see nothing but its end. It is this test binary again.
const killerEnv = "LVMSNAP_TORTURE_KILLER"

func TestMain(m *testing.M) {
	if os.Getenv(killerEnv) != "" {
		if err := serveKiller(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "killer:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// order is what the killer is to do: kill a process before it makes its nth call of those that count.
type order struct {
	PID  int
	Nth  int    // from 1
	Keys bool   // only those count by which a group or a device changes
	Call string // only those count that are called so, from the beginning
}

// outcome is what became of it.
type outcome struct {
	Killed bool
	Points int    // calls that counted, the last one included
	Call   string // the last one
	Error  string
}

type killer struct {
	in  io.WriteCloser
	out *json.Decoder
}

func newKiller(t *testing.T) *killer {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), killerEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("killer: %v", err)
		}
	})
	return &killer{in: in, out: json.NewDecoder(out)}
}

// arm returns when the process is watched. Call result afterwards.
func (k *killer) arm(o order) error {
	if err := json.NewEncoder(k.in).Encode(o); err != nil {
		return err
	}
	var armed outcome
	if err := k.out.Decode(&armed); err != nil {
		return err
	}
	if armed.Error != "" {
		return errors.New(armed.Error)
	}
	return nil
}

// result disarms the killer if the process lives, and says what became of it.
func (k *killer) result() (outcome, error) {
	var out outcome
	if err := json.NewEncoder(k.in).Encode(order{}); err != nil {
		return out, err
	}
	err := k.out.Decode(&out)
	if err == nil && out.Error != "" {
		err = errors.New(out.Error)
	}
	return out, err
}

// serveKiller takes an order and an empty one in turns.
func serveKiller(in io.Reader, out io.Writer) error {
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var o, end order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		t := &trace{order: o, attached: make(chan error, 1), done: make(chan outcome, 1)}
		go t.run()
		err := <-t.attached
		armed := outcome{}
		if err != nil {
			armed.Error = err.Error()
		}
		if err := answers.Encode(armed); err != nil {
			return err
		}
		if err := orders.Decode(&end); err != nil {
			return err
		}
		t.stop.Store(true)
		// A signal makes it stop, if it lives; the tracer keeps it.
		_ = unix.Kill(o.PID, unix.SIGWINCH)
		if err := answers.Encode(<-t.done); err != nil {
			return err
		}
	}
}

type trace struct {
	order
	attached chan error
	done     chan outcome
	stop     atomic.Bool
}

// run traces on a thread that ends with it: ptrace(2) is a matter of threads.
func (t *trace) run() {
	runtime.LockOSThread()
	// Seized and not attached: that needs no SIGSTOP.
	if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(t.PID), 0, unix.PTRACE_O_TRACESYSGOOD, 0, 0); errno != 0 {
		t.attached <- fmt.Errorf("seize %d: %w", t.PID, errno)
		t.done <- outcome{Error: errno.Error()}
		return
	}
	if err := unix.PtraceInterrupt(t.PID); err != nil {
		t.attached <- err
		t.done <- outcome{Error: err.Error()}
		return
	}
	out, err := t.follow()
	if err != nil {
		out.Error = err.Error()
	}
	t.done <- out
}

// follow lets the process run from one system call to the next.
func (t *trace) follow() (out outcome, err error) {
	entering := true
	for first := true; ; first = false {
		var status unix.WaitStatus
		if _, err := unix.Wait4(t.PID, &status, unix.WALL, nil); err != nil {
			return out, fmt.Errorf("wait for %d: %w", t.PID, err)
		}
		if first {
			t.attached <- nil
		}
		if status.Exited() || status.Signaled() {
			return out, nil
		}
		signal := 0
		switch {
		case t.stop.Load():
			return out, unix.PtraceDetach(t.PID)
		case status.StopSignal() == unix.SIGTRAP|0x80:
			if entering {
				if t.counts(&out) && out.Points == t.Nth {
					out.Killed = true
					err := unix.Kill(t.PID, unix.SIGKILL)
					if err == nil {
						_, err = unix.Wait4(t.PID, &status, unix.WALL, nil)
					}
					return out, err
				}
			}
			entering = !entering
		case status.TrapCause() == unix.PTRACE_EVENT_STOP: // ours, at the beginning
		default:
			signal = int(status.StopSignal())
		}
		if err := unix.PtraceSyscall(t.PID, signal); err != nil {
			return out, fmt.Errorf("go on with %d: %w", t.PID, err)
		}
	}
}

// counts looks at the call that is about to be made.
func (t *trace) counts(out *outcome) bool {
	number, first, second, err := systemCall(t.PID)
	name, ok := watched[number]
	if err != nil || !ok {
		return false
	}
	call, key := describe(t.PID, name, first, second)
	if call == "" || t.Keys && !key || !strings.HasPrefix(call, t.Call) {
		return false
	}
	out.Points++
	out.Call = call
	return true
}

// systemCall is the number of the call that a stopped process is about to make, and its first two arguments. ptrace(2)
func systemCall(pid int) (number, first, second uint64, err error) {
	var info struct {
		Op     uint8
		_      [7]byte
		IP, SP uint64
		Number uint64
		Args   [6]uint64
	}
	const size, entry = unsafe.Sizeof(info), 1
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(pid), size, uintptr(unsafe.Pointer(&info)), 0, 0)
	switch {
	case errno != 0:
		return peek(pid)
	case info.Op != entry:
		return 0, 0, 0, fmt.Errorf("process %d is not at the entry of a system call", pid)
	default:
		return info.Number, info.Args[0], info.Args[1], nil
	}
}

// ioctls of device-mapper, linux/dm-ioctl.h; the true ones change something.
var ioctls = map[uint64]struct {
	name    string
	changes bool
}{
	0: {"VERSION", false}, 2: {"LIST_DEVICES", false}, 3: {"DEV_CREATE", true}, 4: {"DEV_REMOVE", true}, 5: {"DEV_RENAME", true},
	6: {"DEV_SUSPEND", true}, 7: {"DEV_STATUS", false}, 8: {"DEV_WAIT", false}, 9: {"TABLE_LOAD", true}, 10: {"TABLE_CLEAR", true},
	11: {"TABLE_DEPS", false}, 12: {"TABLE_STATUS", false}, 13: {"LIST_VERSIONS", false}, 14: {"TARGET_MSG", true},
}

// describe names a call, and says whether it is one by which a group or a device changes. Empty: it changes nothing at all.
func describe(pid int, name string, first, second uint64) (call string, key bool) {
	target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, first))
	switch name {
	case "ioctl":
		if second>>8&0xff != 0xfd {
			return "", false // BLKGETSIZE64 and the like
		}
		i := ioctls[second&0xff]
		return "ioctl DM_" + i.name, i.changes
	case "write", "writev":
		if strings.HasPrefix(target, "pipe:") {
			return name + " to a pipe", first == 3 // the report, by which its caller knows
		}
		return name + " to " + target, strings.HasPrefix(target, "/dev/")
	case "pwrite64", "pwritev", "fsync", "fdatasync":
		return name + " to " + target, strings.HasPrefix(target, "/dev/")
	case "flock":
		return name + " of " + target, false
	default:
		return name, false
	}
}
