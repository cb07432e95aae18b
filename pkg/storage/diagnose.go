package storage

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// Finding is something wrong, with what to do about it.
type Finding struct {
	Severity Severity `json:"severity"`
	Reason   string   `json:"reason"` // CamelCase, stable, for machines
	Object   string   `json:"object"` // group, group/LV or a device
	Message  string   `json:"message"`
	Cure     string   `json:"cure,omitempty"`    // where the message does not say it
	Fixable  bool     `json:"fixable,omitempty"` // the driver's own recovery puts it right: Inspector.Recover
	// Passing: an LVM command at work, or a driver's call, looks the same for a moment.
	Passing bool `json:"-"`
	// Which tells it from another of the same reason and object, at another moment.
	Which string `json:"-"`
}

// The reasons of findings beside those of conditions.
const (
	reasonSuspended        = "DeviceSuspended"
	reasonForeignSuspended = "ForeignDeviceSuspended"
	reasonJam              = "PoolJammed"
	reasonPhantom          = "Phantom"
	reasonForeignPhantom   = "ForeignPhantom"
	reasonRemoval          = "RemovalUnfinished"
	reasonBehind           = "PoolBehind"
	reasonTransaction      = "PoolTransactionMismatch"
	reasonHalfMade         = "SnapshotHalfMade"
	reasonLeftover         = "Leftover"
	reasonOrphan           = "OrphanedDevice"
	reasonSmallArea        = "MetadataAreaSmall"
	reasonSplitOff         = "SnapshotSplitOff"
	reasonThinLost         = "ThinDeviceLost"
	reasonThinUnknown      = "ThinDeviceUnknown"
	reasonCOWFull          = "COWNearlyFull"
	reasonUnknown          = "StateUnknown"
)

const (
	// lowMetadataArea and fullCOW are percentages from which it is worth a word. (docs/reference/events.md has the first.)
	lowMetadataArea = 80
	fullCOW         = 90
	// smallMetadataArea is that of a group made without --metadatasize: some 720 snapshots of Kubernetes end it.
	smallMetadataArea = 1 << 20
)

// Findings says what is wrong in a group. While a driver is at work, what only it knows to be in use is left out.
func (i *Inspector) Findings(ctx context.Context, group string, driverRuns bool) ([]Finding, error) {
	return inspect(ctx, i, group, func(ctx context.Context, v *view) ([]Finding, error) {
		var out []Finding
		for _, of := range []func(context.Context, bool) ([]Finding, error){
			v.groupFindings, v.poolFindings, v.deviceFindings, v.leftoverFindings, v.volumeFindings, v.snapshotFindings,
		} {
			more, err := of(ctx, driverRuns)
			if err != nil {
				return out, err
			}
			out = append(out, more...)
		}
		return out, nil
	})
}

func (v *view) path(lv string) string { return v.group.Name() + "/" + lv }

// groupConditions are what is wrong with the group itself. Low is the percentage of its metadata area from which it is worth a word.
func (v *view) groupConditions(low int64) []Condition {
	var out []Condition
	if n := v.metadata.MissingPVs; n > 0 {
		out = append(out, Condition{SeverityInaccessible, GroupDiskMissing, fmt.Sprintf(
			"%d of the disks of volume group %s are missing: LVM refuses most changes of it, and what is on them only cannot be had. See `pvs`, the kernel "+
				"log, and LVM's device filters. When one is back: vgextend --restoremissing %s DISK, if LVM still misses it. When it is lost: vgextend "+
				"with a new one and lvconvert --repair of what is RAID; what is not is lost with it", n, v.group.Name(), v.group.Name())})
	}
	used, limit := v.metadata.TextBytes, v.metadata.TextLimitBytes
	switch err := v.checkRoom(); {
	case limit == 0:
	case err != nil:
		out = append(out, Condition{SeverityDegraded, MetadataAreaFull, err.Error()})
	case used > limit/100*low:
		out = append(out, Condition{SeverityDegraded, MetadataAreaLow, fmt.Sprintf(
			"the metadata area of volume group %s has %s of %s used; above %d%% nothing is created in it: delete snapshots or volumes, or give the "+
				"group a disk with a larger area (vgextend --metadatasize, then pvchange --metadataignore y on the others)",
			v.group.Name(), HumanBytes(used), HumanBytes(limit), 100-metadataReservePercent)})
	}
	return out
}

func (v *view) groupFindings(context.Context, bool) ([]Finding, error) {
	var out []Finding
	for _, c := range v.groupConditions(lowMetadataArea) {
		out = append(out, fromCondition(v.group.Name(), c))
	}
	used, limit := v.metadata.TextBytes, v.metadata.TextLimitBytes
	if limit > 0 && limit < smallMetadataArea && used <= limit/100*lowMetadataArea && len(v.lvs) > 0 {
		out = append(out, Finding{
			Severity: SeverityDegraded, Reason: reasonSmallArea, Object: v.group.Name(),
			Message: fmt.Sprintf("the metadata area of volume group %s has room for %s, of which %s are used: some hundred snapshots end it",
				v.group.Name(), HumanBytes(limit), HumanBytes(used)),
			Cure: "where many snapshots are kept: a larger area, by a new disk (vgextend --metadatasize 16m, then pvchange " +
				"--metadataignore y on the others)",
		})
	}
	return out, nil
}

