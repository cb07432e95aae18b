package storage

import (
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
)

// The tags of an LV are its record: lvmsnap.<key>=<value>, committed by the same lvcreate that makes it. Keys
// are never reused for something else; unknown ones are ignored.
//
// They are short, and what follows from the others is left out: LVM reads and writes the whole group's metadata
// with every command, so each byte costs time with every one of them, and room in the metadata area (docs/adr/0001).
const (
	tagPrefix = "lvmsnap."

	tagDriver  = "driver"  // whose LV this is: the driver's name
	tagName    = "name"    // CSI name (text)
	tagSize    = "size"    // requested bytes
	tagCreated = "created" // Unix time in nanoseconds; of a snapshot, the moment of the cut
	tagSource  = "source"  // LV name of what it was made from
	tagAccess  = "access"  // mount or block; left out when usualAccess
	tagFS      = "fs"      // file system type
	tagInit    = "init"    // see Init
	tagLayout  = "layout"  // of a thick volume that is not linear, as it was asked for; see Layout.text
	tagFill    = "fill"    // see filling; gone once the content is there
	tagStale   = "stale"   // from this byte on it may have what others left on its extents: only a file system may show it
	tagFrom    = "from"    // beside fill=copy: UUID of the source, whose name another may take meanwhile
	tagFor     = "for"     // UUID of the volume that a clone's snapshot was cut for, of which likewise
	tagInvalid = "invalid" // when a COW snapshot was seen to be lost: while it is inactive, nothing else tells
	tagObject  = "object"  // namespace/name of the claim or VolumeSnapshot (text)
	tagContent = "content" // name of the PersistentVolume or VolumeSnapshotContent (text); left out when usualContent
)

// texts are the keys whose values people or Kubernetes chose; see escapeText.
var texts = map[string]bool{tagName: true, tagObject: true, tagContent: true}

// record is the decoded record of one LV.
type record map[string]string

// tags writes the record. Empty values are left out, and a text that is too long for LVM: no name of Kubernetes is.
func (r record) tags() []string {
	var out []string
	for _, key := range []string{
		tagDriver, tagName, tagSize, tagCreated, tagSource, tagAccess, tagFS, tagInit, tagLayout, tagFill, tagStale, tagInvalid, tagObject, tagContent,
		tagFrom, tagFor,
	} {
		v := r[key]
		usual := key == tagAccess && v == r.usualAccess() || key == tagContent && v == r.usualContent()
		if t := tag(key, v); v != "" && !usual && lvm.ValidateTag(t) == nil {
			out = append(out, t)
		}
	}
	return out
}

func tag(key, value string) string {
	if texts[key] {
		value = escapeText(value)
	}
	return tagPrefix + key + "=" + value
}

// escapeText makes a tag of any text, and leaves names as they are: letters, digits and the characters - _ . / stay,
// a space becomes + and any other byte =XX. lvm(8) allows no more than [A-Za-z0-9_+.-/=!:&#] in a tag.
func escapeText(s string) string { return toTag.Replace(url.QueryEscape(s)) }

func unescapeText(s string) (string, error) {
	return url.QueryUnescape(strings.ReplaceAll(s, "=", "%"))
}

var toTag = strings.NewReplacer("%2F", "/", "~", "=7E", "%", "=")

// parseRecord reads the tags of an LV. Foreign tags and texts that do not decode are left out.
func parseRecord(tags []string) record {
	r := make(record, len(tags)+2) // and what was left out
	for _, t := range tags {
		key, value, ok := strings.Cut(strings.TrimPrefix(t, tagPrefix), "=")
		if !ok || !strings.HasPrefix(t, tagPrefix) {
			continue
		}
		if texts[key] {
			text, err := unescapeText(value)
			if err != nil {
				continue
			}
			value = text
		}
		r[key] = value
	}
	if r[tagAccess] == "" {
		r[tagAccess] = r.usualAccess()
	}
	if content := r.usualContent(); r[tagContent] == "" && content != "" {
		r[tagContent] = content
	}
	return r
}

// usualAccess: what has a file system is for mounting.
func (r record) usualAccess() string {
	if r[tagFS] == "" {
		return string(AccessBlock)
	}
	return string(AccessMount)
}

// usualContent is how external-provisioner and external-snapshotter call the object of what they name: a
// PersistentVolume has the CSI name, and snapshot-UID is that of snapcontent-UID. Nobody gives an object without.
func (r record) usualContent() string {
	if r[tagObject] == "" {
		return ""
	}
	if uid, ok := strings.CutPrefix(r[tagName], "snapshot-"); ok {
		return "snapcontent-" + uid
	}
	return r[tagName]
}

func (r record) size() int64 {
	n, err := strconv.ParseInt(r[tagSize], 10, 64)
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// staleOf is the tag of an LV whose content has that size; empty where the growth that it was written for has failed.
func (r record) staleOf(contentBytes int64) string {
	if n, err := strconv.ParseInt(r[tagStale], 10, 64); err == nil && n >= contentBytes {
		return ""
	}
	return r[tagStale]
}

// unit of the sizes that LVM makes of such an LV, or of what its content was cut from: see Class.unit.
func (r record) unit(extentBytes int64) int64 {
	_, rest, _ := strings.Cut(r[tagLayout], ":")
	stripes, _, _ := strings.Cut(rest, ":")
	n, _ := strconv.ParseInt(stripes, 10, 32)
	return extentBytes * max(n, 1)
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

// owns says that the LV is this driver's: it has the driver's tag, and the LV name that its CSI name hashes
// to. A look-alike name without the tag, or a tag that was copied onto another LV, is foreign.
func (r record) owns(lv, driver string, lvName func(csiName string) string) bool {
	return r[tagDriver] == driver && r[tagName] != "" && lvName(r[tagName]) == lv
}

// requestedBytes is what was asked for when the LV got its size. Where the record does not fit the size (an
// administrator grew the LV, or a crash came between the growth and its record), the size itself counts.
func requestedBytes(r record, lvBytes, extentBytes int64) int64 {
	n := r.size()
	if rounded, ok := roundUp(n, r.unit(extentBytes)); n <= 0 || !ok || rounded != lvBytes {
		return lvBytes
	}
	return n
}

// roundUp to a multiple of unit; ok is false when the result does not fit.
func roundUp(n, unit int64) (rounded int64, ok bool) {
	rounded = (n + unit - 1) / unit * unit
	return rounded, n >= 0 && rounded >= n
}
