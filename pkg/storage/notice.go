package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/blockcopy"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// Notice is what somebody has to know who looks at objects and not at logs: it is told as a line in the log, a count and, by
// Options.Notify, an event in Kubernetes. All three come from one call, so that they agree.
type Notice struct {
	Reason  string
	Message string   // what, which, and what to do about it
	Objects []Object // whom it concerns; none: the node
}

// Object is an object of Kubernetes, as the tags of an LV name it.
type Object struct {
	Kind            ObjectKind
	Namespace, Name string
	CSIName         string // what the sidecars made of the object's UID
}

// ObjectKind is the kind of an Object.
type ObjectKind string

// The kinds of objects.
const (
	ObjectNode     ObjectKind = "Node" // this one; it has no name here
	ObjectClaim    ObjectKind = "PersistentVolumeClaim"
	ObjectSnapshot ObjectKind = "VolumeSnapshot"
)

func (o Object) String() string {
	if o.Kind == ObjectNode {
		return string(o.Kind)
	}
	return string(o.Kind) + " " + o.Namespace + "/" + o.Name
}

// The reasons of notices, for machines: they do not change. Those of conditions are the conditions' own.
const (
	SnapshotInvalid = "SnapshotInvalid"
	COWCannotGrow   = "COWCannotGrow"
	COWHasRoom      = "COWHasRoom"

	PoolDataLow        = "PoolDataLow"
	PoolMetadataLow    = "PoolMetadataLow"
	PoolCannotGrow     = "PoolCannotGrow"
	PoolOutOfDataSpace = "PoolOutOfDataSpace"
	PoolReadOnly       = "PoolReadOnly"
	PoolNeedsCheck     = "PoolNeedsCheck"
	PoolNotZeroing     = "PoolNotZeroing"
	PoolFailed         = "PoolFailed"
	PoolInactive       = "PoolInactive"
	PoolNotAnswering   = "PoolNotAnswering"
	PoolRecovered      = "PoolRecovered"

	GroupStuck       = "GroupStuck"
	GroupDiskMissing = "GroupDiskMissing"
	MetadataAreaLow  = "MetadataAreaLow"
	MetadataAreaFull = "MetadataAreaFull"
	GroupRecovered   = "GroupRecovered"

	RAIDDegraded   = "RAIDDegraded"
	RAIDRecovering = "RAIDRecovering"
	RAIDRecovered  = "RAIDRecovered"

	CopyStarted  = "CopyStarted"
	CopyFinished = "CopyFinished"
	CopyFailed   = "CopyFailed"
	WipeStarted  = "WipeStarted"
	WipeFinished = "WipeFinished"
	WipeFailed   = "WipeFailed"

	Recovered = "Recovered"
)

// NoticeReasons are all of them.
var NoticeReasons = []string{
	SnapshotInvalid, COWCannotGrow, COWHasRoom,
	PoolDataLow, PoolMetadataLow, PoolCannotGrow, PoolOutOfDataSpace, PoolReadOnly, PoolNeedsCheck, PoolNotZeroing, PoolFailed, PoolInactive,
	PoolNotAnswering, PoolRecovered,
	GroupStuck, GroupDiskMissing, MetadataAreaLow, MetadataAreaFull, GroupRecovered,
	RAIDDegraded, RAIDRecovering, RAIDRecovered,
	CopyStarted, CopyFinished, CopyFailed, WipeStarted, WipeFinished, WipeFailed,
	Recovered,
}

// goodNews are the reasons that nobody has to do anything about.
var goodNews = []string{
	COWHasRoom, PoolRecovered, GroupRecovered, RAIDRecovering, RAIDRecovered, CopyStarted, CopyFinished, WipeStarted, WipeFinished, Recovered,
}

// IsWarning says whether somebody has to do something.
func (n Notice) IsWarning() bool { return !slices.Contains(goodNews, n.Reason) }

// tellAgain is when a condition that lasts is told of again: Kubernetes forgets events after an hour by default (--event-ttl).
const tellAgain = 30 * time.Minute

// notices counts them by reason.
type notices struct {
	mu    sync.Mutex
	count map[string]int64
}

func (c *notices) add(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == nil {
		c.count = map[string]int64{}
	}
	c.count[reason]++
}