// poolFindings are what the pools say of themselves, and where LVM and the kernel do not agree.
func (v *view) poolFindings(ctx context.Context, _ bool) ([]Finding, error) {
	var out []Finding
	pools, err := v.pools(ctx)
	if err != nil {
		return out, err
	}
	for _, p := range pools {
		for _, c := range p.Conditions {
			f := fromCondition(v.path(p.Name), c)
			f.Fixable = !p.Active && c.Reason == PoolInactive
			out = append(out, f)
		}
		out = append(out, v.transactionFindings(ctx, p)...)
	}
	return out, nil
}

func fromCondition(object string, c Condition) Finding {
	return Finding{Severity: c.Severity, Reason: c.Reason, Object: object, Message: c.Message}
}

// transactionFindings compare how many changes LVM and the kernel have counted of a pool that is active; docs/adr/0014.
func (v *view) transactionFindings(ctx context.Context, p Pool) []Finding {
	pool, ok := v.find(p.Name)
	switch {
	case !ok || !p.Active || pool.TransactionID == p.Transaction:
		return nil
	case pool.TransactionID != p.Transaction+1:
		return []Finding{{
			Severity: SeverityDegraded, Reason: reasonTransaction, Object: v.path(pool.Name), Passing: true,
			Message: fmt.Sprintf("LVM has transaction %d of thin pool %s and the kernel %d: the group was restored from another moment, or its disk "+
				"lost what it had confirmed. Nothing can be made in the pool or removed from it",
				pool.TransactionID, v.path(pool.Name), p.Transaction),
			Cure: fmt.Sprintf("copy the data away first. Then vgcfgbackup --file FILE %s, set transaction_id of %s in it to %d, and "+
				"vgcfgrestore --force --yes --file FILE %s; lvconvert --repair does not help", v.group.Name(), pool.Name, p.Transaction, v.group.Name()),
		}}
	}
	f := Finding{Severity: SeverityDegraded, Object: v.path(pool.Name), Passing: true, Fixable: true}
	i := slices.IndexFunc(v.lvs, func(lv lvm.LV) bool { return lv.Pool == pool.Name && lv.TransactionID == p.Transaction })
	if i < 0 {
		f.Reason, f.Message = reasonRemoval, fmt.Sprintf("thin pool %s still has what LVM removed: the command died", v.path(pool.Name))
		return []Finding{f}
	}
	lv := v.lvs[i]
	has, err := v.e.kernel.HasThin(ctx, v.group.Name(), pool.Name, lv.ThinID)
	switch {
	case err != nil:
		f.Reason, f.Message = reasonBehind, fmt.Sprintf("thin pool %s is one transaction behind LVM, and does not say whether it has %s: %v",
			v.path(pool.Name), lv.Name, err)
	case has:
		f.Reason, f.Message = reasonJam, fmt.Sprintf("thin pool %s has made %s and not counted it: LVM died, and every change of the pool fails. "+
			"What was made is whole", v.path(pool.Name), lv.Name)
	default:
		return nil // a phantom, which is a finding of the volume
	}
	return []Finding{f}
}

// deviceFindings are the devices that are suspended, and those that LVM has forgotten.
func (v *view) deviceFindings(ctx context.Context, _ bool) ([]Finding, error) {
	devices, err := v.e.kernel.Devices(ctx, v.group.Name())
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, d := range devices {
		if v.mayBeOrphan(d) {
			out = append(out, Finding{
				Severity: SeverityDegraded, Reason: reasonOrphan, Object: d.Name, Passing: true, Fixable: d.OpenCount == 0,
				Message: fmt.Sprintf("device %s belongs to nothing that LVM knows: its removal died, and no snapshot of its name can be made", d.Name),
				Cure:    orphanCure(d),
			})
		}
		if !d.Suspended {
			continue
		}
		lv, ok := v.behind(d)
		if !ok {
			out = append(out, Finding{
				Severity: SeverityInaccessible, Reason: reasonForeignSuspended, Object: d.Name, Passing: true,
				Message: fmt.Sprintf("device %s, which is not the driver's, is suspended: its I/O hangs", d.Name),
				Cure:    "whoever suspended it resumes it; if nobody runs LVM, and nobody meant it: dmsetup resume " + d.Name,
			})
			continue
		}
		out = append(out, Finding{
			Severity: SeverityInaccessible, Reason: reasonSuspended, Object: v.path(lv.Name), Passing: true, Fixable: true,
			Message: fmt.Sprintf("device %s of %s is suspended, and its I/O hangs: an LVM command died in the middle", d.Name, v.path(lv.Name)),
		})
	}
	return out, nil
}

