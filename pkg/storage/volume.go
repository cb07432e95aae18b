package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

const (
	defaultSizeBytes = 1 << 30
	defaultFSType    = "ext4"
)

// CreateVolume makes a volume, empty or from Source. A second call with the same name returns the first's volume. What has
// to be zeroed or copied is begun here and outlives the call: after some seconds callers get ErrPending with the
// progress, until it is done.
func (e *Engine) CreateVolume(ctx context.Context, spec VolumeSpec) (Volume, error) {
	name := VolumeLV(spec.Name)
	type creation struct {
		vol  Volume
		fill *fill // nil: it has its content
	}
	out, err := change(ctx, e, name, "CreateVolume", func() (creation, error) {
		g, source, err := e.volumeGroup(ctx, name, spec)
		if err != nil {
			return creation{}, err
		}
		var out creation
		err = e.create(ctx, g, "CreateVolume "+name, func(ctx context.Context, c *lvm.Client, v *view) error {
			lv, exists := v.find(name)
			if exists {
				out.vol, err = e.existingVolume(ctx, c, v, lv, spec)
			} else {
				lv, err = e.createVolume(ctx, c, v, source, name, spec)
				out.vol, _ = v.volume(lv)
			}
			if err == nil && v.fillOf(lv).kind != fillNone {
				out.fill = e.startFill(ctx, name, !exists)
			}
			return err
		})
		return out, err
	})
	if err == nil && out.fill != nil {
		err = e.fills.wait(ctx, out.fill)
	}
	if err != nil {
		return Volume{}, err
	}
	return out.vol, nil
}

// volumeGroup is where the volume is, or else where it is to be made: where the class says, or beside its source. The view
// is of the source's group when that is another one; it is looked at before, because nobody holds two turns.
func (e *Engine) volumeGroup(ctx context.Context, name string, spec VolumeSpec) (*group, *view, error) {
	wanted, err := e.groupFor(spec.Class)
	if err != nil {
		return nil, nil, err
	}
	if len(e.groups) == 1 {
		return wanted, nil, nil // every question is answered in the turn that creates
	}
	g, err := e.locate(ctx, name, "CreateVolume")
	if g != nil || err != nil {
		return g, nil, unseen(err)
	}
	if spec.Source == nil {
		return wanted, nil, nil
	}
	source, err := e.sourceLV(spec.Source)
	if err != nil {
		return nil, nil, err
	}
	v, err := e.locateView(ctx, source, "CreateVolume")
	switch {
	case err != nil:
		return nil, nil, err
	case v == nil:
		return nil, nil, fmt.Errorf("%w: source %s %s", ErrNotFound, spec.Source.Kind, spec.Source.ID)
	case spec.Class.VolumeGroup == "", v.group == wanted:
		return v.group, nil, nil
	default:
		return wanted, v, nil
	}
}

// createVolume makes the LV. There is a view of the source's group when that is another one.
func (e *Engine) createVolume(ctx context.Context, c *lvm.Client, v, elsewhere *view, name string, spec VolumeSpec) (lvm.LV, error) {
	spec.Class.VolumeGroup = v.group.Name()
	from := v
	if elsewhere != nil {
		from = elsewhere
	}
	source, err := e.resolveSource(ctx, from, &spec)
	if errors.Is(err, ErrNotFound) && len(e.groups) > 1 && !from.hasSource(spec.Source) {
		// It was somewhere when the groups were looked at; here was a leftover of this volume, which decided for this group.
		err = fmt.Errorf("%w: the source %s %s is not in %s; try again", ErrPending, spec.Source.Kind, spec.Source.ID, from.group.Name())
	}
	if err != nil {
		return lvm.LV{}, err
	}
	backend, err := e.backend(spec.Class.Type)
	if err != nil {
		return lvm.LV{}, err
	}
	placed, err := backend.Place(v.metadata, spec.Class)
	if err != nil {
		return lvm.LV{}, err
	}
	if err := v.checkRoom(); err != nil {
		return lvm.LV{}, err
	}
	requested, size, err := chooseSize(spec.RequiredBytes, spec.LimitBytes, source, placed.unit(v.metadata.ExtentBytes))
	if err == nil && source == nil && spec.Access == AccessMount {
		err = checkLeastSize(spec.FSType, requested, size)
	}
	if err != nil {
		return lvm.LV{}, err
	}
	r := record{
		tagDriver: e.driver, tagName: spec.Name, tagSize: strconv.FormatInt(requested, 10),
		tagCreated: strconv.FormatInt(e.now().UnixNano(), 10),
		tagAccess:  string(spec.Access), tagFS: spec.FSType, tagInit: string(initFor(spec, source)),
		tagLayout: spec.Class.Layout.text(),
		tagObject: objectText(spec.Claim.Namespace, spec.Claim.Name), tagContent: spec.Claim.VolumeName,
	}
	nv := NewVolume{LV: name, Class: placed, SizeBytes: size, Group: v.metadata}
	sharer, _ := backend.(Sharer)
	switch {
	case source == nil:
		if !backend.Zeroed() {
			r[tagFill] = fillZero
		}
		nv.Tags = r.tags()
		err = backend.CreateVolume(ctx, c, nv)
	case sharer != nil && sharer.Shares(source.class, placed):
		r[tagSource], r[tagStale] = source.lv.Name, source.stale
		nv.Tags = r.tags()
		err = restore(ctx, c, backend, sharer, nv, source.lv)
	default:
		r[tagSource], r[tagStale], r[tagFill] = source.lv.Name, source.stale, fillCopy
		r[tagFrom] = source.lv.UUID
		nv.Tags = r.tags()
		err = backend.CreateVolume(ctx, c, nv)
	}
	if err != nil {
		return lvm.LV{}, e.settle(ctx, v.group, c, name, VolumeLV, err)
	}
	return lvm.LV{Name: name, SizeBytes: size, Tags: nv.Tags, Pool: placed.ThinPool}, nil
}

