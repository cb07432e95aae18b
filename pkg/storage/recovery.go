package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// What an interrupted LVM command leaves, and what is done about it, is in docs/adr/0014.

// RecoveryKind is what was found, for the metric.
type RecoveryKind string

// The kinds of recoveries.
const (
	RecoveredSuspended RecoveryKind = "suspended"
	RecoveredJam       RecoveryKind = "jam"
	RecoveredPhantom   RecoveryKind = "phantom"
	RecoveredForeign   RecoveryKind = "foreign"
	RecoveredRemoval   RecoveryKind = "removal"
	RecoveredHalfMade  RecoveryKind = "half_made"
	RecoveredLeftover  RecoveryKind = "leftover"
	RecoveredDevice    RecoveryKind = "device"
)

// RecoveryKinds are all of them.
var RecoveryKinds = []RecoveryKind{
	RecoveredSuspended, RecoveredJam, RecoveredPhantom, RecoveredForeign, RecoveredRemoval, RecoveredHalfMade, RecoveredLeftover,
	RecoveredDevice,
}

// Help says what was found and done, for docs/reference/metrics.md (make reference).
func (k RecoveryKind) Help() string {
	return map[RecoveryKind]string{
		RecoveredSuspended: "a device was suspended, and its I/O hung; it was resumed",
		RecoveredJam:       "a thin pool had made a volume and not counted it, so that nothing could be changed in it; it was counted, and the volume is as it was made",
		RecoveredPhantom:   "LVM had a volume or snapshot that its pool had not, and would have made it with the next change, too late; it was removed",
		RecoveredForeign:   "the same of an LV that is not the driver's; it was left alone, and LVM makes it with the next change of the pool",
		RecoveredRemoval:   "a thin pool still had what LVM had removed; it was removed there, too",
		RecoveredHalfMade:  "a COW snapshot was still a plain volume; it was removed",
		RecoveredLeftover:  "an LV of the driver's that nobody needs any more was removed: extents that were to be given to a volume, the temporary snapshot of a copy, a deleted volume whose last snapshot went",
		RecoveredDevice:    "LVM had removed an LV of the driver's, and its device was still there; it was removed, too",
	}[k]
}

// Recovery is one thing that was found and put right.
type Recovery struct {
	Kind        RecoveryKind
	LV          string
	Found, Done string
}

// recoveries counts them.
type recoveries struct {
	mu    sync.Mutex
	count map[RecoveryKind]int64
}

