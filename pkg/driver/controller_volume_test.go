package driver

import (
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func TestControllerGetCapabilities(t *testing.T) {
	p := startPlugin(t, 0)
	var got []string
	for _, c := range must(p.ControllerGetCapabilities(t.Context(), &csi.ControllerGetCapabilitiesRequest{}))(t).GetCapabilities() {
		got = append(got, c.GetRpc().GetType().String())
	}
	want := []string{
		"CREATE_DELETE_VOLUME", "GET_CAPACITY", "LIST_VOLUMES", "GET_VOLUME", "CREATE_DELETE_SNAPSHOT", "LIST_SNAPSHOTS",
		"GET_SNAPSHOT", "CLONE_VOLUME", "SINGLE_NODE_MULTI_WRITER", "GET_VOLUME_HEALTH", "LIST_VOLUME_HEALTH",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// What is not advertised is not there.
	_, err := p.ControllerExpandVolume(t.Context(), &csi.ControllerExpandVolumeRequest{VolumeId: "x"})
	wantCode(t, err, codes.Unimplemented)
	_, err = p.ControllerPublishVolume(t.Context(), &csi.ControllerPublishVolumeRequest{VolumeId: "x"})
	wantCode(t, err, codes.Unimplemented)
	_, err = p.ControllerModifyVolume(t.Context(), &csi.ControllerModifyVolumeRequest{VolumeId: "x"})
	wantCode(t, err, codes.Unimplemented)
}

func TestCreateVolume(t *testing.T) {
	p := startPlugin(t, 0)
	req := volumeRequest("pvc/1, ☃\n")
	req.Parameters = map[string]string{keyPVCName: "data", keyPVCNamespace: "shop", keyPVName: "pvc-1"}
	want := &csi.Volume{
		VolumeId:           volumeHandle(testNode, req.GetName()),
		CapacityBytes:      12 * mib, // of the device, not of the request
		AccessibleTopology: onNode(testNode),
	}
	for range 2 { // idempotent
		if got := must(p.CreateVolume(t.Context(), req))(t).GetVolume(); !proto.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	v := must(p.engine.Volume(t.Context(), want.GetVolumeId()))(t)
	if v.Name != req.GetName() || v.Claim != (storage.Claim{Namespace: "shop", Name: "data", VolumeName: "pvc-1"}) || v.RequestedBytes != 10*mib {
		t.Errorf("the engine got %+v", v)
	}
}

func TestCreateVolumeConflicts(t *testing.T) {
	p := startPlugin(t, 0)
	p.createVolume(t, "v")
	source := p.createVolume(t, "other").GetVolumeId()
	for name, change := range map[string]func(*csi.CreateVolumeRequest){
		"size":       func(r *csi.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = 20 * mib },
		"capability": func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0] = blockCapability(singleWriter) },
		"parameters": func(r *csi.CreateVolumeRequest) { r.Parameters = map[string]string{"type": "thick"} },
		"source":     func(r *csi.CreateVolumeRequest) { r.VolumeContentSource = fromVolume(source) },
	} {
		t.Run(name, func(t *testing.T) {
			req := volumeRequest("v")
			change(req)
			_, err := p.CreateVolume(t.Context(), req)
			wantCode(t, err, codes.AlreadyExists)
		})
	}
}

func TestCreateVolumeFromSource(t *testing.T) {
	p := startPlugin(t, 0)
	volume := p.createVolume(t, "v")
	snapshot := p.createSnapshot(t, "s", volume.GetVolumeId())
	for name, source := range map[string]*csi.VolumeContentSource{
		"restore": fromSnapshot(snapshot.GetSnapshotId()),
		"clone":   fromVolume(volume.GetVolumeId()),
	} {
		t.Run(name, func(t *testing.T) {
			req := volumeRequest(name)
			req.VolumeContentSource = source
			for range 2 {
				got := must(p.CreateVolume(t.Context(), req))(t).GetVolume()
				if !proto.Equal(got.GetContentSource(), source) {
					t.Errorf("content_source %v is not echoed: %v", source, got)
				}
			}
			req = volumeRequest(name + " smaller")
			req.VolumeContentSource = source
			req.CapacityRange.RequiredBytes = 1
			_, err := p.CreateVolume(t.Context(), req)
			wantCode(t, err, codes.OutOfRange)
		})
	}
	for name, test := range map[string]struct {
		source *csi.VolumeContentSource
		code   codes.Code
	}{
		"no snapshot":            {fromSnapshot(snapshotHandle(testNode, "none")), codes.NotFound},
		"no volume":              {fromVolume(volumeHandle(testNode, "none")), codes.NotFound},
		"malformed":              {fromVolume("fake-vol-id"), codes.NotFound},
		"snapshot elsewhere":     {fromSnapshot(snapshotHandle(otherNode, "s")), codes.ResourceExhausted},
		"volume elsewhere":       {fromVolume(volumeHandle(otherNode, "v")), codes.ResourceExhausted},
		"empty source":           {&csi.VolumeContentSource{}, codes.InvalidArgument},
		"snapshot without id":    {fromSnapshot(""), codes.InvalidArgument},
		"volume without id":      {fromVolume(""), codes.InvalidArgument},
		"volume id for snapshot": {fromSnapshot(volume.GetVolumeId()), codes.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			req := volumeRequest(name)
			req.VolumeContentSource = test.source
			_, err := p.CreateVolume(t.Context(), req)
			wantCode(t, err, test.code)
		})
	}
}

