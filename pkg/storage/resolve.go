package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// sourceLV is the LV name of a source. Data on another node is no room here, so that the scheduler goes there:
// NotFound would make the provisioner try this node for ever.
func (e *Engine) sourceLV(s *Source) (string, error) {
	parse := e.localVolume
	if s.Kind == SourceSnapshot {
		parse = e.localSnapshot
	}
	h, err := parse(s.ID)
	if errors.Is(err, ErrOtherNode) {
		return "", fmt.Errorf("%w: the data %w", ErrNoSpace, err)
	}
	return h.LV, err
}

// hasSource says whether an LV of that name is in this group, whoever owns it.
func (v *view) hasSource(s *Source) bool {
	name, err := v.e.sourceLV(s)
	_, ok := v.find(name)
	return err == nil && ok
}

// sourceState is what a new volume is made from, and what it takes over.
type sourceState struct {
	lv                        lvm.LV
	class                     Class
	requestedBytes, sizeBytes int64
	init                      Init
	stale                     string // see tagStale
}

// resolveSource finds what to copy and fills in what the spec leaves to it; nil when there is nothing to copy.
func (e *Engine) resolveSource(ctx context.Context, v *view, spec *VolumeSpec) (*sourceState, error) {
	if spec.Source == nil {
		if spec.Access == AccessMount && spec.FSType == "" {
			spec.FSType = defaultFSType
		}
		return nil, nil
	}
	name, err := e.sourceLV(spec.Source)
	if err != nil {
		return nil, err
	}
	lv, ok := v.find(name)
	if !ok {
		return nil, fmt.Errorf("%w: source %s %s", ErrNotFound, spec.Source.Kind, spec.Source.ID)
	}
	class, fsType, err := v.describeSource(ctx, lv, spec.Source)
	if err != nil {
		return nil, err
	}
	// What the class leaves open is as the source's, so that blocks can be shared where that is possible.
	if spec.Class.Type == "" {
		spec.Class.Type = class.Type
	}
	if spec.Class.Type == TypeThin && spec.Class.ThinPool == "" && class.VolumeGroup == spec.Class.VolumeGroup {
		spec.Class.ThinPool = class.ThinPool
	}
	if spec.Access == AccessMount {
		switch {
		case spec.FSType == "":
			spec.FSType = fsType
		case fsType != "" && spec.FSType != fsType:
			return nil, fmt.Errorf("%w: fsType %s differs from the source's, %s; a copy keeps its file system", ErrInvalid, spec.FSType, fsType)
		}
	}
	r := v.records.of(lv)
	stale := r.staleOf(contentBytes(lv))
	if spec.Access == AccessBlock && stale != "" {
		return nil, fmt.Errorf("%w: the %s has what others left on the disks, from byte %s on, where it grew as a thick volume with a file system, "+
			"and cannot become a block volume: copy it with volumeMode Filesystem (docs/adr/0010)", ErrInvalid, spec.Source.Kind, stale)
	}
	return &sourceState{
		lv: lv, class: class, init: Init(r[tagInit]), stale: stale, sizeBytes: contentBytes(lv),
		requestedBytes: requestedBytes(r, contentBytes(lv), v.metadata.ExtentBytes),
	}, nil
}

// describeSource checks that the LV is a source of that kind, ready to be copied.
func (v *view) describeSource(ctx context.Context, lv lvm.LV, source *Source) (Class, string, error) {
	foreign := fmt.Errorf("%w: %s/%s is not a %s of this driver", ErrNotFound, v.group.Name(), lv.Name, source.Kind)
	if source.Kind == SourceVolume {
		vol, ok := v.volume(lv)
		if !ok {
			return Class{}, "", foreign
		}
		if v.fillOf(lv).kind != fillNone {
			return Class{}, "", v.e.fills.find(lv.Name).pending()
		}
		return vol.Class, vol.FSType, nil
	}
	s, ok := v.snapshot(lv)
	switch {
	case !ok:
		return Class{}, "", foreign
	case len(s.Conditions) > 0:
		return Class{}, "", fmt.Errorf("%w: snapshot %s: %s", ErrDamaged, source.ID, s.Conditions[0].Message)
	case !s.Ready:
		return Class{}, "", v.notKnown(ctx, lv)
	}
	return s.Class, s.FSType, nil
}

// initFor is what has to happen to a new volume before its first mount.
func initFor(spec VolumeSpec, source *sourceState) Init {
	switch {
	case spec.Access != AccessMount:
		return InitDone
	case source == nil || source.init == InitFormat:
		return InitFormat // nothing was ever written to the source either
	default:
		return InitClone
	}
}
