//go:build lab

package integration_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// untilDone retries a call as sidecars do. Aborted is the only error that may come in between.
func untilDone[T any](c *co, what string, call func() (T, error)) (result T, aborted int) {
	c.t.Helper()
	for deadline := time.Now().Add(callTimeout); time.Now().Before(deadline); aborted++ {
		result, err := call()
		if err == nil {
			return result, aborted
		}
		if status.Code(err) != codes.Aborted {
			c.t.Errorf("%s: %v", what, err)
			return result, aborted
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.t.Errorf("%s: still Aborted after %s", what, callTimeout)
	return result, aborted
}

// Several clients, each on a connection of its own, want the same thing at once: there is one of it, and all get it.
func TestSameNameAtOnce(t *testing.T) {
	c := newCO(t)
	origin := c.volume("origin", block)
	const clients = 8
	atOnce := func(call func(*co) (string, error)) {
		t.Helper()
		var all sync.WaitGroup
		ids := make([]string, clients)
		for i := range clients {
			client := *c
			client.Clients = c.driver.Connect()
			all.Go(func() {
				ids[i], _ = untilDone(&client, fmt.Sprintf("client %d", i), func() (string, error) { return call(&client) })
			})
		}
		before := len(c.lvs())
		all.Wait()
		for _, id := range ids {
			if id != ids[0] || id == "" {
				t.Errorf("the clients have got %q", ids)
				break
			}
		}
		if n := len(c.lvs()) - min(before, 1); n < 1 || n > 2 {
			t.Errorf("LVs: %v", c.lvs())
		}
	}
	atOnce(func(c *co) (string, error) {
		s, err := c.trySnapshot("s", origin.GetVolumeId())
		return s.GetSnapshotId(), err
	})
	if lvs := c.lvs(); len(lvs) != 2 {
		t.Errorf("LVs of one volume and one snapshot: %v", lvs)
	}
	atOnce(func(c *co) (string, error) {
		res, err := c.Controller.CreateVolume(c.context(), c.volumeRequest("v", block))
		return res.GetVolume().GetVolumeId(), err
	})
	if lvs := c.lvs(); len(lvs) != 3 {
		t.Errorf("LVs of two volumes and one snapshot: %v", lvs)
	}
}

// holdGroup takes LVM's own lock of the volume group, as a slow LVM command would, until release is called.
func (c *co) holdGroup() (release func()) {
	c.t.Helper()
	dir := strings.Trim(strings.TrimPrefix(strings.TrimSpace(labtest.Run(c.t, "lvmconfig", "--type", "full", "global/locking_dir")), "locking_dir="), `"`)
	path := filepath.Join(dir, "V_"+c.vg.Name)
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		c.ok(err)
		c.ok(unix.Flock(int(f.Fd()), unix.LOCK_EX))
		// LVM removes the file when it is done: another one may have taken its place.
		ours, err := f.Stat()
		c.ok(err)
		if now, err := os.Stat(path); err == nil && os.SameFile(ours, now) {
			release = sync.OnceFunc(func() { _ = f.Close() })
			c.t.Cleanup(release)
			return release
		}
		_ = f.Close()
	}
}

// A client that gives up does not interrupt LVM: its retry gets Aborted until the first call is done, and then
// the result.
func TestImpatientClient(t *testing.T) {
	c := newCO(t)
	origin := c.volume("origin", block)
	makers := map[string]func(ctx context.Context) (string, error){
		"snapshot": func(ctx context.Context) (string, error) {
			res, err := c.Controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: origin.GetVolumeId()})
			return res.GetSnapshot().GetSnapshotId(), err
		},
		"volume": func(ctx context.Context) (string, error) {
			res, err := c.Controller.CreateVolume(ctx, c.volumeRequest("v", block))
			return res.GetVolume().GetVolumeId(), err
		},
	}
	for what, create := range makers {
		before := len(c.lvs())
		release := c.holdGroup()
		short, cancel := context.WithTimeout(c.context(), 500*time.Millisecond)
		defer cancel()
		_, err := create(short)
		c.fails("the impatient call", err, codes.DeadlineExceeded)
		for range 3 {
			_, err = create(c.context())
			c.fails("a retry while LVM works", err, codes.Aborted)
		}
		release()
		id, _ := untilDone(c, what, func() (string, error) { return create(c.context()) })
		again, aborted := untilDone(c, what, func() (string, error) { return create(c.context()) })
		if id == "" || id != again || aborted > 0 {
			t.Errorf("%s: %q, and again %q after %d Aborted", what, id, again, aborted)
		}
		if lvs := c.lvs(); len(lvs) != before+1 {
			t.Errorf("%s: LVs: %v", what, lvs)
		}
	}
}

// The administrator works in the same group with LVM's own commands while the driver is busy: nobody fails.
func TestAdministratorInParallel(t *testing.T) {
	c := newCO(t)
	origin := c.volume("origin", block)
	const each = 20
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range each {
			if _, err := c.trySnapshot(fmt.Sprint(i), origin.GetVolumeId()); err != nil {
				t.Errorf("the driver's snapshot %d: %v", i, err)
			}
		}
	}()
	vg := c.vg.Name
	admin := func(i int) [][]string {
		lv := fmt.Sprintf("admin%d", i)
		return [][]string{
			{"lvcreate", "--type", "thin", "-V", "8m", "-n", lv, "--thinpool", vg + "/pool"},
			{"lvcreate", "-s", "-n", lv + "s", vg + "/" + lv},
			{"lvs", vg},
			{"lvremove", "-y", vg + "/" + lv},
		}
	}
	for i := range each / 4 {
		for _, argv := range admin(i) {
			labtest.Run(t, argv...)
		}
	}
	<-done
	if lvs := c.lvs(); len(lvs) != 1+each+each/4 {
		t.Errorf("LVs: %v", lvs)
	}
}