func orphanCure(d dm.Device) string {
	if d.OpenCount > 0 {
		return "it is open: see `dmsetup ls --tree` for what lies on it"
	}
	return ""
}

// leftoverFindings are the LVs that are not what they look like.
func (v *view) leftoverFindings(ctx context.Context, driverRuns bool) ([]Finding, error) {
	var out []Finding
	for _, lv := range v.lvs {
		kind, why := v.leftover(lv)
		phantom := lv.Pool != "" && v.state(lv) == StatePhantom
		f := Finding{Severity: SeverityDegraded, Object: v.path(lv.Name), Passing: true, Fixable: true}
		switch {
		case phantom && v.isJammed(ctx, lv):
			continue // a finding of its pool
		case kind == "" && phantom:
			f.Reason, f.Fixable = reasonForeignPhantom, false
			f.Message = v.path(lv.Name) + ", which is not the driver's, is not in its pool: somebody's command died. LVM makes it with the next change " +
				"of the pool, of what its origin holds by then"
			f.Cure = "lvremove " + v.path(lv.Name) + ", before anything else changes the pool"
		case kind == "" || driverRuns && v.isReserve(lv):
			continue // the driver's memory knows of it
		case kind == RecoveredPhantom:
			f.Reason, f.Message = reasonPhantom, v.path(lv.Name)+" was never made: "+why
		case kind == RecoveredHalfMade:
			f.Reason, f.Message = reasonHalfMade, v.path(lv.Name)+" is no snapshot: "+why
		default:
			f.Reason, f.Message = reasonLeftover, v.path(lv.Name)+" is left over: "+why
		}
		out = append(out, f)
	}
	return out, nil
}

// isJammed: what looks like a phantom is in the pool.
func (v *view) isJammed(ctx context.Context, lv lvm.LV) bool {
	has, err := v.e.kernel.HasThin(ctx, v.group.Name(), lv.Pool, lv.ThinID)
	return err != nil || has
}

func (v *view) volumeFindings(ctx context.Context, driverRuns bool) ([]Finding, error) {
	list, err := v.withConditions(ctx, v.lvs)
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, vol := range list {
		for _, c := range vol.Conditions {
			f := fromCondition(vol.DevicePath[len("/dev/"):], c)
			switch {
			case strings.HasPrefix(c.Reason, "Pool") || c.Reason == suspendedReason || c.Reason == SnapshotInvalid:
				continue // told of already, or where it belongs
			case c.Reason == "ContentIncomplete" && driverRuns:
				continue // it is being written: lvmsnapctl watch
			case c.Reason == "ContentIncomplete":
				f.Message, f.Cure = f.Object+" waits for its content: nobody writes it while the driver is down", "start the driver: it goes on where it was"
			}
			out = append(out, f)
		}
	}
	return out, nil
}

func (v *view) snapshotFindings(ctx context.Context, _ bool) ([]Finding, error) {
	pools, err := v.pools(ctx)
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, lv := range v.lvs {
		s, ok, err := v.snapshotDetail(ctx, lv)
		if err != nil {
			return out, err
		}
		if !ok || v.state(lv) == StatePhantom {
			continue
		}
		object := v.path(lv.Name)
		for _, c := range s.Conditions {
			f := fromCondition(object, c)
			if c.Reason == "SnapshotInvalid" {
				f.Cure = "delete its VolumeSnapshot; what it was cut from is well. A class with a larger cowSize keeps the next one"
			}
			out = append(out, f)
		}
		switch {
		case len(s.Conditions) > 0:
		case s.COW != nil && s.COW.Known && v.canOverflow(lv) && s.COW.UsedBytes*100 > s.COW.TotalBytes*fullCOW:
			out = append(out, Finding{
				Severity: SeverityDegraded, Reason: reasonCOWFull, Object: object,
				Message: fmt.Sprintf("the COW of snapshot %s has %s of %s used; when it is full the snapshot is lost",
					object, HumanBytes(s.COW.UsedBytes), HumanBytes(s.COW.TotalBytes)),
				Cure: "lvextend --size +SIZE " + object + ", which the driver does by itself while the group has room (--cow-autoextend-threshold)",
			})
		case v.splitOff(lv):
			out = append(out, Finding{
				Severity: SeverityDataLoss, Reason: reasonSplitOff, Object: object,
				Message: "snapshot " + object + " was split from its volume, by an lvremove that died or by somebody's lvconvert: what can be read of it is no volume's data",
				Cure:    "delete its VolumeSnapshot; its volume is well",
			})
		case !s.Ready && slices.ContainsFunc(pools, func(p Pool) bool { return p.Name == lv.Pool && p.Active }):
			// Of what is in a pool that is not active, or does not answer, the pool's own finding has said it.
			out = append(out, Finding{
				Severity: SeverityDegraded, Reason: reasonUnknown, Object: object, Passing: true,
				Message: "nobody can tell whether snapshot " + object + " is in its pool", Cure: "see what is wrong with the pool",
			})
		}
	}
	return out, nil
}
