package lvmtest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// AddGroup makes a volume group with extents of 4 MiB.
func (l *LVM) AddGroup(name string, sizeBytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	must(l.groups[name] == nil, "volume group %q exists", name)
	l.groups[name] = &group{
		name: name, uuid: l.uuid(), extent: defaultExtent, sizeBytes: sizeBytes / defaultExtent * defaultExtent,
		metadataArea: metadataArea, sequence: 1, volumes: map[string]*volume{}, orphans: map[string]bool{},
	}
}

// AddPool makes an active thin pool. zero is whether new chunks are zeroed first.
func (l *LVM) AddPool(group, name string, dataBytes, metadataBytes, chunk int64, zero bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.group(group)
	g.add(&volume{
		name: name, uuid: l.uuid(), size: g.roundUp(dataBytes), writable: true, active: true, minor: uint32(l.next()),
		pool: &pool{metadataBytes: g.roundUp(metadataBytes), chunk: chunk, zero: zero, metadataUsed: 10},
	})
	must(g.free() >= 0, "volume group %q is too small for pool %q", group, name)
}

// ForeignLV is a volume that somebody else made.
type ForeignLV struct {
	Name      string
	SizeBytes int64
	Tags      []string
	Pool      string // makes it a thin volume
	Origin    string // of a thin volume
	Active    bool
	// Attr and SegType, when set, are reported as they are: "rwi-a-r---", "raid1".
	Attr, SegType string
}

// AddForeignLV makes a volume that the driver did not make: a plain one, or a thin one when it has a pool.
func (l *LVM) AddForeignLV(group string, o ForeignLV) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.group(group)
	v := &volume{
		name: o.Name, uuid: l.uuid(), size: g.roundUp(o.SizeBytes), writable: true, active: o.Active, tags: slices.Clone(o.Tags),
		minor: uint32(l.next()), foreignAttr: o.Attr, foreignSegType: o.SegType, origin: o.Origin,
	}
	if o.Pool != "" {
		_, p := l.poolVolume(group, o.Pool)
		v.poolName = o.Pool
		g.enterPool(p, v, request{})
	}
	g.add(v)
}

// SetPoolUsage sets how full a pool is: the bytes of data that others than this fake's volumes use, and the
// percentage of its metadata.
func (l *LVM) SetPoolUsage(group, pool string, dataBytes int64, metadataPercent float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.poolVolume(group, pool)
	v.pool.usedBytes, v.pool.metadataUsed = dataBytes, metadataPercent
}

// SetPoolMode makes the kernel report a mode (rw, ro, out_of_data_space, Fail) and whether the pool needs a
// check; an empty mode follows the usage again.
func (l *LVM) SetPoolMode(group, pool, mode string, needsCheck bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.poolVolume(group, pool)
	v.pool.mode, v.pool.needsCheck = mode, needsCheck
}

// FailImages makes so many disks of a RAID volume fail.
func (l *LVM) FailImages(group, name string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.lookup(group, name)
	must(v != nil && int64(n) <= v.images, "%s/%s has no %d images", group, name, n)
	v.failed = n
}

// SetErrorWhenFull sets whether writers get an error at once when the pool is full.
func (l *LVM) SetErrorWhenFull(group, pool string, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.poolVolume(group, pool)
	v.pool.errorIfFull = yes
}

// SetPoolJammed makes every command that changes the pool fail: its metadata has an id that LVM is about to use.
func (l *LVM) SetPoolJammed(group, pool string, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.poolVolume(group, pool)
	v.pool.jammed = yes
}

// SetPoolActive activates or deactivates a pool by itself; a pool below active volumes stays.
func (l *LVM) SetPoolActive(group, pool string, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.poolVolume(group, pool)
	v.active = yes
}

// SilencePool makes the kernel answer nothing about a pool until the returned function is called: a disk below it hangs.
func (l *LVM) SilencePool(group, pool string) (answer func()) {
	key, silent := group+"/"+pool, make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent[key] = silent
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.silent, key)
		close(silent)
	}
}

