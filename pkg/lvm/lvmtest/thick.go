package lvmtest

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// cow is what a COW snapshot has more than other LVs. Its volume's size is that of the COW.
type cow struct {
	originBytes int64
	copied      int64 // chunks of the origin, from its first on: Write always begins there
	usedBytes   int64 // further ones, by SetCOWUsage
	invalid     bool
}

// used is what the kernel reports: a header, the chunks, and their metadata; see lvm.COWMaxBytes.
func (c *cow) used() int64 { return lvm.COWMaxBytes(c.copied*lvm.COWChunkBytes + c.usedBytes) }

func (c *cow) metadata() int64 { return c.used() - c.copied*lvm.COWChunkBytes - c.usedBytes }

// percent is data_percent of lvs.
func (c *cow) percent(cowBytes int64) float64 {
	switch {
	case c.invalid:
		return 100
	case c.copied+c.usedBytes == 0:
		return 0
	default:
		return float64(c.used()) * 100 / float64(cowBytes)
	}
}

// overflow loses the snapshot when what is in its COW exceeds it.
func (v *volume) overflow() {
	if v.cow.used() > v.size {
		v.cow.invalid = true
	}
}

// snapshots are the COW snapshots of an origin.
func (g *group) snapshots(origin *volume) []*volume {
	var out []*volume
	for _, v := range g.sorted() {
		if v.cow != nil && v.origin == origin.name {
			out = append(out, v)
		}
	}
	return out
}

// together are the volumes that are active or inactive together: an origin and its COW snapshots, the origin first.
func (g *group) together(v *volume) []*volume {
	if v.cow != nil {
		v = g.volumes[v.origin]
	}
	return append([]*volume{v}, g.snapshots(v)...)
}

// keep copies what a write of so many bytes to the origin is about to replace.
func (g *group) keep(origin *volume, n int) {
	chunks := (int64(n) + lvm.COWChunkBytes - 1) / lvm.COWChunkBytes
	for _, s := range g.snapshots(origin) {
		s.cow.copied = max(s.cow.copied, chunks)
		s.overflow()
	}
}

// images is how many hidden LVs a RAID volume has, and into how many of them its data is divided.
func images(segType string, stripes, mirrors int64) (images, data int64) {
	switch segType {
	case "raid1":
		return mirrors + 1, 1
	case "raid5":
		return stripes + 1, stripes
	case "raid10":
		return stripes * (mirrors + 1), stripes
	default:
		return 0, max(stripes, 1)
	}
}

// extents rounds a size up, for each stripe, and says how much of the group it takes: RAID has an extent of metadata with
// every image.
func (g *group) extents(v *volume, size int64) (rounded, allocated int64) {
	n := max(v.dataImages, 1)
	each := g.roundUp((size + n - 1) / n)
	rounded = each * n
	if v.images == 0 {
		return rounded, rounded
	}
	return rounded, v.images * (each + g.extent)
}

func (l *LVM) thickVolume(r request, name string) result {
	size, failed := parseSize("--size", r.value("--size"))
	if failed != nil {
		return *failed
	}
	g, _, _, failed := l.find(r)
	if failed != nil {
		return *failed
	}
	if g.volumes[name] != nil {
		return exists(g, name)
	}
	if r.value("--activate") != "n" || r.value("--zero") != "n" || r.value("--wipesignatures") != "n" {
		return usage("lvmtest: lvcreate would activate and wipe the volume")
	}
	v := &volume{name: name, writable: true, skip: r.value("--setactivationskip") == "y", segType: r.value("--type")}
	stripes, _ := strconv.ParseInt(r.value("--stripes"), 10, 64)
	mirrors, _ := strconv.ParseInt(r.value("--mirrors"), 10, 64)
	v.images, v.dataImages = images(v.segType, stripes, mirrors)
	v.size, v.allocated = g.extents(v, size)
	if failed := g.spaceRefuses(v.allocated); failed != nil {
		return *failed
	}
	v.addTags(r.options["--addtag"])
	return l.commit(g, v)
}

