//go:build lab

package integration_test

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// nodes are what kubelet does for volumes: mounted ones, in a group whose pool hangs and in another.
type nodes struct {
	*co
	hung       *use
	elsewhere  *csi.Volume
	goroutines int
}

// nodesOf makes the volumes, before anything hangs.
func (c *co) nodesOf(other *labtest.Group) *nodes {
	c.t.Helper()
	inOther := func(r *csi.CreateVolumeRequest) { r.Parameters = map[string]string{"volumeGroup": other.Name} }
	n := &nodes{co: c, elsewhere: c.volume("elsewhere", ext4, ofSize(64*mib), inOther)}
	n.hung = c.use(c.volume("mounted", ext4, ofSize(64*mib)), ext4)
	n.hung.write("v1")
	n.goroutines = c.goroutines()
	return n
}

// goOn: the mounted volume's usage is told, it is published in a second place and unpublished; in the other group a volume is
// staged, written, read and unstaged.
func (n *nodes) goOn() {
	n.t.Helper()
	u := n.hung
	res, err := n.Node.NodeGetVolumeStats(n.context(), &csi.NodeGetVolumeStatsRequest{VolumeId: u.id, VolumePath: u.target, StagingTargetPath: u.staging})
	if err != nil || len(res.GetUsage()) != 2 || res.GetUsage()[0].GetTotal() < 32*mib {
		n.t.Errorf("the usage of a volume whose pool hangs: %v, %v", res, err)
	}
	second := filepath.Join(filepath.Dir(u.target), "second")
	_, err = n.Node.NodePublishVolume(n.context(), &csi.NodePublishVolumeRequest{
		VolumeId: u.id, StagingTargetPath: u.staging, TargetPath: second, VolumeCapability: ext4.capability(writer),
	})
	n.ok(err)
	var one, two unix.Stat_t // and no file: of what the kernel has not in memory the read would hang
	n.ok(unix.Stat(u.target, &one))
	n.ok(unix.Stat(second, &two))
	if one.Dev != two.Dev {
		n.t.Errorf("the second place shows device %d, want %d", two.Dev, one.Dev)
	}
	_, err = n.Node.NodeUnpublishVolume(n.context(), &csi.NodeUnpublishVolumeRequest{VolumeId: u.id, TargetPath: second})
	n.ok(err)

	there := n.use(n.elsewhere, ext4)
	there.write("v2")
	there.holds("v2")
	there.release()
}

// end releases what was mounted, when nothing hangs any more, and compares the driver's goroutines with those of before.
func (n *nodes) end() {
	n.t.Helper()
	n.hung.holds("v1")
	n.hung.release()
	n.eventually("as many goroutines as before", func() error {
		if now := n.co.goroutines(); now > n.goroutines {
			return fmt.Errorf("%d goroutines, were %d", now, n.goroutines)
		}
		return nil
	})
}

var goroutines = regexp.MustCompile(`(?m)^go_goroutines ([0-9]+)$`)

// goroutines are the driver's.
func (c *co) goroutines() int {
	c.t.Helper()
	m := goroutines.FindStringSubmatch(c.metrics())
	if m == nil {
		c.t.Fatal("the driver does not say how many goroutines it has")
	}
	n, err := strconv.Atoi(m[1])
	c.ok(err)
	return n
}
