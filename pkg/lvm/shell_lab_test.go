//go:build lab

package lvm_test

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// pidRunner remembers the processes that are started.
type pidRunner struct {
	hostexec.Host
	mu   sync.Mutex
	pids []int
}

func (r *pidRunner) Start(c hostexec.Command) (*hostexec.Process, error) {
	p, err := r.Host.Start(c)
	if err == nil {
		r.mu.Lock()
		r.pids = append(r.pids, p.PID)
		r.mu.Unlock()
	}
	return p, err
}

func (r *pidRunner) last() (pid, started int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pids[len(r.pids)-1], len(r.pids)
}

func waitGone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return
		}
	}
	t.Fatalf("process %d does not end", pid)
}

func TestLabShellKilled(t *testing.T) {
	env := labConfig(t)
	r := &pidRunner{}
	f := labFixture(t, newLabShell(t, r, env))
	f.create(t, "v", mib)
	pid, _ := r.last()

	// Between commands: it is started anew.
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitGone(t, pid)
	time.Sleep(50 * time.Millisecond) // for the shell's owner to see its end
	f.snapshot(t, "s", "v", false)
	if now, n := r.last(); now == pid || n != 2 {
		t.Errorf("%d processes were started, want a second shell", n)
	}

	// During commands: the outcome is unknown, and whatever it is, LVM is whole and goes on.
	for i := range 8 {
		shell := newLabShell(t, r, env) // the old one would leave the field to exec for a while
		f.client = lvm.NewClient(shell, f.group)
		f.lvs(t)
		pid, _ := r.last()
		name := fmt.Sprint("k", i)
		go func() {
			time.Sleep(time.Duration(2+7*i) * time.Millisecond)
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}()
		err := f.client.CreateThinSnapshot(t.Context(), lvm.ThinSnapshotOptions{Name: name, Origin: "v", Tags: []string{"t"}})
		notLocked := errors.Is(err, lvm.ErrNotLocked)
		if err != nil && !errors.Is(err, lvm.ErrOutcomeUnknown) && !notLocked {
			t.Errorf("a shell killed during a command: %v", err)
		}
		lvs, status := f.lvs(t), f.pool(t)
		if v, there := lvs[name]; there && notLocked {
			t.Errorf("LVM did not get the lock, and made %+v", v)
		} else if there && (v.TransactionID >= status.TransactionID || len(v.Tags) != 1) {
			t.Errorf("after SIGTERM: %+v, the pool has transaction id %d", v, status.TransactionID)
		} else if !there && err == nil {
			t.Errorf("%s was made, and is not there", name)
		}
		if pool := lvs[poolName]; pool.TransactionID != status.TransactionID {
			t.Errorf("after SIGTERM: transaction id %d in LVM, %d in the pool", pool.TransactionID, status.TransactionID)
		}
		t.Logf("SIGTERM after %d ms: error %v", 2+7*i, err)
	}
	f.create(t, "after", mib)
}

// TestLabShellKilledAtLock: while it waits for the group's lock, which somebody else has, LVM has done nothing yet, and says so.
func TestLabShellKilledAtLock(t *testing.T) {
	env := labConfig(t)
	r := &pidRunner{}
	f := labFixture(t, newLabShell(t, r, env))
	f.create(t, "v", mib)
	before, status := f.lvs(t), f.pool(t)
	pid, _ := r.last()
	dir, err := lvm.LockingDir(t.Context(), hostexec.Host{}, env)
	if err != nil {
		t.Fatal(err)
	}
	release, err := lvm.FileLocks{Dir: dir}.Acquire(t.Context(), f.group)
	if err != nil {
		t.Fatal(err)
	}
	cut := make(chan error, 1)
	go func() {
		cut <- f.client.CreateThinSnapshot(t.Context(), lvm.ThinSnapshotOptions{Name: "s", Origin: "v", Tags: []string{"t"}})
	}()
	waitBlocked(t, pid)
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err = <-cut // though nobody has given the lock up
	release()
	if !errors.Is(err, lvm.ErrNotLocked) || errors.Is(err, lvm.ErrGroupNotFound) || !strings.Contains(err.Error(), f.group) {
		t.Errorf("SIGTERM at the lock: %v", err)
	}
	if diff := cmp.Diff(before, f.lvs(t)); diff != "" {
		t.Errorf("something was made (-before +now):\n%s", diff)
	}
	if now := f.pool(t); now.TransactionID != status.TransactionID {
		t.Errorf("transaction id %d, was %d", now.TransactionID, status.TransactionID)
	}
	f.snapshot(t, "s", "v", false)
}

// waitBlocked waits until the process waits for a file lock: a line with an arrow of proc_locks(5).
func waitBlocked(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(locks)) {
			if strings.Contains(line, "-> FLOCK") && strings.Contains(line, fmt.Sprintf(" %d ", pid)) {
				return
			}
		}
	}
	t.Fatalf("process %d does not wait for a lock", pid)
}