// restore shares the source's blocks and grows the copy. A crash in between leaves a volume of the source's size, which
// the retry grows (existingVolume); a failure leaves it to settle.
func restore(ctx context.Context, c *lvm.Client, b Backend, s Sharer, nv NewVolume, origin lvm.LV) error {
	if err := s.Restore(ctx, c, nv, origin); err != nil || nv.SizeBytes <= origin.SizeBytes {
		return err
	}
	return b.Extend(ctx, c, lvm.LV{Name: nv.LV, Pool: nv.Class.ThinPool}, nv.SizeBytes)
}

// chooseSize finds the size to record and the size to make, in extents.
func chooseSize(required, limit int64, source *sourceState, extent int64) (requested, size int64, err error) {
	requested = required
	least := int64(0)
	if source != nil {
		least = source.sizeBytes
		if requested == 0 {
			requested = source.requestedBytes
		}
		if requested < source.requestedBytes {
			return 0, 0, fmt.Errorf("%w: %d bytes are less than the source's %d", ErrSizeRange, requested, source.requestedBytes)
		}
	}
	if requested == 0 {
		requested = defaultSizeBytes
		if limit > 0 && limit < requested {
			requested = limit / extent * extent
		}
	}
	size, ok := roundUp(max(requested, least), extent)
	if !ok || size <= 0 {
		return 0, 0, fmt.Errorf("%w: %d bytes cannot be a volume (extents are %d bytes)", ErrSizeRange, requested, extent)
	}
	if limit > 0 && size > limit {
		return 0, 0, fmt.Errorf("%w: %d bytes are %d in extents of %d, above the limit of %d", ErrSizeRange, requested, size, extent, limit)
	}
	return requested, size, nil
}

// leastSizes are the smallest devices that mkfs takes. Measured with the options of pkg/mount on sparse files, and on
// thin volumes, whose stripes mkfs.xfs ignores at such sizes: e2fsprogs 1.47.0, xfsprogs 6.1.0, btrfs-progs 6.2.
var leastSizes = map[string]struct {
	bytes int64
	text  string
}{
	"ext4":  {104 << 10, "104 KiB"},
	"xfs":   {300 << 20, "300 MiB"},
	"btrfs": {109 << 20, "109 MiB"},
}

// checkLeastSize refuses what could be created and then never be staged: mkfs runs in NodeStageVolume.
func checkLeastSize(fsType string, requested, size int64) error {
	least := leastSizes[fsType]
	if size >= least.bytes {
		return nil
	}
	return fmt.Errorf("%w: %s needs at least %d bytes (%s), and %d are requested; request more, or another file system",
		ErrSizeRange, fsType, least.bytes, least.text, requested)
}

// existingVolume answers a retry: the volume of that name, finished, or what differs.
func (e *Engine) existingVolume(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV, spec VolumeSpec) (Volume, error) {
	// The record is committed with the volume, the growth of a restore is a second step: a record that is
	// larger than its LV is that of a volume which is not finished.
	unfinished := lv
	if wanted, ok := roundUp(v.records.of(lv).size(), v.records.of(lv).unit(v.metadata.ExtentBytes)); ok && wanted > lv.SizeBytes {
		lv.SizeBytes = wanted
	}
	vol, ok := v.volume(lv)
	if !ok {
		return Volume{}, fmt.Errorf("%w: %s/%s is in the way of volume %q and was not made by this driver; rename it (lvrename)",
			ErrConflict, v.group.Name(), lv.Name, spec.Name)
	}
	diff := difference(vol, spec)
	if was, wanted := v.records.of(lv)[tagLayout], spec.Class.Layout.text(); diff == "" && was != wanted {
		diff = fmt.Sprintf("its layout is %q, not %q (RAID type:stripes:stripe bytes:mirrors)", was, wanted)
	}
	if diff != "" {
		return Volume{}, fmt.Errorf("%w: volume %q: %s", ErrConflict, spec.Name, diff)
	}
	if v.state(lv) != StateCommitted {
		return Volume{}, v.notKnown(ctx, lv)
	}
	if lv.SizeBytes == unfinished.SizeBytes {
		return vol, nil
	}
	backend, err := e.backend(vol.Class.Type)
	if err != nil {
		return Volume{}, err
	}
	if err = classify(backend.Extend(ctx, c, unfinished, lv.SizeBytes)); err != nil && !errors.Is(err, ErrNoSpace) {
		err = fmt.Errorf("%w: volume %q is there, and has not got its size yet: %s", ErrPending, spec.Name, err.Error())
	}
	return vol, err
}

