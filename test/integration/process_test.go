//go:build lab

package integration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// Whoever can call the driver can destroy data: its socket is root's, from the first moment on.
func TestSocket(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	c := newCO(t)
	isPrivate := func() {
		t.Helper()
		info, err := os.Lstat(c.driver.Socket)
		c.ok(err)
		if info.Mode() != os.ModeSocket|0o600 {
			t.Errorf("the socket has mode %s", info.Mode())
		}
	}
	isPrivate()

	// A live driver's socket is not taken over,
	code, output := driverproc.Run(t, nil, c.driver.Args()...)
	if code == 0 || !strings.Contains(output, "another server answers on "+c.driver.Socket) {
		t.Errorf("a second driver on the same socket: exit code %d: %s", code, output)
	}
	c.volume("v", block) // and it still answers
	// a dead one's is,
	c.driver.Kill()
	isPrivate()
	c.driver.Start()
	isPrivate()
	// and a file that is no socket is nobody's business.
	c.driver.Stop()
	c.ok(os.WriteFile(c.driver.Socket, []byte("precious"), 0o600))
	code, output = driverproc.Run(t, nil, c.driver.Args()...)
	if code == 0 || !strings.Contains(output, "is not a socket") {
		t.Errorf("a file in the socket's place: exit code %d: %s", code, output)
	}
	c.ok(os.Remove(c.driver.Socket))
}

// SIGTERM while a call waits for LVM: the call ends well, new ones are refused, and then the driver ends.
func TestTerminationDrains(t *testing.T) {
	c := newCO(t)
	v := c.volume("v", block)
	release := c.holdGroup()
	type answer struct {
		s   *csi.Snapshot
		err error
	}
	done := make(chan answer, 1)
	go func() {
		s, err := c.trySnapshot("s", v.GetVolumeId())
		done <- answer{s, err}
	}()
	time.Sleep(time.Second)
	c.driver.Signal(syscall.SIGTERM)
	time.Sleep(time.Second)
	select {
	case a := <-done:
		t.Errorf("the call has ended before LVM: %v, %v", a.s, a.err)
	default:
	}
	release()
	if a := <-done; a.err != nil || !a.s.GetReadyToUse() {
		t.Errorf("the call that was running: %v, %v", a.s, a.err)
	}
	c.driver.WaitStopped()
	c.driver.Start()
	c.snapshot("s", v)
	if lvs := c.lvs(); len(lvs) != 2 {
		t.Errorf("LVs: %v", lvs)
	}
}

