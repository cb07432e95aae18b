package lvm_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// What one volume has given up another one gets, extent by extent, while it is active.
func contractExtendOnto(t *testing.T, f fixture) {
	f.thick(t, "v", 8<<20)
	f.thick(t, "between", 4<<20)
	f.thick(t, "reserve", 8<<20)
	before, err := f.client.Extents(t.Context(), "v")
	if err != nil || len(before) != 1 {
		t.Fatalf("extents %q, %v", before, err)
	}
	reserved, err := f.client.Extents(t.Context(), "reserve")
	if err != nil || len(reserved) != 1 || reserved[0] == before[0] {
		t.Fatalf("extents %q, %v", reserved, err)
	}
	if err := errors.Join(
		f.client.Activate(t.Context(), "v"), f.client.Remove(t.Context(), "reserve"), f.client.Remove(t.Context(), "between"),
		f.client.ExtendOnto(t.Context(), "v", 16<<20, reserved),
	); err != nil {
		t.Fatal(err)
	}
	if got, err := f.client.Extents(t.Context(), "v"); err != nil || !slices.Equal(got, append(before, reserved...)) {
		t.Errorf("extents %q, %v; want %q and %q", got, err, before, reserved)
	}
	if _, err := f.client.Extents(t.Context(), poolName); !errors.Is(err, lvm.ErrNotLinear) {
		t.Errorf("a thin pool: %v", err)
	}
	if _, err := f.client.Extents(t.Context(), "nosuch"); !errors.Is(err, lvm.ErrNotFound) {
		t.Errorf("no such volume: %v", err)
	}
}
