//go:build lab

package ctl_test

import (
	"bufio"
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// follower is an lvmsnapctl watch that is running.
type follower struct {
	*machine
	cmd   *exec.Cmd
	lines chan string
}

func (r *machine) watch() *follower {
	r.t.Helper()
	f := &follower{machine: r, lines: make(chan string, 1000)}
	f.cmd = exec.Command(filepath.Join(filepath.Dir(driverproc.Binary(r.t)), "lvmsnapctl"), "watch", "--interval", "100ms", "--volume-group", r.vg.Name)
	out, err := f.cmd.StdoutPipe()
	r.ok(err)
	r.ok(f.cmd.Start())
	go func() {
		defer close(f.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			f.lines <- s.Text()
		}
	}()
	r.t.Cleanup(func() {
		_ = f.cmd.Process.Kill() // if the test did not come to its end
		_ = f.cmd.Wait()
	})
	return f
}

// until returns the lines up to the first that is right.
func (f *follower) until(what string, right func(line string) bool) (all []string) {
	f.t.Helper()
	for patience := time.After(2 * time.Minute); ; {
		select {
		case line, ok := <-f.lines:
			if !ok {
				f.t.Fatalf("watch has ended before %s: %q", what, all)
			}
			if all = append(all, line); right(line) {
				return all
			}
		case <-patience:
			f.t.Fatalf("watch never showed %s: %q", what, all)
		}
	}
}

var percentage = regexp.MustCompile(` (\d+)(?:\.\d+)?% of 64 MiB`)

func percent(line string) int {
	m := percentage.FindStringSubmatch(line)
	if m == nil {
		return -1
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

// A restore that is copied is followed while it moves, while the driver is down, and to its end.
func TestLabWatch(t *testing.T) {
	r := newMachine(t, "--copy-rate-limit", "2Mi")
	v := r.volume()
	r.write(v, 7, 64*mib)
	s := r.snapshot("snapshot-a", v)
	req := volumeRequest("pvc-restored")
	req.Parameters["type"] = "thick"
	req.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: s.GetSnapshotId()},
	}}
	for begun := ""; !strings.Contains(begun, storage.VolumeLV(req.GetName())); begun = labtest.Run(t, "lvs", "--noheadings", "-o", "lv_name", r.vg.Name) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // the driver goes on
		_, err := r.driver.Controller.CreateVolume(ctx, req)
		if cancel(); err == nil {
			t.Fatal("CreateVolume did not have to wait")
		}
	}
	f := r.watch()
	seen := map[int]bool{}
	moving := f.until("a copy that moves", func(line string) bool {
		seen[percent(line)] = true
		return len(seen) >= 4 && strings.Contains(line, "left")
	})
	if seen[-1] || !slices.IsSortedFunc(moving, func(a, b string) int { return percent(a) - percent(b) }) {
		t.Errorf("it does not move: %q", moving)
	}
	t.Log(moving[len(moving)-1])
	r.driver.Kill()
	waits := f.until("that nobody copies", func(line string) bool { return strings.Contains(line, "waits for the driver") })
	t.Log(waits[len(waits)-1])
	got := r.doctor()
	if !slices.Equal(reasons(got.Findings), []string{"ContentIncomplete"}) || !strings.Contains(got.Findings[0].Cure, "start the driver") {
		t.Errorf("doctor without a driver: %+v", got.Findings)
	}
	fast := driverproc.Start(t, driverproc.Options{Groups: []string{r.vg.Name}})
	end := f.until("the end", func(line string) bool { return strings.HasPrefix(line, "Nothing is being copied") })
	if !strings.Contains(strings.Join(end, "\n"), "shop/pvc-restored-claim  copy: done") {
		t.Errorf("the end: %q", end)
	}
	if err := f.cmd.Wait(); err != nil {
		t.Errorf("watch: %v", err)
	}
	if got := r.doctor(); len(got.Findings) > 0 {
		t.Errorf("doctor at the end: %+v", got.Findings)
	}
	res, err := fast.Controller.CreateVolume(t.Context(), req)
	r.ok(err)
	if got := res.GetVolume().GetCapacityBytes(); got != 64*mib {
		t.Errorf("the restored volume has %d bytes", got)
	}
}
