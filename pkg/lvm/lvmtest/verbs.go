package lvmtest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// find looks the object of a request up; a missing group is the same error for every verb.
func (l *LVM) find(r request) (g *group, v *volume, lv string, failed *result) {
	groupName, lv := r.split()
	g = l.groups[groupName]
	if g == nil {
		f := failure(exitFailed, fmt.Sprintf("Volume group %q not found", groupName), "Cannot process volume group "+groupName)
		return nil, nil, lv, &f
	}
	return g, g.volumes[lv], lv, nil
}

func (l *LVM) lvcreate(r request) result {
	name := r.value("--name")
	if name == "" {
		return usage("lvmtest: lvcreate without --name")
	}
	switch {
	case r.has("--snapshot") && r.has("--size"):
		return l.cowSnapshot(r, name)
	case r.has("--snapshot"):
		return l.thinSnapshot(r, name)
	case r.has("--size"):
		return l.thickVolume(r, name)
	}
	if r.value("--type") != "thin" || !r.has("--thinpool") || r.object != "" {
		return usage("No command with matching syntax recognised.  Run 'lvcreate --help' for more information.")
	}
	size, failed := parseSize("--virtualsize", r.value("--virtualsize"))
	if failed != nil {
		return *failed
	}
	r.object = r.value("--thinpool")
	if _, pool := r.split(); pool == name {
		return failure(exitUsage, fmt.Sprintf("Logical volume name %s and pool name must be different.", name))
	}
	g, p, poolName, failed := l.find(r)
	switch {
	case failed != nil:
		return *failed
	case p == nil:
		return failure(exitFailed, fmt.Sprintf("Pool %s not found in Volume group %s.", poolName, g.name))
	case p.pool == nil:
		return failure(exitFailed, fmt.Sprintf("Logical volume %s/%s is not a thin pool.", g.name, poolName))
	case g.volumes[name] != nil:
		return exists(g, name)
	}
	return l.create(g, p, r, &volume{name: name, size: g.roundUp(size), writable: r.value("--permission") != "r"})
}

func (l *LVM) thinSnapshot(r request, name string) result {
	g, o, originName, failed := l.find(r)
	switch {
	case failed != nil:
		return *failed
	case o == nil:
		return failure(exitFailed, fmt.Sprintf("Snapshot origin LV %s not found in Volume group %s.", originName, g.name))
	case o.poolName == "":
		return failure(exitFailed, "Please specify either size or extents with snapshots.")
	case g.volumes[name] != nil:
		return exists(g, name)
	}
	return l.create(g, g.volumes[o.poolName], r, &volume{
		name: name, size: o.size, origin: o.name, writable: r.value("--permission") != "r",
	})
}

func exists(g *group, name string) result {
	return failure(exitFailed, fmt.Sprintf("Logical Volume %q already exists in volume group %q", name, g.name))
}

// create commits a thin volume that was found to be possible.
func (l *LVM) create(g *group, p *volume, r request, v *volume) result {
	if failed := g.poolRefuses(p); failed != nil {
		return *failed
	}
	v.uuid, v.minor = l.uuid(), uint32(l.next())
	v.poolName = p.name
	v.addTags(r.options["--addtag"])
	v.skip = r.value("--setactivationskip") == "y" || (r.has("--snapshot") && !r.has("--setactivationskip"))
	v.active = !v.skip && r.value("--activate") != "n"
	g.add(v)
	if failed := g.metadataRefuses(); failed != nil {
		delete(g.volumes, v.name)
		return *failed
	}
	g.replay(p)
	g.enterPool(p, v, r)
	return success(fmt.Sprintf("Logical volume %q created.", v.name))
}

// enterPool gives a volume its ids, and (unless it dies just before) its entry in the pool.
func (g *group) enterPool(p, v *volume, r request) {
	v.thinID = 1
	for _, t := range g.thinVolumes(p.name) {
		if t != v {
			v.thinID = max(v.thinID, t.thinID+1)
		}
	}
	v.txID = p.pool.txID
	p.pool.txID++
	v.pending = true
	switch counted := p.pool.kernelTxID; {
	case r.has(phantomOption):
	case r.has(jamOption):
		g.replay(p)
		p.pool.kernelTxID, p.pool.jammed = counted, true
	default:
		g.replay(p)
	}
}

// queued: LVM has written something down that the pool has not done yet.
func (g *group) queued(p *volume) bool {
	return slices.ContainsFunc(g.thinVolumes(p.name), func(v *volume) bool { return v.pending })
}