// The driver has no more than a hash of another node's name: the text says where Kubernetes has the name.
func TestCreateVolumeSaysWhoseNode(t *testing.T) {
	p := startPlugin(t, 0)
	for want, source := range map[string]*csi.VolumeContentSource{
		"VolumeSnapshotContent has the node's name, in the label snapshot.storage.kubernetes.io/managed-by": fromSnapshot(snapshotHandle(otherNode, "s")),
		"PersistentVolume has the node's name, in spec.nodeAffinity":                                        fromVolume(volumeHandle(otherNode, "v")),
	} {
		req := volumeRequest("elsewhere")
		req.VolumeContentSource = source
		_, err := p.CreateVolume(t.Context(), req)
		wantCode(t, err, codes.ResourceExhausted)
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
}

func TestCreateVolumeSizes(t *testing.T) {
	p := startPlugin(t, 0)
	for name, test := range map[string]struct {
		size *csi.CapacityRange
		want int64 // 0: code
		code codes.Code
	}{
		"none":           {nil, defaultSize, codes.OK},
		"limit only":     {&csi.CapacityRange{LimitBytes: 2 * defaultSize}, defaultSize, codes.OK},
		"exact":          {&csi.CapacityRange{RequiredBytes: 8 * mib, LimitBytes: 8 * mib}, 8 * mib, codes.OK},
		"no extent fits": {&csi.CapacityRange{RequiredBytes: 5 * mib, LimitBytes: 6 * mib}, 0, codes.OutOfRange},
		"no room":        {&csi.CapacityRange{RequiredBytes: memCapacity + 1}, 0, codes.ResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			req := volumeRequest(name)
			req.CapacityRange = test.size
			rsp, err := p.CreateVolume(t.Context(), req)
			wantCode(t, err, test.code)
			if got := rsp.GetVolume().GetCapacityBytes(); got != test.want {
				t.Errorf("got %d bytes, want %d", got, test.want)
			}
		})
	}
}

