package storage_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// What mkfs would refuse when the volume is staged is refused when it is created. Extents have 4 MiB.
func TestLeastSizeOfFileSystems(t *testing.T) {
	for name, tt := range map[string]struct {
		fsType          string
		access          storage.AccessType
		required, limit int64
		size            int64 // 0: refused
		words           string
	}{
		"ext4, one byte":           {fsType: "ext4", required: 1, size: 4 * mib},
		"xfs, least":               {fsType: "xfs", required: 300 * mib, size: 300 * mib},
		"xfs, least in extents":    {fsType: "xfs", required: 296*mib + 1, size: 300 * mib},
		"xfs, an extent less":      {fsType: "xfs", required: 296 * mib, words: "xfs needs at least 314572800 bytes (300 MiB), and 310378496 are requested"},
		"xfs, limit too low":       {fsType: "xfs", limit: 299 * mib, words: "xfs needs at least 314572800 bytes (300 MiB), and 310378496 are requested"},
		"xfs, no size":             {fsType: "xfs", size: 1 << 30},
		"btrfs, least in extents":  {fsType: "btrfs", required: 108*mib + 1, size: 112 * mib},
		"btrfs, an extent less":    {fsType: "btrfs", required: 108 * mib, words: "btrfs needs at least 114294784 bytes (109 MiB), and 113246208 are requested"},
		"block":                    {access: storage.AccessBlock, required: 1, size: 4 * mib},
		"the default file system":  {required: 1, size: 4 * mib},
		"xfs, larger than a limit": {fsType: "xfs", required: 1, limit: 1, words: "above the limit of 1"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			spec := storage.VolumeSpec{
				Name: "v", RequiredBytes: tt.required, LimitBytes: tt.limit, FSType: tt.fsType, Access: storage.AccessMount,
			}
			if tt.access != "" {
				spec.Access = tt.access
			}
			v, err := h.CreateVolume(t.Context(), spec)
			if tt.size != 0 {
				if err != nil || v.SizeBytes != tt.size {
					t.Errorf("got %d bytes, %v; want %d", v.SizeBytes, err, tt.size)
				}
				return
			}
			if !errors.Is(err, storage.ErrSizeRange) || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("got %v, want ErrSizeRange with %q", err, tt.words)
			}
			if got := h.changes(); len(got) > 0 {
				t.Errorf("commands: %q", got)
			}
		})
	}
}

// A copy has its source's size, whatever mkfs thinks of it: it is never formatted.
func TestCopiesHaveNoLeastSize(t *testing.T) {
	h := newHost(t)
	s, err := h.cut(t.Context(), "s", h.volume(t, "v"))
	must(t, err)
	_, err = h.CreateVolume(t.Context(), storage.VolumeSpec{
		Name: "r", Access: storage.AccessMount, FSType: "xfs", Source: &storage.Source{Kind: storage.SourceSnapshot, ID: s.ID},
	})
	must(t, err)
}

// What lies on stripes is restored and cloned at the size that was asked for, though LVM rounds it up by more than an extent.
func TestSizeOnStripes(t *testing.T) {
	for name, layout := range map[string]storage.Layout{
		"striped": {Stripes: 3}, "raid5": {RAIDType: "raid5", Stripes: 3}, "raid10": {RAIDType: "raid10", Stripes: 3, Mirrors: 1}, "raid1": {RAIDType: "raid1", Mirrors: 1},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			ctx := t.Context()
			size := map[bool]int64{true: 24 * mib, false: 16 * mib}[layout.Stripes == 3]
			spec := thickSpec("v")
			spec.RequiredBytes, spec.Class.Layout = 16*mib, layout
			v, err := h.CreateVolume(ctx, spec)
			must(t, err)
			found, err := h.Volume(ctx, v.ID)
			must(t, err)
			if found.RequestedBytes != 16*mib || found.SizeBytes != size {
				t.Errorf("requested %d, size %d", found.RequestedBytes, found.SizeBytes)
			}
			h.write(t, v, "v1")
			s, err := h.cut(ctx, "s", v)
			must(t, err)
			if found, err := h.Snapshot(ctx, s.ID); err != nil || found.SizeBytes != 16*mib || s.SizeBytes != 16*mib {
				t.Errorf("snapshot of %d bytes, found with %d, %v", s.SizeBytes, found.SizeBytes, err)
			}
			for kind, id := range map[storage.SourceKind]string{storage.SourceSnapshot: s.ID, storage.SourceVolume: v.ID} {
				spec := copySpec(spec.Class, kind, id)
				spec.Name, spec.RequiredBytes = string(kind), 16*mib
				r, err := h.CreateVolume(ctx, spec)
				must(t, err)
				found, err := h.Volume(ctx, r.ID)
				must(t, err)
				if got := h.content(t, r); got != "v1" || found.RequestedBytes != 16*mib || found.SizeBytes != size {
					t.Errorf("of the %s: %q in %d bytes, requested %d", kind, got, found.SizeBytes, found.RequestedBytes)
				}
			}
			must(t, h.DeleteSnapshot(ctx, s.ID))
			h.unstage(t, v)
			if layout.Stripes == 3 {
				if v, err := h.ExpandVolume(ctx, v.ID, 28*mib, 28*mib); !errors.Is(err, storage.ErrSizeRange) {
					t.Errorf("above the limit in whole stripes: %d, %v", v.SizeBytes, err)
				}
			}
			v = persist(t, func() (storage.Volume, error) { return h.ExpandVolume(ctx, v.ID, 28*mib, 36*mib) })
			found, err = h.Volume(ctx, v.ID)
			must(t, err)
			if found.RequestedBytes != 28*mib || v.RequestedBytes != 28*mib || h.content(t, v) != "v1" {
				t.Errorf("expanded: %+v, found %+v", v, found)
			}
		})
	}
}