// replay carries out what LVM had written down for the pool to do.
func (g *group) replay(p *volume) {
	for _, v := range g.thinVolumes(p.name) {
		if !v.pending {
			continue
		}
		v.pending = false
		if o := g.volumes[v.origin]; o != nil {
			v.content, v.blocks = o.content, slices.Clone(o.blocks)
		}
	}
	p.pool.kernelTxID = p.pool.txID
}

// poolRefuses are LVM's own guards. lvm2: pool_below_threshold() in metadata/pool_manip.c
func (g *group) poolRefuses(p *volume) *result {
	minFree := min(25, 100*float64(4<<20)/float64(p.pool.metadataBytes))
	var f result
	switch {
	case p.pool.jammed:
		f = g.jammed(p)
	case g.dataPercent(p) >= 100 || p.pool.metadataUsed >= 100-minFree:
		f = failure(exitFailed, fmt.Sprintf("Cannot create new thin volume, free space in thin pool %s/%s reached threshold.", g.name, p.name))
	default:
		return nil
	}
	return &f
}

func (g *group) jammed(p *volume) result {
	return failure(exitFailed,
		fmt.Sprintf("Thin pool %s-%s-tpool (253:2) already contain thin device with device_id %d.", g.name, p.name, len(g.volumes)),
		fmt.Sprintf("Failed to suspend %s/%s with queued messages.", g.name, p.name))
}

func (g *group) metadataRefuses() *result {
	text, half := g.metadataText(), g.metadataArea/2
	if text <= half {
		return nil
	}
	f := failure(exitFailed,
		fmt.Sprintf("VG %s %d metadata on /dev/fake (%d bytes) exceeds maximum metadata size (%d bytes)", g.name, g.sequence, text, half),
		fmt.Sprintf("Failed to write VG %s.", g.name))
	return &f
}

func (v *volume) addTags(tags []string) {
	for _, t := range tags {
		if !slices.Contains(v.tags, t) {
			v.tags = append(v.tags, t)
		}
	}
}

func notFound(r request) result {
	return failure(exitFailed, fmt.Sprintf("Failed to find logical volume %q", r.object))
}

func inUse(g *group, v *volume) result {
	return failure(exitFailed, fmt.Sprintf("Logical volume %s/%s in use.", g.name, v.name))
}

// notThickOrigin is the one selection that is understood: what has no COW snapshots.
const notThickOrigin = "lv_role!=thickorigin"

func (l *LVM) lvremove(r request) result {
	if !r.has("--yes") {
		return failure(exitFailed, "lvmtest: lvremove without --yes would ask")
	}
	g, v, _, failed := l.find(r)
	switch {
	case failed != nil:
		return *failed
	case v == nil:
		return notFound(r)
	case v.pool != nil:
		return failure(exitFailed, "lvmtest: removing a pool is not what this driver does")
	case v.open > 0:
		return inUse(g, v)
	case r.has("--select") && r.value("--select") != notThickOrigin:
		return failure(exitFailed, "lvmtest: unknown selection "+r.value("--select"))
	case r.has("--select") && len(g.snapshots(v)) > 0:
		return success("") // passed over
	}
	for _, s := range g.snapshots(v) {
		delete(g.volumes, s.name)
	}
	if p := g.volumes[v.poolName]; p != nil {
		if p.pool.jammed {
			return g.jammed(p)
		}
		if g.poolMode(p) == dm.PoolReadOnly {
			return failure(exitFailed,
				fmt.Sprintf("Cannot send messages to thin pool %s-%s-tpool (253:2) with read only metadata.", g.name, p.name),
				fmt.Sprintf("Failed to suspend %s/%s with queued messages.", g.name, p.name))
		}
		// What others had queued is done on the way, in the same transaction; what the volume itself had queued
		// is forgotten: a phantom goes without having been made.
		v.pending = false
		if !g.queued(p) {
			p.pool.txID++
		}
		g.replay(p)
	}
	delete(g.volumes, v.name)
	for _, other := range g.volumes {
		if other.origin == v.name {
			other.origin = ""
		}
	}
	g.sequence++
	return success(fmt.Sprintf("Logical volume %q successfully removed.", v.name))
}

