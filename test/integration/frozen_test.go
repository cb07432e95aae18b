//go:build lab

package integration_test

import (
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// Somebody has frozen the file system of a volume (fsfreeze): LVM cannot freeze it as well, and fails. Nothing is left, nothing
// hangs, and when it is thawed the retry has the data of its own moment. The kernel does not freeze a btrfs for LVM, so that one which
// is frozen is cut, as it is.
func TestFrozenFileSystem(t *testing.T) {
	c := newCOWith(t, labtest.Options{ThinPool: "pool", PoolSize: "2g"}, driverproc.Options{})
	pid := c.driver.PID()
	for _, class := range []string{"thin", "thick"} {
		t.Run("ext4/"+class, func(t *testing.T) { c.in(t).frozen(class, ext4, 64*mib) })
	}
	t.Run("xfs/thin", func(t *testing.T) { c.in(t).frozen("thin", kind{name: "xfs"}, 320*mib) })
	t.Run("btrfs", func(t *testing.T) { c.in(t).frozenBtrfs() })
	if c.driver.PID() != pid {
		t.Error("the driver was started anew")
	}
}

func (c *co) frozen(class string, k kind, size int64) {
	v := c.patient("v", k, ofType(class), ofSize(size))
	u := c.use(v, k)
	u.write("v1")
	before := c.devices()
	thaw := u.freeze()
	defer thaw()
	for range 2 {
		_, err := c.trySnapshot("s", v.GetVolumeId())
		c.fails("snapshot of a frozen file system", err, codes.FailedPrecondition, "fsfreeze --unfreeze", lvOf(v.GetVolumeId()))
		c.lists("beside a frozen file system")
		if after := c.devices(); after != before {
			c.t.Errorf("devices now:\n%s\nbefore:\n%s", after, before)
		}
		if lvs := c.lvs(); len(lvs) != 1 {
			c.t.Errorf("left: %v", lvs)
		}
	}
	thaw()
	u.write("v2")
	s := c.snapshot("s", v)
	u.write("v3")
	restored := c.use(c.patient("restored", k, fromSnapshot(s)), k)
	restored.holds("v2")
	u.holds("v3")
	restored.release()
	u.release()
	c.isClean(v.GetVolumeId(), k)
	c.deleteAll()
}

func (c *co) frozenBtrfs() {
	btrfs := kind{name: "btrfs"}
	v := c.volume("v", btrfs, ofSize(128*mib))
	u := c.use(v, btrfs)
	u.write("v1")
	before := c.devices()
	thaw := u.freeze()
	defer thaw()
	s := c.snapshot("s", v)
	if after := c.devices(); after != before {
		c.t.Errorf("devices now:\n%s\nbefore:\n%s", after, before)
	}
	thaw()
	u.write("v2")
	restored := c.use(c.volume("restored", btrfs, fromSnapshot(s)), btrfs)
	restored.holds("v1")
	restored.release()
	u.release()
	c.isClean(v.GetVolumeId(), btrfs)
	c.deleteAll()
}

// freeze freezes the volume's file system until the returned function is called, once or more often.
func (u *use) freeze() (thaw func()) {
	u.t.Helper()
	labtest.Run(u.t, "fsfreeze", "--freeze", u.target)
	frozen := true
	return func() {
		if frozen {
			frozen = false
			labtest.Run(u.t, "fsfreeze", "--unfreeze", u.target)
		}
	}
}

// devices are the group's in device-mapper, and whether they are suspended.
func (c *co) devices() string {
	c.t.Helper()
	var out []string
	for line := range strings.Lines(labtest.Run(c.t, "dmsetup", "info", "-c", "--noheadings", "-o", "name,suspended", "--sort", "name")) {
		if strings.HasPrefix(line, c.vg.Name+"-") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}
