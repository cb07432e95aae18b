//go:build lab

package lvm_test

import (
	"errors"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// LVM waits for this lock, and this lock for LVM.
func TestLabLock(t *testing.T) {
	vg := labtest.VolumeGroup(t, labtest.Options{})
	env, err := lvm.WriteConfig(t.Context(), hostexec.Host{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := lvm.LockingDir(t.Context(), hostexec.Host{}, env)
	if err != nil {
		t.Fatal(err)
	}
	locks := lvm.FileLocks{Dir: dir}
	release, err := locks.Acquire(t.Context(), vg.Name)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- exec.Command("lvcreate", "-y", "-an", "-Zn", "-Wn", "-L4m", "-nlv", vg.Name).Run() }()
	select {
	case err := <-done:
		t.Errorf("lvcreate did not wait: %v", err)
	case <-time.After(3 * time.Second):
	}
	release()
	if err := <-done; err != nil {
		t.Errorf("lvcreate: %v", err)
	}
	// Commands and the lock in turns, each removing the file of the other.
	var all sync.WaitGroup
	all.Go(func() {
		for range 10 {
			if err := exec.Command("lvchange", "--addtag", "x", "--deltag", "y", vg.Name+"/lv").Run(); err != nil {
				t.Errorf("lvchange: %v", err)
			}
		}
	})
	for range 30 {
		release, err := locks.Acquire(t.Context(), vg.Name)
		if err != nil {
			t.Error(err)
			break
		}
		time.Sleep(20 * time.Millisecond)
		release()
	}
	all.Wait()
	// A command that asks holds the lock.
	asking := exec.Command("lvremove", vg.Name+"/lv")
	stdin, err := asking.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	labtest.Run(t, "lvchange", "-ay", vg.Name+"/lv") // only then it asks
	if err := asking.Start(); err != nil {
		t.Fatal(err)
	}
	locks.Patience = 10 * time.Millisecond
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		release, err := locks.Acquire(t.Context(), vg.Name)
		if errors.Is(err, lvm.ErrLocked) {
			break
		}
		if err != nil || time.Now().After(deadline) {
			t.Errorf("the lock of a group that LVM is at work in: %v", err)
			break
		}
		release()
	}
	_ = stdin.Close()
	_ = asking.Wait()
}
