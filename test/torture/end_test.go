//go:build lab

package torture_test

import (
	"slices"
	"strings"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// atTheEnd: LVM's and the pool's own checks, of what all this has left, when nothing is mounted any more.
func (w *world) atTheEnd() {
	t := w.t
	labtest.Run(t, "vgck", w.vg.Name)
	labtest.Run(t, "vgchange", "--activate", "n", w.vg.Name)
	tmeta := w.vg.Name + "/" + w.vg.ThinPool + "_tmeta"
	labtest.Run(t, "lvchange", "--yes", "--activate", "y", tmeta)
	labtest.Run(t, "thin_check", "/dev/"+tmeta)
	in := strings.Fields(labtest.Run(t, "thin_ls", "--no-headers", "--format", "DEV", "/dev/"+tmeta))
	known := strings.Fields(labtest.Run(t, "lvs", "--noheadings", "--options", "thin_id", "--select", "thin_id>=0", w.vg.Name))
	slices.Sort(in)
	slices.Sort(known)
	if !slices.Equal(in, known) {
		t.Errorf("the pool has the devices %v, and LVM %v", in, known)
	}
	labtest.Run(t, "lvchange", "--activate", "n", tmeta)
}
