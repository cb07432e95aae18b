package lvm

import "fmt"

// countExtents fills in how many bytes the physical volumes have and how many of them no LV uses, as vgs does
// (vg_size, vg_free): hidden LVs count, and so do physical volumes that are missing or not allocatable.
func (m *Metadata) countExtents(pvs, volumes section) error {
	free := map[string]int64{} // extents, by the name that segments use
	for name, pv := range pvs.children() {
		n := pv.int("pe_count")
		if n < 0 || n > maxExtents {
			return fmt.Errorf("LVM metadata of %s: %s has %d extents", m.Group, name, n)
		}
		free[name] = n
		m.SizeBytes += n * m.ExtentBytes
	}
	for name, lv := range volumes.children() {
		for i := range lv.int("segment_count") {
			seg := lv.segment(i + 1)
			if seg == nil {
				return fmt.Errorf("LVM metadata of %s/%s: segment %d is missing", m.Group, name, i+1)
			}
			takeExtents(seg, free)
		}
	}
	for name, n := range free {
		if n < 0 {
			return fmt.Errorf("LVM metadata of %s: more extents of %s are in use than it has", m.Group, name)
		}
		m.FreeBytes += n * m.ExtentBytes
	}
	return nil
}

// maxExtents is MAX_EXTENT_COUNT of LVM.
const maxExtents = 1<<32 - 1

// takeExtents subtracts what a segment has of physical volumes: alternately a name and the first extent. Where the name is
// an LV's, as below RAID, it is that LV's segments that have the extents.
func takeExtents(seg section, free map[string]int64) {
	areas := seg.list("stripes")
	each := seg.int("extent_count")
	if areas == nil {
		areas = seg.list("mirrors") // of a pvmove: every area is a copy of the whole
	} else if n := int64(len(areas) / 2); n > 0 {
		each /= n
	}
	for i := 0; i+1 < len(areas); i += 2 {
		if name, ok := areas[i].(string); ok {
			if _, isPV := free[name]; isPV {
				free[name] -= each
			}
		}
	}
}
