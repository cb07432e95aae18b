package lvm

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// LV is one logical volume as lvs reports it.
type LV struct {
	Name      string
	UUID      string
	SizeBytes int64
	Tags      []string
	Attr      Attr
	Origin    string // of a snapshot, thin or thick; empty when it has none (any more)
	Pool      string // of a thin volume
	SegType   string // thin, thin-pool, linear, raid1, ...; the first segment's
	// OriginBytes of a COW snapshot is the size of what it shows, which is the origin's at the cut; SizeBytes is its
	// COW's. 0 of all others.
	OriginBytes int64
	// TransactionID of a thin pool is the pool's; of a thin volume, the pool's when the volume was created: it
	// is committed in the pool once the pool's (in the kernel) is higher.
	TransactionID uint64
	ThinID        uint32
	// Queue of a thin pool is what LVM has written down for the kernel to do, before it has written down that it is done. Only
	// the metadata says so, and not a report.
	Queue []PoolMessage
	// DataPercent and MetadataPercent are -1 where they do not apply or the device is not active.
	DataPercent     float64
	MetadataPercent float64
}

// PoolMessage is one thing that a thin pool is to do.
type PoolMessage struct {
	Create  string // the name of the volume to be created; empty: Delete, unless Unknown
	Delete  uint32 // the id of the device to be deleted
	Unknown bool   // it is neither of them
}

// VG is one volume group as vgs reports it.
type VG struct {
	Name              string
	UUID              string
	SizeBytes         int64
	FreeBytes         int64
	ExtentBytes       int64
	MetadataFreeBytes int64 // of its smallest metadata area
	MetadataSizeBytes int64
	Sequence          uint64 // changes with every commit of the group's metadata
	MissingPVs        int
	Tags              []string
}

type lvRow struct {
	Name            string `json:"lv_name"`
	UUID            string `json:"lv_uuid"`
	Size            string `json:"lv_size"`
	Tags            string `json:"lv_tags"`
	Attr            string `json:"lv_attr"`
	Origin          string `json:"origin"`
	OriginSize      string `json:"origin_size"`
	Pool            string `json:"pool_lv"`
	SegType         string `json:"segtype"`
	TransactionID   string `json:"transaction_id"`
	ThinID          string `json:"thin_id"`
	DataPercent     string `json:"data_percent"`
	MetadataPercent string `json:"metadata_percent"`
	Extents         string `json:"seg_pe_ranges"` // asked for by Extents only
}

const lvFields = "lv_name,lv_uuid,lv_size,lv_tags,lv_attr,origin,origin_size,pool_lv,segtype,transaction_id,thin_id,data_percent,metadata_percent"

type vgRow struct {
	PV         string `json:"pv_name"`
	Name       string `json:"vg_name"`
	UUID       string `json:"vg_uuid"`
	Size       string `json:"vg_size"`
	Free       string `json:"vg_free"`
	ExtentSize string `json:"vg_extent_size"`
	MDAFree    string `json:"vg_mda_free"`
	MDASize    string `json:"vg_mda_size"`
	Sequence   string `json:"vg_seqno"`
	MissingPVs string `json:"vg_missing_pv_count"`
	Tags       string `json:"vg_tags"`
}

const vgFields = "vg_name,vg_uuid,vg_size,vg_free,vg_extent_size,vg_mda_free,vg_mda_size,vg_seqno,vg_missing_pv_count,vg_tags"

// LVs lists every visible logical volume of the group. lvs(8)
func (c *Client) LVs(ctx context.Context) ([]LV, error) {
	doc, err := c.run(ctx, "lvs", "--units", "b", "--nosuffix", "--options", lvFields, c.group)
	if err != nil {
		return nil, err
	}
	return doc.lvs()
}

// VG reports the group itself. vgs(8)
func (c *Client) VG(ctx context.Context) (VG, error) {
	doc, err := c.run(ctx, "vgs", "--units", "b", "--nosuffix", "--options", vgFields, c.group)
	if err != nil {
		return VG{}, err
	}
	for _, r := range doc.Report {
		for _, row := range r.VG {
			return row.parse()
		}
	}
	return VG{}, fmt.Errorf("%w: %s", ErrGroupNotFound, c.group)
}

