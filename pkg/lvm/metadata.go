package lvm

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Metadata is what a volume group's metadata says, without any question to LVM or the kernel: what exists, but
// not what is active.
type Metadata struct {
	Group       string
	Sequence    uint64 // vg_seqno: changes with every commit
	ExtentBytes int64
	SizeBytes   int64    // of all physical volumes' extents
	FreeBytes   int64    // of those that no LV uses
	PVs         []string // UUIDs
	MissingPVs  int      // of those, as LVM wrote down when it missed them, or found when it was asked
	LVs         []LV     // visible ones, by name; see LV.Attr for what is unknown. Do not modify.
	// TextBytes is the length of the metadata, TextLimitBytes how long it can become: LVM refuses a change that
	// would make it longer. 0 is unknown.
	TextBytes, TextLimitBytes int64
}

// ParseMetadata reads the text that LVM keeps in a metadata area, or writes by vgcfgbackup(8).
func ParseMetadata(text []byte) (Metadata, error) { return new(metadataParser).parse(text) }

func (p *metadataParser) parse(text []byte) (Metadata, error) {
	rest, volumes := splitVolumes(text)
	root, err := parseText(string(rest))
	if err != nil {
		return Metadata{}, err
	}
	if root.text("contents") != "Text Format Volume Group" || root.int("version") != 1 {
		return Metadata{}, errors.New("LVM metadata of an unknown kind")
	}
	for name, vg := range root.children() {
		return p.group(name, vg, volumes)
	}
	return Metadata{}, errors.New("LVM metadata without a volume group")
}

func (p *metadataParser) group(name string, vg section, texts []volumeText) (Metadata, error) {
	m := Metadata{Group: name, Sequence: uint64(max(vg.int("seqno"), 0)), ExtentBytes: vg.int("extent_size") * sectorBytes}
	if m.Sequence == 0 || m.ExtentBytes <= 0 {
		return Metadata{}, fmt.Errorf("LVM metadata of %s: seqno %d, extent_size %d", name, m.Sequence, vg.int("extent_size"))
	}
	for _, pv := range vg.child("physical_volumes").children() {
		m.PVs = append(m.PVs, pv.text("id"))
		if slices.Contains(append(pv.texts("flags"), pv.texts("status")...), "MISSING") {
			m.MissingPVs++
		}
	}
	slices.Sort(m.PVs)
	if p.extentBytes != m.ExtentBytes {
		*p = metadataParser{extentBytes: m.ExtentBytes}
	}
	volumes, err := p.sections(texts)
	if err != nil {
		return Metadata{}, err
	}
	if err := m.countExtents(vg.child("physical_volumes"), volumes); err != nil {
		return Metadata{}, err
	}
	cow := cowSnapshots(volumes)
	m.LVs = make([]LV, 0, len(volumes))
	for name, s := range volumes.children() {
		v, err := p.volume(name, s, m.ExtentBytes, cow)
		if err != nil {
			return Metadata{}, fmt.Errorf("LVM metadata of %s/%s: %w", m.Group, name, err)
		}
		if v.visible {
			m.LVs = append(m.LVs, v.lv)
		}
	}
	slices.SortFunc(m.LVs, func(a, b LV) int { return strings.Compare(a.Name, b.Name) })
	return m, nil
}

// isVisible: a volume of type snapshot only ties a COW to its origin; lvs shows the COW itself, which is not VISIBLE.
func isVisible(s, tie section) bool {
	return tie != nil || slices.Contains(s.texts("status"), "VISIBLE") && s.segment(1).text("type") != "snapshot"
}

// cows are the group's COW snapshots, and the LVs that have some.
type cows struct {
	snapshots map[string]section // the segments that tie each to its origin, by the snapshot's name
	origins   map[string]bool
}

func cowSnapshots(volumes section) cows {
	out := cows{map[string]section{}, map[string]bool{}}
	for _, lv := range volumes.children() {
		if seg := lv.segment(1); seg.text("type") == "snapshot" {
			out.snapshots[seg.text("cow_store")] = seg
			out.origins[seg.text("origin")] = true
		}
	}
	return out
}

func parseVolume(name string, s section, extentBytes int64, cow cows) (LV, error) {
	lv := LV{Name: name, UUID: s.text("id"), DataPercent: -1, MetadataPercent: -1}
	if tags := s.texts("tags"); len(tags) > 0 {
		slices.Sort(tags) // as lvs does
		lv.Tags = tags
	}
	for i := range s.int("segment_count") {
		seg := s.segment(i + 1)
		if seg == nil || seg.int("extent_count") <= 0 {
			return LV{}, fmt.Errorf("segment %d of %d is missing", i+1, s.int("segment_count"))
		}
		lv.SizeBytes += seg.int("extent_count") * extentBytes
	}
	seg := s.segment(1)
	lv.SegType = seg.text("type")
	lv.TransactionID = uint64(max(seg.int("transaction_id"), 0))
	attr := []byte("-rXXXXX-XX")
	switch lv.SegType {
	case "thin":
		attr[attrTypeBit] = byte(TypeThinVolume)
		lv.Pool, lv.Origin = seg.text("thin_pool"), seg.text("origin")
		lv.ThinID = uint32(seg.int("device_id")) //nolint:gosec // 24 bits
	case "thin-pool":
		attr[attrTypeBit] = byte(TypeThinPool)
		for _, message := range seg.children() { // lvm2: _thin_pool_text_import() in lib/thin/thin.c
			m := PoolMessage{Create: message.text("create")}
			id, isDelete := message.value("delete").(int64)
			if isDelete {
				m.Delete = uint32(id) //nolint:gosec // 24 bits
			}
			m.Unknown = m.Create == "" && !isDelete
			lv.Queue = append(lv.Queue, m)
		}
		if seg.int("zero_new_blocks") != 0 {
			attr[attrZeroBit] = 'z'
		}
	default:
		if seg, ok := cow.snapshots[name]; ok {
			attr[attrTypeBit], lv.Origin, lv.OriginBytes = byte(TypeSnapshot), seg.text("origin"), seg.int("extent_count")*extentBytes
		} else if cow.origins[name] {
			attr[attrTypeBit] = byte(TypeOrigin)
		} else if strings.HasPrefix(lv.SegType, "raid") {
			attr[attrTypeBit] = byte(TypeRaid)
			if slices.Contains(s.texts("status"), "NOTSYNCED") {
				attr[attrTypeBit] = byte(TypeRaidNoSync)
			}
		}
	}
	if slices.Contains(s.texts("status"), "WRITE") {
		attr[attrPermissionBit] = 'w'
	}
	attr[attrSkipBit] = '-'
	if slices.Contains(s.texts("flags"), "ACTIVATION_SKIP") {
		attr[attrSkipBit] = 'k'
	}
	lv.Attr = Attr(attr)
	return lv, nil
}
