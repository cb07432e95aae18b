package storage

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// Health is Volume, and also answers for a volume that does not exist for anybody else yet, because its content is
// being written: that is what is wrong with it, and how far it is.
func (e *Engine) Health(ctx context.Context, id string) (Volume, error) {
	h, err := e.localVolume(id)
	if err != nil {
		return Volume{}, err
	}
	return read(ctx, func() (Volume, error) {
		var out Volume
		err := e.withLV(ctx, h.LV, recalling, "Health "+h.LV, func(ctx context.Context, _ *lvm.Client, v *view, lv lvm.LV) error {
			if _, ok := v.owned(lv, VolumeLV); !ok {
				return fmt.Errorf("%w: %s/%s is not a volume of this driver", ErrNotFound, v.group.Name(), lv.Name)
			}
			list, err := v.withConditions(ctx, []lvm.LV{lv})
			if err == nil {
				out = list[0]
			}
			return err
		})
		return out, err
	})
}

// DisksNotAnswering is a volume's condition: the disks of its group hang, and what is said of it is what they said last.
const DisksNotAnswering = "DisksNotAnswering"

// withConditions describes volumes, with what the kernel knows of each, and what is wrong with it, its pool and its snapshots.
func (v *view) withConditions(ctx context.Context, lvs []lvm.LV) ([]Volume, error) {
	list, err := v.pools(ctx)
	if err != nil {
		return nil, err
	}
	var disks []Condition
	if v.silent != nil {
		disks = []Condition{{SeverityInaccessible, DisksNotAnswering, v.silent.Error()}}
	}
	pools := map[string][]Condition{}
	for _, p := range list {
		pools[p.Name] = p.Conditions
	}
	cows := map[string][]lvm.LV{} // by origin
	for _, lv := range v.lvs {
		if isCOW(lv) {
			cows[lv.Origin] = append(cows[lv.Origin], lv)
		}
	}
	out := make([]Volume, 0, len(lvs))
	for _, lv := range lvs {
		vol, ok := v.volume(lv)
		if !ok {
			continue
		}
		if err := v.ask(ctx, &vol); err != nil {
			return nil, err
		}
		raid, err := v.raidConditions(ctx, lv, vol.Active)
		if err != nil {
			return nil, err
		}
		for _, more := range [][]Condition{disks, pools[vol.Class.ThinPool], raid, v.fillConditions(lv), v.snapshotConditions(cows[lv.Name])} {
			vol.Conditions = append(vol.Conditions, more...)
		}
		out = append(out, vol)
	}
	return out, nil
}

// lvConditions reads LVM's own complaints about an LV; lvs(8), lv_attr.
func lvConditions(group string, lv lvm.LV) []Condition {
	name := group + "/" + lv.Name
	var out []Condition
	switch health := lv.Attr.Health(); {
	case health == 'p' && isRAID(lv):
		out = append(out, Condition{
			SeverityDegraded, "DiskMissing",
			name + " lives on without a disk that is missing; see `pvs` and `lvs -a -o+devices`, and lvmraid(7), Device Failure",
		})
	case health == 'p':
		out = append(out, Condition{
			SeverityInaccessible, "DiskMissing",
			name + " is partly on a disk that is missing; see `pvs` and `vgs`",
		})
	case health == 'F':
		out = append(out, Condition{SeverityInaccessible, PoolFailed, "the thin pool of " + name + " has failed; see lvmthin(7), repair"})
	}
	if lv.Attr.InvalidSnapshot() {
		out = append(out, snapshotLost(group, lv))
	}
	return out
}

func isRAID(lv lvm.LV) bool { return strings.HasPrefix(lv.SegType, "raid") }

// raidConditions is what the kernel knows of an active RAID volume.
func (v *view) raidConditions(ctx context.Context, lv lvm.LV, active bool) ([]Condition, error) {
	if !active || !isRAID(lv) {
		return nil, nil
	}
	c, err := v.raidCondition(ctx, lv)
	switch {
	case errors.Is(err, dm.ErrNoDevice):
		return nil, nil
	case err != nil || c.Reason == "":
		return nil, err
	}
	return []Condition{c}, nil
}

// raidCondition is empty when a RAID volume is whole, and an error when nobody knows: inactive, it is dm.ErrNoDevice. LVM finds out about a disk
// that fails when its next command tries to read it, and not from what stands in its metadata. The first synchronization is
// nothing wrong.
func (v *view) raidCondition(ctx context.Context, lv lvm.LV) (Condition, error) {
	st, err := v.e.kernel.RAIDStatus(ctx, v.group.Name(), lv.Name)
	name := v.group.Name() + "/" + lv.Name
	switch {
	case err != nil:
		return Condition{}, err
	case st.Failed > 0:
		return Condition{SeverityDegraded, RAIDDegraded, fmt.Sprintf(
			"%d of the %d devices of %s (%s) have failed; see `lvs -a -o+devices,lv_health_status %s`. "+
				"If the disk is back: lvchange --refresh %s; if it is lost: lvconvert --repair %s",
			st.Failed, st.Devices, name, st.Type, v.group.Name(), name, name)}, nil
	case st.Action == dm.RAIDRecover:
		return Condition{SeverityDegraded, RAIDRecovering, fmt.Sprintf("%s (%s) is being written onto a new disk: %s of %s",
			name, st.Type, HumanBytes(st.SyncedBytes), HumanBytes(st.TotalBytes))}, nil
	}
	return Condition{}, nil
}

// fillConditions say that a volume waits for its content, or for its new extents to be overwritten: until then nobody gets it.
func (v *view) fillConditions(lv lvm.LV) []Condition {
	if v.fillOf(lv).kind == fillNone {
		return nil
	}
	return []Condition{{
		SeverityInaccessible, "ContentIncomplete",
		v.e.fills.find(lv.Name).progressText(),
	}}
}

func snapshotLost(group string, lv lvm.LV) Condition {
	return Condition{
		SeverityDataLoss, SnapshotInvalid,
		fmt.Sprintf("the COW of snapshot %s/%s overflowed or could not be written, and its content is lost; it can only be deleted", group, lv.Name),
	}
}

// snapshotConditions are those of a volume's COW snapshots. They are the volume's, because CSI has no health of snapshots.
func (v *view) snapshotConditions(cows []lvm.LV) []Condition {
	var out []Condition
	for _, lv := range cows {
		s, ok := v.snapshot(lv)
		switch trouble := v.group.cowTroubles.of(lv); {
		case !ok:
		case len(s.Conditions) > 0:
			out = append(out, Condition{SeverityDegraded, s.Conditions[0].Reason, s.Conditions[0].Message})
		case trouble != "":
			out = append(out, Condition{SeverityDegraded, COWCannotGrow, trouble})
		}
	}
	return out
}

// HumanBytes is a size as it stands in errors and conditions.
func HumanBytes(n int64) string { return humanize.IBytes(uint64(max(n, 0))) }