// TestLabShellProcessGroup: what is aimed at the driver's process group (Ctrl-C) does not hit the shell.
func TestLabShellProcessGroup(t *testing.T) {
	env := labConfig(t)
	r := &pidRunner{}
	f := labFixture(t, newLabShell(t, r, env))
	f.lvs(t)
	pid, _ := r.last()
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, syscall.SIGINT)
	defer signal.Stop(ignored)
	group, err := syscall.Getpgid(0)
	if err != nil {
		t.Fatal(err)
	}
	if shellGroup, err := syscall.Getpgid(pid); err != nil || shellGroup == group {
		t.Fatalf("the shell is in process group %d (%v), the test in %d", shellGroup, err, group)
	}
	done := make(chan error, 1)
	go func() {
		done <- f.client.CreateThinVolume(t.Context(), lvm.ThinVolumeOptions{Name: "v", Pool: poolName, SizeBytes: mib})
	}()
	time.Sleep(20 * time.Millisecond)
	if err := syscall.Kill(os.Getpid(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	<-ignored
	if err := <-done; err != nil {
		t.Error(err)
	}
	f.lv(t, "v")
	if now, n := r.last(); now != pid || n != 1 {
		t.Errorf("%d processes were started", n)
	}
}

// TestLabAdministrator: somebody else changes the group at the same time, by LVM's own lock.
func TestLabAdministrator(t *testing.T) {
	const each = 20
	env := labConfig(t)
	f := labFixture(t, newLabShell(t, hostexec.Host{}, env))
	done := make(chan error, 1)
	go func() {
		for i := range each {
			// Not labtest.Run, which ends the test's goroutine.
			res, err := hostexec.Host{}.Run(t.Context(), hostexec.Command{
				Name: "lvcreate", Args: []string{"-V", "1m", "--thinpool", poolName, "-n", fmt.Sprint("admin", i), f.group},
				Env: []string{"LVM_SUPPRESS_FD_WARNINGS=1"},
			})
			if err != nil || res.ExitCode != 0 {
				done <- fmt.Errorf("lvcreate: exit code %d, %w: %s", res.ExitCode, err, res.Stderr)
				return
			}
		}
		done <- nil
	}()
	for i := range each {
		f.create(t, fmt.Sprint("ours", i), mib)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	lvs, status := f.lvs(t), f.pool(t)
	ids := map[uint32]bool{}
	for _, v := range lvs {
		ids[v.ThinID] = true
	}
	if len(lvs) != 2*each+1 || len(ids) != 2*each+1 || status.TransactionID != 2*each || lvs[poolName].TransactionID != 2*each {
		t.Errorf("%d volumes, %d ids, transaction id %d", len(lvs), len(ids), status.TransactionID)
	}
}

// TestLabConfig: the private configuration is the host's but for the overrides.
func TestLabConfig(t *testing.T) {
	labtest.Require(t)
	dir := t.TempDir()
	env, err := lvm.WriteConfig(t.Context(), hostexec.Host{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := "LVM_SYSTEM_DIR=" + filepath.Join(dir, "lvm"); len(env) != 1 || env[0] != want {
		t.Errorf("environment %q, want %q", env, want)
	}
	ask := func(env []string, key string) string {
		res, err := hostexec.Host{}.Run(t.Context(), hostexec.Command{
			Name: "lvm", Args: []string{"lvmconfig", "--typeconfig", "full", key}, Env: append(env, "LVM_SUPPRESS_FD_WARNINGS=1"),
		})
		if err != nil || res.ExitCode != 0 {
			t.Fatalf("lvmconfig %s: exit code %d, %v: %s", key, res.ExitCode, err, res.Stderr)
		}
		return strings.TrimSpace(string(res.Stdout))
	}
	for _, key := range []string{"devices/global_filter", "global/locking_dir", "devices/use_devicesfile", "devices/external_device_info_source"} {
		if ours, host := ask(env, key), ask(nil, key); ours != host || ours == "" {
			t.Errorf("%s: ours %q, the host's %q", key, ours, host)
		}
	}
	if got := ask(env, "devices/global_filter"); !strings.Contains(got, "ubd") {
		t.Errorf("the host's filter is lost: %q", got)
	}
	for key, want := range map[string]string{
		"global/use_aio": "use_aio=0", "activation/monitoring": "monitoring=0", "backup/backup": "backup=0", "backup/archive": "archive=0",
		"log/report_command_log": "report_command_log=1", "report/output_format": `output_format="json"`, "log/prefix": `prefix=""`,
		"activation/reserved_memory": "reserved_memory=0", "report/compact_output": "compact_output=0",
	} {
		if got := ask(env, key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	if again, err := lvm.WriteConfig(t.Context(), hostexec.Host{}, dir); err != nil || again[0] != env[0] {
		t.Errorf("a second time: %q, %v", again, err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, "lvm"))
	if err != nil || len(entries) != 3 {
		t.Errorf("files %v, %v", entries, err)
	}
}

func TestLabCheckVersion(t *testing.T) {
	labtest.Require(t)
	v, err := lvm.CheckVersion(t.Context(), hostexec.Host{})
	if err != nil || v.Less(lvm.MinimumVersion) {
		t.Errorf("version %s, %v", v, err)
	}
	first, _, _ := strings.Cut(v.String(), ".")
	if _, err := strconv.Atoi(first); err != nil {
		t.Errorf("version %q", v)
	}
}
