package driver

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/mount"
)

// The parameters of the classes in deploy/, in the chart's values and in examples/ are parameters of this driver.
// test/manifests keeps the list.
func TestParametersOfManifests(t *testing.T) {
	text, err := os.ReadFile("../../test/manifests/testdata/driver-inputs.json")
	if err != nil {
		t.Fatal(err)
	}
	var inputs struct {
		StorageClasses, VolumeSnapshotClasses []map[string]string
		StorageClassMountOptions              [][]string
	}
	if err := json.Unmarshal(text, &inputs); err != nil {
		t.Fatal(err)
	}
	for _, params := range inputs.StorageClasses {
		if _, err := parseVolumeParameters(params); err != nil {
			t.Errorf("StorageClass with %v: %v", params, err)
		}
	}
	for _, params := range inputs.VolumeSnapshotClasses {
		if _, err := parseSnapshotParameters(params); err != nil {
			t.Errorf("VolumeSnapshotClass with %v: %v", params, err)
		}
	}
	for _, flags := range inputs.StorageClassMountOptions {
		if err := mount.CheckFlags(flags); err != nil {
			t.Errorf("StorageClass with mount options %v: %v", flags, err)
		}
	}
	if len(inputs.StorageClasses) < 3 || len(inputs.VolumeSnapshotClasses) < 3 || len(inputs.StorageClassMountOptions) == 0 {
		t.Errorf("too little was found in the manifests: %+v", inputs)
	}
}
