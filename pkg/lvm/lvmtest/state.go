package lvmtest

import (
	"fmt"
	"maps"
	"slices"
)

const (
	defaultExtent = 4 << 20
	sectorBytes   = 512
	// metadataArea is LVM's default, of which one half holds the new text while the other holds the old.
	metadataArea = 1044480
)

type group struct {
	name, uuid   string
	sizeBytes    int64
	extent       int64
	metadataArea int64
	missingPVs   int
	sequence     uint64
	volumes      map[string]*volume
	orphans      map[string]bool // COW devices without an LV, by its name, which PhantomNext leaves
}

// volume is any LV. A pool has pool set, a thin volume has the pool's name in poolName, a COW snapshot has cow.
type volume struct {
	name, uuid string
	size       int64
	tags       []string
	writable   bool
	skip       bool
	active     bool
	suspended  bool
	open       int
	minor      uint32

	pool *pool

	segType    string   // of a thick volume; empty: linear
	images     int64    // hidden LVs of RAID
	failed     int      // of them
	recovering bool     // one is being written onto a new disk
	dataImages int64    // stripes or images that the size is divided into
	extents    []string // ranges that no other volume has; a growth adds one only where it was asked for
	allocated  int64    // what it takes of the group; 0: its size
	cow        *cow

	poolName string
	origin   string // name; cleared when the origin of a thin snapshot goes
	txID     uint64
	thinID   uint32
	pending  bool // in LVM's metadata but not in the pool: a phantom
	content  string
	blocks   []int // one number per chunk; shared with snapshots until written to

	foreignAttr, foreignSegType string
}

// pool is what a thin pool has more than other LVs.
type pool struct {
	metadataBytes int64
	chunk         int64
	zero          bool
	errorIfFull   bool
	txID          uint64 // LVM's
	kernelTxID    uint64
	jammed        bool
	needsCheck    bool
	mode          string // the kernel's, when it was set; otherwise it follows the usage
	usedBytes     int64  // of data, by others than the volumes' own blocks
	metadataUsed  float64
}

func (g *group) sorted() []*volume {
	return slices.SortedFunc(maps.Values(g.volumes), func(a, b *volume) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
}

func (g *group) roundUp(n int64) int64 { return (n + g.extent - 1) / g.extent * g.extent }

// free is what no LV uses. The volume group keeps a spare as large as the largest pool metadata.
func (g *group) free() int64 {
	free, spare := g.sizeBytes, int64(0)
	for _, v := range g.volumes {
		if v.poolName != "" {
			continue
		}
		if v.allocated > 0 {
			free -= v.allocated
		} else {
			free -= v.size
		}
		if v.pool != nil {
			free -= v.pool.metadataBytes
			spare = max(spare, v.pool.metadataBytes)
		}
	}
	return free - spare
}

// metadataText is about how many bytes LVM needs to write this group down.
func (g *group) metadataText() int64 {
	n := int64(1000)
	for _, v := range g.volumes {
		n += 350
		for _, t := range v.tags {
			n += int64(len(t)) + 4
		}
	}
	return (n + sectorBytes - 1) / sectorBytes * sectorBytes
}

func (g *group) metadataFree() int64 { return max(0, g.metadataArea/2-g.metadataText()) }

// thinVolumes are the pool's.
func (g *group) thinVolumes(pool string) []*volume {
	var out []*volume
	for _, v := range g.sorted() {
		if v.poolName == pool {
			out = append(out, v)
		}
	}
	return out
}

// poolActive: the pool's device is there, for itself or below a volume.
func (g *group) poolActive(v *volume) bool {
	if v.active {
		return true
	}
	return slices.ContainsFunc(g.thinVolumes(v.name), func(t *volume) bool { return t.active })
}

// usedBlocks of the pool's data, in chunks.
func (g *group) usedBlocks(v *volume) int64 {
	blocks := map[int]bool{}
	for _, t := range g.thinVolumes(v.name) {
		for _, b := range t.blocks {
			blocks[b] = true
		}
	}
	used := (v.pool.usedBytes+v.pool.chunk-1)/v.pool.chunk + int64(len(blocks))
	return min(used, v.size/v.pool.chunk)
}

func (g *group) dataPercent(v *volume) float64 {
	return float64(g.usedBlocks(v)*v.pool.chunk) * 100 / float64(v.size)
}

// must is for the set-up of tests, where a wrong name is a mistake in the test.
func must(ok bool, format string, args ...any) {
	if !ok {
		panic("lvmtest: " + fmt.Sprintf(format, args...))
	}
}

func (l *LVM) group(name string) *group {
	g := l.groups[name]
	must(g != nil, "no volume group %q", name)
	return g
}

// lookup finds a volume, or nil.
func (l *LVM) lookup(group, name string) (*group, *volume) {
	g := l.groups[group]
	if g == nil {
		return nil, nil
	}
	return g, g.volumes[name]
}

func (l *LVM) volume(group, name string) (*group, *volume) {
	g := l.group(group)
	v := g.volumes[name]
	must(v != nil, "no logical volume %q in %q", name, group)
	return g, v
}

func (l *LVM) poolVolume(group, name string) (*group, *volume) {
	g, v := l.volume(group, name)
	must(v.pool != nil, "%s/%s is not a thin pool", group, name)
	return g, v
}

func (g *group) add(v *volume) {
	must(g.volumes[v.name] == nil, "%s/%s exists", g.name, v.name)
	g.volumes[v.name] = v
	g.sequence++
}
