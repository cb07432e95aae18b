//go:build lab

package integration_test

import (
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// randomBytes are what random writes.
const randomBytes = 32 * mib

// random overwrites a block volume with numbers, but for every fifth MiB, which becomes zeroes, and returns the sum of it.
func (u *use) random(seed byte) (sum [sha256.Size]byte) {
	u.t.Helper()
	f, err := os.OpenFile(u.target, os.O_WRONLY|unix.O_DIRECT, 0)
	u.ok(err)
	numbers, hash, buf := rand.NewChaCha8([32]byte{seed}), sha256.New(), aligned(int(mib))
	for at := int64(0); at < randomBytes; at += mib {
		if clear(buf); at/mib%5 != 4 {
			_, _ = numbers.Read(buf)
		}
		_, _ = hash.Write(buf)
		_, err := f.WriteAt(buf, at)
		u.ok(err)
	}
	u.ok(errors.Join(f.Sync(), f.Close()))
	return [sha256.Size]byte(hash.Sum(nil))
}

// sum is that of all of a block volume, past the page cache.
func (u *use) sum() [sha256.Size]byte {
	u.t.Helper()
	f, err := os.OpenFile(u.target, os.O_RDONLY|unix.O_DIRECT, 0)
	u.ok(err)
	defer f.Close()
	hash := sha256.New()
	for buf := aligned(int(mib)); ; {
		n, err := f.Read(buf)
		if errors.Is(err, io.EOF) {
			return [sha256.Size]byte(hash.Sum(nil))
		}
		u.ok(err)
		_, _ = hash.Write(buf[:n])
	}
}

var copiedTo = regexp.MustCompile(`lvmsnap\.fill=copy:([0-9]+)`)

// copied waits until it is written down that the copy into an LV is beyond an offset, and says how far it is; false: it is complete.
func (c *co) copied(lv string, beyond int64) (at int64, going bool) {
	c.t.Helper()
	c.until("the copy's next checkpoint", func() bool {
		tags := strings.TrimSpace(labtest.Run(c.t, "lvs", "--noheadings", "-o", "lv_tags", "--select", "lv_name="+lv, c.vg.Name))
		going = tags == "" || strings.Contains(tags, "lvmsnap.fill=")
		if m := copiedTo.FindStringSubmatch(tags); m != nil {
			n, err := strconv.ParseInt(m[1], 10, 64)
			c.ok(err)
			at = n
		}
		return !going || at > beyond
	})
	return at, going
}

// The driver is killed up to twice while it copies, each time where it was written down how far it is: the next one goes on from
// there, and the copy has every byte that it is to have. (Into thin pools, at random moments: TestPowerCut.)
func TestCopyGoesOnAfterKills(t *testing.T) {
	c := newThickCO(t, "--copy-rate-limit=10Mi", "--copy-checkpoint-interval=100ms")
	v := c.patient("v", block, ofType("thick"), ofSize(randomBytes))
	u := c.use(v, block)
	want := u.random(1)
	s := c.snapshot("s", v)
	u.random(2) // over it: none of this may be in the copy
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = c.Controller.CreateVolume(c.context(), c.volumeRequest("copy", block, fromSnapshot(s), ofType("thick")))
	}()
	kills := 0
	for at := int64(0); kills < 2; kills++ {
		now, going := c.copied(storage.VolumeLV("copy"), at)
		if !going {
			break
		}
		c.driver.Kill()
		c.driver.Start()
		at = now
		t.Logf("killed when byte %d of %d was written down", at, randomBytes)
	}
	<-done
	if kills == 0 {
		t.Error("it was too fast")
	}
	r := c.use(c.patient("copy", block, fromSnapshot(s), ofType("thick")), block)
	if got := r.sum(); got != want {
		t.Errorf("the copy has the sum %x, want %x", got, want)
	}
}
