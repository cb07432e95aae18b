package driver

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func TestCreateSnapshot(t *testing.T) {
	p := startPlugin(t, 0)
	source := p.createVolume(t, "v").GetVolumeId()
	req := &csi.CreateSnapshotRequest{
		Name: "snapshot-5b4e/☃", SourceVolumeId: source, Secrets: map[string]string{"a": "b"},
		Parameters: map[string]string{keySnapshotName: "s", keySnapshotNamespace: "ns", keyContentName: "c"},
	}
	first := must(p.CreateSnapshot(t.Context(), req))(t).GetSnapshot()
	want := &csi.Snapshot{
		SnapshotId:         snapshotHandle(testNode, req.GetName()),
		SourceVolumeId:     source,
		SizeBytes:          10 * mib, // what was requested for the source, not what extents made of it
		CreationTime:       timestamppb.New(p.engine.now),
		ReadyToUse:         true,
		AccessibleTopology: onNode(testNode),
	}
	if !proto.Equal(first, want) {
		t.Errorf("got %v, want %v", first, want)
	}
	if s := must(p.engine.Snapshot(t.Context(), first.GetSnapshotId()))(t); s.Object != (storage.SnapshotObject{Namespace: "ns", Name: "s", ContentName: "c"}) {
		t.Errorf("the engine got %+v", s.Object)
	}

	// A retry gets the same snapshot, creation time and all, with other parameters and even without its source.
	p.engine.now = p.engine.now.Add(time.Hour)
	must(p.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: source}))(t)
	p.engine.takeCalls()
	req.Parameters = nil
	if again := must(p.CreateSnapshot(t.Context(), req))(t).GetSnapshot(); !proto.Equal(again, first) {
		t.Errorf("retry: got %v, want %v", again, first)
	}
	if calls := p.engine.takeCalls(); len(calls) != 1 {
		t.Errorf("retry: the engine alone knows the order of lookups, but was asked for %v", calls)
	}
}

func TestCreateSnapshotErrors(t *testing.T) {
	p := startPlugin(t, 0)
	source, other := p.createVolume(t, "v").GetVolumeId(), p.createVolume(t, "w").GetVolumeId()
	p.createSnapshot(t, "taken", source)
	p.engine.takeCalls()
	type request = csi.CreateSnapshotRequest
	for name, test := range map[string]struct {
		req  *request
		code codes.Code
		word string
	}{
		"no name":            {&request{SourceVolumeId: source}, codes.InvalidArgument, "name"},
		"no source":          {&request{Name: "s"}, codes.InvalidArgument, "source_volume_id"},
		"control character":  {&request{Name: "s\x01", SourceVolumeId: source}, codes.InvalidArgument, "name"},
		"unknown parameter":  {&request{Name: "s", SourceVolumeId: source, Parameters: map[string]string{"type": "x"}}, codes.InvalidArgument, "type"},
		"same name":          {&request{Name: "taken", SourceVolumeId: other}, codes.AlreadyExists, "taken"},
		"unknown source":     {&request{Name: "s", SourceVolumeId: volumeHandle(testNode, "none")}, codes.NotFound, ""},
		"malformed source":   {&request{Name: "s", SourceVolumeId: "testId"}, codes.NotFound, "testId"},
		"source of a node b": {&request{Name: "s", SourceVolumeId: volumeHandle(otherNode, "v")}, codes.Unavailable, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.CreateSnapshot(t.Context(), test.req)
			wantCode(t, err, test.code, test.word)
			if calls := p.engine.takeCalls(); test.code == codes.InvalidArgument && len(calls) > 0 {
				t.Errorf("something was looked up before: %v", calls)
			}
		})
	}
}

// A call that meets another one on the same object is Aborted at once, and does not wait.
func TestConcurrentCreates(t *testing.T) {
	p := startPlugin(t, 0)
	source := p.createVolume(t, "v").GetVolumeId()
	entered, proceed := make(chan struct{}), make(chan struct{})
	for name, create := range map[string]func() error{
		"snapshot": func() error {
			_, err := p.CreateSnapshot(context.Background(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: source})
			return err
		},
		"volume": func() error {
			_, err := p.CreateVolume(context.Background(), volumeRequest("w"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			p.engine.cut = func() { entered <- struct{}{}; <-proceed }
			first := make(chan error)
			go func() { first <- create() }()
			<-entered
			wantCode(t, create(), codes.Aborted)
			proceed <- struct{}{}
			wantCode(t, <-first, codes.OK)
			p.engine.cut = nil
			wantCode(t, create(), codes.OK)
		})
	}
}

func TestSnapshotThatIsNotCut(t *testing.T) {
	p := startPlugin(t, 0)
	source := p.createVolume(t, "v").GetVolumeId()
	id := snapshotHandle(testNode, "s")
	p.engine.snapshots[id] = storage.Snapshot{ID: id, Name: "s", SourceID: source, SizeBytes: mib}
	// Never without a creation time, which the sidecar would take for 1970.
	_, err := p.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: source})
	wantCode(t, err, codes.Aborted)
	_, err = p.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: id})
	wantCode(t, err, codes.Aborted)
	for _, req := range []*csi.ListSnapshotsRequest{{}, {SnapshotId: id}} {
		if rsp := must(p.ListSnapshots(t.Context(), req))(t); len(rsp.GetEntries()) > 0 {
			t.Errorf("got %v", rsp)
		}
	}
	// Cut but not ready is shown, and says so.
	p.engine.snapshots[id] = storage.Snapshot{ID: id, SourceID: source, SizeBytes: mib, CreatedAt: p.engine.now}
	if got := must(p.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: id}))(t).GetSnapshot(); got.GetReadyToUse() {
		t.Errorf("got %v", got)
	}
}

