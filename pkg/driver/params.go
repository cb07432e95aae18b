package driver

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// The keys of a StorageClass that this driver reads.
const (
	keyType        = "type"
	keyVolumeGroup = "volumeGroup"
	keyThinPool    = "thinPool"

	keyOverprovisionRatio = "overprovisionRatio"
)

// Keys with this prefix belong to Kubernetes and its sidecars. Those that we do not read are ignored, whatever
// they are: GetCapacity gets the class's parameters unstripped, and every release of the sidecars may add some.
const kubernetesPrefix = "csi.storage.k8s.io/"

// The Kubernetes keys that this driver reads.
const (
	keyFSType       = kubernetesPrefix + "fstype"
	keyPVCName      = kubernetesPrefix + "pvc/name"
	keyPVCNamespace = kubernetesPrefix + "pvc/namespace"
	keyPVName       = kubernetesPrefix + "pv/name"

	keySnapshotName      = kubernetesPrefix + "volumesnapshot/name"
	keySnapshotNamespace = kubernetesPrefix + "volumesnapshot/namespace"
	keyContentName       = kubernetesPrefix + "volumesnapshotcontent/name"
)

// What errors tell the author of a class that he may use.
var (
	volumeKeys       = keysOf(classParameters)
	snapshotNameKeys = []string{keySnapshotName, keySnapshotNamespace, keyContentName}
	snapshotKeys     = append(keysOf(snapshotClassParameters), snapshotNameKeys...)
)

// maxKubernetesName is the longest name that Kubernetes gives an object (a DNS subdomain, RFC 1123). What it
// names is kept in LVM tags, which are limited too.
const maxKubernetesName = 253

// LVM's own rule for names of groups and volumes (lvm(8) "VALID NAMES"): a name that passes can neither be
// taken for an option nor leave /dev.
var lvmNamePattern = regexp.MustCompile(`^[a-zA-Z0-9+_.][a-zA-Z0-9+_.-]{0,126}$`)

// volumeParameters is what the parameters of a StorageClass say.
type volumeParameters struct {
	class  storage.Class
	fsType string
	claim  storage.Claim
}

// parseVolumeParameters reads the parameters of CreateVolume, GetCapacity or ValidateVolumeCapabilities.
// Errors wrap storage.ErrInvalid and name the key.
func parseVolumeParameters(params map[string]string) (volumeParameters, error) {
	var p volumeParameters
	if err := rejectUnknown("StorageClass", params, volumeKeys); err != nil {
		return volumeParameters{}, err
	}
	switch t := storage.Type(params[keyType]); t {
	case "", storage.TypeThin, storage.TypeThick:
		p.class.Type = t
	default:
		return volumeParameters{}, fmt.Errorf("%w: parameter %s %q is neither %s nor %s",
			storage.ErrInvalid, keyType, t, storage.TypeThin, storage.TypeThick)
	}
	for _, name := range []struct {
		key string
		to  *string
	}{{keyVolumeGroup, &p.class.VolumeGroup}, {keyThinPool, &p.class.ThinPool}} {
		value := params[name.key]
		if value != "" && !isLVMName(value) {
			return volumeParameters{}, fmt.Errorf("%w: parameter %s %q is not a name that LVM allows", storage.ErrInvalid, name.key, value)
		}
		*name.to = value
	}
	for _, key := range []string{keyThinPool, keyOverprovisionRatio} {
		if p.class.Type == storage.TypeThick && params[key] != "" {
			return volumeParameters{}, fmt.Errorf("%w: parameter %s is for %s volumes, and the class says %s %s",
				storage.ErrInvalid, key, storage.TypeThin, keyType, storage.TypeThick)
		}
	}
	var err error
	if text := params[keyOverprovisionRatio]; text != "" {
		if p.class.OverprovisionRatio, err = ParseRatio(text); err != nil {
			return volumeParameters{}, fmt.Errorf("%w: parameter %s: %w", storage.ErrInvalid, keyOverprovisionRatio, err)
		}
	}
	if p.class.Layout, err = parseLayout(params, p.class.Type); err != nil {
		return volumeParameters{}, err
	}
	p.fsType = params[keyFSType]
	if p.fsType != "" && !slices.Contains(fsTypes, p.fsType) {
		return volumeParameters{}, fmt.Errorf("%w: parameter %s %q is none of %v", storage.ErrInvalid, keyFSType, p.fsType, fsTypes)
	}
	p.claim = storage.Claim{Namespace: params[keyPVCNamespace], Name: params[keyPVCName], VolumeName: params[keyPVName]}
	if err := checkKubernetesNames(params, keyPVCNamespace, keyPVCName, keyPVName); err != nil {
		return volumeParameters{}, err
	}
	return p, nil
}

// maxRatio is far beyond any use, and far below what arithmetic bears.
const maxRatio = 1000

// ParseRatio reads an over-provisioning ratio: how many times the size of their pool volumes may have together.
func ParseRatio(text string) (float64, error) {
	ratio, err := strconv.ParseFloat(text, 64)
	if err != nil || !(ratio >= 1 && ratio <= maxRatio) {
		return 0, fmt.Errorf("%q is not a number from 1 to %d", text, maxRatio)
	}
	return ratio, nil
}

// snapshotParameters is what the parameters of a VolumeSnapshotClass say, and those that csi-snapshotter adds
// (--extra-create-metadata).
type snapshotParameters struct {
	cow    storage.COWSize
	object storage.SnapshotObject
}

// parseSnapshotParameters reads the parameters of CreateSnapshot.
func parseSnapshotParameters(params map[string]string) (snapshotParameters, error) {
	if err := rejectUnknown("VolumeSnapshotClass", params, snapshotKeys); err != nil {
		return snapshotParameters{}, err
	}
	if err := checkKubernetesNames(params, snapshotNameKeys...); err != nil {
		return snapshotParameters{}, err
	}
	cow, err := parseCOWSize(params[keyCOWSize])
	if err != nil {
		return snapshotParameters{}, err
	}
	return snapshotParameters{cow, storage.SnapshotObject{
		Namespace:   params[keySnapshotNamespace],
		Name:        params[keySnapshotName],
		ContentName: params[keyContentName],
	}}, nil
}

// rejectUnknown keeps a typing error in a class from silently meaning the default.
func rejectUnknown(object string, params map[string]string, known []string) error {
	var unknown []string
	for _, key := range slices.Sorted(maps.Keys(params)) {
		if !slices.Contains(known, key) && !strings.HasPrefix(key, kubernetesPrefix) {
			unknown = append(unknown, fmt.Sprintf("%q", key))
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s parameters %s are unknown; known are %s", storage.ErrInvalid, object,
		strings.Join(unknown, ", "), strings.Join(known, ", "))
}

func checkKubernetesNames(params map[string]string, keys ...string) error {
	for _, key := range keys {
		value := params[key]
		if len(value) > maxKubernetesName {
			return fmt.Errorf("%w: parameter %s has %d bytes, and at most %d are allowed", storage.ErrInvalid, key, len(value), maxKubernetesName)
		}
		if strings.ContainsFunc(value, unicode.IsControl) {
			return fmt.Errorf("%w: parameter %s contains a control character", storage.ErrInvalid, key)
		}
	}
	return nil
}

func isLVMName(name string) bool {
	return name != "." && name != ".." && lvmNamePattern.MatchString(name)
}
