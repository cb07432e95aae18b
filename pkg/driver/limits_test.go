package driver

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func TestCheckLimits(t *testing.T) {
	long := func(n int) string { return strings.Repeat("x", n) }
	for name, test := range map[string]struct {
		message proto.Message
		field   string // that breaks a limit; empty: none does
	}{
		"name of 128 bytes":      {&csi.CreateVolumeRequest{Name: long(128)}, ""},
		"name of 129 bytes":      {&csi.CreateVolumeRequest{Name: long(129)}, "name"},
		"bytes, not characters":  {&csi.CreateVolumeRequest{Name: strings.Repeat("é", 65)}, "name"},
		"any Unicode":            {&csi.CreateSnapshotRequest{Name: "a/b, ☃\t\r\n\u00a0日本"}, ""},
		"id":                     {&csi.DeleteVolumeRequest{VolumeId: long(129)}, "volume_id"},
		"token":                  {&csi.ListVolumesRequest{StartingToken: long(129)}, "starting_token"},
		"deep":                   {&csi.CreateVolumeRequest{VolumeContentSource: fromSnapshot(long(129))}, "volume_content_source.snapshot.snapshot_id"},
		"deep in a list":         {&csi.CreateVolumeRequest{VolumeCapabilities: []*csi.VolumeCapability{mountCapability(long(129), singleWriter)}}, "volume_capabilities[0].mount.fs_type"},
		"list of strings":        {&csi.CreateVolumeGroupSnapshotRequest{SourceVolumeIds: []string{"a", long(129)}}, "source_volume_ids[1]"},
		"map of 4 KiB":           {&csi.CreateVolumeRequest{Parameters: map[string]string{"abcd": long(4092)}}, ""},
		"map of more":            {&csi.CreateVolumeRequest{Parameters: map[string]string{"abcd": long(4092), "e": ""}}, "parameters"},
		"secrets":                {&csi.CreateVolumeRequest{Secrets: map[string]string{"a": long(4096)}}, "secrets"},
		"mount flags of 4 KiB":   {&csi.NodeStageVolumeRequest{VolumeCapability: mountCapability("", singleWriter, long(4000), long(96))}, ""},
		"mount flags of more":    {&csi.NodeStageVolumeRequest{VolumeCapability: mountCapability("", singleWriter, long(4000), long(97))}, "volume_capability.mount.mount_flags"},
		"staging path":           {&csi.NodeStageVolumeRequest{StagingTargetPath: long(4000)}, ""},
		"target path":            {&csi.NodePublishVolumeRequest{TargetPath: long(4000)}, ""},
		"volume path":            {&csi.NodeGetVolumeStatsRequest{VolumePath: long(4000)}, ""},
		"publish path":           {&csi.NodeGetVolumeHealthRequest{VolumePublishPath: long(4000)}, ""},
		"node id of 256":         {&csi.NodeGetInfoResponse{NodeId: long(256)}, ""},
		"node id of 257":         {&csi.NodeGetInfoResponse{NodeId: long(257)}, "node_id"},
		"escape":                 {&csi.CreateVolumeRequest{Name: "a\x1b[31m"}, "name"},
		"zero":                   {&csi.CreateSnapshotRequest{Name: "a\x00"}, "name"},
		"vertical tab":           {&csi.CreateVolumeGroupSnapshotRequest{Name: "\x0b"}, "name"},
		"form feed":              {&csi.CreateVolumeRequest{Name: "\x0c"}, "name"},
		"shift out":              {&csi.CreateVolumeRequest{Name: "\x0e"}, "name"},
		"delete":                 {&csi.CreateVolumeRequest{Name: "\x7f"}, "name"},
		"C1":                     {&csi.CreateVolumeRequest{Name: "\u0080"}, "name"},
		"last of C1":             {&csi.CreateVolumeRequest{Name: "\u009f"}, "name"},
		"control char in an id":  {&csi.DeleteVolumeRequest{VolumeId: "a\x00"}, ""}, // is only not found
		"topology segments":      {&csi.GetCapacityRequest{AccessibleTopology: &csi.Topology{Segments: map[string]string{"a": long(4096)}}}, "accessible_topology.segments"},
		"nothing":                {&csi.ProbeRequest{}, ""},
		"missing parts of lists": {&csi.CreateVolumeRequest{VolumeCapabilities: []*csi.VolumeCapability{nil}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			err := checkLimits(test.message)
			if test.field == "" {
				if err != nil {
					t.Errorf("got %v, want no error", err)
				}
				return
			}
			if !errors.Is(err, storage.ErrInvalid) || !strings.Contains(err.Error(), ": "+test.field+" ") {
				t.Errorf("got %v, want ErrInvalid that names %s", err, test.field)
			}
			if len(err.Error()) > 256 {
				t.Errorf("the error repeats what is too long: %d bytes", len(err.Error()))
			}
		})
	}
}

func TestClip(t *testing.T) {
	for _, s := range []string{"", "short", strings.Repeat("a", 128), strings.Repeat("a", 129), strings.Repeat("é", 200), "a" + strings.Repeat("日", 100)} {
		got := clip(s)
		if len(got) > maxString || !utf8.ValidString(got) || len(s) <= maxString && got != s {
			t.Errorf("clip(%q) = %q (%d bytes)", s, got, len(got))
		}
	}
}