func TestCreateVolumeInvalid(t *testing.T) {
	p := startPlugin(t, 0)
	for name, test := range map[string]struct {
		change func(*csi.CreateVolumeRequest)
		word   string
	}{
		"no name":               {func(r *csi.CreateVolumeRequest) { r.Name = "" }, "name"},
		"long name":             {func(r *csi.CreateVolumeRequest) { r.Name = strings.Repeat("a", 129) }, "name"},
		"control character":     {func(r *csi.CreateVolumeRequest) { r.Name = "a\x07" }, "name"},
		"no capabilities":       {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities = nil }, "volume_capabilities"},
		"no access type":        {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].AccessType = nil }, "access_type"},
		"no access mode":        {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].AccessMode = nil }, "access_mode"},
		"writers on many nodes": {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].AccessMode.Mode = multiNodeWriters }, "access_mode"},
		"file system":           {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].GetMount().FsType = "zfs" }, "fs_type"},
		"mount group":           {func(r *csi.CreateVolumeRequest) { r.VolumeCapabilities[0].GetMount().VolumeMountGroup = "1" }, "volume_mount_group"},
		"mount and block": {func(r *csi.CreateVolumeRequest) {
			r.VolumeCapabilities = append(r.VolumeCapabilities, blockCapability(singleWriter))
		}, "access"},
		"second capability": {func(r *csi.CreateVolumeRequest) {
			r.VolumeCapabilities = append(r.VolumeCapabilities, mountCapability("", multiNodeWriters))
		}, "access_mode"},
		"two file systems": {func(r *csi.CreateVolumeRequest) {
			r.VolumeCapabilities = []*csi.VolumeCapability{mountCapability("xfs", singleWriter), mountCapability("ext4", multiNodeReader)}
		}, "fs_type"},
		"file system and class": {func(r *csi.CreateVolumeRequest) {
			r.VolumeCapabilities[0].GetMount().FsType = "xfs"
			r.Parameters = map[string]string{keyFSType: "ext4"}
		}, keyFSType},
		"unknown parameter":  {func(r *csi.CreateVolumeRequest) { r.Parameters = map[string]string{"pool": "x"} }, "pool"},
		"large parameters":   {func(r *csi.CreateVolumeRequest) { r.Parameters = map[string]string{"a": strings.Repeat("a", 4096)} }, "parameters"},
		"mutable parameters": {func(r *csi.CreateVolumeRequest) { r.MutableParameters = map[string]string{"a": "b"} }, "mutable_parameters"},
		"negative size":      {func(r *csi.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = -1 }, "required_bytes"},
		"negative limit":     {func(r *csi.CreateVolumeRequest) { r.CapacityRange.LimitBytes = -1 }, "limit_bytes"},
		"limit below size":   {func(r *csi.CreateVolumeRequest) { r.CapacityRange.LimitBytes = 1 }, "limit_bytes"},
		"empty range":        {func(r *csi.CreateVolumeRequest) { r.CapacityRange = &csi.CapacityRange{} }, "capacity_range"},
		"empty source":       {func(r *csi.CreateVolumeRequest) { r.VolumeContentSource = &csi.VolumeContentSource{} }, "volume_content_source"},
		"empty topology": {
			func(r *csi.CreateVolumeRequest) { r.AccessibilityRequirements = &csi.TopologyRequirement{} },
			"accessibility_requirements",
		},
	} {
		t.Run(name, func(t *testing.T) {
			req := volumeRequest("v")
			test.change(req)
			_, err := p.CreateVolume(t.Context(), req)
			wantCode(t, err, codes.InvalidArgument, test.word)
			if calls := p.engine.takeCalls(); len(calls) > 0 {
				t.Errorf("something was looked up before: %v", calls)
			}
		})
	}
}

func TestCreateVolumeCapabilitiesAgree(t *testing.T) {
	p := startPlugin(t, 0)
	for name, test := range map[string]struct {
		capabilities []*csi.VolumeCapability
		params       map[string]string
		access       storage.AccessType
		fsType       string
	}{
		"one names the file system": {[]*csi.VolumeCapability{mountCapability("", singleWriter), mountCapability("xfs", multiNodeReader)}, nil, storage.AccessMount, "xfs"},
		"the class does":            {[]*csi.VolumeCapability{mountCapability("", singleWriter)}, map[string]string{keyFSType: "btrfs"}, storage.AccessMount, "btrfs"},
		"both do":                   {[]*csi.VolumeCapability{mountCapability("xfs", singleWriter)}, map[string]string{keyFSType: "xfs"}, storage.AccessMount, "xfs"},
		"block has none":            {[]*csi.VolumeCapability{blockCapability(singleWriter)}, map[string]string{keyFSType: "xfs"}, storage.AccessBlock, ""},
	} {
		t.Run(name, func(t *testing.T) {
			req := volumeRequest(name)
			req.VolumeCapabilities, req.Parameters = test.capabilities, test.params
			id := must(p.CreateVolume(t.Context(), req))(t).GetVolume().GetVolumeId()
			if v := must(p.engine.Volume(t.Context(), id))(t); v.Access != test.access || v.FSType != test.fsType {
				t.Errorf("got %s %q, want %s %q", v.Access, v.FSType, test.access, test.fsType)
			}
		})
	}
}

