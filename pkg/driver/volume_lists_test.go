package driver

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func TestListAndGetVolumes(t *testing.T) {
	p := startPlugin(t, 0)
	if rsp := must(p.ListVolumes(t.Context(), &csi.ListVolumesRequest{}))(t); len(rsp.GetEntries()) > 0 || rsp.GetNextToken() != "" {
		t.Errorf("got %v", rsp)
	}
	want := map[string]*csi.Volume{}
	for i := range 4 {
		v := p.createVolume(t, fmt.Sprint(i))
		want[v.GetVolumeId()] = v
	}
	req := volumeRequest("clone")
	for id := range want {
		req.VolumeContentSource = fromVolume(id)
	}
	clone := must(p.CreateVolume(t.Context(), req))(t).GetVolume()
	want[clone.GetVolumeId()] = clone

	// Every volume is the same message in every answer, though the one at each page's end is deleted meanwhile.
	seen := 0
	for token := ""; ; {
		rsp := must(p.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: 2, StartingToken: token}))(t)
		for _, entry := range rsp.GetEntries() {
			seen++
			id := entry.GetVolume().GetVolumeId()
			got := must(p.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: id}))(t)
			if !proto.Equal(entry.GetVolume(), want[id]) || !proto.Equal(got.GetVolume(), want[id]) {
				t.Errorf("listed %v, got %v, want %v", entry.GetVolume(), got.GetVolume(), want[id])
			}
			if got.GetStatus() == nil {
				t.Error("status is REQUIRED")
			}
		}
		last := rsp.GetEntries()[len(rsp.GetEntries())-1].GetVolume().GetVolumeId()
		must(p.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: last}))(t)
		if token = rsp.GetNextToken(); token == "" {
			break
		}
	}
	if seen != len(want) {
		t.Errorf("listed %d volumes, want %d", seen, len(want))
	}
	for id, code := range map[string]codes.Code{
		"": codes.InvalidArgument, "x": codes.NotFound, volumeHandle(testNode, "none"): codes.NotFound, volumeHandle(otherNode, "1"): codes.Unavailable,
	} {
		_, err := p.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: id})
		wantCode(t, err, code)
		_, err = p.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: id})
		wantCode(t, err, code)
	}
}

func TestListRequestsAreCheckedFirst(t *testing.T) {
	p := startPlugin(t, 0)
	for _, test := range []struct {
		max   int32
		token string
		code  codes.Code
	}{{-1, "", codes.InvalidArgument}, {0, "invalid-token", codes.Aborted}} {
		_, err := p.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: test.max, StartingToken: test.token})
		wantCode(t, err, test.code)
		_, err = p.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{MaxEntries: test.max, StartingToken: test.token})
		wantCode(t, err, test.code)
		_, err = p.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{MaxEntries: test.max, StartingToken: test.token})
		wantCode(t, err, test.code)
	}
	if calls := p.engine.takeCalls(); len(calls) > 0 {
		t.Errorf("something was looked up before: %v", calls)
	}
}

