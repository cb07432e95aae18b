package storage

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// The tags of an LV are its record: lvmsnap.<key>=<value>, committed by the same lvcreate that makes it. Keys
// are never reused for something else; unknown ones are ignored.
const (
	tagPrefix = "lvmsnap."

	tagDriver  = "driver"  // whose LV this is: the driver's name
	tagName    = "name"    // CSI name (encoded)
	tagSize    = "size"    // requested bytes
	tagCreated = "created" // Unix time in nanoseconds; of a snapshot, the moment of the cut
	tagSource  = "source"  // handle of what it was made from
	tagAccess  = "access"  // mount or block
	tagFS      = "fs"      // file system type
	tagInit    = "init"    // see Init
	tagObject  = "object"  // namespace/name of the claim or VolumeSnapshot (encoded)
	tagContent = "content" // name of the PersistentVolume or VolumeSnapshotContent (encoded)
)

// encoded keys hold any text; a comma or a space is illegal in an LVM tag.
var encoded = map[string]bool{tagName: true, tagObject: true, tagContent: true}

// maxTextBytes keeps an encoded text below LVM's 1024 characters a tag, and a group's metadata small. Kubernetes
// names with their namespace are at most 317 bytes.
const maxTextBytes = 512

// record is the decoded record of one LV.
type record map[string]string

// tags writes the record; empty values are left out.
func (r record) tags() []string {
	var out []string
	for _, key := range []string{
		tagDriver, tagName, tagSize, tagCreated, tagSource, tagAccess, tagFS, tagInit, tagObject, tagContent,
	} {
		if v := r[key]; v != "" && len(v) <= maxTextBytes {
			out = append(out, tag(key, v))
		}
	}
	return out
}

func tag(key, value string) string {
	if encoded[key] {
		value = base64.RawURLEncoding.EncodeToString([]byte(value))
	}
	return tagPrefix + key + "=" + value
}

// parseRecord reads the tags of an LV. Foreign tags and texts that do not decode are left out.
func parseRecord(tags []string) record {
	r := record{}
	for _, t := range tags {
		key, value, ok := strings.Cut(strings.TrimPrefix(t, tagPrefix), "=")
		if !ok || !strings.HasPrefix(t, tagPrefix) {
			continue
		}
		if encoded[key] {
			text, err := base64.RawURLEncoding.DecodeString(value)
			if err != nil {
				continue
			}
			value = string(text)
		}
		r[key] = value
	}
	return r
}

func (r record) size() int64 {
	n, err := strconv.ParseInt(r[tagSize], 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

func (r record) created() time.Time {
	n, err := strconv.ParseInt(r[tagCreated], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(0, n)
}

func (r record) object() (namespace, name string) {
	namespace, name, ok := strings.Cut(r[tagObject], "/")
	if !ok {
		return "", ""
	}
	return namespace, name
}

func objectText(namespace, name string) string {
	if name == "" {
		return ""
	}
	return namespace + "/" + name
}

// owned says that the LV is this driver's: it has the driver's tag, and the LV name that its CSI name hashes
// to. A look-alike name without the tag, or a tag that was copied onto another LV, is foreign.
func owned(lv lvm.LV, driver string, lvName func(csiName string) string) (record, bool) {
	r := parseRecord(lv.Tags)
	return r, r[tagDriver] == driver && r[tagName] != "" && lvName(r[tagName]) == lv.Name
}

// requestedBytes is what was asked for when the LV got its size. Where the record does not fit the size (an
// administrator grew the LV, or a crash came between the growth and its record), the size itself counts.
func requestedBytes(r record, lvBytes, extentBytes int64) int64 {
	n := r.size()
	if rounded, ok := roundUp(n, extentBytes); n <= 0 || !ok || rounded != lvBytes {
		return lvBytes
	}
	return n
}

// roundUp to a multiple of unit; ok is false when the result does not fit.
func roundUp(n, unit int64) (rounded int64, ok bool) {
	rounded = (n + unit - 1) / unit * unit
	return rounded, n >= 0 && rounded >= n
}