func TestTopologyRequirement(t *testing.T) {
	p := startPlugin(t, 0)
	source := p.createVolume(t, "source").GetVolumeId()
	for name, test := range map[string]struct {
		requirement *csi.TopologyRequirement
		code        codes.Code
	}{
		"none":                        {nil, codes.OK},
		"requisite":                   {&csi.TopologyRequirement{Requisite: onNode(otherNode, testNode)}, codes.OK},
		"preferred":                   {&csi.TopologyRequirement{Preferred: onNode(testNode)}, codes.OK},
		"only preferred elsewhere":    {&csi.TopologyRequirement{Requisite: onNode(testNode, otherNode), Preferred: onNode(otherNode)}, codes.OK},
		"another node":                {&csi.TopologyRequirement{Requisite: onNode(otherNode)}, codes.ResourceExhausted},
		"another node preferred":      {&csi.TopologyRequirement{Preferred: onNode(otherNode)}, codes.ResourceExhausted},
		"preferred but not requisite": {&csi.TopologyRequirement{Requisite: onNode(otherNode), Preferred: onNode(testNode)}, codes.ResourceExhausted},
		"unknown key":                 {&csi.TopologyRequirement{Requisite: []*csi.Topology{{Segments: map[string]string{"zone": testNode}}}}, codes.ResourceExhausted},
		"neither":                     {&csi.TopologyRequirement{}, codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			p.engine.takeCalls()
			req := volumeRequest(name)
			req.AccessibilityRequirements = test.requirement
			_, err := p.CreateVolume(t.Context(), req)
			wantCode(t, err, test.code)
			_, err = p.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{
				Name: name, SourceVolumeId: source, AccessibilityRequirements: test.requirement,
			})
			wantCode(t, err, test.code)
			if calls := p.engine.takeCalls(); test.code != codes.OK && len(calls) > 0 {
				t.Errorf("something was done before: %v", calls)
			}
		})
	}
}

func TestDeleteVolume(t *testing.T) {
	p := startPlugin(t, 0)
	v := p.createVolume(t, "v")
	for name, test := range map[string]struct {
		id   string
		code codes.Code
	}{
		"empty":        {"", codes.InvalidArgument},
		"malformed":    {"fake-vol-id", codes.OK},
		"unknown":      {volumeHandle(testNode, "none"), codes.OK},
		"another node": {volumeHandle(otherNode, "v"), codes.Unavailable},
		"existing":     {v.GetVolumeId(), codes.OK},
		"gone":         {v.GetVolumeId(), codes.OK},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: test.id})
			wantCode(t, err, test.code)
		})
	}
	if len(p.engine.volumes) > 0 {
		t.Errorf("left behind: %v", p.engine.volumes)
	}
}

func TestDeleteVolumeLeavesSnapshots(t *testing.T) {
	p := startPlugin(t, 0)
	v := p.createVolume(t, "v")
	s := p.createSnapshot(t, "s", v.GetVolumeId())
	must(p.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: v.GetVolumeId()}))(t)
	if got := must(p.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: s.GetSnapshotId()}))(t).GetSnapshot(); !proto.Equal(got, s) {
		t.Errorf("got %v, want %v", got, s)
	}
	req := volumeRequest("restored")
	req.VolumeContentSource = fromSnapshot(s.GetSnapshotId())
	must(p.CreateVolume(t.Context(), req))(t)
}

