//go:build labself

package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// These tests boot User Mode Linux, one machine after another unless it is about
// two of them:
//
//	go test -tags labself ./test/lab/

// labBinary is the lab under test.
var labBinary string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "labself-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	// An ordinary user must be able to run it, too.
	if err := os.Chmod(dir, 0o755); err != nil {
		panic(err)
	}
	labBinary = filepath.Join(dir, "lab")
	build := exec.Command("go", "build", "-o", labBinary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v\n%s", err, out))
	}
	return m.Run()
}

// labRun is one run of the lab, with a TMPDIR of its own by whose name its
// processes are known.
type labRun struct {
	*exec.Cmd
	tmp            string
	stdout, stderr bytes.Buffer
}

// newLab prepares `lab --mode uml ARGS`. At the end of the test nothing may be
// left of it.
func newLab(t *testing.T, args ...string) *labRun {
	t.Helper()
	tmp, err := os.MkdirTemp("", "ls-")
	if err != nil {
		t.Fatal(err)
	}
	run := &labRun{Cmd: exec.Command(labBinary, append([]string{"--mode", "uml"}, args...)...), tmp: tmp}
	run.Env = append(os.Environ(), "TMPDIR="+tmp)
	run.Dir = t.TempDir()
	run.Stdout, run.Stderr = &run.stdout, &run.stderr
	t.Cleanup(func() {
		run.checkNothingLeft(t)
		_ = os.RemoveAll(tmp)
	})
	return run
}

// exit waits for the lab and returns its exit code.
func (r *labRun) exit(t *testing.T) int {
	t.Helper()
	var exitError *exec.ExitError
	if err := r.Wait(); err != nil && !errors.As(err, &exitError) {
		t.Fatal(err)
	}
	return r.ProcessState.ExitCode()
}

// wantExit runs the lab to its end.
func (r *labRun) wantExit(t *testing.T, want int) {
	t.Helper()
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	if got := r.exit(t); got != want {
		t.Fatalf("exit code %d, want %d\nstdout: %s\nstderr: %s", got, want, r.stdout.String(), r.stderr.String())
	}
}

// processes lists the processes of this run: their command lines by process id.
func (r *labRun) processes() map[string]string {
	found := map[string]string{}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && bytes.Contains(text, []byte(r.tmp+"/")) {
			found[strings.Split(file, "/")[2]] = string(bytes.ReplaceAll(text, []byte{0}, []byte{' '}))
		}
	}
	return found
}

// left lists what there still is of this run, but for its disks.
func (r *labRun) left() []string {
	var left []string
	for pid, line := range r.processes() {
		left = append(left, pid+" "+line)
	}
	files, _ := filepath.Glob(r.tmp + "/*")
	left = append(left, files...)
	return left
}

// orphanDisks lists the directories of disks to which no process belongs: this
// machine may be running other labs.
func orphanDisks() []string {
	disks, _ := filepath.Glob("/dev/shm/lab-*-disks")
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	var orphans []string
	for _, dir := range disks {
		private := "/" + strings.TrimSuffix(filepath.Base(dir), "-disks")
		owned := false
		for _, file := range files {
			text, _ := os.ReadFile(file)
			owned = owned || bytes.Contains(text, []byte(private))
		}
		if !owned {
			orphans = append(orphans, dir)
		}
	}
	return orphans
}

