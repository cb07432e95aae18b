//go:build labself

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Machines that hang, and some that only seem to.

// spin takes the machine's one CPU for good: nothing but interrupts gets a turn any more.
const spin = "echo -1 >/proc/sys/kernel/sched_rt_runtime_us; exec chrt -f 99 sh -c 'while :; do :; done'"

func (r *labRun) wantErrors(t *testing.T, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(r.stderr.String(), want) {
			t.Errorf("no %q in:\n%s", want, r.stderr.String())
		}
	}
}

// kernelOf finds the process that is the machine's kernel: the one with its command line that started the others.
func (r *labRun) kernelOf(t *testing.T) int {
	t.Helper()
	kernel := 0
	for pid, line := range r.processes() {
		if !strings.Contains(line, "rootfstype=hostfs") || strings.HasPrefix(line, roleWarden) {
			continue
		}
		if number, err := strconv.Atoi(pid); err == nil && (kernel == 0 || number < kernel) {
			kernel = number
		}
	}
	if kernel == 0 {
		t.Fatalf("no kernel among %v", r.processes())
	}
	return kernel
}

func TestHungAndDiagnosed(t *testing.T) {
	run := newLab(t, "--hung-after", "10s", "--", "sh", "-c", "sleep 0.1; "+spin)
	run.wantExit(t, exitHung)
	run.wantErrors(t,
		"lab: no heartbeat of the machine for 1",
		"lab: --- last beats\non the host's file system: ",
		"lab: --- its processes, as the host sees them",
		"linux.uml: state R,", "system call running", // the one that spins
		"lab: --- its kernel: sysrq m\n", "Mem-Info:\n",
		"lab: --- its kernel: sysrq t\n", "task:lab-init ", "Call Trace:\n",
		"lab: the machine hung (no heartbeat for 1")
}

// TestStoppedKernel has a kernel that answers nothing at all.
func TestStoppedKernel(t *testing.T) {
	run := newLab(t, "--hung-after", "10s", "--", "sh", "-c", readyThenSleep)
	run.startAndWait(t)
	began := time.Now()
	_ = syscall.Kill(run.kernelOf(t), syscall.SIGSTOP)
	if code := run.exit(t); code != exitHung {
		t.Errorf("exit code %d, want %d", code, exitHung)
	}
	if took := time.Since(began); took > 10*time.Second+diagnosisLimit+questionLimit+10*time.Second {
		t.Errorf("took %s", took)
	}
	run.wantErrors(t, "linux.uml: state T", "i/o timeout", "no time for the rest", "the machine hung (no heartbeat for 1")
}

// TestStuckWrites fills the memory with what a suspended device does not take. The machine lives on for longer than
// the limit: a test may well do that. It is when the command has ended that the machine cannot.
func TestStuckWrites(t *testing.T) {
	run := newLab(t, "--hung-after", "10s", "--", "sh", "-ec", `
		dmsetup create stuck --table "0 $(blockdev --getsz /dev/ubdb) linear /dev/ubdb 0"
		dmsetup mknodes
		dmsetup suspend stuck
		dd if=/dev/zero of=/dev/mapper/stuck bs=1M count=900 2>/dev/null &
		for i in $(seq 15); do sleep 1; echo $i >>lived; done
		awk '/^(Dirty|Writeback):/ { kib += $2 } END { print kib }' /proc/meminfo
		exit 4`)
	run.wantExit(t, exitHung)
	lived, err := os.ReadFile(filepath.Join(run.Dir, "lived"))
	if err != nil || !strings.HasSuffix(string(lived), "\n15\n") {
		t.Errorf("the command wrote %q, error %v", lived, err)
	}
	if kib, err := strconv.Atoi(strings.TrimSpace(run.stdout.String())); err != nil || kib < 20<<10 {
		t.Errorf("%q KiB are waiting for the device: the test fills no memory", run.stdout.String())
	}
	run.wantErrors(t, "its kernel: sysrq w", "task:", "the machine hung (no heartbeat for 1")
}

// TestHungMachineIsStartedAgain has go test as the caller, and hack/test-summary as the reader of what it says.
func TestHungMachineIsStartedAgain(t *testing.T) {
	run := newLab(t)
	for name, text := range map[string]string{
		"go.mod": "module hanging\n\ngo 1.26\n",
		"hanging_test.go": `package hanging

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

func TestBefore(*testing.T) {}

func TestHang(t *testing.T) {
	fmt.Print("no end of line")
	if os.Mkdir("once", 0o700) == nil {
		time.Sleep(100 * time.Millisecond)
		t.Error(exec.Command("sh", "-c", ` + "`" + spin + "`" + `).Run())
	}
}
`,
	} {
		if err := os.WriteFile(filepath.Join(run.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env, dir := run.Env, run.Dir
	run.Cmd = exec.Command("go", "test", "-json", "-count=1", "-exec", labBinary+" --mode uml --hung-after 10s --hung-retries 1 --", ".")
	run.Env, run.Dir, run.Stdout, run.Stderr = append(env, "CGO_ENABLED=0"), dir, &run.stdout, &run.stderr
	run.wantExit(t, 0)

	report := filepath.Join(dir, "report.json")
	if err := os.WriteFile(report, run.stdout.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	summary, err := exec.Command("../../hack/test-summary", report).CombinedOutput()
	if want := "2 passed, 0 failed, 0 skipped; 1 machine hung and was started again\n"; string(summary) != want || err != nil {
		t.Errorf("the summary: %q, error %v\n%s", summary, err, run.stdout.String())
	}
}
