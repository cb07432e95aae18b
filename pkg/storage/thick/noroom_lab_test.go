//go:build lab

package thick_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/backendtest"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// There is room for the clone of a volume, and not for the snapshot that it is copied from: that is said, and nothing is left.
func TestCloneWithoutRoomForItsSnapshot(t *testing.T) {
	m := newMachine(t)
	v := m.activate(t, m.create(t, "v", thickClass, nil)) // 32 MiB
	backendtest.WriteDevice(t, v, "v1")
	free, err := strconv.ParseInt(strings.TrimSpace(
		labtest.Run(t, "vgs", "--noheadings", "--units", "b", "--nosuffix", "-o", "vg_free", m.vg.Name)), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	labtest.Run(t, "lvcreate", "-y", "-an", "-Zn", "-Wn", "-n", "ballast", "-L", fmt.Sprint(free-48*mib, "b"), m.vg.Name)
	state := func() string {
		return labtest.Run(t, "lvs", "-a", "--noheadings", "-o", "lv_name,lv_size,lv_attr", m.vg.Name)
	}
	before := state()
	spec := storage.VolumeSpec{Name: "r", Access: storage.AccessBlock, Source: &storage.Source{Kind: storage.SourceVolume, ID: v.ID}}
	for range 2 {
		_, err := m.CreateVolume(t.Context(), spec)
		if !errors.Is(err, storage.ErrNoSpace) || !strings.Contains(err.Error(), "16 MiB free") || !strings.Contains(err.Error(), "beside the 32 MiB of the clone") {
			t.Fatalf("no room: %v, want ErrNoSpace with the numbers", err)
		}
		if after := state(); after != before {
			t.Errorf("left:\n%s\nwas:\n%s", after, before)
		}
	}
	labtest.Run(t, "lvremove", "-y", m.vg.Name+"/ballast")
	m.expect(t, m.create(t, "r", storage.Class{}, spec.Source), "v1")
	if left := state(); strings.Contains(left, "csi-c-") {
		t.Errorf("left:\n%s", left)
	}
	m.expect(t, v, "v1")
}
