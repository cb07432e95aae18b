package events

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	claimUID    = "6b3f0f0e-7a3c-4d0d-9c79-0a3f2f4a1b2c"
	snapshotUID = "0d9f5c0a-52c1-4b0e-8f5e-5d8f0f2d7a11"
)

var (
	node     = storage.Object{Kind: storage.ObjectNode}
	claim    = storage.Object{Kind: storage.ObjectClaim, Namespace: "shop", Name: "data", CSIName: "pvc-" + claimUID}
	snapshot = storage.Object{Kind: storage.ObjectSnapshot, Namespace: "shop", Name: "monday", CSIName: "snapshot-" + snapshotUID}
)

// api is an API server that knows of events only: create and patch.
type api struct {
	*httptest.Server
	refuse func(w http.ResponseWriter) bool

	mu       sync.Mutex
	events   map[string]*corev1.Event // by their path
	requests []string
}

func newAPI(t *testing.T) *api {
	t.Helper()
	a := &api{events: map[string]*corev1.Event{}}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.requests = append(a.requests, r.Method+" "+r.URL.Path)
	if a.refuse != nil && a.refuse(w) {
		return
	}
	body, err := io.ReadAll(r.Body)
	event := &corev1.Event{}
	path := r.URL.Path
	if r.Method == http.MethodPatch {
		if event = a.events[path]; event == nil {
			http.Error(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`, http.StatusNotFound)
			return
		}
	}
	if err == nil { // merged well enough: the patches are of fields, and of nothing that is a list
		err = json.Unmarshal(body, event)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.Method == http.MethodPost {
		path += "/" + event.Name
	}
	a.events[path] = event
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(event)
}

func (a *api) all() []corev1.Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []corev1.Event
	for _, path := range slices.Sorted(maps.Keys(a.events)) {
		e := *a.events[path]
		if want := "/api/v1/namespaces/" + e.Namespace + "/events/" + e.Name; path != want {
			panic(path + " is not " + want)
		}
		out = append(out, e)
	}
	return out
}

func (a *api) asked() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.requests)
}

// recorder is one that speaks to the API.
func (a *api) recorder(t *testing.T) *Recorder {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	sink, err := newSink(&rest.Config{Host: a.URL, QPS: 1000, Burst: 1000, Transport: transport, Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	r := New(t.Context(), Options{Driver: "csi.lvmsnap.io", Node: "worker-1", Sink: sink})
	t.Cleanup(r.Close)
	return r
}

func eventually(t *testing.T, what string, fn func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !fn(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not in time", what)
		}
	}
}

// What kubectl describe looks for is there: name, namespace, kind and UID; and who says it.
func TestEvents(t *testing.T) {
	a := newAPI(t)
	r := a.recorder(t)
	r.Notify(storage.Notice{Reason: storage.SnapshotInvalid, Message: "it is lost", Objects: []storage.Object{snapshot}})
	r.Notify(storage.Notice{Reason: storage.CopyStarted, Message: "it takes a while", Objects: []storage.Object{claim}})
	r.Notify(storage.Notice{Reason: storage.PoolDataLow, Message: strings.Repeat("ä", 600), Objects: []storage.Object{node, claim}})
	r.Notify(storage.Notice{Reason: storage.RAIDRecovering, Message: "it is written onto a new disk", Objects: []storage.Object{node, claim}})
	eventually(t, "six events", func() bool { return len(a.all()) == 6 })
	references := map[storage.ObjectKind]corev1.ObjectReference{
		storage.ObjectSnapshot: {Kind: "VolumeSnapshot", APIVersion: "snapshot.storage.k8s.io/v1", Namespace: "shop", Name: "monday", UID: snapshotUID},
		storage.ObjectClaim:    {Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: "shop", Name: "data", UID: claimUID},
		storage.ObjectNode:     {Kind: "Node", APIVersion: "v1", Name: "worker-1", UID: "worker-1"},
	}
	want := map[string]string{
		"VolumeSnapshot SnapshotInvalid": "Warning shop", "PersistentVolumeClaim CopyStarted": "Normal shop",
		"Node PoolDataLow": "Warning default", "PersistentVolumeClaim PoolDataLow": "Warning shop",
		"Node RAIDRecovering": "Normal default", "PersistentVolumeClaim RAIDRecovering": "Normal shop",
	}
	got := map[string]string{}
	for _, e := range a.all() {
		got[e.InvolvedObject.Kind+" "+e.Reason] = e.Type + " " + e.Namespace
		if diff := cmp.Diff(references[storage.ObjectKind(e.InvolvedObject.Kind)], e.InvolvedObject); diff != "" {
			t.Error(diff)
		}
		if e.Source.Component != "csi.lvmsnap.io" || e.Source.Host != "worker-1" || e.ReportingController != "csi.lvmsnap.io" || e.Count != 1 {
			t.Errorf("%+v", e)
		}
		if e.Reason == storage.PoolDataLow && (len(e.Message) > 1024 || !strings.HasSuffix(e.Message, "ä...")) {
			t.Errorf("a message of %d bytes ends with %q", len(e.Message), e.Message[max(len(e.Message)-8, 0):])
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The same again is counted in the same event, and what comes too often is not sent at all.
func TestEventsAreBounded(t *testing.T) {
	a := newAPI(t)
	r := a.recorder(t)
	for range 100 {
		r.Notify(storage.Notice{Reason: storage.CopyFailed, Message: "again", Objects: []storage.Object{claim}})
	}
	r.Notify(storage.Notice{Reason: storage.CopyFailed, Message: "the last", Objects: []storage.Object{snapshot}})
	eventually(t, "the last event", func() bool { return len(a.all()) == 2 })
	for _, e := range a.all() {
		if e.InvolvedObject.Kind == "PersistentVolumeClaim" && e.Count != 25 {
			t.Errorf("one object got %d events", e.Count)
		}
	}
	if n := len(a.asked()); n != 26 {
		t.Errorf("%d requests", n)
	}
}

// Nobody waits for an API that does not answer, or does not let us, and nobody fails.
func TestTheAPIIsAway(t *testing.T) {
	for name, refuse := range map[string]func(http.ResponseWriter) bool{
		"it breaks off": func(http.ResponseWriter) bool { panic(http.ErrAbortHandler) },
		"it is forbidden": func(w http.ResponseWriter) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			a.refuse = refuse
			r := a.recorder(t)
			for i := range 5000 { // more than are kept
				r.Notify(storage.Notice{Reason: storage.Recovered, Message: fmt.Sprint(i), Objects: []storage.Object{claim}})
			}
			eventually(t, "a try", func() bool { return len(a.asked()) > 0 })
			r.Close()
			r.Notify(storage.Notice{Reason: storage.Recovered, Message: "after the end", Objects: []storage.Object{claim}})
		})
	}
}

// Where the API comes back, what was kept arrives.
func TestTheAPIComesBack(t *testing.T) {
	a := newAPI(t)
	tries := 0
	a.refuse = func(w http.ResponseWriter) bool {
		if tries++; tries == 1 {
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(http.StatusTooManyRequests)
		}
		return tries == 1
	}
	a.recorder(t).Notify(storage.Notice{Reason: storage.Recovered, Message: "m", Objects: []storage.Object{claim}})
	eventually(t, "the event", func() bool { return len(a.all()) == 1 })
}

func TestUID(t *testing.T) {
	for name, want := range map[string]string{
		"pvc-" + claimUID: claimUID, "snapshot-" + snapshotUID: snapshotUID, "with-dashes-" + claimUID: claimUID,
		"": "", "pvc-1": "", claimUID: "", "pvc_" + claimUID: "", "pvc-" + strings.ReplaceAll(claimUID, "-", ""): "", "pvc-" + claimUID[:35] + "x": "",
	} {
		if got := uid(name); string(got) != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// Outside of a pod there is an error, of which the driver says that there are no events.
func TestOutsideOfACluster(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := InCluster("csi.lvmsnap.io", "v1"); err == nil {
		t.Error("in a cluster?")
	}
}

// Every reason is in the reference with its type, and nothing else is.
func TestReasonsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/events.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Z][A-Za-z]+)` \\| (Normal|Warning) \\|").FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = row[2]
	}
	want := map[string]string{}
	for _, reason := range storage.NoticeReasons {
		want[reason] = "Normal"
		if (storage.Notice{Reason: reason}).IsWarning() {
			want[reason] = "Warning"
		}
	}
	if diff := cmp.Diff(want, documented); diff != "" {
		t.Errorf("docs/reference/events.md (-want +got):\n%s", diff)
	}
}
