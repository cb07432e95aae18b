package lvm_test

import (
	"errors"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// A pool's data and metadata grow online, to a size and not by one, so that it does not matter who else does it; the spare for
// the repair of metadata grows with it.
func contractPoolGrowth(t *testing.T, f fixture) {
	f.create(t, "v", 16*mib)
	free := func() int64 {
		t.Helper()
		vg, err := f.client.VG(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return vg.FreeBytes
	}
	before := free()
	for range 2 {
		if err := f.client.ExtendPoolMetadata(t.Context(), poolName, 2*poolMetadata); err != nil {
			t.Fatal(err)
		}
		if err := f.client.Extend(t.Context(), poolName, poolBytes+extent); err != nil {
			t.Fatal(err)
		}
	}
	st, err := f.kernel.PoolStatus(t.Context(), f.group, poolName)
	if err != nil {
		t.Fatal(err)
	}
	if st.MetadataBytes() != 2*poolMetadata || st.SizeBytes() != poolBytes+extent {
		t.Errorf("after growth: %+v", st)
	}
	if took, want := before-free(), int64(2*poolMetadata+extent); took != want {
		t.Errorf("growth took %d bytes of the group, want %d", took, want)
	}
	// Nobody shrinks what is there.
	if err := errors.Join(f.client.ExtendPoolMetadata(t.Context(), poolName, poolMetadata), f.client.Extend(t.Context(), poolName, poolBytes)); err != nil {
		t.Errorf("to less than there is: %v", err)
	}
	if again, err := f.kernel.PoolStatus(t.Context(), f.group, poolName); err != nil || again != st {
		t.Errorf("after that: %+v, %v; before: %+v", again, err, st)
	}
	for what, err := range map[string]error{
		"data":     f.client.Extend(t.Context(), poolName, 1<<45),
		"metadata": f.client.ExtendPoolMetadata(t.Context(), poolName, poolBytes+before),
	} {
		if !errors.Is(err, lvm.ErrNoSpace) {
			t.Errorf("more %s than the group has: %v", what, err)
		}
	}
}
