package driver

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func TestParseVolumeParameters(t *testing.T) {
	for name, test := range map[string]struct {
		params map[string]string
		want   volumeParameters
	}{
		"none": {}, // classes without parameters must work
		"all": {
			map[string]string{
				"type": "thin", "volumeGroup": "vg-1.x+_", "thinPool": "p0", keyFSType: "xfs", "overprovisionRatio": "1.5",
				keyPVCName: "data", keyPVCNamespace: "shop", keyPVName: "pvc-1",
			},
			volumeParameters{
				class:  storage.Class{Type: storage.TypeThin, VolumeGroup: "vg-1.x+_", ThinPool: "p0", OverprovisionRatio: 1.5},
				fsType: "xfs",
				claim:  storage.Claim{Namespace: "shop", Name: "data", VolumeName: "pvc-1"},
			},
		},
		"thick layout": {
			map[string]string{"type": "thick", "raidType": "raid10", "stripes": "2", "stripeSize": "64Ki", "mirrors": "1"},
			volumeParameters{class: storage.Class{
				Type: storage.TypeThick, Layout: storage.Layout{RAIDType: "raid10", Stripes: 2, StripeBytes: 64 << 10, Mirrors: 1},
			}},
		},
		"thick":               {map[string]string{"type": "thick"}, volumeParameters{class: storage.Class{Type: storage.TypeThick}}},
		"empty values":        {map[string]string{"type": "", "volumeGroup": "", "thinPool": "", keyFSType: ""}, volumeParameters{}},
		"unknown sidecar key": {map[string]string{"csi.storage.k8s.io/provisioner-secret-name": "x", "csi.storage.k8s.io/new": "y"}, volumeParameters{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseVolumeParameters(test.params)
			if err != nil || got != test.want {
				t.Errorf("got %+v, %v; want %+v", got, err, test.want)
			}
		})
	}
}

func TestParseVolumeParametersInvalid(t *testing.T) {
	for name, test := range map[string]struct {
		params map[string]string
		words  []string
	}{
		"unknown":             {map[string]string{"vloumeGroup": "x", "a": "b"}, []string{`"a", "vloumeGroup"`, "type", "volumeGroup", "thinPool", keyFSType}},
		"type":                {map[string]string{"type": "raid"}, []string{"type", "raid", "thin", "thick"}},
		"plain fsType":        {map[string]string{"fsType": "xfs"}, []string{`"fsType"`, keyFSType}},
		"case matters":        {map[string]string{"Type": "thin"}, []string{`"Type"`}},
		"file system":         {map[string]string{keyFSType: "ntfs"}, []string{keyFSType, "ntfs", "ext4"}},
		"pool of thick":       {map[string]string{"type": "thick", "thinPool": "p"}, []string{"thinPool"}},
		"ratio of thick":      {map[string]string{"type": "thick", "overprovisionRatio": "2"}, []string{"overprovisionRatio", "thin"}},
		"ratio below 1":       {map[string]string{"overprovisionRatio": "0.5"}, []string{"overprovisionRatio", "0.5", "from 1 to 1000"}},
		"ratio of nothing":    {map[string]string{"overprovisionRatio": "many"}, []string{"overprovisionRatio", "many"}},
		"endless ratio":       {map[string]string{"overprovisionRatio": "Inf"}, []string{"overprovisionRatio", "Inf"}},
		"stripes of thin":     {map[string]string{"stripes": "2"}, []string{"stripes", "thick"}},
		"no stripes":          {map[string]string{"type": "thick", "stripes": "0"}, []string{"stripes"}},
		"stripe size":         {map[string]string{"type": "thick", "stripeSize": "64KiB"}, []string{"stripeSize", "64Ki"}},
		"RAID":                {map[string]string{"type": "thick", "raidType": "raid0"}, []string{"raidType", "raid10"}},
		"mirrors":             {map[string]string{"type": "thick", "mirrors": "-1"}, []string{"mirrors"}},
		"option as group":     {map[string]string{"volumeGroup": "--yes"}, []string{"volumeGroup"}},
		"path as group":       {map[string]string{"volumeGroup": "a/b"}, []string{"volumeGroup"}},
		"dots as group":       {map[string]string{"volumeGroup": ".."}, []string{"volumeGroup"}},
		"newline in pool":     {map[string]string{"thinPool": "a\n"}, []string{"thinPool"}},
		"long group":          {map[string]string{"volumeGroup": strings.Repeat("a", 128)}, []string{"volumeGroup"}},
		"long claim":          {map[string]string{keyPVCName: strings.Repeat("a", 254)}, []string{keyPVCName, "254"}},
		"control in claim":    {map[string]string{keyPVName: "a\x00"}, []string{keyPVName}},
		"control in claim ns": {map[string]string{keyPVCNamespace: "a\x1b"}, []string{keyPVCNamespace}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parseVolumeParameters(test.params)
			if !errors.Is(err, storage.ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid", err)
			}
			for _, word := range test.words {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("%q does not name %q", err, word)
				}
			}
		})
	}
}

