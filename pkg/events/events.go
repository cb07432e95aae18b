// Package events makes Kubernetes Events of what the engine has to tell. Nothing waits for it and nothing fails because of it: where
// the API does not answer, events are kept for a while, in a bounded queue, and then lost. docs/adr/0025 says why it is as it is.
package events

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// Options of a Recorder.
type Options struct {
	Driver string // the driver's name, whose events these are
	Node   string // the name of the Node that they come from
	Sink   record.EventSink
}

// Recorder makes events of notices.
type Recorder struct {
	events record.EventRecorder
	node   string
	stop   func()
}

// New makes a recorder, which Close ends.
func New(ctx context.Context, o Options) *Recorder {
	// Bounded by client-go: a queue of 1,000; of one object 25 events at once and one in five minutes from then on; of what
	// is alike a count in the first's event.
	b := record.NewBroadcaster(record.WithContext(context.WithoutCancel(ctx)))
	b.StartRecordingToSink(o.Sink)
	logger := klog.FromContext(ctx)
	return &Recorder{
		events: b.NewRecorder(runtime.NewScheme(), corev1.EventSource{Component: o.Driver, Host: o.Node}).WithLogger(logger),
		node:   o.Node, stop: b.Shutdown,
	}
}

// Close gives up what has not been sent.
func (r *Recorder) Close() { r.stop() }

// maxMessage is what the API takes (events.k8s.io: a note of 1 kB).
const maxMessage = 1024

// Notify is for storage.Options. It waits for nothing.
func (r *Recorder) Notify(n storage.Notice) {
	kind := corev1.EventTypeNormal
	if n.IsWarning() {
		kind = corev1.EventTypeWarning
	}
	message := n.Message
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage-len("...")], "") + "..."
	}
	for _, o := range n.Objects {
		r.events.Event(r.reference(o), kind, n.Reason, message)
	}
}

// reference is by what `kubectl describe` finds events: name, namespace, kind and UID, all four.
func (r *Recorder) reference(o storage.Object) *corev1.ObjectReference {
	ref := &corev1.ObjectReference{Kind: string(o.Kind), Namespace: o.Namespace, Name: o.Name, UID: uid(o.CSIName), APIVersion: "v1"}
	switch o.Kind {
	case storage.ObjectClaim:
	case storage.ObjectSnapshot:
		ref.APIVersion = "snapshot.storage.k8s.io/v1"
	case storage.ObjectNode:
		ref.Namespace, ref.Name = "", r.node
		ref.UID = types.UID(r.node) // as kubelet does, for which kubectl looks, too
	}
	return ref
}

// uid is that of the object, for which nobody has to be asked: external-provisioner and external-snapshotter name what they make
// PREFIX-UID. Where their flags say otherwise there is none, and only `kubectl get events` shows the event.
func uid(csiName string) types.UID {
	const length = 36
	if len(csiName) <= length || csiName[len(csiName)-length-1] != '-' {
		return ""
	}
	text := csiName[len(csiName)-length:]
	if _, err := uuid.Parse(text); err != nil {
		return ""
	}
	return types.UID(text)
}

const (
	// perSecond and burst bound what one node asks of the API server.
	perSecond = 5
	burst     = 10
	timeout   = 10 * time.Second
)

// InCluster is the API server as pods see it, by the account that is mounted into them.
func InCluster(driver, version string) (record.EventSink, error) {
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, err
	}
	config.UserAgent = fmt.Sprintf("%s/%s", driver, version)
	config.QPS, config.Burst, config.Timeout = perSecond, burst, timeout
	return newSink(config)
}