func TestValidateVolumeCapabilities(t *testing.T) {
	p := startPlugin(t, 0)
	mounted := p.createVolume(t, "mounted").GetVolumeId()
	blockRequest := volumeRequest("block")
	blockRequest.VolumeCapabilities = []*csi.VolumeCapability{blockCapability(singleWriter)}
	block := must(p.CreateVolume(t.Context(), blockRequest))(t).GetVolume().GetVolumeId()
	mount := []*csi.VolumeCapability{mountCapability("", singleWriter)}
	type request = csi.ValidateVolumeCapabilitiesRequest
	for name, test := range map[string]struct {
		req  *request
		word string // in the message; empty: confirmed
	}{
		"mount":             {&request{VolumeId: mounted, VolumeCapabilities: mount}, ""},
		"file system":       {&request{VolumeId: mounted, VolumeCapabilities: []*csi.VolumeCapability{mountCapability("ext4", multiNodeReader)}}, ""},
		"block":             {&request{VolumeId: block, VolumeCapabilities: blockRequest.GetVolumeCapabilities()}, ""},
		"parameters":        {&request{VolumeId: mounted, VolumeCapabilities: mount, Parameters: map[string]string{"type": "thin", "volumeGroup": memGroup, keyFSType: "ext4", kubernetesPrefix + "x": "y"}}, ""},
		"block as mount":    {&request{VolumeId: block, VolumeCapabilities: mount}, "access"},
		"mount as block":    {&request{VolumeId: mounted, VolumeCapabilities: blockRequest.GetVolumeCapabilities()}, "access"},
		"other file system": {&request{VolumeId: mounted, VolumeCapabilities: []*csi.VolumeCapability{mountCapability("xfs", singleWriter)}}, "fs_type"},
		"not all":           {&request{VolumeId: mounted, VolumeCapabilities: append(mount, mountCapability("", multiNodeWriters))}, "access_mode"},
		"other type":        {&request{VolumeId: mounted, VolumeCapabilities: mount, Parameters: map[string]string{"type": "thick"}}, "type"},
		"other group":       {&request{VolumeId: mounted, VolumeCapabilities: mount, Parameters: map[string]string{"volumeGroup": "vg1"}}, "volumeGroup"},
		"other pool":        {&request{VolumeId: mounted, VolumeCapabilities: mount, Parameters: map[string]string{"thinPool": "p9"}}, "thinPool"},
		"other fstype":      {&request{VolumeId: mounted, VolumeCapabilities: mount, Parameters: map[string]string{keyFSType: "xfs"}}, "fs_type"},
		"unknown parameter": {&request{VolumeId: mounted, VolumeCapabilities: mount, Parameters: map[string]string{strings.Repeat("x", 200): "thick"}}, "parameters"},
		"context":           {&request{VolumeId: mounted, VolumeCapabilities: mount, VolumeContext: map[string]string{"a": "b"}}, "volume_context"},
		"mutable":           {&request{VolumeId: mounted, VolumeCapabilities: mount, MutableParameters: map[string]string{"a": "b"}}, "mutable_parameters"},
	} {
		t.Run(name, func(t *testing.T) {
			rsp := must(p.ValidateVolumeCapabilities(t.Context(), test.req))(t)
			if test.word == "" {
				want := &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
					VolumeCapabilities: test.req.GetVolumeCapabilities(), Parameters: test.req.GetParameters(),
				}}
				if !proto.Equal(rsp, want) {
					t.Errorf("got %v, want %v", rsp, want)
				}
				return
			}
			if rsp.GetConfirmed() != nil || !strings.Contains(rsp.GetMessage(), test.word) {
				t.Errorf("got %v, want a message about %s", rsp, test.word)
			}
		})
	}
	for name, test := range map[string]struct {
		req  *request
		code codes.Code
	}{
		"no id":           {&request{VolumeCapabilities: mount}, codes.InvalidArgument},
		"no capabilities": {&request{VolumeId: mounted}, codes.InvalidArgument},
		"no access type":  {&request{VolumeId: mounted, VolumeCapabilities: []*csi.VolumeCapability{{AccessMode: mount[0].GetAccessMode()}}}, codes.InvalidArgument},
		"no access mode":  {&request{VolumeId: mounted, VolumeCapabilities: []*csi.VolumeCapability{{AccessType: mount[0].GetAccessType()}}}, codes.InvalidArgument},
		"unknown":         {&request{VolumeId: volumeHandle(testNode, "none"), VolumeCapabilities: mount}, codes.NotFound},
		"malformed":       {&request{VolumeId: "fake-vol-id", VolumeCapabilities: mount}, codes.NotFound},
		"another node":    {&request{VolumeId: volumeHandle(otherNode, "v"), VolumeCapabilities: mount}, codes.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := p.ValidateVolumeCapabilities(t.Context(), test.req)
			wantCode(t, err, test.code)
		})
	}
}
