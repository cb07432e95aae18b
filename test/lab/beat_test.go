package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestPulse(t *testing.T) {
	const limit = 10 * time.Second
	p := pulse{limit: limit}
	for step, tc := range []struct {
		beat    string
		elapsed time.Duration
		hung    bool
	}{
		{"", 9 * time.Second, false},  // it boots
		{"1", time.Second, false},     // its first beat
		{"1", time.Second, false},     // between two beats
		{"1", time.Hour, false},       // the host was suspended: that counts as two looks at most
		{"2", 8 * time.Second, false}, // any beat is a new start
		{"2", 2 * time.Second, false},
		{"2", 2 * time.Second, false},
		{"2", 2 * time.Second, false},
		{"2", 2 * time.Second, false},
		{"2", 2 * time.Second, true},
		{"3", 2 * time.Second, false}, // it came back
	} {
		if got := p.feel(tc.beat, tc.elapsed); got != tc.hung {
			t.Errorf("step %d: hung %t after %s without a beat", step, got, p.silent)
		}
	}
	never := pulse{}
	for range 1000 {
		if never.feel("", time.Second) {
			t.Fatal("a limit of 0 is none")
		}
	}
}

func TestLastBeat(t *testing.T) {
	name := filepath.Join(t.TempDir(), "beat")
	if got := lastBeat(name); got != "" {
		t.Errorf("no file: %q", got)
	}
	page := make([]byte, beatBytes)
	if err := os.WriteFile(name, page, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastBeat(name); got != "" {
		t.Errorf("no beat yet: %q", got)
	}
	copy(page, "17 at 34.250 s\n")
	if err := os.WriteFile(name, page, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := lastBeat(name); got != "17 at 34.250 s" {
		t.Errorf("got %q", got)
	}
}

func TestLastByte(t *testing.T) {
	for text, want := range map[string]byte{"one\n": '\n', "one\ntwo": 'o'} {
		name := filepath.Join(t.TempDir(), "out")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := lastByte(name); err != nil || got != want {
			t.Errorf("%q: %q, error %v", text, got, err)
		}
	}
	if _, err := lastByte(os.DevNull); err == nil {
		t.Error("an empty file has a last byte")
	}
}

func TestParseStat(t *testing.T) {
	got, err := parseStat("4711 (a (b) c) t 17 18 17 0 -1 1077936128 5 0 0 0 30 12 0 0 20 0 1 0 5 6 7")
	want := hostProcess{pid: 4711, parent: 17, name: "a (b) c", state: "t", ticks: 42}
	if err != nil || got != want {
		t.Errorf("got %+v, error %v", got, err)
	}
	for _, line := range []string{"", "1 (x", ") 1 (", "1 (x) S 1 2", "x (x) S 1 2 3 0 -1 0 0 0 0 0 1 1 0"} {
		if got, err := parseStat(line); err == nil {
			t.Errorf("%q: %+v", line, got)
		}
	}
}

func TestDescribeProcesses(t *testing.T) {
	before := []hostProcess{{pid: 7, ticks: 100}}
	now := []hostProcess{
		{pid: 7, parent: 1, name: "linux.uml", state: "R", ticks: 198, wchan: "0", call: "running", signals: "SigPnd 2000"},
		{pid: 9, parent: 7, name: "linux.uml", state: "t", ticks: 5, wchan: "-", call: "-"},
	}
	want := "7 (of 1) linux.uml: state R, CPU 1.98 s and 0.98 s, wchan 0, system call running, SigPnd 2000\n" +
		"9 (of 7) linux.uml: state t, CPU 0.05 s and 0.00 s, wchan -, system call -, \n"
	if got := describeProcesses(before, now); got != want {
		t.Errorf("got %s", got)
	}
	lines := bytes.Count([]byte(describeProcesses(nil, make([]hostProcess, 100))), []byte("\n"))
	if lines != maxProcesses+1 {
		t.Errorf("%d lines for 100 processes", lines)
	}
}

func TestProcessesOf(t *testing.T) {
	child := exec.Command("sleep", "1000")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	}()
	found := processesOf(os.Getpid())
	if len(found) != 2 || found[0].pid != os.Getpid() || found[1].pid != child.Process.Pid || found[1].parent != os.Getpid() {
		t.Errorf("got %+v", found)
	}
}
