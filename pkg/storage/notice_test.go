package storage_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// listener is a host whose notices and log are kept, over restarts of the driver.
type listener struct {
	*host
	logger klog.Logger
	offset atomic.Int64       // of the driver's clock
	step   atomic.Int64       // how much is added to that with every look at the clock
	reader lvm.MetadataReader // none: LVM is asked

	mu    sync.Mutex
	heard []storage.Notice
	ended map[string]int64 // counts of drivers that ended
}

// stuckAfter is more than a test moves the clock on that is about something else: a look that is at work then is not stuck.
const stuckAfter = 45 * time.Minute

func newListener(t *testing.T) *listener {
	t.Helper()
	fake := lvmtest.New()
	fake.AddGroup(group, 100<<30)
	fake.AddPool(group, pool, 1<<30, 16*mib, 64<<10, true)
	l := &listener{
		host: &host{LVM: fake}, ended: map[string]int64{},
		logger: ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true), ktesting.Verbosity(0))),
	}
	l.start(t)
	return l
}

func (l *listener) start(t *testing.T) {
	t.Helper()
	g, err := lvm.NewGroup(group, lvm.GroupOptions{Executor: l.LVM, Reader: l.reader})
	must(t, err)
	e, err := openWith(l.context(t), t, l.LVM, func(o *storage.Options) {
		o.Groups, o.StuckAfter = []*lvm.Group{g}, stuckAfter
		o.Now = func() time.Time { return time.Now().Add(time.Duration(l.offset.Add(l.step.Load()))) }
		o.Notify = func(n storage.Notice) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.heard = append(l.heard, n)
		}
	}, group)
	must(t, err)
	l.Engine = e
}

func (l *listener) restart(t *testing.T) {
	t.Helper()
	l.Close()
	for reason, n := range l.Stats().Notices {
		l.ended[reason] += n
	}
	l.start(t)
}

func (l *listener) context(t *testing.T) context.Context {
	return klog.NewContext(t.Context(), l.logger)
}

// running runs the engine's watch until it is told to stop.
func (l *listener) running(t *testing.T) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(l.context(t))
	ended := make(chan error, 1)
	go func() { ended <- l.Engine.Run(ctx) }()
	return func() {
		cancel()
		must(t, <-ended)
	}
}

func (l *listener) all() []storage.Notice {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.heard)
}

// awaits the first notice with a reason.
func (l *listener) awaits(t *testing.T, reason string) storage.Notice {
	t.Helper()
	var out storage.Notice
	eventually(t, reason, func() bool {
		all := l.all()
		i := slices.IndexFunc(all, func(n storage.Notice) bool { return n.Reason == reason })
		if i >= 0 {
			out = all[i]
		}
		return i >= 0
	})
	return out
}

// heardOnly checks which reasons there were, in any order, and that notices, counts and lines in the log agree.
func (l *listener) heardOnly(t *testing.T, reasons ...string) {
	t.Helper()
	want, notices, counts, lines := map[string]int64{}, map[string]int64{}, maps.Clone(l.ended), map[string]int64{}
	for _, reason := range reasons {
		want[reason]++
	}
	for _, n := range l.all() {
		notices[n.Reason]++
		if !slices.Contains(storage.NoticeReasons, n.Reason) {
			t.Errorf("%s is not among NoticeReasons", n.Reason)
		}
	}
	for reason, n := range l.Stats().Notices {
		counts[reason] += n
	}
	maps.DeleteFunc(counts, func(_ string, n int64) bool { return n == 0 })
	for _, entry := range l.logger.GetSink().(ktesting.Underlier).GetBuffer().Data() {
		keys := append(slices.Clone(entry.WithKVList), entry.ParameterKVList...)
		for i := 0; i+1 < len(keys); i += 2 {
			if keys[i] == "reason" {
				reason := fmt.Sprint(keys[i+1])
				lines[reason]++
				if isError := entry.Type == ktesting.LogError; isError != (storage.Notice{Reason: reason}).IsWarning() {
					t.Errorf("%s: the line %q is an error: %t", reason, entry.Message, isError)
				}
			}
		}
	}
	for what, got := range map[string]map[string]int64{"notices": notices, "counts": counts, "lines in the log": lines} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
}