func TestParseSnapshotParameters(t *testing.T) {
	got, err := parseSnapshotParameters(map[string]string{
		keySnapshotName: "s", keySnapshotNamespace: "ns", keyContentName: "c",
		"csi.storage.k8s.io/snapshotter-secret-name": "x",
	})
	if want := (snapshotParameters{object: storage.SnapshotObject{Namespace: "ns", Name: "s", ContentName: "c"}}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for value, want := range map[string]storage.COWSize{
		"": {}, "20%": {Percent: 20}, "100%": {Percent: 100}, "10Gi": {Bytes: 10 << 30}, "1G": {Bytes: 1e9}, "4096": {Bytes: 4096},
	} {
		if got, err := parseSnapshotParameters(map[string]string{"cowSize": value}); err != nil || got.cow != want {
			t.Errorf("cowSize %q: %+v, %v", value, got.cow, err)
		}
	}
	for _, params := range []map[string]string{
		{"cowSize": "0%"},
		{"cowSize": "101%"},
		{"cowSize": "-1"},
		{"cowSize": "0"},
		{"cowSize": "9999999Pi"},
		{"cowSize": "1.5Gi"},
		{"cowSize": "x"},
		{"type": "thin"},
		{keyContentName: strings.Repeat("a", 254)},
		{keySnapshotName: "\x00"},
	} {
		if _, err := parseSnapshotParameters(params); !errors.Is(err, storage.ErrInvalid) {
			t.Errorf("%q: got %v, want ErrInvalid", params, err)
		}
	}
}

func FuzzVolumeParameters(f *testing.F) {
	f.Add("type", "thick", "volumeGroup", "vg0")
	f.Add("thinPool", "pool", keyFSType, "btrfs")
	f.Add(keyPVCName, "data", "unknown", "x")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		p, err := parseVolumeParameters(map[string]string{k1: v1, k2: v2})
		if err != nil {
			if !errors.Is(err, storage.ErrInvalid) || p != (volumeParameters{}) {
				t.Fatalf("got %+v, %v", p, err)
			}
			return
		}
		// Whatever is accepted is safe on a command line and in a tag.
		for _, name := range []string{p.class.VolumeGroup, p.class.ThinPool} {
			if strings.HasPrefix(name, "-") || strings.ContainsAny(name, "/ \n\x00") || name == ".." {
				t.Errorf("accepted the name %q", name)
			}
		}
		if p.fsType != "" && !slices.Contains(fsTypes, p.fsType) {
			t.Errorf("accepted the file system %q", p.fsType)
		}
		for _, key := range []string{k1, k2} {
			if !slices.Contains(volumeKeys, key) && !strings.HasPrefix(key, kubernetesPrefix) {
				t.Errorf("accepted the key %q", key)
			}
		}
	})
}

func FuzzSnapshotParameters(f *testing.F) {
	f.Add(keySnapshotName, "a", keyContentName, "b")
	f.Add(keySnapshotNamespace, "\x00", "x", "y")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		got, err := parseSnapshotParameters(map[string]string{k1: v1, k2: v2})
		if err != nil && (!errors.Is(err, storage.ErrInvalid) || got != (snapshotParameters{})) {
			t.Fatalf("got %+v, %v", got, err)
		}
		if got.cow.Bytes < 0 || got.cow.Percent < 0 || got.cow.Percent > 100 {
			t.Errorf("accepted %+v", got.cow)
		}
		object := got.object
		for _, value := range []string{object.Name, object.Namespace, object.ContentName} {
			if len(value) > maxKubernetesName || strings.ContainsRune(value, 0) {
				t.Errorf("accepted %q", value)
			}
		}
	})
}