// checkNothingLeft allows the kernel a moment to end what was killed.
func (r *labRun) checkNothingLeft(t *testing.T) {
	t.Helper()
	var left []string
	for range 100 {
		if left = append(r.left(), orphanDisks()...); len(left) == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
}

// startAndWait starts the lab and waits until its command has made a file called
// ready in the working directory.
func (r *labRun) startAndWait(t *testing.T) {
	t.Helper()
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	for range 600 {
		if _, err := os.Stat(filepath.Join(r.Dir, "ready")); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	_ = r.Process.Kill()
	t.Fatalf("the command did not start\nstderr: %s", r.stderr.String())
}

// pidOf finds the process of this run that plays a part.
func (r *labRun) pidOf(t *testing.T, role string) int {
	t.Helper()
	for pid, line := range r.processes() {
		if strings.HasPrefix(line, role+" ") {
			var number int
			if _, err := fmt.Sscan(pid, &number); err != nil {
				t.Fatal(err)
			}
			return number
		}
	}
	t.Fatalf("no %s among %v", role, r.processes())
	return 0
}

func TestExitCode(t *testing.T) {
	newLab(t, "--", "sh", "-c", "exit 7").wantExit(t, 7)
	newLab(t, "--", "sh", "-c", "kill -TERM $$").wantExit(t, 143)
	newLab(t, "--", "no-such-command").wantExit(t, exitNotFound)
}

func TestOutput(t *testing.T) {
	want := make([]byte, 1<<20)
	_, _ = rand.Read(want)
	run := newLab(t, "--", "sh", "-c", "cat random; cat random >&2; cp random copy; echo end >/dev/stderr")
	if err := os.WriteFile(filepath.Join(run.Dir, "random"), want, 0o600); err != nil {
		t.Fatal(err)
	}
	run.wantExit(t, 0)
	if !bytes.Equal(run.stdout.Bytes(), want) {
		t.Errorf("standard output: %d bytes, want %d, or they differ", run.stdout.Len(), len(want))
	}
	if !bytes.Equal(run.stderr.Bytes(), append(want, "end\n"...)) {
		t.Errorf("standard error: %d bytes, want %d, or they differ", run.stderr.Len(), len(want)+4)
	}
	got, err := os.ReadFile(filepath.Join(run.Dir, "copy"))
	if err != nil || !bytes.Equal(got, want[:1<<20]) {
		t.Errorf("the file written to the working directory: %d bytes, error %v", len(got), err)
	}
}

func TestOutputKeepsItsOrder(t *testing.T) {
	run := newLab(t, "--", "sh", "-c", "for i in 1 2 3; do echo out $i; echo err $i >&2; done")
	run.Stderr = run.Stdout
	run.wantExit(t, 0)
	if want := "out 1\nerr 1\nout 2\nerr 2\nout 3\nerr 3\n"; run.stdout.String() != want {
		t.Errorf("got %q", run.stdout.String())
	}
}

func TestOutputIsLive(t *testing.T) {
	run := newLab(t, "--", "sh", "-c", "echo first; sleep 1000")
	run.Stdout = nil
	pipe, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 6)
	if _, err := pipe.Read(buf); err != nil || string(buf) != "first\n" {
		t.Errorf("got %q, error %v", buf, err)
	}
	_ = run.Process.Signal(syscall.SIGTERM)
	if code := run.exit(t); code != 143 {
		t.Errorf("exit code %d, want 143", code)
	}
}

func TestClosedOutput(t *testing.T) {
	run := newLab(t, "--", "sh", "-c", "while :; do echo y; done")
	run.Stdout = nil
	pipe, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = pipe.Read(make([]byte, 2))
	pipe.Close()
	if code := run.exit(t); code != 128+int(syscall.SIGPIPE) {
		t.Errorf("exit code %d, want 141", code)
	}
}

func TestMachine(t *testing.T) {
	run := newLab(t, "--disks", "3", "--", "sh", "-ec", `
		test "$LAB_MODE_ACTIVE" = uml
		test "$LAB_DISKS" = /dev/ubdb,/dev/ubdc,/dev/ubdd
		test "$CALLERS" = "own variable"
		findmnt -n -o PROPAGATION / | grep -q shared
		case $(stat -f -c %T "$TMPDIR") in tmpfs) ;; *) exit 3;; esac
		ping -c 1 127.0.0.1 >/dev/null 2>&1 || ip link show lo | grep -q LOWER_UP
		modprobe dm-raid
		dmsetup targets | grep -q thin-pool
		vgcreate -y vg /dev/ubdb
		lvcreate -y --type thin-pool -L 1g -n pool vg
		lvcreate -V 1g --thinpool pool -n a vg
		for fs in ext4 xfs btrfs; do
			mkfs.$fs /dev/vg/a $(test $fs = ext4 || echo -f) >/dev/null
			mkdir -p $TMPDIR/m; mount /dev/vg/a $TMPDIR/m
			echo text >$TMPDIR/m/file; sync
			lvcreate -s -n snap-$fs vg/a
			umount $TMPDIR/m
		done
		lvchange -ay -K vg/snap-ext4; mount -o ro /dev/vg/snap-ext4 $TMPDIR/m
		cat $TMPDIR/m/file`)
	run.Env = append(run.Env, "CALLERS=own variable")
	run.wantExit(t, 0)
	if !strings.HasSuffix(run.stdout.String(), "\ntext\n") {
		t.Errorf("got %q", run.stdout.String())
	}
}

func TestTwoAtOnce(t *testing.T) {
	var wg sync.WaitGroup
	for _, name := range []string{"one", "two"} {
		run := newLab(t, "--", "sh", "-ec",
			"vgcreate -y "+name+" /dev/ubdb >&2; sleep 1; vgs --noheadings -o vg_name | tr -d ' '")
		wg.Go(func() {
			_ = run.Run()
			if got := run.stdout.String(); got != name+"\n" {
				t.Errorf("got %q, want %q\n%s", got, name, run.stderr.String())
			}
		})
	}
	wg.Wait()
}

func TestGoTestExec(t *testing.T) {
	run := newLab(t)
	run.goTest(labBinary+" --mode uml --", "./labtest")
	run.wantExit(t, 0)
}

// goTest makes the run one of go test, which runs the test in a lab.
func (r *labRun) goTest(lab, pkg string) {
	env := r.Env
	r.Cmd = exec.Command("go", "test", "-tags", "lab", "-count=1", "-exec", lab, pkg)
	r.Env, r.Stdout, r.Stderr = env, &r.stdout, &r.stderr
}
