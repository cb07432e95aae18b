//go:build lab

package integration_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

var names = map[string]string{
	"128 bytes":         strings.Repeat("x", 128),
	"128 others":        strings.Repeat("x", 127) + "y",
	"unicode":           "ведро/スナップ/🗻",
	"128 in unicode":    strings.Repeat("ä", 64),
	"slashes":           "../../dev/null/",
	"a dash":            "-n",
	"an option":         "--addtag=lvmsnap.driver=x",
	"reserved by LVM":   "snapshot-0b6a7f0e",
	"reserved by LVM 2": "pvmove0_tdata",
	"blanks":            " a  b\t\n",
	"shell":             "`id`;$(id) 'x' \"y\" \\ #",
	"a tag":             "@lvmsnap.driver=csi.lvmsnap.io",
	"commas":            "a,b=c,",
	"dot":               ".",
	"case":              "CASE", "other case": "case",
}

var lvPattern = regexp.MustCompile(`^csi-[vs]-[a-z2-7]{26}$`)

// Names may be anything but control characters. They never become the names of LVs, and never meet.
func TestNames(t *testing.T) {
	c := newCO(t)
	ids := map[string]string{}
	for what, name := range names {
		v := c.volume(name, block, ofSize(mib))
		s := c.snapshot(name, v)
		if again := c.volume(name, block, ofSize(mib)); again.GetVolumeId() != v.GetVolumeId() {
			t.Errorf("%s: a retry made another volume", what)
		}
		if again := c.snapshot(name, v); again.GetSnapshotId() != s.GetSnapshotId() {
			t.Errorf("%s: a retry made another snapshot", what)
		}
		for _, id := range []string{v.GetVolumeId(), s.GetSnapshotId()} {
			if other, ok := ids[id]; ok {
				t.Errorf("%s and %s have one id", what, other)
			}
			ids[id] = what
			if len(id) > 128 {
				t.Errorf("%s: id %q is too long", what, id)
			}
		}
	}
	lvs := c.lvs()
	for _, lv := range lvs {
		if !lvPattern.MatchString(lv) {
			t.Errorf("LV %q", lv)
		}
	}
	if len(lvs) != len(ids) {
		t.Errorf("%d LVs for %d ids", len(lvs), len(ids))
	}
	c.deleteAll()
}

func TestImpossibleNames(t *testing.T) {
	c := newCO(t)
	v := c.volume("v", block)
	for what, name := range map[string]string{
		"none": "", "129 bytes": strings.Repeat("x", 129), "130 in unicode": strings.Repeat("ä", 65), "a control character": "a\x1bb", "a zero": "a\x00b",
	} {
		_, err := c.Controller.CreateVolume(c.context(), c.volumeRequest(name, block))
		c.fails(what, err, codes.InvalidArgument, "name")
		_, err = c.trySnapshot(name, v.GetVolumeId())
		c.fails(what, err, codes.InvalidArgument, "name")
	}
	_, err := c.Controller.CreateSnapshot(c.context(), &csi.CreateSnapshotRequest{Name: "s"})
	c.fails("no source", err, codes.InvalidArgument, "source_volume_id")
	if lvs := c.lvs(); len(lvs) != 1 {
		t.Errorf("LVs: %v", lvs)
	}
}