// commit adds a volume whose extents are there.
func (l *LVM) commit(g *group, v *volume) result {
	v.uuid, v.minor = l.uuid(), uint32(l.next())
	g.add(v)
	if failed := g.metadataRefuses(); failed != nil {
		delete(g.volumes, v.name)
		return *failed
	}
	return success(fmt.Sprintf("Logical volume %q created.", v.name))
}

func (g *group) spaceRefuses(bytes int64) *result {
	if bytes <= g.free() {
		return nil
	}
	f := failure(exitFailed, fmt.Sprintf("Volume group %q has insufficient free space (%d extents): %d required.",
		g.name, g.free()/g.extent, bytes/g.extent))
	return &f
}

// cowSnapshot is lvcreate --snapshot with a size. It commits twice: the COW as a plain volume, whose header is cleared, and
// then the snapshot.
func (l *LVM) cowSnapshot(r request, name string) result {
	size, failed := parseSize("--size", r.value("--size"))
	if failed != nil {
		return *failed
	}
	g, o, originName, failed := l.find(r)
	switch {
	case failed != nil:
		return *failed
	case o == nil:
		return failure(exitFailed, fmt.Sprintf("Snapshot origin LV %s not found in Volume group %s.", originName, g.name))
	case o.cow != nil:
		return failure(exitFailed, "Snapshots of snapshots are not supported.")
	case o.pool != nil || o.poolName != "":
		return failure(exitFailed, "lvmtest: COW snapshots are of thick volumes")
	case g.volumes[name] != nil:
		return exists(g, name)
	}
	v := &volume{name: name, writable: true, skip: r.value("--setactivationskip") == "y", segType: "linear", dataImages: 1}
	v.size = min(g.roundUp(size), g.roundUp(lvm.COWMaxBytes(o.size)))
	v.allocated = v.size
	if failed := g.spaceRefuses(v.size); failed != nil {
		return *failed
	}
	v.addTags(r.options["--addtag"])
	done := l.commit(g, v)
	if done.exitCode != 0 {
		return done
	}
	if r.has(phantomOption) {
		g.orphans[name] = o.active
		return done
	}
	if g.orphans[name] && o.active {
		return failure(exitFailed,
			fmt.Sprintf("device-mapper: create ioctl on %s-%s-cow LVM-%s-cow failed: Device or resource busy", g.name, name, v.uuid),
			fmt.Sprintf("Failed to suspend logical volume %s/%s.", g.name, o.name), "Aborting. Manual intervention required.")
	}
	v.writable = r.value("--permission") != "r"
	v.origin, v.content, v.active = o.name, o.content, o.active
	v.cow = &cow{originBytes: o.size}
	g.sequence++
	return done
}

func (l *LVM) lvrename(r request) result {
	g, v, lv, failed := l.find(r)
	_, newName := request{object: r.target}.split()
	switch {
	case failed != nil:
		return *failed
	case lv == newName:
		return failure(exitUsage, "Old and new logical volume names must differ")
	case v == nil:
		return failure(exitFailed, fmt.Sprintf("Existing logical volume %q not found in volume group %q", lv, g.name))
	case g.volumes[newName] != nil:
		return exists(g, newName)
	}
	for _, other := range g.volumes {
		if other.origin == v.name {
			other.origin = newName
		}
	}
	delete(g.volumes, v.name)
	v.name = newName
	g.add(v)
	return success(fmt.Sprintf("Renamed %q to %q in volume group %q", lv, newName, g.name))
}

// activate and deactivate do for one volume what lvchange does, with all that are active together with it.
func (g *group) activate(v *volume, ignoreSkip bool) {
	all := g.together(v)
	if all[0].skip && !ignoreSkip {
		return
	}
	for _, v := range all {
		v.active = true
		delete(g.orphans, v.name) // LVM takes them over
	}
}

// refresh resumes a volume and its COW snapshots.
func (g *group) refresh(v *volume) {
	for _, v := range g.together(v) {
		v.suspended = false
	}
}

func (g *group) deactivate(v *volume) *result {
	all := g.together(v)
	if i := slices.IndexFunc(all, func(v *volume) bool { return v.open > 0 }); i >= 0 {
		f := inUse(g, all[i])
		return &f
	}
	for _, v := range all {
		v.active, v.suspended = false, false
	}
	return nil
}