func TestVolumeHealth(t *testing.T) {
	p := startPlugin(t, 0)
	well := p.createVolume(t, "well").GetVolumeId()
	for _, name := range []string{"ill", "worse"} {
		id := p.createVolume(t, name).GetVolumeId()
		v := p.engine.volumes[id]
		v.Conditions = []storage.Condition{
			{Severity: storage.SeverityDegraded, Reason: "PoolDataFull", Message: strings.Repeat("the pool is full, ", 20)},
			{Severity: storage.SeverityDegraded, Reason: "PoolDataFull", Message: "the same again"},
			{Severity: storage.SeverityInaccessible, Reason: "PoolDataFull"},
			{Severity: storage.SeverityDataLoss, Message: "a device is missing"},
		}
		p.engine.volumes[id] = v
	}
	health := must(p.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: well}))(t).GetVolumeHealth()
	if health.GetVolumeId() != well || len(health.GetHealthStatuses()) > 0 {
		t.Errorf("got %v", health)
	}
	health = must(p.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: volumeHandle(testNode, "ill")}))(t).GetVolumeHealth()
	var got []string
	for _, entry := range health.GetHealthStatuses() {
		got = append(got, entry.GetStatus().String()+" "+entry.GetReason())
	}
	if want := []string{"DEGRADED PoolDataFull", "INACCESSIBLE PoolDataFull", "DATA_LOSS DataLoss"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	copied := volumeHandle(testNode, "half")
	p.engine.half = map[string]storage.Volume{copied: {ID: copied, Conditions: []storage.Condition{
		{Severity: storage.SeverityInaccessible, Reason: "ContentIncomplete", Message: "42%"},
		{Severity: storage.SeverityDegraded, Reason: "COWCannotGrow", Message: "one"},
		{Severity: storage.SeverityDegraded, Reason: "COWCannotGrow", Message: "two"},
	}}}
	health = must(p.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: copied}))(t).GetVolumeHealth()
	if entries := health.GetHealthStatuses(); len(entries) != 2 || entries[0].GetMessage() != "42%" || entries[1].GetMessage() != "one; two" {
		t.Errorf("half of a copy: %v", health)
	}
	_, err := p.ControllerGetVolume(t.Context(), &csi.ControllerGetVolumeRequest{VolumeId: copied})
	wantCode(t, err, codes.NotFound)
	first := must(p.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{MaxEntries: 1}))(t)
	second := must(p.ControllerListVolumeHealth(t.Context(), &csi.ControllerListVolumeHealthRequest{StartingToken: first.GetNextToken()}))(t)
	got = nil
	for _, entry := range append(first.GetEntries(), second.GetEntries()...) {
		got = append(got, entry.GetVolumeId())
	}
	want := []string{volumeHandle(testNode, "ill"), volumeHandle(testNode, "worse")}
	slices.Sort(want)
	if !slices.Equal(got, want) || second.GetNextToken() != "" {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestGetCapacity(t *testing.T) {
	p := startPlugin(t, 0)
	type request = csi.GetCapacityRequest
	for name, test := range map[string]struct {
		req  *request
		want int64 // -1: InvalidArgument
	}{
		"anything":     {&request{}, memCapacity},
		"this node":    {&request{AccessibleTopology: onNode(testNode)[0]}, memCapacity},
		"no segments":  {&request{AccessibleTopology: &csi.Topology{}}, memCapacity},
		"another node": {&request{AccessibleTopology: onNode(otherNode)[0]}, 0},
		"unknown key":  {&request{AccessibleTopology: &csi.Topology{Segments: map[string]string{"zone": "z"}}}, 0},
		"unstripped":   {&request{Parameters: map[string]string{"type": "thin", kubernetesPrefix + "node-stage-secret-name": "x", keyFSType: "xfs"}}, memCapacity},
		"no group":     {&request{Parameters: map[string]string{"volumeGroup": "fast"}}, 0},
		"bad class":    {&request{Parameters: map[string]string{"x": "y"}}, -1},
		"capabilities": {&request{VolumeCapabilities: []*csi.VolumeCapability{blockCapability(singleWriter)}}, memCapacity},
		"many writers": {&request{VolumeCapabilities: []*csi.VolumeCapability{blockCapability(multiNodeWriters)}}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			rsp, err := p.GetCapacity(t.Context(), test.req)
			if test.want < 0 {
				wantCode(t, err, codes.InvalidArgument)
				return
			}
			wantCode(t, err, codes.OK)
			if rsp.GetAvailableCapacity() != test.want || rsp.GetMaximumVolumeSize() == nil {
				t.Errorf("got %v, want %d and a maximum", rsp, test.want)
			}
			if test.want > 0 && (rsp.GetMaximumVolumeSize().GetValue() != memCapacity-extent || rsp.GetMinimumVolumeSize().GetValue() != extent) {
				t.Errorf("got %v", rsp)
			}
		})
	}
}
