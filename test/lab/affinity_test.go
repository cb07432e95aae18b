package main

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Two labs share a CPU only when there is no other.
func TestChooseCPU(t *testing.T) {
	var allowed unix.CPUSet
	allowed.Set(900) // no machine that runs this has them, and so no lab
	allowed.Set(902)
	first, second, third := chooseCPU(&allowed), chooseCPU(&allowed), chooseCPU(&allowed)
	if first != 900 || second != 902 {
		t.Errorf("chose %d and %d, not 900 and 902", first, second)
	}
	if !allowed.IsSet(third) {
		t.Errorf("chose %d, which is not allowed", third)
	}
}

func TestOnOneCPU(t *testing.T) {
	var before, during, after unix.CPUSet
	affinity := func(set *unix.CPUSet) {
		t.Helper()
		if err := unix.SchedGetaffinity(0, set); err != nil {
			t.Fatal(err)
		}
	}
	affinity(&before)
	if err := onOneCPU(func() error { affinity(&during); return nil }); err != nil {
		t.Fatal(err)
	}
	if n := during.Count(); n != 1 {
		t.Errorf("started on %d CPUs", n)
	}
	if affinity(&after); after != before {
		t.Error("the lab itself stays on fewer CPUs than it had")
	}
}
