//go:build powercut

// Package powercut_test cuts the power of the lab's machine at random moments, starts it again on the same disk, and compares what is
// there with what clients had been told. It runs on the host, and itself again on the machine.
package powercut_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	seedFlag = flag.Uint64("seed", 0, "of the calls and the moments; 0: another each time")
	cuts     = flag.Int("cuts", 1, "how often the power is cut")
	lossy    = flag.Int("lossy-cuts", 1, "how often it is cut under a disk that has not yet written what nobody has flushed")
	labPath  = flag.String("lab", "../../bin/lab", "the lab")
	workFor  = flag.Duration("work", 5*time.Second, "how long a machine works at most before its power is cut")
)

const (
	diskBytes    = "4G"
	machineLimit = 4 * time.Minute
)

func startSeed(t *testing.T) *rand.Rand {
	t.Helper()
	if *seedFlag == 0 {
		*seedFlag = uint64(time.Now().UnixNano()) % 1_000_000
	}
	t.Logf("seed: -seed=%d", *seedFlag)
	return rand.New(rand.NewPCG(*seedFlag, 3)) //nolint:gosec // a test has to be repeatable
}

// memory is a new directory in memory.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "powercut")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// machine is the lab's, running this program.
type machine struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
	mu    sync.Mutex
	text  strings.Builder
}

func boot(t *testing.T, o order, disks ...string) *machine {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--mode", "uml", "--disks", "0", "--disk-size", diskBytes, "--timeout", machineLimit.String()}
	for _, disk := range disks {
		args = append(args, "--disk", disk)
	}
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, lines: make(chan string, 1000)}
	ctx, cancel := context.WithTimeout(context.Background(), machineLimit)
	t.Cleanup(cancel)
	m.cmd = exec.CommandContext(ctx, *labPath, append(args, "--", self, "-test.run", "^TestMachine$", "-test.v")...)
	m.cmd.Env = append(os.Environ(), envOrder+"="+string(text))
	m.cmd.Cancel = func() error { return m.cmd.Process.Signal(unix.SIGTERM) }
	out, in := io.Pipe()
	m.cmd.Stdout, m.cmd.Stderr = in, in
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(m.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			m.mu.Lock()
			m.text.WriteString(s.Text() + "\n")
			m.mu.Unlock()
			if strings.HasPrefix(s.Text(), "POWERCUT ") {
				m.lines <- s.Text()
			}
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	t.Cleanup(func() { _ = in.Close() })
	return m
}

// expect waits until the machine says something.
func (m *machine) expect(what string) {
	m.t.Helper()
	select {
	case line := <-m.lines:
		if line != what {
			m.fatalf("it says %q, and not %q", line, what)
		}
	case <-m.ended():
		m.fatalf("it has ended without %q", what)
	}
}

func (m *machine) ended() <-chan struct{} {
	out := make(chan struct{})
	go func() {
		for {
			if err := unix.Kill(m.cmd.Process.Pid, 0); err != nil {
				close(out)
				return
			}
			if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.cmd.Process.Pid)); err == nil && strings.Contains(string(text), ") Z ") {
				close(out)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	return out
}

func (m *machine) fatalf(format string, args ...any) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	text := m.text.String()
	if len(text) > 60_000 {
		text = "..." + text[len(text)-60_000:]
	}
	m.t.Fatalf("seed %d: the machine: %s\n%s", *seedFlag, fmt.Sprintf(format, args...), text)
}

// cutPower ends the machine, which hears nothing of it: the lab kills it.
func (m *machine) cutPower() {
	m.t.Helper()
	if err := m.cmd.Process.Signal(unix.SIGTERM); err != nil {
		m.fatalf("it has ended by itself")
	}
	_ = m.cmd.Wait()
	m.mu.Lock()
	failed := strings.Contains(m.text.String(), "--- FAIL")
	m.mu.Unlock()
	if failed {
		m.fatalf("it found something while it worked")
	}
}

// continued is how many copies the machine found to be continued.
func (m *machine) continued() (n int) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	_, rest, ok := strings.Cut(m.text.String(), saysContinues)
	if !ok {
		return 0
	}
	if _, err := fmt.Sscan(rest, &n); err != nil {
		m.t.Fatal(err)
	}
	return n
}

// finish waits for the machine to do the rest, in good order.
func (m *machine) finish() {
	m.t.Helper()
	if err := m.cmd.Wait(); err != nil {
		m.fatalf("%v", err)
	}
}

// The power is cut at random moments. The disk has by then all that was written to it.
func TestPowerCut(t *testing.T) {
	rng := startSeed(t)
	dir := memory(t)
	disk := filepath.Join(dir, "disk")
	o := order{Seed: *seedFlag, State: filepath.Join(dir, "state"), Fresh: true, Work: true}
	if err := os.Mkdir(o.State, 0o755); err != nil {
		t.Fatal(err)
	}
	continued := 0
	for i := range *cuts {
		m := boot(t, o, disk)
		if !o.Fresh {
			m.expect(saysVerified)
		}
		m.expect(saysWorking)
		time.Sleep(time.Duration(rng.Int64N(int64(*workFor))))
		m.cutPower()
		continued += m.continued()
		o.Fresh = false
		o.Seed = *seedFlag + uint64(i+1)*10
	}
	o.Work = false
	m := boot(t, o, disk)
	m.expect(saysVerified)
	m.finish()
	t.Logf("the power was cut %d times; %d copies were continued; %s", *cuts, continued+m.continued(), told(t, o.State))
}

