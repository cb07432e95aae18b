// Package simulation_test compares the engine with a model of what must be true, while a random sequence of calls is made and
// things go wrong below: commands fail, hang, or lose their answer, LVM dies in one, copies fail, and the driver is
// killed and started again. On the fake it is one of the unit tests; in the lab it does the same to real LVM.
//
// A failure is shrunk to a short sequence and printed with its seed; -rapid.seed=N runs it again.
package simulation_test

import (
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/klog/v2"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) {
	klog.SetLogger(klog.Logger{}) // what goes wrong is told by the test
	m.Run()
}

// stats counts the calls and what went wrong in them.
type stats struct {
	mu           sync.Mutex
	calls, fired map[string]int
}

func newStats() *stats { return &stats{calls: map[string]int{}, fired: map[string]int{}} }

func (s *stats) count(what string, kind faultKind, fired bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	what, _, _ = strings.Cut(what, " ")
	s.calls[what]++
	if fired {
		s.fired[string(kind)]++
	}
}

func (s *stats) report(t *testing.T) {
	t.Helper()
	total := 0
	list := func(counts map[string]int) string {
		var out []string
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			out = append(out, fmt.Sprintf("%s %d", name, counts[name]))
		}
		return strings.Join(out, ", ")
	}
	for _, n := range s.calls {
		total += n
	}
	t.Logf("%d calls: %s", total, list(s.calls))
	t.Logf("what went wrong: %s", list(s.fired))
}

// shortSeed is that of the short form, which tells whether a change has broken something; to look for what nobody knows of yet
// is for the long one (make simulation).
const shortSeed = 866244504

// seed makes a run repeatable, and tells how. The short form, without -rapid.checks, has so many sequences, the same every time.
func seed(t *testing.T, sequences int) {
	t.Helper()
	start := time.Now().UnixNano() % 1_000_000_000
	if checks := flag.Lookup("rapid.checks"); checks.Value.String() == checks.DefValue {
		_ = checks.Value.Set(strconv.Itoa(sequences))
		t.Cleanup(func() { _ = checks.Value.Set(checks.DefValue) })
		start = shortSeed
	}
	set := flag.Lookup("rapid.seed")
	if set.Value.String() == "0" {
		_ = set.Value.Set(strconv.FormatInt(start, 10))
		t.Cleanup(func() { _ = set.Value.Set("0") })
	}
	t.Logf("seed %s: -rapid.seed=%[1]s", set.Value)
}

// simulate makes one random sequence of calls.
func simulate(t *rapid.T, w *world, st *stats) {
	m := newMachine(t, w, st)
	defer func() { m.d.end(false) }()
	m.unknown()
	actions := map[string]func(*rapid.T){
		"":             func(t *rapid.T) { m.t = t; m.Check() },
		"CreateVolume": m.CreateVolume, "CreateVolume2": m.CreateVolume, "RestoreVolume": m.RestoreVolume, "CloneVolume": m.CloneVolume,
		"DeleteVolume": m.DeleteVolume, "ExpandVolume": m.ExpandVolume, "SwitchVolume": m.SwitchVolume, "Write": m.Write, "Write2": m.Write,
		"RetryVolume": m.RetryVolume, "CreateSnapshot": m.CreateSnapshot, "CreateSnapshot2": m.CreateSnapshot,
		"DeleteSnapshot": m.DeleteSnapshot, "RetrySnapshot": m.RetrySnapshot, "Resolve": m.Resolve, "Restart": m.Restart,
		"DuplicateSnapshot": m.DuplicateSnapshot, "DuplicateVolume": m.DuplicateVolume, "Together": m.Together,
		"ReplaceSource": m.ReplaceSource, "ReplaceClone": m.ReplaceClone,
		"Settle": func(t *rapid.T) { m.t = t; m.settle() },
	}
	t.Repeat(actions)
	m.t = t
	m.settle()
	m.Check()
}

func TestOnFake(t *testing.T) {
	for _, groups := range [][]string{{"vg-0"}, {"vg0", "vg1"}} {
		t.Run(fmt.Sprintf("%d groups", len(groups)), func(t *testing.T) {
			seed(t, 35)
			st := newStats()
			defer st.report(t)
			rapid.Check(t, func(t *rapid.T) {
				rapid.SyncTest(t, func(t *rapid.T) { simulate(t, fakeWorld(groups...), st) })
			})
		})
	}
}
