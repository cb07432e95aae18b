package storage

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"regexp"
	"strings"
)

const (
	volumePrefix   = "csi-v-"
	snapshotPrefix = "csi-s-"
	clonePrefix    = "csi-c-"
	asidePrefix    = "csi-d-"
	reservePrefix  = "csi-z-"
	handleVersion  = "v1"
)

// Lower-case base32 is legal in LV names and in handles, and survives case-insensitive file systems.
var hashEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// hash shortens any string to n characters of base32 (5 bits each).
func hash(s string, n int) string {
	sum := sha256.Sum256([]byte(s))
	return hashEncoding.EncodeToString(sum[:])[:n]
}

const (
	nameHashLength = 26 // 130 bits: no two names will ever meet
	nodeHashLength = 13 // 65 bits: tells nodes apart, hides their names
)

// NodeHash is the part of a handle that names the node.
func NodeHash(nodeID string) string { return hash(nodeID, nodeHashLength) }

// VolumeLV is the LV name of a volume: a hash of its CSI name, so that a retry after any crash meets the
// first attempt. The CSI name itself may be any Unicode and is kept in a tag.
func VolumeLV(csiName string) string { return volumePrefix + hash(csiName, nameHashLength) }

// SnapshotLV is the LV name of a snapshot; see VolumeLV.
func SnapshotLV(csiName string) string { return snapshotPrefix + hash(csiName, nameHashLength) }

// cloneLV is the LV name of the snapshot from which the volume with this CSI name is copied, while it is.
func cloneLV(csiName string) string { return clonePrefix + hash(csiName, nameHashLength) }

// reserveLV is the LV name of the extents that are overwritten before the volume with this CSI name gets them.
func reserveLV(csiName string) string { return reservePrefix + hash(csiName, nameHashLength) }

// asideLV is the name under which a deleted volume waits for its last COW snapshot to go. The UUID makes it unique:
// volumes of one name can be deleted one after the other.
func asideLV(uuid string) string { return asidePrefix + hash(uuid, nameHashLength) }

// Handle is the CSI id of a volume or snapshot: v1/<node hash>/<lv name>. It says all that is needed to find
// the object again, on the right node, when everything else is lost.
type Handle struct {
	NodeHash string
	LV       string
}

var handlePattern = regexp.MustCompile(`^v1/([a-z2-7]{13})/(csi-[vs]-[a-z2-7]{26})$`)

// ParseHandle reads a handle. An error wraps ErrNotFound: by the CSI spec an id that this driver cannot have
// given out is one that does not exist.
func ParseHandle(id string) (Handle, error) {
	m := handlePattern.FindStringSubmatch(id)
	if m == nil {
		return Handle{}, fmt.Errorf("%w: %q is not a handle of this driver (%s/<node>/<lv>)", ErrNotFound, id, handleVersion)
	}
	return Handle{NodeHash: m[1], LV: m[2]}, nil
}

// String is the handle as CSI sees it.
func (h Handle) String() string { return handleVersion + "/" + h.NodeHash + "/" + h.LV }

// IsVolume says that the handle names a volume.
func (h Handle) IsVolume() bool { return strings.HasPrefix(h.LV, volumePrefix) }

// IsSnapshot says that the handle names a snapshot.
func (h Handle) IsSnapshot() bool { return strings.HasPrefix(h.LV, snapshotPrefix) }