func (r *recoveries) all() map[RecoveryKind]int64 {
	out := map[RecoveryKind]int64{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, kind := range RecoveryKinds {
		out[kind] = r.count[kind]
	}
	return out
}

// recovered tells of a recovery, and counts it.
func (v *view) recovered(ctx context.Context, r Recovery) {
	lv, _ := v.find(r.LV)
	v.e.tell(ctx, "Recovered from an interrupted command", nil, Notice{
		Recovered, fmt.Sprintf("%s/%s: %s; done: %s", v.group.Name(), r.LV, r.Found, r.Done), v.objects(lv),
	}, "volumeGroup", v.group.Name(), "lv", r.LV, "kind", r.Kind)
	c := &v.e.stats.recoveries
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == nil {
		c.count = map[RecoveryKind]int64{}
	}
	c.count[r.Kind]++
}

// errSuspended: a device of the driver's was met that is suspended. The turn in which that happens recovers, and tries again.
var errSuspended = errors.New("the device is suspended")

// checkAwake is asked of a device before something is made of it.
func (e *Engine) checkAwake(ctx context.Context, group, lv string) error {
	info, err := e.kernel.Info(ctx, group, lv)
	if errors.Is(err, dm.ErrNoDevice) {
		return nil
	}
	if err == nil && info.Suspended {
		err = suspended(group, lv)
	}
	return err
}

func suspended(group, lv string) error {
	return fmt.Errorf("%w: /dev/%s/%s: %w", ErrDamaged, group, lv, errSuspended)
}

// healthy looks at a group and puts right what an interrupted command left, in the group's turn. When all is well it costs
// nothing beyond the look.
func (e *Engine) healthy(ctx context.Context, g *group, c *lvm.Client) (*view, error) {
	v, err := e.look(ctx, g, c.View)
	if err != nil {
		return nil, err
	}
	ill, err := v.suspended(ctx)
	if err != nil {
		return nil, err
	}
	if ill = ill || v.unsettled(); ill || g.suspect.Load() {
		switch err := v.recover(ctx, c); {
		case err == nil:
			g.suspect.Store(false)
		case ill || errors.Is(err, lvm.ErrLocked):
			return nil, err
		default: // what is to be changed may be well
			klog.FromContext(ctx).Error(err, "What interrupted commands left could not be looked for", "volumeGroup", g.Name())
		}
		if v, err = e.look(ctx, g, c.View); err != nil {
			return nil, err
		}
	}
	swept, err := v.sweep(ctx, c)
	if err == nil && swept {
		v, err = e.look(ctx, g, c.View)
	}
	if err != nil {
		return nil, err
	}
	return v, nil
}

// orRecover is the end of a turn: when LVM died in it, what it left is put right before anybody else comes; when something was
// met that a recovery cures, fn is tried again after one.
func (e *Engine) orRecover(ctx context.Context, g *group, c *lvm.Client, fn func(context.Context, *lvm.Client, *view) error, err error) error {
	switch {
	case errors.Is(err, lvm.ErrOutcomeUnknown):
		// What hangs now would hang until the retry, and an administrator's next command would finish what is half done.
		g.suspect.Store(true)
		if _, failed := e.healthy(ctx, g, c); failed != nil {
			klog.FromContext(ctx).Error(failed, "LVM died, and what it left is not put right yet", "volumeGroup", g.Name())
		}
	case recoverable(err):
		g.suspect.Store(true)
		v, failed := e.healthy(ctx, g, c)
		if failed != nil {
			return failed
		}
		return fn(ctx, c, v)
	}
	return err
}

// recoverable: another try after a recovery may succeed.
func recoverable(err error) bool {
	return errors.Is(err, errSuspended) || errors.Is(err, lvm.ErrPoolJammed) || errors.Is(err, lvm.ErrSuspended)
}

// unsettled: LVM has something in mind for a thin pool. Either a command is at work, or one died; but for what a recovery has
// seen and left, which is somebody else's, until somebody's command changes it.
func (v *view) unsettled() bool {
	if v.group.recoveredAt.Load() == v.metadata.Sequence {
		return false
	}
	return slices.ContainsFunc(v.lvs, func(lv lvm.LV) bool {
		return lv.Attr.Type() == lvm.TypeThinPool && (len(lv.Queue) > 0 || v.state(lv) == StateBehind)
	})
}

// recoveryPause keeps what cannot be put right from being tried every second.
const recoveryPause = 15 * time.Second

// health is what was seen of a group by its watch.
type health struct {
	unsettled uint64 // the metadata's sequence number then; 0: all was well
	stays     bool   // it was so at the look before, too
	failed    time.Time
}

func (h *health) see(ctx context.Context, v *view) error {
	before := h.unsettled
	h.unsettled = 0
	ill, err := v.ill(ctx)
	if ill {
		h.unsettled = v.metadata.Sequence
	}
	h.stays = h.unsettled != 0 && h.unsettled == before
	return err
}

// ill: there is what the next change of the group would put right before anything else.
func (v *view) ill(ctx context.Context) (bool, error) {
	if v.unsettled() || slices.ContainsFunc(v.lvs, func(lv lvm.LV) bool { _, why := v.leftover(lv); return why != "" }) {
		return true, nil
	}
	return v.suspended(ctx)
}

// recover takes a turn, which begins with a recovery, when something has been unsettled for longer than from one look to the
// next, so that nobody's I/O hangs until the next call.
func (w *watch) recover(ctx context.Context) error {
	if !w.group.suspect.Load() && !w.health.stays || w.e.now().Sub(w.health.failed) < recoveryPause {
		return nil
	}
	err := w.e.inTurn(ctx, w.group, changing, "recovery", func(context.Context, *lvm.Client, *view) error { return nil })
	if err != nil {
		w.health.failed = w.e.now()
	}
	return err
}

// recover puts right what needs no LVM command, under LVM's own lock, so that it is certain that whoever left it there is
// gone; and then what LVM itself has to do. Each step is complete in itself, and whoever dies between two of them
// leaves what the next recovery finds.
func (v *view) recover(ctx context.Context, c *lvm.Client) error {
	var refresh []string
	var unmended error // in one pool; what else hangs is resumed all the same
	err := c.Exclusively(ctx, func(m lvm.Metadata) error {
		now := *v // what there was may have been a command at work
		now.metadata, now.lvs, now.records = m, m.LVs, v.group.recordsOf(m.LVs)
		var err error
		if refresh, err = now.resume(ctx); err != nil {
			return err
		}
		for _, b := range v.e.backends {
			mender, ok := b.(Mender)
			if !ok {
				continue
			}
			done, err := mender.Mend(ctx, v.group.Name(), m.LVs)
			for _, r := range done {
				v.recovered(ctx, r)
			}
			unmended = errors.Join(unmended, err)
		}
		if unmended == nil {
			v.group.recoveredAt.Store(m.Sequence)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range refresh {
		if lv, _ := v.find(name); unmended != nil && lv.Attr.Type() == lvm.TypeThinPool {
			continue // LVM would begin with what it has in mind for the pool
		}
		err := c.Refresh(ctx, name)
		if errors.Is(err, lvm.ErrOutcomeUnknown) { // killed, too; I/O hangs until one is not
			err = c.Refresh(ctx, name)
		}
		if err != nil {
			return fmt.Errorf("%s/%s is suspended and cannot be resumed: %w", v.group.Name(), name, err)
		}
		v.recovered(ctx, Recovery{RecoveredSuspended, name, "a device of it was suspended, and its I/O hung", "LVM loaded its tables anew and resumed it"})
	}
	if err := v.removeOrphans(ctx, c); err != nil || unmended != nil {
		return errors.Join(unmended, err)
	}
	if v.group.suspect.Load() {
		if err := c.MakeNodes(ctx); err != nil {
			return err
		}
	}
	return v.tellOfForeign(ctx, c)
}

// resumeTimeout is for one device, so that one that cannot be resumed does not keep the group's turn.
const resumeTimeout = 10 * time.Second

// resume resumes pools and the driver's thin volumes in them, and returns what LVM has to refresh: COW snapshots have to be resumed
// before their origin. A device that is suspended while nobody runs LVM was left so by a command that died. What is not
// the driver's may have been suspended for other reasons by other people, and is left alone; but not a pool that the
// driver's volumes are in, since they hang with it.
func (v *view) resume(ctx context.Context) (refresh []string, err error) {
	devices, err := v.e.kernel.Devices(ctx, v.group.Name())
	if err != nil {
		return nil, err
	}
	var volumes []func() error
	for _, d := range slices.Backward(devices) { // sorted: of a pool that is _tmeta, _tdata, -tpool and the pool
		if !d.Suspended {
			continue
		}
		lv, ok := v.behind(d)
		switch {
		case !ok:
			klog.FromContext(ctx).Info("A device that is not the driver's is suspended, and left alone", "volumeGroup", v.group.Name(), "device", d.Name)
		case lv.Pool != "":
			volumes = append(volumes, func() error { return v.resumeDevice(ctx, d, lv) })
		case lv.Attr.Type() == lvm.TypeThinPool:
			// It comes before its volumes, which would wait for it. Of two tables the present one is right or too small; the other may have extents that LVM never committed.
			if err := v.e.kernel.ClearTable(ctx, d.Name); err != nil {
				return nil, err
			}
			if err := v.resumeDevice(ctx, d, lv); err != nil {
				return nil, err
			}
			refresh = append(refresh, lv.Name)
		case isCOW(lv):
			refresh = append(refresh, lv.Origin)
		default:
			refresh = append(refresh, lv.Name)
		}
	}
	for _, resume := range volumes {
		if err := resume(); err != nil {
			return nil, err
		}
	}
	slices.Sort(refresh)
	refresh = slices.Compact(refresh)
	for _, name := range refresh {
		// Of an origin that was suspended for its first snapshot, before that was committed, LVM knows no layer, and would
		// resume it upon one without a live table: writes that had waited would fail (docs/adr/0010, Crashes).
		if err := v.resumeByName(ctx, dm.LayerName(v.group.Name(), name)); err != nil && !errors.Is(err, dm.ErrNoDevice) {
			return nil, err
		}
	}
	return refresh, nil
}

func (v *view) resumeDevice(ctx context.Context, d dm.Device, lv lvm.LV) error {
	if err := v.resumeByName(ctx, d.Name); err != nil {
		return fmt.Errorf("%w: %s/%s is suspended and cannot be resumed: %w", ErrDamaged, v.group.Name(), lv.Name, err)
	}
	v.recovered(ctx, Recovery{RecoveredSuspended, lv.Name, "device " + d.Name + " was suspended, and its I/O hung", "resumed it"})
	return nil
}

func (v *view) resumeByName(ctx context.Context, device string) error {
	ctx, cancel := context.WithTimeout(ctx, resumeTimeout)
	defer cancel()
	return v.e.kernel.Resume(ctx, device)
}

// behind is the LV of the driver's, or the pool that has some, that a device belongs to.
func (v *view) behind(d dm.Device) (lvm.LV, bool) {
	for _, lv := range v.lvs {
		if lv.Attr.Type() == lvm.TypeThinPool {
			if v.isPoolDevice(d, lv) && slices.ContainsFunc(v.lvs, func(t lvm.LV) bool { return t.Pool == lv.Name && v.ours(t) }) {
				return lv, true
			}
			continue
		}
		if belongs(d, lv) {
			return lv, v.ours(lv) || v.aside(lv) || v.isReserve(lv)
		}
	}
	return lvm.LV{}, false
}

// isPoolDevice: the pool itself, its hidden layer, or one of its two hidden LVs, which are not among v.lvs.
func (v *view) isPoolDevice(d dm.Device, pool lvm.LV) bool {
	rest, ok := strings.CutPrefix(d.Name, dm.DeviceName(v.group.Name(), pool.Name))
	return ok && slices.Contains([]string{"", "-tpool", "_tdata", "_tmeta"}, rest)
}

// removeOrphans removes devices of the driver's LVs that LVM has removed. An lvremove of a COW snapshot that died leaves that of its
// COW, and then every later snapshot of that name fails.
func (v *view) removeOrphans(ctx context.Context, c *lvm.Client) error {
	devices, err := v.e.kernel.Devices(ctx, v.group.Name())
	if err != nil || !slices.ContainsFunc(devices, v.mayBeOrphan) {
		return err
	}
	return c.Exclusively(ctx, func(m lvm.Metadata) error {
		now := *v
		now.lvs = m.LVs
		for range 3 { // one may hold another open
			devices, err := v.e.kernel.Devices(ctx, v.group.Name())
			if err != nil {
				return err
			}
			for _, d := range devices {
				if !now.mayBeOrphan(d) || d.OpenCount > 0 {
					continue
				}
				if err := v.e.kernel.Remove(ctx, d.Name); err != nil {
					return fmt.Errorf("device %s, which LVM does not know any more, cannot be removed: %w", d.Name, err)
				}
				v.recovered(ctx, Recovery{RecoveredDevice, d.Name, "LVM had removed the LV of this device and not the device", "removed it"})
			}
		}
		return nil
	})
}

// mayBeOrphan: a device that is named as the driver's LVs are, or as a layer of one, and belongs to no LV. (A RAID volume's hidden
// LVs, which are not among v.lvs either, have an underscore in their names.)
func (v *view) mayBeOrphan(d dm.Device) bool {
	uuid, layer := d.LV()
	name, ok := strings.CutPrefix(strings.TrimSuffix(d.Name, layer), dm.DeviceName(v.group.Name(), "")+"csi--")
	if !ok || uuid == "" || strings.Contains(name, "_") || layer != "" && layer != "-cow" && layer != "-real" {
		return false
	}
	return !slices.ContainsFunc(v.lvs, func(lv lvm.LV) bool { return belongs(d, lv) })
}

// belongs says whether a device is an LV's, or a layer of it.
func belongs(d dm.Device, lv lvm.LV) bool {
	uuid, _ := d.LV()
	return uuid != "" && uuid == strings.ReplaceAll(lv.UUID, "-", "")
}

// tellOfForeign tells of phantoms that are not the driver's. Those that are, the sweep removes.
func (v *view) tellOfForeign(ctx context.Context, c *lvm.Client) error {
	now, err := v.e.look(ctx, v.group, c.View)
	if err != nil {
		return err
	}
	for _, lv := range now.lvs {
		if lv.Pool != "" && now.state(lv) == StatePhantom && !now.ours(lv) {
			now.recovered(ctx, Recovery{
				RecoveredForeign, lv.Name, "somebody's command died before the pool made it", "left alone: LVM makes it with the next change of the pool",
			})
		}
	}
	return nil
}