// SetOpen makes a volume look mounted, or not any more.
func (l *LVM) SetOpen(group, lv string, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.volume(group, lv)
	must(v.active || !yes, "%s/%s is not active", group, lv)
	v.open = 0
	if yes {
		v.open = 1
	}
}

// Open holds an active volume open until the returned function is called, under whatever name it goes by then.
func (l *LVM) Open(group, lv string) (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.volume(group, lv)
	must(v.active, "%s/%s is not active", group, lv)
	v.open++
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		v.open--
	}
}

// SetSuspended makes a volume's device suspended, or not any more.
func (l *LVM) SetSuspended(group, lv string, yes bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.volume(group, lv)
	must(v.active || !yes, "%s/%s is not active", group, lv)
	v.suspended = yes
}

// SetMissingPVs makes a group incomplete.
func (l *LVM) SetMissingPVs(group string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.group(group).missingPVs = n
}

// SetMetadataArea sets the size of the group's metadata area; half of it holds the text.
func (l *LVM) SetMetadataArea(group string, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.group(group).metadataArea = bytes
}

// RemoveGroup takes a group away, as a lost disk does; back is as if it were found again.
func (l *LVM) RemoveGroup(name string) (back func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := l.group(name)
	delete(l.groups, name)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.groups[name] = g
	}
}

// Reboot deactivates all volumes but the pools and those without the skip flag, as a restart of the node does.
func (l *LVM) Reboot() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range l.groups {
		for _, v := range g.volumes {
			v.active, v.open, v.suspended = !g.together(v)[0].skip, 0, false
		}
		clear(g.orphans)
	}
}

// Write replaces the content of an active, writable volume.
func (l *LVM) Write(group, lv, data string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	g, v := l.volume(group, lv)
	if !v.active || !v.writable {
		return fmt.Errorf("write to %s/%s: active %t, writable %t", group, lv, v.active, v.writable)
	}
	g.keep(v, len(data))
	_, old := strings.CutSuffix(v.content, behind)
	if v.content = data; old {
		v.content += behind
	}
	if v.poolName != "" {
		chunk := g.volumes[v.poolName].pool.chunk
		v.blocks = nil
		for n := int64(len(data)); n > 0; n -= chunk {
			v.blocks = append(v.blocks, l.next())
		}
	}
	return nil
}

// Read returns the content of an active volume.
func (l *LVM) Read(group, lv string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.volume(group, lv)
	if !v.active {
		return "", errors.New("read of " + group + "/" + lv + ": not active")
	}
	if v.cow != nil && v.cow.invalid {
		return "", errors.New("read of " + group + "/" + lv + ": the snapshot is invalid")
	}
	return strings.TrimSuffix(v.content, behind), nil
}

// SetCOWUsage makes a COW snapshot hold so many bytes of its origin, beside what Write has replaced; more than fits makes it
// invalid.
func (l *LVM) SetCOWUsage(group, lv string, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.volume(group, lv)
	must(v.cow != nil, "%s/%s is not a COW snapshot", group, lv)
	v.cow.usedBytes = bytes
	v.overflow()
}

// SplitOff leaves of a COW snapshot its COW, as an lvremove does that dies between its two commits.
func (l *LVM) SplitOff(group, lv string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.volume(group, lv)
	must(v.cow != nil, "%s/%s is not a COW snapshot", group, lv)
	v.cow, v.origin, v.active = nil, "", false
}

// Content is what a volume holds, active or not.
func (l *LVM) Content(group, lv string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.volume(group, lv)
	return strings.TrimSuffix(v.content, behind)
}

// Names are the names of a group's volumes, pools and foreign volumes included, sorted.
func (l *LVM) Names(group string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, v := range l.group(group).sorted() {
		out = append(out, v.name)
	}
	return out
}
