package ctl

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// programs whose processes are worth a line.
var programs = []string{
	"lvm", "lvs", "vgs", "pvs", "lvcreate", "lvremove", "lvchange", "lvextend", "lvconvert", "lvreduce", "lvresize", "lvrename", "pvchange", "pvmove", "vgchange",
	"vgextend", "vgreduce", "vgck", "vgscan", "pvscan", "dmsetup", "dmeventd", "lvmsnap", "lvmsnapctl",
}

// process is one of LVM's or the driver's, without its arguments.
type process struct {
	pid    int
	ppid   int
	name   string // lvcreate, also where it is `lvm lvcreate`; lvm: a shell
	parent string
	state  string
	wait   string        // what it waits for in the kernel
	began  uint64        // ticks after the machine's start: with the PID, which process it is
	age    time.Duration // since then
	moved  uint64        // how often it was given the processor
	locks  map[string]time.Duration
}

// verb is an LVM command, of `lvm VERB`.
var verb = regexp.MustCompile(`^(lv|vg|pv)[a-z]+$`)

const (
	procStatState = 0 // of the fields behind the name: proc(5), /proc/pid/stat
	procStatPPID  = 1
	procStatStart = 19
	// ticksPerSecond is USER_HZ, which is the same wherever Go runs.
	ticksPerSecond = 100
)

// processes looks at those of LVM and of the driver, and at whoever else has LVM's lock.
func (h *Host) processes() []process {
	dirs, _ := filepath.Glob(filepath.Join(h.proc, "[0-9]*"))
	text, _ := os.ReadFile(filepath.Join(h.proc, "uptime"))
	up, _, _ := strings.Cut(string(text), " ")
	uptime, _ := strconv.ParseFloat(up, 64)
	var out []process
	for _, dir := range dirs {
		p, ok := h.process(dir)
		if !ok || p.ppid == os.Getpid() || !slices.Contains(programs, readComm(dir)) && len(p.locks) == 0 {
			continue // what it started itself is no news
		}
		p.age = time.Duration((uptime - float64(p.began)/ticksPerSecond) * float64(time.Second)).Truncate(time.Second)
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b process) int { return cmp.Compare(a.pid, b.pid) })
	return out
}

func (h *Host) process(dir string) (process, bool) {
	p := process{name: readComm(dir)}
	p.pid, _ = strconv.Atoi(filepath.Base(dir))
	stat, err := os.ReadFile(filepath.Join(dir, "stat")) //nolint:gosec // the kernel's
	f := strings.Fields(string(stat)[strings.LastIndex(string(stat), ")")+1:])
	if err != nil || len(f) <= procStatStart {
		return p, false
	}
	p.state = f[procStatState]
	p.began, _ = strconv.ParseUint(f[procStatStart], 10, 64)
	p.ppid, _ = strconv.Atoi(f[procStatPPID])
	p.parent = readComm(filepath.Join(h.proc, f[procStatPPID]))
	wait, _ := os.ReadFile(filepath.Join(dir, "wchan")) //nolint:gosec // the kernel's
	if p.wait = strings.TrimSpace(string(wait)); p.wait == "0" {
		p.wait = ""
	}
	arguments, _ := os.ReadFile(filepath.Join(dir, "cmdline")) //nolint:gosec // the kernel's
	if a := strings.Split(string(arguments), "\x00"); p.name == "lvm" && len(a) > 1 && verb.MatchString(a[1]) {
		p.name = a[1]
	}
	status, _ := os.ReadFile(filepath.Join(dir, "status")) //nolint:gosec // the kernel's
	for line := range strings.Lines(string(status)) {
		if name, n, _ := strings.Cut(line, ":"); strings.HasSuffix(name, "voluntary_ctxt_switches") {
			count, _ := strconv.ParseUint(strings.TrimSpace(n), 10, 64)
			p.moved += count
		}
	}
	p.locks = h.locksOf(dir)
	return p, true
}

func readComm(dir string) string {
	name, _ := os.ReadFile(filepath.Join(dir, "comm")) //nolint:gosec // the kernel's
	return strings.TrimSpace(string(name))
}

