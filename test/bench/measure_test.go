//go:build lab

package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// The ways to the same end: through the driver, by a command with LVM's settings as they come, by one with the
// settings for speed that the driver has, and not at all.
const (
	viaGRPC, viaExec, viaTuned, viaNone = "grpc", "exec", "tuned", "none"

	maxCallers = 32
)

// measure does rounds of a cycle, each through gRPC and by exec.
func (l *lab) measure(c cycle, load load, p plan) {
	l.b.Helper()
	// LVM's own defaults keep the metadata before every change, for 30 days. The lab's memory is for the lab.
	l.ok(os.RemoveAll(filepath.Join(l.stockLVM, "archive")))
	began := time.Now()
	for round := range p.mostRounds {
		if round >= load.fewestRounds && time.Since(began) > p.patience {
			return
		}
		order := []string{viaGRPC, viaExec}
		if load.callers == 1 {
			order = append(order, viaTuned)
		}
		if round%2 == 1 { // being the first or the last is no advantage
			slices.Reverse(order)
		}
		for _, via := range order {
			turns := 1
			if via == viaGRPC {
				turns = c.turns
			}
			for turn := range turns {
				// How many commits there are does not depend on chance, and costs a command to know.
				l.turn(c, via, load.callers, round == 0 && turn == 0 && load.callers == 1)
			}
		}
	}
}

// turn does a cycle once, in one of the ways.
func (l *lab) turn(c cycle, via string, callers int, countCommits bool) {
	l.b.Helper()
	for _, op := range c.operations {
		l.record(op, via, callers, countCommits)
	}
	switch {
	case via == viaGRPC && c.undoGRPC != nil:
		l.ok(c.undoGRPC(callers))
	case via != viaGRPC && c.undoArgv != nil:
		l.ok(l.execute(via, c.undoArgv(callers)))
	}
}

// record does an operation by all callers at once, and writes a sample of what it took.
func (l *lab) record(op operation, via string, callers int, countCommits bool) {
	l.b.Helper()
	do := op.grpc
	if via != viaGRPC {
		do = func(i int) error { return l.execute(via, op.argv(i)) }
	}
	var commits uint64
	if countCommits {
		commits = l.commits()
	}
	commands, inLVM := l.commands()
	latencies := make([]time.Duration, callers)
	start := time.Now()
	err := atOnce(callers, func(i int) error {
		called := time.Now()
		err := do(i)
		latencies[i] = time.Since(called)
		return err
	})
	wall := time.Since(start)
	if err != nil {
		l.b.Fatalf("%s via %s, %d callers, %d snapshots: %v", op.name, via, callers, len(l.snapshots), err)
	}

	v := values{}.nanoseconds("ns/op", wall/time.Duration(callers))
	each := 1.0 // an exec is one command
	if via == viaGRPC {
		n, took := l.commands()
		each = float64(n-commands) / float64(callers)
		v = v.nanoseconds("lvm-ns/op", (took-inLVM)/time.Duration(callers))
	}
	v = v.number("commands/op", each)
	if countCommits {
		v = v.number("commits/op", float64(l.commits()-commits)/float64(callers))
	}
	name := fmt.Sprintf("op=%s/snapshots=%d/callers=%d/via=%s", op.name, len(l.snapshots), callers, via)
	l.write("Call/"+name, callers, v)
	if callers > 1 {
		for _, latency := range latencies {
			l.write("Latency/"+name, 1, values{}.nanoseconds("ns/op", latency))
		}
	}
}

// atOnce calls do for each caller at the same time.
func atOnce(callers int, do func(caller int) error) error {
	var all errgroup.Group
	for i := range callers {
		all.Go(func() error { return do(i) })
	}
	return all.Wait()
}

// execute runs a command as an administrator does.
func (l *lab) execute(via string, argv []string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "LVM_SUPPRESS_FD_WARNINGS=1")
	if via == viaExec {
		cmd.Env = append(cmd.Env, "LVM_SYSTEM_DIR="+l.stockLVM)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, stderr.Bytes())
	}
	return nil
}

// writeStockLVM makes an LVM_SYSTEM_DIR with LVM's own defaults, unlike the lab's lvm.conf, but for what the lab
// is: these disks, no udevd, no dmeventd.
func writeStockLVM(dir string) error {
	const conf = `devices {
	global_filter = [ "a|^/dev/ubd[b-p]|", "a|^/dev/loop|", "r|.*|" ]
	use_devicesfile = 0
	obtain_device_list_from_udev = 0
	external_device_info_source = "none"
}
activation {
	udev_sync = 0
	udev_rules = 0
	monitoring = 0
}
global {
	locking_dir = "/run/lock/lvm"
}
`
	return os.WriteFile(filepath.Join(dir, "lvm.conf"), []byte(conf), 0o600)
}