func checkNotice(t *testing.T, n storage.Notice, objects []storage.Object, words ...string) {
	t.Helper()
	if diff := cmp.Diff(objects, n.Objects); diff != "" {
		t.Errorf("%s (-want +got):\n%s", n.Reason, diff)
	}
	for _, word := range words {
		if !strings.Contains(n.Message, word) {
			t.Errorf("%s: %q does not say %q", n.Reason, n.Message, word)
		}
	}
}

func claimOf(name string) storage.Object {
	return storage.Object{Kind: storage.ObjectClaim, Namespace: "shop", Name: "claim-of-" + name, CSIName: name}
}

func claimed(spec storage.VolumeSpec) storage.VolumeSpec {
	spec.Claim = storage.Claim{Namespace: "shop", Name: "claim-of-" + spec.Name, VolumeName: spec.Name}
	return spec
}

var (
	nodeObject     = storage.Object{Kind: storage.ObjectNode}
	snapshotObject = storage.Object{Kind: storage.ObjectSnapshot, Namespace: "shop", Name: "monday", CSIName: "s"}
)

func snapshotSpec(v storage.Volume, cow int64) storage.SnapshotSpec {
	return storage.SnapshotSpec{
		Name: "s", SourceID: v.ID, COW: storage.COWSize{Bytes: cow},
		Object: storage.SnapshotObject{Namespace: "shop", Name: "monday", ContentName: "snapcontent-s"},
	}
}

// A COW cannot grow, can, cannot, and overflows: each is told once, and what is over is not told again by the next driver.
func TestNoticesOfCOW(t *testing.T) {
	l := newListener(t)
	v, err := l.CreateVolume(l.context(t), claimed(thickSpec("v")))
	must(t, err)
	l.write(t, v, "v1")
	s, err := l.CreateSnapshot(l.context(t), snapshotSpec(v, 4*mib))
	must(t, err)
	full := func() { l.SetCOWUsage(group, lvName(t, s.ID), 3*mib+512<<10) }
	noSpace := func() {
		l.FailNext(lvmtest.Verb("lvextend"), "Insufficient free space: 1 extents needed, but only 0 available", 1000)
	}
	noSpace()
	full()
	stop := l.running(t)
	checkNotice(t, l.awaits(t, storage.COWCannotGrow), []storage.Object{snapshotObject},
		lvName(t, s.ID), "% full and cannot grow", "Insufficient free space", "make room in the volume group")
	l.SetCOWUsage(group, lvName(t, s.ID), mib)
	checkNotice(t, l.awaits(t, storage.COWHasRoom), []storage.Object{snapshotObject}, lvName(t, s.ID))
	l.SetCOWUsage(group, lvName(t, s.ID), 8*mib)
	checkNotice(t, l.awaits(t, storage.SnapshotInvalid), []storage.Object{snapshotObject}, lvName(t, s.ID), "content is lost", "cowSize")
	stop()
	l.restart(t)
	stop = l.running(t)
	l.SetPoolUsage(group, pool, (1<<30)*96/100, 10)
	l.awaits(t, storage.PoolDataLow) // it has looked
	stop()
	l.heardOnly(t, storage.COWCannotGrow, storage.COWHasRoom, storage.SnapshotInvalid, storage.PoolDataLow)
}

// A condition that lasts is told of again before Kubernetes forgets it, and not at every look.
func TestNoticesThatLast(t *testing.T) {
	l := newListener(t)
	l.SetPoolUsage(group, pool, (1<<30)*96/100, 10)
	stop := l.running(t)
	l.awaits(t, storage.PoolDataLow)
	l.offset.Store(int64(29 * time.Minute))
	l.SetPoolUsage(group, pool, (1<<30)*96/100, 95) // which is seen by a look after that
	l.awaits(t, storage.PoolMetadataLow)
	l.offset.Store(int64(31 * time.Minute))
	eventually(t, "a second notice", func() bool { return len(l.all()) == 3 })
	stop()
	l.heardOnly(t, storage.PoolDataLow, storage.PoolMetadataLow, storage.PoolDataLow)
}