func (c *notices) all() map[string]int64 {
	out := map[string]int64{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, reason := range NoticeReasons {
		out[reason] = c.count[reason]
	}
	return out
}

// tell is the one place that tells of something. What the line in the log says beyond the notice is in keysAndValues.
func (e *Engine) tell(ctx context.Context, line string, err error, n Notice, keysAndValues ...any) {
	if len(n.Objects) == 0 {
		n.Objects = []Object{{Kind: ObjectNode}}
	}
	keysAndValues = append(slices.Clip(keysAndValues), "reason", n.Reason, "message", n.Message, "object", n.Objects[0].String())
	if more := len(n.Objects) - 1; more > 0 {
		keysAndValues = append(keysAndValues, "moreObjects", more)
	}
	if logger := klog.FromContext(ctx); n.IsWarning() {
		logger.Error(err, line, keysAndValues...)
	} else {
		logger.Info(line, keysAndValues...)
	}
	e.stats.notices.add(n.Reason)
	if e.notify != nil {
		e.notify(n)
	}
}

// objects is the object that an LV of the driver's is, or is for; none if its tags name none.
func (v *view) objects(lv lvm.LV) []Object {
	r := v.records.of(lv)
	o := Object{CSIName: r[tagName]}
	o.Namespace, o.Name = r.object()
	switch name := r[tagName]; {
	case r[tagDriver] != v.e.driver || name == "":
		return nil
	case lv.Name == cloneLV(name) || lv.Name == reserveLV(name):
		if lv, ok := v.find(VolumeLV(name)); ok {
			return v.objects(lv)
		}
		return nil
	case lv.Name == SnapshotLV(name):
		o.Kind = ObjectSnapshot
	case lv.Name == VolumeLV(name):
		o.Kind = ObjectClaim
	}
	if o.Kind == "" || o.Name == "" {
		return nil
	}
	return []Object{o}
}

// maxPoolClaims bounds how many claims are told of what is wrong with their pool.
const maxPoolClaims = 50

// poolObjects are whom a pool's condition concerns: the node, and if writes fail because of it, or soon may, the claims whose volumes
// are in use.
func (v *view) poolObjects(ctx context.Context, pool, reason string) []Object {
	out := []Object{{Kind: ObjectNode}}
	switch reason {
	case PoolDataLow, PoolMetadataLow, PoolOutOfDataSpace, PoolReadOnly, PoolFailed:
	default:
		return out
	}
	for _, lv := range v.lvs {
		if lv.Pool != pool || len(out) > maxPoolClaims {
			continue
		}
		claim := v.objects(lv)
		if len(claim) == 0 || claim[0].Kind != ObjectClaim {
			continue
		}
		if _, err := v.e.kernel.Info(ctx, v.group.Name(), lv.Name); err == nil { // else it is not in use
			out = append(out, claim...)
		}
	}
	return out
}

// fillNews follows a fill. What a call waits for needs no word; of what takes longer its claim is told that it has begun, and what
// became of it.
type fillNews struct {
	e       *Engine
	lv      string // with its group
	kind    string
	source  string
	objects []Object
	begun   time.Time
	told    bool // that it has begun: by this process, or by one that died
}

func (n *fillNews) of(v *view, lv lvm.LV, kind string) {
	n.lv, n.kind, n.objects, n.begun = v.group.Name()+"/"+lv.Name, kind, v.objects(lv), v.e.now()
	f := v.fillOf(lv)
	n.told = f.offset > 0 && f.kind != fillGrow // of which it is the begin
	if kind == fillCopy {
		n.source = " from " + v.records.of(lv)[tagSource]
	}
}

func (n *fillNews) notice(message string, reasons ...string) Notice {
	reason := reasons[0]
	if n.kind != fillCopy {
		reason = reasons[1]
	}
	return Notice{reason, "volume " + n.lv + " " + message, n.objects}
}

// progress says whether it has told of it.
func (n *fillNews) progress(ctx context.Context, p blockcopy.Progress) bool {
	if n.told || p.DurableBytes >= p.TotalBytes || n.e.now().Sub(n.begun) < n.e.fills.o.Wait {
		return false
	}
	n.told = true
	doing := "is being overwritten with zeroes"
	if n.kind == fillCopy {
		doing = "is being copied" + n.source
	}
	n.e.tell(ctx, "Filling a volume takes a while", nil,
		n.notice(fmt.Sprintf("%s and is not there before that is complete; nothing is to be done: %s", doing, p), CopyStarted, WipeStarted))
	return true
}

func (n *fillNews) finished(ctx context.Context, lv string) {
	const line = "The content of a volume is complete"
	if !n.told {
		klog.FromContext(ctx).Info(line, "lv", lv)
		return
	}
	n.e.tell(ctx, line, nil, n.notice("has all of its content"+n.source, CopyFinished, WipeFinished), "lv", lv)
}

// failed also knows of a fill that was interrupted, by the end of the driver or a deletion, which is no failure.
func (n *fillNews) failed(ctx context.Context, line, lv string, err error, what string) {
	if errors.Is(err, context.Canceled) {
		klog.FromContext(ctx).Info("Filling a volume was interrupted", "lv", lv)
		return
	}
	if n.lv == "" {
		n.lv = lv
	}
	n.e.tell(ctx, line, err, n.notice(what+": "+err.Error(), CopyFailed, WipeFailed), "lv", lv)
}
