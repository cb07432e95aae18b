package ctl_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/ctl"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// A group whose disks do not answer keeps nobody from the others, and is named.
func TestGroupDoesNotAnswer(t *testing.T) {
	for line, code := range map[string]int{"get pools": ctl.ExitFailed, "tree": ctl.ExitFailed, "doctor": ctl.ExitFindings} {
		n := newNode(t)
		n.AddGroup("hung", 10*gib)
		n.groups = []string{"hung", group}
		disk := make(chan struct{})
		n.hang = func(args []string) error {
			if slices.Contains(args, "hung") {
				<-disk
			}
			return nil
		}
		if got := n.ctl(append(strings.Fields(line), "--volume-group", "hung,data", "--timeout", "100ms")...); got != code {
			t.Errorf("%s: exit code %d", line, got)
		}
		all := n.out.String() + n.err.String()
		for _, want := range []string{group, "hung", "no answer for 1"} {
			if !strings.Contains(all, want) {
				t.Errorf("%s: no %q in %s", line, want, all)
			}
		}
		if line != "doctor" && !strings.Contains(n.out.String(), pool) {
			t.Errorf("%s: the other group is not shown: %s", line, n.out.String())
		}
		close(disk)
	}
}

// A pool that does not answer is said to, beside what else is known of its group.
func TestPoolDoesNotAnswer(t *testing.T) {
	n, _, _ := shop(t)
	answer := n.SilencePool(group, pool)
	defer answer()
	got, code := n.doctor()
	if code != ctl.ExitFindings || !slices.Equal(reasons(got.Findings), []string{storage.PoolNotAnswering}) {
		t.Errorf("exit code %d, %+v", code, got)
	}
}

// program is an entry of /proc.
type program struct {
	parent            int
	comm, state, line string
	moved             int
	lock              string // the file of a lock that it has, or waits for
	waits             bool
}

// run puts programs into the node's /proc, by their PIDs.
func (n *fakeNode) run(programs map[int]program) {
	n.t.Helper()
	write := func(text string, path ...string) {
		file := filepath.Join(append([]string{n.proc}, path...)...)
		n.ok(os.MkdirAll(filepath.Dir(file), 0o750))
		n.ok(os.WriteFile(file, []byte(text), 0o600))
	}
	write("1000.50 900.00\n", "uptime")
	for pid, p := range programs {
		dir := fmt.Sprint(pid)
		write(p.comm+"\n", dir, "comm")
		write(fmt.Sprintf("%d (%s) %s %d"+strings.Repeat(" 0", 17)+" 90000 0 0\n", pid, p.comm, p.state, p.parent), dir, "stat")
		write(fmt.Sprintf("Name:\t%s\nvoluntary_ctxt_switches:\t%d\nnonvoluntary_ctxt_switches:\t3\n", p.comm, p.moved), dir, "status")
		write("dm_suspend", dir, "wchan")
		write(strings.ReplaceAll(p.line, " ", "\x00"), dir, "cmdline")
		if p.lock == "" {
			continue
		}
		file := filepath.Join(n.locks.Dir, p.lock)
		n.ok(os.WriteFile(file, nil, 0o600))
		n.ok(os.Chtimes(file, time.Time{}, time.Now().Add(-90*time.Second)))
		n.ok(os.MkdirAll(filepath.Join(n.proc, dir, "fd"), 0o750))
		n.ok(os.Symlink(file, filepath.Join(n.proc, dir, "fd", "4")))
		info := "pos:\t0\n"
		if !p.waits {
			info += "lock:\t1: FLOCK  ADVISORY  WRITE 16 00:15:45 0 EOF\n"
		}
		write(info, dir, "fdinfo", "4")
	}
}

// An LVM command that does not move is named when it waits for a disk, or keeps others from a group.
func TestStuckCommand(t *testing.T) {
	driver := program{comm: "lvmsnap", state: "S", parent: 1}
	for name, tt := range map[string]struct {
		with program
		want []string // of its message; none: it is no finding
	}{
		"in the kernel, with the lock": {
			program{comm: "lvm", state: "D", line: "lvm", parent: 50, lock: "V_" + group},
			[]string{"lvm (process 77 of lvmsnap, 1m40s old)", "it waits for I/O in the kernel (dm_suspend)", "LVM's lock of volume group data for 1m30s"},
		},
		"in the kernel": {
			program{comm: "lvm", state: "D", line: "lvm lvs data --config secret", parent: 50}, []string{"lvs (process 77", "it waits for I/O"},
		},
		"asks somebody, with the lock": {program{comm: "lvconvert", state: "S", parent: 60, lock: "V_" + group}, []string{"lvconvert (process 77", "LVM's lock of"}},
		"waits for the lock":           {program{comm: "lvcreate", state: "S", parent: 50, lock: "V_" + group, waits: true}, nil},
		"another group's lock":         {program{comm: "lvcreate", state: "S", parent: 50, lock: "V_other"}, nil},
		"idle":                         {program{comm: "dmeventd", state: "S", parent: 1}, nil},
		"somebody else's":              {program{comm: "dd", state: "D", parent: 1}, nil},
		"the driver's own look":        {program{comm: "lvmsnap", state: "D", parent: 1}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.run(map[int]program{50: driver, 77: tt.with})
			got, code := n.doctor()
			if tt.want == nil {
				if code != ctl.ExitOK || len(got.Findings) > 0 {
					t.Errorf("exit code %d, %+v", code, got.Findings)
				}
				return
			}
			if code != ctl.ExitFindings || !slices.Equal(reasons(got.Findings), []string{"LVMCommandStuck"}) {
				t.Fatalf("exit code %d, %+v", code, got.Findings)
			}
			f := got.Findings[0]
			for _, want := range tt.want {
				if !strings.Contains(f.Message, want) {
					t.Errorf("no %q in %q", want, f.Message)
				}
			}
			if object := map[bool]string{true: group, false: "host"}[tt.with.lock != ""]; f.Object != object || strings.Contains(fmt.Sprint(f), "secret") {
				t.Errorf("%+v", f)
			}
		})
	}
}

// One that moves between the looks is at work.
func TestCommandAtWork(t *testing.T) {
	n := newNode(t)
	looks := 0
	n.hang = func([]string) error {
		looks++
		n.run(map[int]program{77: {comm: "lvcreate", state: "D", parent: 1, moved: looks}})
		return nil
	}
	if got, code := n.doctor(); code != ctl.ExitOK || looks < 2 {
		t.Errorf("exit code %d after %d looks, %+v", code, looks, got.Findings)
	}
}
