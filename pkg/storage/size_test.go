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