// A pool that fills is the node's matter, and that of the claims in use.
func TestNoticesOfPools(t *testing.T) {
	l := newListener(t)
	for _, name := range []string{"used", "idle"} {
		v, err := l.CreateVolume(l.context(t), claimed(storage.VolumeSpec{Name: name, RequiredBytes: 8 * mib, Access: storage.AccessBlock}))
		must(t, err)
		if name == "used" {
			l.write(t, v, "v1")
			_, err = l.CreateSnapshot(l.context(t), snapshotSpec(v, 0))
			must(t, err)
		}
	}
	thick, err := l.CreateVolume(l.context(t), claimed(thickSpec("thick")))
	must(t, err)
	l.write(t, thick, "v1")
	l.SetPoolUsage(group, pool, (1<<30)*96/100, 10)
	stop := l.running(t)
	checkNotice(t, l.awaits(t, storage.PoolDataLow), []storage.Object{nodeObject, claimOf("used")}, group+"/"+pool, "96.0%", "delete snapshots or volumes")
	l.SetPoolUsage(group, pool, 10*mib, 10)
	checkNotice(t, l.awaits(t, storage.PoolRecovered), []storage.Object{nodeObject, claimOf("used")}, group+"/"+pool, "PoolDataLow is over")
	l.SetPoolMode(group, pool, "", true)
	checkNotice(t, l.awaits(t, storage.PoolNeedsCheck), []storage.Object{nodeObject}, "lvconvert --repair")
	stop()
	l.heardOnly(t, storage.PoolDataLow, storage.PoolRecovered, storage.PoolNeedsCheck)
}

// Hundreds of claims are not told at once.
func TestNoticesOfPoolsAreBounded(t *testing.T) {
	l := newListener(t)
	for i := range 60 {
		v, err := l.CreateVolume(l.context(t), claimed(storage.VolumeSpec{Name: fmt.Sprint("v", i), RequiredBytes: 8 * mib, Access: storage.AccessBlock}))
		must(t, err)
		_, err = l.Activate(t.Context(), v.ID)
		must(t, err)
	}
	l.SetPoolUsage(group, pool, (1<<30)*96/100, 10)
	stop := l.running(t)
	if n := len(l.awaits(t, storage.PoolDataLow).Objects); n != 1+50 {
		t.Errorf("%d objects were told", n)
	}
	stop()
}

// Of what takes longer than a call waits the claim is told that it began and what became of it, by whichever driver.
func TestNoticesOfFills(t *testing.T) {
	l := newListener(t)
	v, err := l.CreateVolume(l.context(t), claimed(thickSpec("v"))) // is wiped in no time, of which nobody is told
	must(t, err)
	l.write(t, v, "v1")
	s, err := l.CreateSnapshot(l.context(t), snapshotSpec(v, 0))
	must(t, err)
	l.heardOnly(t)
	l.step.Store(int64(time.Minute)) // everything takes longer than a call waits
	ctx := l.context(t)
	_, err = l.CreateVolume(ctx, claimed(thickSpec("w")))
	must(t, err)
	checkNotice(t, l.awaits(t, storage.WipeStarted), []storage.Object{claimOf("w")}, storage.VolumeLV("w"), "zeroes", "nothing is to be done", "4.0 MiB of 8.0 MiB")
	checkNotice(t, l.awaits(t, storage.WipeFinished), []storage.Object{claimOf("w")}, storage.VolumeLV("w"), "has all of its content")

	l.OnFill(func(context.Context, string) error { return errors.New("the disk is slow") })
	spec := claimed(copySpec(storage.Class{}, storage.SourceSnapshot, s.ID))
	if _, err := l.CreateVolume(ctx, spec); !errors.Is(err, storage.ErrPending) {
		t.Fatal(err)
	}
	checkNotice(t, l.awaits(t, storage.CopyStarted), []storage.Object{claimOf("r")}, storage.VolumeLV("r"), "copied from "+lvName(t, s.ID))
	checkNotice(t, l.awaits(t, storage.CopyFailed), []storage.Object{claimOf("r")}, storage.VolumeLV("r"), "the disk is slow", "tried again")
	l.OnFill(nil)
	l.step.Store(0)
	l.restart(t) // the next driver goes on by itself, and tells of the end of what was told to have begun
	l.finished(t, "r")
	checkNotice(t, l.awaits(t, storage.CopyFinished), []storage.Object{claimOf("r")}, storage.VolumeLV("r"))
	l.heardOnly(t, storage.WipeStarted, storage.WipeFinished, storage.CopyStarted, storage.CopyFailed, storage.CopyFinished)
}