// What the driver cannot work without is named at its start.
func TestRefusesToStart(t *testing.T) {
	vg := labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool"})
	old := t.TempDir()
	script := "#!/bin/sh\necho '  LVM version:     2.02.98(2) (2012-10-15)'\n"
	if err := os.WriteFile(filepath.Join(old, "lvm"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	args := func(group string) []string {
		dir := t.TempDir()
		return []string{"--endpoint", "unix://" + filepath.Join(dir, "s"), "--node-id", "node-1", "--volume-group", group, "--work-dir", dir}
	}
	for what, test := range map[string]struct {
		args  []string
		env   []string
		words []string
	}{
		"no such group":     {args: args("nosuchgroup"), words: []string{"nosuchgroup", "vgcreate"}},
		"one of two groups": {args: args(vg.Name + ",nosuchgroup"), words: []string{"nosuchgroup"}},
		"no group":          {args: args("")[:4], words: []string{"--volume-group"}},
		"not a group":       {args: args("-a"), words: []string{"--volume-group", "-a"}},
		"no LVM":            {args: args(vg.Name), env: []string{"PATH=" + t.TempDir()}, words: []string{"LVM", "apt-get install lvm2"}},
		"an old LVM":        {args: args(vg.Name), env: []string{"PATH=" + old}, words: []string{"2.02.98", "too old", "2.03.11"}},
		"no socket":         {args: append(args(vg.Name), "--endpoint", "tcp://:1"), words: []string{"unix://"}},
		"a node's name":     {args: append(args(vg.Name), "--node-id", "a/b"), words: []string{"a/b"}},
		"an unknown flag":   {args: append(args(vg.Name), "--nosuchflag"), words: []string{"nosuchflag"}},
	} {
		t.Run(what, func(t *testing.T) {
			code, output := driverproc.Run(t, test.env, test.args...)
			if code <= 0 {
				t.Errorf("exit code %d", code)
			}
			for _, word := range test.words {
				if !strings.Contains(output, word) {
					t.Errorf("%q is not named:\n%s", word, output)
				}
			}
		})
	}
}

// A group without a pool, or with two, and pools that do not exist: the call says what to do.
func TestPoolErrors(t *testing.T) {
	c := newCOWith(t, labtest.Options{}, driverproc.Options{})
	withPool := func(pool string) func(*csi.CreateVolumeRequest) {
		return func(req *csi.CreateVolumeRequest) { req.Parameters = map[string]string{"thinPool": pool} }
	}
	create := func(options ...func(*csi.CreateVolumeRequest)) error {
		_, err := c.Controller.CreateVolume(c.context(), c.volumeRequest("v", block, options...))
		return err
	}
	c.fails("no pool", create(), codes.InvalidArgument, c.vg.Name, "lvcreate --type thin-pool")
	for _, pool := range []string{"one", "two"} {
		labtest.Run(t, "lvcreate", "-y", "--type", "thin-pool", "-L", "64m", "-n", pool, c.vg.Name)
	}
	c.fails("two pools", create(), codes.InvalidArgument, "one", "two", "thinPool")
	c.fails("an unknown pool", create(withPool("three")), codes.InvalidArgument, "three", "one", "two")
	c.fails("an unknown parameter", create(func(req *csi.CreateVolumeRequest) {
		req.Parameters = map[string]string{"thinpool": "one"}
	}), codes.InvalidArgument, "thinpool", "thinPool", "volumeGroup", "type")
	c.ok(create(withPool("one"), ofSize(4*mib)))
}

// Nothing of the driver's is active unless it is staged: not at boot, and not by an administrator's vgchange.
func TestNotActivatedAutomatically(t *testing.T) {
	c := newCO(t)
	v := c.volume("v", ext4)
	u := c.use(v, ext4)
	u.write("v1")
	s := c.snapshot("s", v)
	active := func() []string {
		return strings.Fields(labtest.Run(t, "lvs", "--noheadings", "-o", "lv_name", "-S", "lv_active=active && lv_name=~^csi-", c.vg.Name))
	}
	if got := active(); len(got) != 1 || got[0] != lvOf(v.GetVolumeId()) {
		t.Errorf("active while the volume is staged: %v", got)
	}
	u.release()
	for _, how := range []string{"-aay", "-ay"} {
		labtest.Run(t, "vgchange", "-an", c.vg.Name)
		labtest.Run(t, "vgchange", how, c.vg.Name)
		if got := active(); len(got) > 0 {
			t.Errorf("active after vgchange %s: %v", how, got)
		}
	}
	// From an inactive pool too.
	labtest.Run(t, "vgchange", "-an", c.vg.Name)
	c.driver.Restart()
	labtest.Run(t, "vgchange", "-an", c.vg.Name)
	c.use(c.volume("restored", ext4, fromSnapshot(s)), ext4).holds("v1")
	c.use(v, ext4).holds("v1")
}

// fill writes to an LV of the administrator's until the pool is that full.
func (c *co) fill(percent float64, poolBytes int64) {
	c.t.Helper()
	labtest.Run(c.t, "lvcreate", "--type", "thin", "-V", fmt.Sprintf("%db", poolBytes), "-n", "filler", "--thinpool", c.vg.Name+"/pool")
	f, err := os.OpenFile(c.vg.Device("filler"), os.O_WRONLY, 0)
	c.ok(err)
	defer f.Close()
	chunk := make([]byte, mib)
	for offset := int64(0); float64(offset) < float64(poolBytes)*percent/100; offset += mib {
		chunk[0]++
		_, err := f.WriteAt(chunk, offset)
		c.ok(err)
	}
	c.ok(f.Sync())
}

// Nothing is created in a pool that is nearly full: what is there needs the rest.
func TestPoolReserve(t *testing.T) {
	const poolBytes = 256 * mib
	c := newCOWith(t, labtest.Options{ThinPool: "pool", PoolSize: fmt.Sprintf("%db", poolBytes)}, driverproc.Options{})
	v := c.volume("v", block, ofSize(8*mib))
	s := c.snapshot("early", v)
	spare := c.snapshot("spare", v)
	c.fill(96, poolBytes)

	words := []string{c.vg.Name + "/pool", "256 MiB", "%", "5%", "--pool-data-reserve"}
	_, err := c.trySnapshot("late", v.GetVolumeId())
	c.fails("snapshot", err, codes.ResourceExhausted, words...)
	_, err = c.Controller.CreateVolume(c.context(), c.volumeRequest("late", block, ofSize(4*mib)))
	c.fails("volume", err, codes.ResourceExhausted, words...)
	_, err = c.Controller.CreateVolume(c.context(), c.volumeRequest("restored", block, fromSnapshot(s)))
	c.fails("restore", err, codes.ResourceExhausted, words...)
	capacity, err := c.Controller.GetCapacity(c.context(), &csi.GetCapacityRequest{})
	if err != nil || capacity.GetAvailableCapacity() != 0 {
		t.Errorf("capacity: %v, %v", capacity, err)
	}
	health, err := c.Controller.ControllerListVolumeHealth(c.context(), &csi.ControllerListVolumeHealthRequest{})
	if err != nil || len(health.GetEntries()) != 1 {
		t.Errorf("health: %v, %v", health, err)
	}
	// What exists can be used, found and deleted, and asked for again.
	c.snapshot("early", v)
	c.use(v, block).release()
	c.deleteSnapshot(spare)
	if lvs := c.lvs(); len(lvs) != 3 {
		t.Errorf("LVs: %v", lvs)
	}

	labtest.Run(t, "lvremove", "-y", c.vg.Name+"/filler")
	c.snapshot("late", v)
	c.volume("restored", block, fromSnapshot(s))
	c.deleteAll()
}
