//go:build labself

package main

import (
	"strings"
	"testing"
)

// Native mode needs a machine with root and device-mapper: these tests run it
// inside User Mode Linux.

// mess makes what a command can leave behind: mounts, active and suspended
// volumes, a process, a loop device of its own.
const mess = `
	test "$LAB_MODE_ACTIVE" = native
	disk=${LAB_DISKS%%,*}
	case $disk in /dev/loop*) ;; *) exit 90;; esac
	vgcreate -y mess $disk
	lvcreate -y --type thin-pool -L 500m -n pool mess
	for name in a b; do lvcreate -V 400m --thinpool pool -n $name mess; mkfs.ext4 -q /dev/mess/$name; done
	mkdir $TMPDIR/m; mount /dev/mess/a $TMPDIR/m
	lvcreate -s -n s mess/a
	exec 9>$TMPDIR/m/open
	truncate -s 64m $TMPDIR/file; losetup -f $TMPDIR/file
	sleep 1000 &
	dmsetup suspend mess-b
	touch $READY
`

// checkClean prints what the lab left of the mess, if anything. The lab writes
// only to TMPDIR and /dev/shm.
const checkClean = `
	for try in $(seq 100); do
		left=$(losetup -a; dmsetup ls | grep -v "^No devices"; ls -d /dev/mess $TMPDIR/lab-* /dev/shm/lab-* 2>/dev/null
			grep -h . /proc/[0-9]*/comm 2>/dev/null | grep -x sleep
			grep /lab-.*-disks/ /proc/self/mountinfo)
		test -z "$left" && break
		sleep 0.2
	done
	echo "LEFT: $left"
`

// runNested runs a script inside User Mode Linux, in which LAB is the lab.
func runNested(t *testing.T, script string) string {
	t.Helper()
	run := newLab(t, "--timeout", "120s", "--", "bash", "-c", script)
	run.Env = append(run.Env, "LAB="+labBinary+" --mode native --disk-size 1g", "MESS="+mess, "READY=/run/ready")
	run.wantExit(t, 0)
	return run.stdout.String() + run.stderr.String()
}

func TestNativeExit(t *testing.T) {
	out := runNested(t, `
		$LAB -- sh -ec 'echo to stdout; echo to stderr >&2; exit 9' >out 2>err
		echo "CODE: $?"; cat out err
		$LAB -- sh -ec "$MESS"'exit 0'; echo "CODE: $?"
		test "$LAB_MODE_ACTIVE" = uml || echo "LEFT: environment"
	`+checkClean)
	for _, want := range []string{"CODE: 9\nto stdout\nto stderr\n", "CODE: 0\n", "LEFT: \n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

func TestNativeEnds(t *testing.T) {
	for name, tc := range map[string]struct{ end, code string }{
		"interrupt": {"kill -INT $!", "CODE: 130\n"},
		"killed":    {"kill -KILL $!", "CODE: 137\n"},
		"runner":    {"kill -KILL $(pgrep -f ^lab-runner)", "CODE: 137\n"},
		"init":      {"kill -KILL $(pgrep -f '^[^ ]*/lab-[0-9]*/lab-init')", "CODE: 125\n"},
		// Whatever is left is the next lab's to clean up.
		"both": {"kill -STOP $(pgrep -f ^lab-runner); kill -KILL $! $(pgrep -f ^lab-runner); wait $!; $LAB -- true; (exit 1)", "CODE: "},
	} {
		t.Run(name, func(t *testing.T) {
			out := runNested(t, `
				rm -f $READY
				$LAB -- sh -ec "$MESS"'sleep 1000' & 
				for try in $(seq 300); do test -e $READY && break; sleep 0.1; done
				test -e $READY || echo "LEFT: not ready"
				`+tc.end+`; wait $!; echo "CODE: $?"
			`+checkClean)
			for _, want := range []string{tc.code, "LEFT: \n"} {
				if !strings.Contains(out, want) || strings.Contains(out, "not ready") {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
}

// TestNativeTimeout also shows that a native lab sees its own disks only.
func TestNativeTimeout(t *testing.T) {
	out := runNested(t, `
		vgcreate -y outer /dev/ubdb
		$LAB --timeout 5s -- sh -ec 'vgs --noheadings -o vg_name; pvs /dev/ubdb && echo VISIBLE; sleep 1000'
		echo "CODE: $?"
		vgs --noheadings -o vg_name outer
	`+checkClean)
	if !strings.Contains(out, "CODE: 124\n") || !strings.Contains(out, "LEFT: \n") || strings.Contains(out, "VISIBLE") ||
		strings.Count(out, "  outer\n") != 1 {
		t.Errorf("got\n%s", out)
	}
}

func TestNativeLabtest(t *testing.T) {
	run := newLab(t)
	run.goTest(labBinary+" --mode uml -- "+labBinary+" --mode native --", "./labtest")
	run.wantExit(t, 0)
}

// TestInstall hides a program, and lets a false apt-get bring it back.
func TestInstall(t *testing.T) {
	out := runNested(t, `
		mount --bind /dev/null /usr/bin/fio
		$LAB --install=false -- true; echo "CODE: $?"
		mkdir $TMPDIR/bin
		printf '#!/bin/sh\necho "APT: $DEBIAN_FRONTEND $*"\ncase "$*" in *fio*) umount /usr/bin/fio;; esac\n' >$TMPDIR/bin/apt-get
		chmod +x $TMPDIR/bin/apt-get
		PATH=$TMPDIR/bin:$PATH $LAB -- echo RUNS; echo "CODE: $?"
	`)
	for _, want := range []string{
		"CODE: 69\n", "CODE: 0\n", "RUNS\n",
		"sudo apt-get update && sudo apt-get install --yes --no-install-recommends fio\n",
		"APT: noninteractive -o DPkg::Lock::Timeout=300 update --quiet=2\n",
		"APT: noninteractive -o DPkg::Lock::Timeout=300 install --quiet=2 --yes --no-install-recommends fio\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