// PhysicalVolumes are the paths of the group's physical volumes, as LVM's filters select them, wherever they are. vgs(8)
func (c *Client) PhysicalVolumes(ctx context.Context) ([]string, error) {
	doc, err := c.runEverywhere(ctx, "vgs", "--options", "pv_name", c.group)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, r := range doc.Report {
		for _, row := range r.VG {
			out = append(out, row.PV)
		}
	}
	return out, nil
}

// lvs reads the rows. There is one for each segment, because fields of segments are among those that are asked for: the
// first one counts.
func (d Document) lvs() ([]LV, error) {
	var out []LV
	seen := map[string]bool{}
	for _, r := range d.Report {
		for _, row := range r.LV {
			if seen[row.Name] {
				continue
			}
			seen[row.Name] = true
			lv, err := row.parse()
			if err != nil {
				return nil, fmt.Errorf("lvs: logical volume %q: %w", row.Name, err)
			}
			out = append(out, lv)
		}
	}
	return out, nil
}

func (r lvRow) parse() (LV, error) {
	attr, err := ParseAttr(r.Attr)
	if err != nil {
		return LV{}, err
	}
	p := fieldParser{}
	lv := LV{
		Name: r.Name, UUID: r.UUID, Tags: splitTags(r.Tags), Attr: attr, Origin: r.Origin, Pool: r.Pool, SegType: r.SegType,
		SizeBytes:       p.int64("lv_size", r.Size),
		TransactionID:   p.uint("transaction_id", r.TransactionID, 64),
		ThinID:          uint32(p.uint("thin_id", r.ThinID, 32)), //nolint:gosec // parsed with 32 bits
		DataPercent:     p.percent("data_percent", r.DataPercent),
		MetadataPercent: p.percent("metadata_percent", r.MetadataPercent),
	}
	if t := attr.Type(); t == TypeSnapshot || t == TypeMergingSnap {
		lv.OriginBytes = p.int64("origin_size", r.OriginSize)
	}
	return lv, p.err
}

func (r vgRow) parse() (VG, error) {
	p := fieldParser{}
	vg := VG{
		Name: r.Name, UUID: r.UUID, Tags: splitTags(r.Tags),
		SizeBytes:         p.int64("vg_size", r.Size),
		FreeBytes:         p.int64("vg_free", r.Free),
		ExtentBytes:       p.int64("vg_extent_size", r.ExtentSize),
		MetadataFreeBytes: p.int64("vg_mda_free", r.MDAFree),
		MetadataSizeBytes: p.int64("vg_mda_size", r.MDASize),
		Sequence:          p.uint("vg_seqno", r.Sequence, 64),
		MissingPVs:        int(p.int64("vg_missing_pv_count", r.MissingPVs)),
	}
	if p.err == nil && vg.ExtentBytes <= 0 {
		p.err = fmt.Errorf("vg_extent_size %q is not positive", r.ExtentSize)
	}
	return vg, p.err
}

// fieldParser keeps the first error, so that a row is read in one expression. An empty field is LVM's way to
// say that it does not apply.
type fieldParser struct{ err error }

func (p *fieldParser) fail(field, value string) {
	if p.err == nil {
		p.err = fmt.Errorf("%s %q is not a number", field, value)
	}
}

func (p *fieldParser) int64(field, value string) int64 {
	if value == "" {
		return 0
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 {
		p.fail(field, value)
		return 0
	}
	return n
}

func (p *fieldParser) uint(field, value string, bits int) uint64 {
	if value == "" {
		return 0
	}
	n, err := strconv.ParseUint(value, 10, bits)
	if err != nil {
		p.fail(field, value)
	}
	return n
}

func (p *fieldParser) percent(field, value string) float64 {
	if value == "" {
		return -1
	}
	n, err := strconv.ParseFloat(value, 64)
	if err != nil || math.IsNaN(n) || n < 0 {
		p.fail(field, value)
		return -1
	}
	return n
}

func splitTags(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(s, ",")
}