func TestDeleteSnapshot(t *testing.T) {
	p := startPlugin(t, 0)
	s := p.createSnapshot(t, "s", p.createVolume(t, "v").GetVolumeId())
	for _, test := range []struct {
		id   string
		code codes.Code
	}{
		{"", codes.InvalidArgument},
		{"reallyfakesnapshotid", codes.OK},
		{snapshotHandle(testNode, "none"), codes.OK},
		{snapshotHandle(otherNode, "s"), codes.Unavailable}, // OK would leak the LV
		{s.GetSnapshotId(), codes.OK},
		{s.GetSnapshotId(), codes.OK},
	} {
		_, err := p.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: test.id})
		wantCode(t, err, test.code)
	}
	if len(p.engine.snapshots) > 0 {
		t.Errorf("left behind: %v", p.engine.snapshots)
	}
	p.engine.before = func(string) error { return fmt.Errorf("%w: by a restore", storage.ErrInUse) }
	_, err := p.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: s.GetSnapshotId()})
	wantCode(t, err, codes.FailedPrecondition)
}

func TestGetSnapshot(t *testing.T) {
	p := startPlugin(t, 0)
	s := p.createSnapshot(t, "s", p.createVolume(t, "v").GetVolumeId())
	if got := must(p.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: s.GetSnapshotId()}))(t).GetSnapshot(); !proto.Equal(got, s) {
		t.Errorf("got %v, want %v", got, s)
	}
	for id, code := range map[string]codes.Code{
		"": codes.InvalidArgument, "none-exist-id": codes.NotFound, snapshotHandle(testNode, "none"): codes.NotFound,
		snapshotHandle(otherNode, "s"): codes.Unavailable,
	} {
		_, err := p.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: id})
		wantCode(t, err, code)
	}
}

func TestListSnapshots(t *testing.T) {
	p := startPlugin(t, 0)
	v, w := p.createVolume(t, "v").GetVolumeId(), p.createVolume(t, "w").GetVolumeId()
	all := map[string]*csi.Snapshot{}
	for i := range 5 {
		source := v
		if i > 2 {
			source = w
		}
		s := p.createSnapshot(t, fmt.Sprint(i), source)
		all[s.GetSnapshotId()] = s
	}
	one := snapshotHandle(testNode, "1")
	type request = csi.ListSnapshotsRequest
	for name, test := range map[string]struct {
		req  *request
		want int
	}{
		"all":                      {&request{}, 5},
		"by id":                    {&request{SnapshotId: one}, 1},
		"by id, at most one":       {&request{SnapshotId: one, MaxEntries: 1}, 1},
		"by source":                {&request{SourceVolumeId: v}, 3},
		"by both":                  {&request{SnapshotId: one, SourceVolumeId: v}, 1},
		"by both that disagree":    {&request{SnapshotId: one, SourceVolumeId: w}, 0},
		"unknown id":               {&request{SnapshotId: snapshotHandle(testNode, "none")}, 0},
		"malformed id":             {&request{SnapshotId: "none-exist-id"}, 0},
		"a volume's id":            {&request{SnapshotId: v}, 0},
		"id of another node":       {&request{SnapshotId: snapshotHandle(otherNode, "1")}, 0},
		"unknown source":           {&request{SourceVolumeId: volumeHandle(testNode, "none")}, 0},
		"malformed source":         {&request{SourceVolumeId: "fake-vol-id"}, 0},
		"source of another node":   {&request{SourceVolumeId: volumeHandle(otherNode, "v")}, 0},
		"at most more than exists": {&request{MaxEntries: 100}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			rsp := must(p.ListSnapshots(t.Context(), test.req))(t)
			if len(rsp.GetEntries()) != test.want || rsp.GetNextToken() != "" {
				t.Fatalf("got %d entries, token %q; want %d", len(rsp.GetEntries()), rsp.GetNextToken(), test.want)
			}
			for _, entry := range rsp.GetEntries() {
				if got := entry.GetSnapshot(); !proto.Equal(got, all[got.GetSnapshotId()]) {
					t.Errorf("got %v, want it as it was created", got)
				}
			}
		})
	}
	// With a filter too, max_entries is a hard cap and the token leads on, past a deletion at the boundary.
	first := must(p.ListSnapshots(t.Context(), &request{SourceVolumeId: v, MaxEntries: 2}))(t)
	if len(first.GetEntries()) != 2 || first.GetNextToken() == "" {
		t.Fatalf("got %v", first)
	}
	last := first.GetEntries()[1].GetSnapshot().GetSnapshotId()
	must(p.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: last}))(t)
	second := must(p.ListSnapshots(t.Context(), &request{SourceVolumeId: v, StartingToken: first.GetNextToken()}))(t)
	if len(second.GetEntries()) != 1 || second.GetNextToken() != "" {
		t.Errorf("got %v", second)
	}
}

func TestListSnapshotsFailure(t *testing.T) {
	p := startPlugin(t, 0)
	p.engine.before = func(string) error { return errors.New("vgs: locking failed") }
	for _, req := range []*csi.ListSnapshotsRequest{{}, {SnapshotId: "x"}} {
		_, err := p.ListSnapshots(t.Context(), req)
		wantCode(t, err, codes.Internal, "locking failed") // never an empty list
	}
}