// The end of the driver in the middle of a copy is no failure.
func TestNoNoticeOfAnInterruption(t *testing.T) {
	l := newListener(t)
	v, err := l.CreateVolume(l.context(t), claimed(thickSpec("v")))
	must(t, err)
	l.write(t, v, "v1")
	entered := make(chan struct{}, 1)
	l.OnFill(func(ctx context.Context, _ string) error {
		entered <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	})
	go func() {
		<-entered
		l.Close()
	}()
	if _, err := l.CreateVolume(l.context(t), claimed(copySpec(thickClass, storage.SourceVolume, v.ID))); !errors.Is(err, storage.ErrPending) {
		t.Fatal(err)
	}
	l.heardOnly(t)
}

// The source of a copy is lost: the claim is told what became of it.
func TestNoticeOfALostSource(t *testing.T) {
	l := newListener(t)
	v, err := l.CreateVolume(l.context(t), claimed(thickSpec("v")))
	must(t, err)
	l.write(t, v, "v1")
	s, err := l.CreateSnapshot(l.context(t), snapshotSpec(v, 4*mib))
	must(t, err)
	l.OnFill(func(context.Context, string) error {
		l.SetCOWUsage(group, lvName(t, s.ID), 8*mib)
		return nil
	})
	if _, err := l.CreateVolume(l.context(t), claimed(copySpec(thickClass, storage.SourceSnapshot, s.ID))); !errors.Is(err, storage.ErrDamaged) {
		t.Fatal(err)
	}
	checkNotice(t, l.awaits(t, storage.CopyFailed), []storage.Object{claimOf("r")}, "is removed", "content is lost", "make another")
	checkNotice(t, l.awaits(t, storage.SnapshotInvalid), []storage.Object{snapshotObject}, lvName(t, s.ID))
	l.heardOnly(t, storage.CopyFailed, storage.SnapshotInvalid)
}

// What a crash left is told to whom it happened to, once.
func TestNoticesOfRecovery(t *testing.T) {
	l := newListener(t)
	v, err := l.CreateVolume(l.context(t), claimed(storage.VolumeSpec{Name: "v", RequiredBytes: 8 * mib, Access: storage.AccessBlock}))
	must(t, err)
	l.write(t, v, "v1")
	l.FailNext(lvmtest.Verb("lvremove"), "no recovery by this driver", 5)
	l.PhantomNext(snapshotCreation)
	_, _ = l.CreateSnapshot(l.context(t), snapshotSpec(v, 0))
	l.SetSuspended(group, lvName(t, v.ID), true)
	l.restart(t)
	l.restart(t)
	l.heardOnly(t, storage.Recovered, storage.Recovered)
	heard := l.all()
	slices.SortFunc(heard, func(a, b storage.Notice) int {
		return strings.Compare(string(a.Objects[0].Kind), string(b.Objects[0].Kind))
	})
	checkNotice(t, heard[0], []storage.Object{claimOf("v")}, group+"/"+lvName(t, v.ID), "was suspended", "done: resumed it")
	checkNotice(t, heard[1], []storage.Object{snapshotObject}, group+"/"+storage.SnapshotLV("s"), "done: removed it")
	if n := l.Stats().Recoveries[storage.RecoveredPhantom]; n != 0 {
		t.Errorf("the third driver counts %d recoveries", n)
	}
}
