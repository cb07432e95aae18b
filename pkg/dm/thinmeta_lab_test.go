//go:build lab

package dm

import (
	"slices"
	"testing"
)

// A pool has one metadata snapshot at most, and its status says so; what the kernel can make is what it has made.
func TestLabMetadataSnapshot(t *testing.T) {
	g, c := labGroup(t)
	targets, err := c.Targets(t.Context())
	if err != nil || !slices.Contains(targets, "thin-pool") || !slices.Contains(targets, "linear") {
		t.Errorf("targets %v, %v", targets, err)
	}
	held := func(want bool) {
		t.Helper()
		if root, err := c.MetadataSnapshot(t.Context(), g.Name, g.ThinPool); err != nil || (root != 0) != want {
			t.Errorf("root %d, %v, want one: %t", root, err, want)
		}
	}
	held(false)
	if err := c.ReserveMetadataSnapshot(t.Context(), g.Name, g.ThinPool); err != nil {
		t.Fatal(err)
	}
	held(true)
	if err := c.ReserveMetadataSnapshot(t.Context(), g.Name, g.ThinPool); err == nil {
		t.Error("there are two")
	}
	if err := c.ReleaseMetadataSnapshot(t.Context(), g.Name, g.ThinPool); err != nil {
		t.Error(err)
	}
	held(false)
}