// The power is cut under a disk that keeps in its cache what nobody has flushed, and loses some of it, in no order. One machine works,
// and of what it wrote many cuts are made.
func TestLossyPowerCut(t *testing.T) {
	rng := startSeed(t)
	dir := memory(t)
	disk, logDisk := filepath.Join(dir, "disk"), filepath.Join(dir, "log")
	o := order{Seed: *seedFlag, State: filepath.Join(dir, "state"), Fresh: true, Logged: true, Careless: true, Work: true}
	if err := os.Mkdir(o.State, 0o755); err != nil {
		t.Fatal(err)
	}
	m := boot(t, o, disk, logDisk)
	m.expect(saysWorking)
	awaitRecords(t, o.State, 20+10**lossy)
	m.cutPower()
	log, err := os.Open(logDisk)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	entries, err := readLog(log)
	if err != nil {
		t.Fatal(err)
	}
	start := 0
	for i, e := range entries {
		if e.mark == "start" {
			start = i
		}
	}
	if start == 0 || start >= len(entries)-10 {
		t.Fatalf("the log has %d entries, and begins at %d", len(entries), start)
	}
	places := cutPlaces(entries, start+1)
	sum, most := losses{}, 0
	for i := range *lossy {
		some := places[i%len(places)]
		l := cutAt(t, o, log, entries, some.at[rng.IntN(len(some.at))], some.what, rng)
		sum.lost, sum.kept = sum.lost+l.lost, sum.kept+l.kept
		most = max(most, l.lost)
	}
	t.Logf("%d cuts in %d writes; of what nobody had flushed %d writes were lost (at most %d in a cut), %d were not; %s",
		*lossy, len(entries)-start, sum.lost, most, sum.kept, told(t, o.State))
	fmt.Printf("powercut: %d lossy cuts lost %d writes, at most %d in one, and kept %d that nobody had flushed\n", *lossy, sum.lost, most, sum.kept)
	if sum.lost == 0 {
		t.Error("no write was lost")
	}
}

// awaitRecords waits until the clients' records have so many lines, or for as long as there may be.
func awaitRecords(t *testing.T, state string, want int) {
	t.Helper()
	for deadline := time.Now().Add(machineLimit / 2); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		got := 0
		paths, _ := filepath.Glob(filepath.Join(state, "w*"))
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got += bytes.Count(text, []byte("\n"))
		}
		if got >= want {
			return
		}
	}
}

// cutAt starts a machine on what a disk holds after so many of the writes, with what the clients knew by then.
func cutAt(t *testing.T, o order, log *os.File, all []entry, at int, where string, rng *rand.Rand) losses {
	t.Helper()
	entries := all[:at]
	coming := slices.IndexFunc(all[at:], func(e entry) bool { return e.flags&flagFlush != 0 })
	dir := memory(t)
	defer func() { _ = os.RemoveAll(dir) }()
	disk, err := os.Create(filepath.Join(dir, "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	if err := disk.Truncate(4 << 30); err != nil {
		t.Fatal(err)
	}
	l, err := cut(log, entries, disk, rng)
	if err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o755); err != nil {
		t.Fatal(err)
	}
	knew := map[string]uint64{}
	for _, e := range entries {
		if name, n, ok := strings.Cut(e.mark, ":"); ok {
			var sequence uint64
			if _, err := fmt.Sscan(n, &sequence); err != nil {
				t.Fatal(err)
			}
			knew[name] = sequence
		}
	}
	for name, sequence := range knew {
		keepRecords(t, filepath.Join(o.State, name), filepath.Join(state, name), sequence)
	}
	t.Logf("behind write %d, %s: %d of what was not flushed is lost, %d is not, and so are %d that were under way; the clients knew %v",
		at, where, l.lost, l.kept, max(0, coming), knew)
	o.State, o.Fresh, o.Logged, o.Work = state, false, false, false
	m := boot(t, o, disk.Name())
	m.expect(saysVerified)
	m.finish()
	return l
}

// keepRecords copies a client's record up to a sequence.
func keepRecords(t *testing.T, from, to string, sequence uint64) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for line := range strings.Lines(string(text)) {
		var s struct{ Sequence uint64 }
		if json.Unmarshal([]byte(line), &s) == nil && s.Sequence <= sequence {
			out.WriteString(line)
		}
	}
	if err := os.WriteFile(to, []byte(out.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// told counts what the clients' records have.
func told(t *testing.T, state string) string {
	t.Helper()
	records, volumes, snapshots := 0, 0, 0
	paths, _ := filepath.Glob(filepath.Join(state, "w*"))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		last := struct {
			Volumes, Snapshots map[string]json.RawMessage
		}{}
		for line := range strings.Lines(string(text)) {
			if json.Unmarshal([]byte(line), &last) == nil {
				records++
			}
		}
		volumes, snapshots = volumes+len(last.Volumes), snapshots+len(last.Snapshots)
	}
	return fmt.Sprintf("%d records of calls; at the end %d volumes and %d snapshots", records, volumes, snapshots)
}