// difference says in what an existing volume differs from what is asked for; CSI spec, CreateVolume.
func difference(vol Volume, spec VolumeSpec) string {
	switch {
	case spec.RequiredBytes > vol.SizeBytes:
		return fmt.Sprintf("it has %d bytes, %d are required", vol.SizeBytes, spec.RequiredBytes)
	case spec.LimitBytes > 0 && vol.SizeBytes > spec.LimitBytes:
		return fmt.Sprintf("it has %d bytes, the limit is %d", vol.SizeBytes, spec.LimitBytes)
	case vol.Access != spec.Access:
		return fmt.Sprintf("its access type is %s, not %s", vol.Access, spec.Access)
	case spec.FSType != "" && vol.FSType != spec.FSType:
		return fmt.Sprintf("its file system is %s, not %s", vol.FSType, spec.FSType)
	case spec.Class.Type != "" && spec.Class.Type != vol.Class.Type:
		return fmt.Sprintf("its type is %s, not %s", vol.Class.Type, spec.Class.Type)
	case spec.Class.VolumeGroup != "" && spec.Class.VolumeGroup != vol.Class.VolumeGroup:
		return fmt.Sprintf("its volume group is %s, not %s", vol.Class.VolumeGroup, spec.Class.VolumeGroup)
	case spec.Class.ThinPool != "" && spec.Class.ThinPool != vol.Class.ThinPool:
		return fmt.Sprintf("its thin pool is %s, not %s", vol.Class.ThinPool, spec.Class.ThinPool)
	case (vol.Source == nil) != (spec.Source == nil), vol.Source != nil && *vol.Source != *spec.Source:
		return "it was made from another source"
	}
	return ""
}

// DeleteVolume removes a volume; its snapshots stay usable. A volume that is gone is no error; one that is
// open (mounted, or held by a process) is ErrInUse; another node's is ErrOtherNode.
func (e *Engine) DeleteVolume(ctx context.Context, id string) error {
	h, err := e.localVolume(id)
	if err != nil {
		return ignoreNotFound(err)
	}
	return e.remove(ctx, h.LV, "DeleteVolume", VolumeLV)
}

// withVolume calls fn for a volume of this driver, in its group's turn.
func (e *Engine) withVolume(
	ctx context.Context, h Handle, m mode, purpose string, fn func(context.Context, *lvm.Client, *view, lvm.LV, Volume) error,
) error {
	return e.withLV(ctx, h.LV, m, purpose+" "+h.LV, func(ctx context.Context, c *lvm.Client, v *view, lv lvm.LV) error {
		vol, ok := v.volume(lv)
		if !ok {
			return fmt.Errorf("%w: %s/%s is not a volume of this driver", ErrNotFound, v.group.Name(), lv.Name)
		}
		switch fill := v.fillOf(lv); {
		case fill.unborn():
			return fmt.Errorf("%w: %s/%s does not exist before it has its content: %s",
				ErrNotFound, v.group.Name(), lv.Name, e.fills.find(lv.Name).progressText())
		case fill.kind == fillGrow && m == changing:
			return e.startFill(ctx, lv.Name, false).pending()
		}
		return fn(ctx, c, v, lv, vol)
	})
}

// Volume finds one volume; ErrNotFound, or ErrOtherNode.
func (e *Engine) Volume(ctx context.Context, id string) (Volume, error) {
	h, err := e.localVolume(id)
	if err != nil {
		return Volume{}, err
	}
	return read(ctx, func() (Volume, error) {
		var out Volume
		err := e.withVolume(ctx, h, looking, "Volume", func(ctx context.Context, _ *lvm.Client, v *view, lv lvm.LV, _ Volume) error {
			list, err := v.withConditions(ctx, []lvm.LV{lv})
			if err == nil {
				out = list[0]
			}
			return err
		})
		return out, err
	})
}

// Volumes lists all volumes, ordered by ID.
func (e *Engine) Volumes(ctx context.Context) ([]Volume, error) {
	return read(ctx, func() ([]Volume, error) {
		var out []Volume
		for _, g := range e.groups {
			err := e.inTurn(ctx, g, looking, "Volumes", func(ctx context.Context, _ *lvm.Client, v *view) error {
				list, err := v.withConditions(ctx, v.volumes())
				out = append(out, list...)
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		slices.SortFunc(out, byID(func(v Volume) string { return v.ID }))
		return out, nil
	})
}
