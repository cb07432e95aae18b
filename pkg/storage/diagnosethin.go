package storage

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// ThinFindings compares what LVM has in a thin pool with what the pool itself has: the bytes of each of its devices, by their ids. They
// differ by one while a command is at work, and after one died; by more only when a disk lost what it had confirmed, or somebody
// worked on the pool past LVM.
func (i *Inspector) ThinFindings(ctx context.Context, group, pool string, has map[uint32]int64) ([]Finding, error) {
	return inspect(ctx, i, group, func(ctx context.Context, v *view) ([]Finding, error) {
		var out []Finding
		unknown := maps.Clone(has)
		for _, lv := range v.lvs {
			if lv.Pool != pool {
				continue
			}
			if _, ok := has[lv.ThinID]; !ok && v.state(lv) == StateCommitted {
				out = append(out, v.lostThin(lv))
			}
			delete(unknown, lv.ThinID)
		}
		queued, _ := v.find(pool)
		for _, message := range queued.Queue { // a removal that is not finished is a finding of its own
			delete(unknown, message.Delete)
		}
		for _, id := range slices.Sorted(maps.Keys(unknown)) {
			out = append(out, Finding{
				Severity: SeverityDegraded, Reason: reasonThinUnknown, Object: v.path(pool), Passing: true, Which: fmt.Sprint(id),
				Message: fmt.Sprintf("thin pool %s has device %d, with %s, of which LVM knows nothing: nobody can use it, and it keeps that room",
					v.path(pool), id, HumanBytes(unknown[id])),
				Cure: fmt.Sprintf("when `lvs -a -o lv_name,thin_id %s` has no %d: dmsetup message %s-tpool 0 'delete %d'",
					v.group.Name(), id, dm.DeviceName(v.group.Name(), pool), id),
			})
		}
		return out, nil
	})
}

func (v *view) lostThin(lv lvm.LV) Finding {
	return Finding{
		Severity: SeverityDataLoss, Reason: reasonThinLost, Object: v.path(lv.Name), Passing: true,
		Message: fmt.Sprintf("thin pool %s does not have %s (device %d): a disk lost what it had confirmed, or somebody removed it past LVM. Its content is gone",
			v.path(lv.Pool), v.path(lv.Name), lv.ThinID),
		Cure: "delete its claim or VolumeSnapshot (lvremove " + v.path(lv.Name) + "), and restore it from what there is; look after the disk",
	}
}