// locksOf are the groups of which a process has LVM's lock, and for how long: LVM makes the file for it (lvm.FileLocks).
// proc(5), /proc/pid/fdinfo
func (h *Host) locksOf(dir string) map[string]time.Duration {
	out := map[string]time.Duration{}
	links, _ := filepath.Glob(filepath.Join(dir, "fd", "*"))
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil {
			continue
		}
		group, ok := strings.CutPrefix(strings.TrimSuffix(filepath.Base(target), " (deleted)"), "V_")
		if !ok || !slices.Contains(h.Groups, group) {
			continue
		}
		info, err := os.ReadFile(filepath.Join(dir, "fdinfo", filepath.Base(link))) //nolint:gosec // the kernel's
		if err != nil || !strings.Contains(string(info), "FLOCK") {
			continue // it waits for it
		}
		if file, err := os.Stat(link); err == nil {
			out[group] = time.Since(file.ModTime()).Truncate(time.Second)
		}
	}
	return out
}

// String is a line for the bundle.
func (p process) String() string {
	locks := ""
	for _, group := range slices.Sorted(maps.Keys(p.locks)) {
		locks += fmt.Sprintf("\tlock of %s for %s", group, p.locks[group])
	}
	return fmt.Sprintf("%d\t%s\t%s\tof %s\t%s%s", p.pid, p.name, p.state, p.parent, p.wait, locks)
}

const reasonStuck = "LVMCommandStuck"

// stuckFindings are the commands of LVM that have not been given the processor from one look to the next while they wait for a disk, or
// while they keep everybody else from changing one of the groups.
func stuckFindings(before, after []process) []storage.Finding {
	var out []storage.Finding
	for _, p := range after {
		same := func(o process) bool {
			return o.pid == p.pid && o.began == p.began && o.moved == p.moved && o.state == p.state
		}
		if strings.HasPrefix(p.name, "lvmsnap") || !slices.ContainsFunc(before, same) || p.state != uninterruptible && len(p.locks) == 0 {
			continue
		}
		out = append(out, p.stuck())
	}
	return out
}

// uninterruptible is the state of who waits for a disk.
const uninterruptible = "D"

func (p process) stuck() storage.Finding {
	f := hostFinding(reasonStuck, fmt.Sprintf("%s (process %d of %s, %s old) does not move", p.name, p.pid, cmp.Or(p.parent, "?"), p.age),
		fmt.Sprintf("it ends when what it waits for answers, and by no signal before: see `dmsetup info` (suspended?), /proc/%d/stack and the kernel log", p.pid))
	if p.state == uninterruptible {
		f.Message += ": it waits for I/O in the kernel"
		if p.wait != "" {
			f.Message += " (" + p.wait + ")"
		}
	} else {
		f.Cure = fmt.Sprintf("see what it waits for: /proc/%d/stack, or a question that it asks on a terminal", p.pid)
	}
	for _, group := range slices.Sorted(maps.Keys(p.locks)) {
		f.Object = group
		f.Message += fmt.Sprintf("; it has had LVM's lock of volume group %s for %s, and nobody else can change that", group, p.locks[group])
	}
	return f
}

// asTheDriver takes what was not said on the command line from the driver that runs, so that both mean the same by it.
func (a *app) asTheDriver(flags *pflag.FlagSet) error {
	for _, name := range []string{"host-namespace", "pool-data-reserve", "pool-metadata-reserve"} {
		if f := flags.Lookup(name); !f.Changed {
			if value := a.driverFlag(name, f.NoOptDefVal); value != "" {
				if err := f.Value.Set(value); err != nil {
					return fmt.Errorf("--%s of the driver: %w", name, err)
				}
			}
		}
	}
	return nil
}

// driverFlag is the value of a flag of the driver of that name, if one runs, or empty. Alone is what the flag means without a value, if it may
// have none.
func (a *app) driverFlag(name, alone string) string {
	dirs, _ := filepath.Glob(filepath.Join(cmp.Or(a.Proc, "/proc"), "[0-9]*"))
	for _, dir := range dirs {
		if readComm(dir) != "lvmsnap" {
			continue
		}
		arguments, _ := os.ReadFile(filepath.Join(dir, "cmdline")) //nolint:gosec // the kernel's
		flags := strings.Split(string(arguments), "\x00")
		if cmp.Or(flagValue(flags, "driver-name", ""), defaultDriver) == a.DriverName {
			return flagValue(flags, name, alone)
		}
	}
	return ""
}

func flagValue(arguments []string, name, alone string) string {
	for i, a := range arguments {
		if value, ok := strings.CutPrefix(a, "--"+name+"="); ok {
			return value
		}
		switch {
		case a != "--"+name:
		case alone != "":
			return alone
		case i+1 < len(arguments):
			return arguments[i+1]
		}
	}
	return ""
}