func (l *LVM) lvextend(r request) result {
	if r.has("--poolmetadatasize") {
		return l.extendPoolMetadata(r)
	}
	size, failed := parseSize("--size", r.value("--size"))
	if failed != nil {
		return *failed
	}
	g, v, lv, failed := l.find(r)
	if failed != nil {
		return *failed
	}
	if v == nil {
		return failure(exitFailed, fmt.Sprintf("Logical volume %s not found in volume group %s.", lv, g.name))
	}
	size, allocated := g.extents(v, size)
	if o := g.volumes[v.origin]; v.cow != nil {
		size = min(size, g.roundUp(lvm.COWMaxBytes(o.size))) // with a message, and exit code 0
		allocated = size
	}
	before, after := v.size/g.extent, size/g.extent
	if failed := notLarger(before, after); failed != nil {
		return *failed
	}
	switch {
	case v.poolName == "" && allocated-max(v.allocated, v.size) > g.free():
		return g.noExtents(after - before)
	case v.active && len(g.snapshots(v)) > 0:
		return failure(exitFailed, "Snapshot origin volumes can be resized only while inactive: try lvchange -an.")
	}
	v.size = size
	v.extents = append(v.extents, r.extents...)
	if v.poolName == "" && v.pool == nil && v.cow == nil && len(r.extents) == 0 && !strings.HasSuffix(v.content, behind) {
		v.content += behind
	}
	if v.allocated > 0 {
		v.allocated = allocated
	}
	g.sequence++
	return success(fmt.Sprintf("Logical volume %s/%s successfully resized.", g.name, v.name))
}

func notLarger(before, after int64) *result {
	var f result
	switch {
	case after == before:
		f = failure(exitFailed, fmt.Sprintf("New size (%d extents) matches existing size (%d extents).", after, before))
	case after < before:
		f = failure(exitFailed, fmt.Sprintf("New size given (%d extents) not larger than existing size (%d extents)", after, before))
	default:
		return nil
	}
	return &f
}

func (g *group) noExtents(needed int64) result {
	return failure(exitFailed, fmt.Sprintf("Insufficient free space: %d extents needed, but only %d available", needed, g.free()/g.extent))
}

// extendPoolMetadata grows the metadata of a pool, and the spare with it: see free.
func (l *LVM) extendPoolMetadata(r request) result {
	size, failed := parseSize("--poolmetadatasize", r.value("--poolmetadatasize"))
	if failed != nil {
		return *failed
	}
	g, v, _, failed := l.find(r)
	switch {
	case failed != nil:
		return *failed
	case v == nil || v.pool == nil:
		return failure(exitFailed, "lvmtest: --poolmetadatasize of what is no pool")
	}
	was := v.pool.metadataBytes
	if failed := notLarger(was/g.extent, g.roundUp(size)/g.extent); failed != nil {
		return *failed
	}
	v.pool.metadataBytes = g.roundUp(size)
	if g.free() < 0 {
		v.pool.metadataBytes = was
		return g.noExtents((g.roundUp(size) - was) / g.extent)
	}
	v.pool.metadataUsed *= float64(was) / float64(v.pool.metadataBytes)
	g.sequence++
	return success(fmt.Sprintf("Logical volume %s/%s successfully resized.", g.name, v.name))
}

func (l *LVM) lvchange(r request) result {
	g, v, _, failed := l.find(r)
	switch {
	case failed != nil:
		return *failed
	case v == nil:
		return notFound(r)
	case v.cow != nil && r.has("--activate") && !r.has("--yes"):
		return failure(exitFailed, "lvmtest: lvchange --activate of a COW snapshot without --yes would ask")
	case !r.has("--activate") && !r.has("--addtag") && !r.has("--deltag") && !r.has("--refresh"):
		return usage("No command with matching syntax recognised.  Run 'lvchange --help' for more information.")
	}
	if r.has("--addtag") || r.has("--deltag") {
		before := slices.Clone(v.tags)
		v.tags = slices.DeleteFunc(v.tags, func(t string) bool { return slices.Contains(r.options["--deltag"], t) })
		v.addTags(r.options["--addtag"])
		if failed := g.metadataRefuses(); failed != nil {
			v.tags = before
			return *failed
		}
		g.sequence++
	}
	if r.has("--refresh") {
		g.refresh(v)
	}
	switch r.value("--activate") {
	case "y":
		if v.pending && (!v.skip || r.has("--ignoreactivationskip")) {
			return failure(exitFailed, fmt.Sprintf("device-mapper: reload ioctl on  (253:%d) failed: No data available", v.minor))
		}
		g.activate(v, r.has("--ignoreactivationskip"))
	case "n":
		if failed := g.deactivate(v); failed != nil {
			return *failed
		}
	}
	return success("")
}
