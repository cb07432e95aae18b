package lvm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// MetadataReader reads a group's metadata. DiskReader is the real one.
type MetadataReader interface {
	// Metadata returns the group's metadata as of its last commit, whoever made it. An error means that Locate
	// has to be called, and if that does not help, that LVM has to be asked.
	Metadata(group string) (Metadata, error)
	// Locate asks LVM where the metadata is.
	Locate(ctx context.Context, c *Client) error
}

// DiskReader reads metadata where LVM keeps it, on the physical volumes. One read of the metadata area's header
// tells whether anything has changed since the last time; if so, the text is read and parsed anew. LVM commits
// by replacing the header, never overwrites the text that it points to until the commit after the next, and
// has checksums on both, so a reader needs no lock: it sees one commit or another, never half of one.
//
// Where the physical volumes are is asked of LVM, at first and whenever their set changes, so that its filters
// hold. Source: lib/format_text/layout.h and lib/label/label.h in LVM's source.
type DiskReader struct {
	mu      sync.Mutex
	areas   []metadataArea
	disks   []*os.File // all physical volumes, for Flush
	headers []byte     // of all areas, when last was read
	last    Metadata
	parser  metadataParser
	buffer  []byte // for the next text
	retryAt time.Time

	paths atomic.Pointer[[]string] // of the physical volumes
}

var (
	_ MetadataReader = (*DiskReader)(nil)
	_ DiskLister     = (*DiskReader)(nil)
)

// PhysicalVolumes implements DiskLister, with what LVM said last.
func (r *DiskReader) PhysicalVolumes() []string {
	if paths := r.paths.Load(); paths != nil {
		return *paths
	}
	return nil
}

// diskRetry is how long LVM is asked instead after the disks could not be read.
const diskRetry = time.Minute

// errNoMetadata: the area holds nothing (any more).
var errNoMetadata = errors.New("the metadata area is empty")

// Metadata implements MetadataReader.
func (r *DiskReader) Metadata(group string) (Metadata, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.read(group)
}

// Locate implements MetadataReader.
func (r *DiskReader) Locate(ctx context.Context, c *Client) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Now().Before(r.retryAt) {
		return errors.New("the physical volumes could not be read a moment ago")
	}
	err := r.locate(ctx, c)
	if err == nil {
		_, err = r.read(c.group)
	}
	if err != nil {
		err = errors.Join(err, r.forget())
		r.retryAt = time.Now().Add(diskRetry)
		klog.FromContext(ctx).Error(err, "Cannot read LVM's metadata from the disks, asking LVM instead", "volumeGroup", c.group, "retryIn", diskRetry)
	}
	return err
}

// Close gives the disks back.
func (r *DiskReader) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.forget()
}

func (r *DiskReader) forget() error {
	var errs []error
	for _, a := range r.areas {
		errs = append(errs, a.file.Close())
	}
	closeAll(r.disks)
	r.areas, r.disks, r.headers, r.last, r.parser, r.buffer = nil, nil, nil, Metadata{}, metadataParser{}, nil
	return errors.Join(errs...)
}

// locate asks LVM for the group's physical volumes and finds their metadata areas.
func (r *DiskReader) locate(ctx context.Context, c *Client) error {
	paths, err := c.PhysicalVolumes(ctx)
	if err != nil {
		return err
	}
	r.paths.Store(&paths)
	if err := r.forget(); err != nil {
		return err
	}
	for _, path := range paths {
		found, err := findAreas(path)
		if err != nil {
			return fmt.Errorf("physical volume %s: %w", path, err)
		}
		r.areas = append(r.areas, found...)
	}
	if len(r.areas) == 0 {
		return errors.New("no physical volume has a metadata area")
	}
	r.disks, err = openDisks(paths)
	return err
}

// read returns what is on the disks, from memory when no header has changed.
func (r *DiskReader) read(group string) (Metadata, error) {
	if len(r.areas) == 0 {
		return Metadata{}, errNoMetadata
	}
	for range 3 { // a commit may come between the header and its text
		headers, err := r.readHeaders()
		if err != nil {
			return Metadata{}, err
		}
		if bytes.Equal(headers, r.headers) {
			return r.last, nil
		}
		m, err := r.newest(headers)
		if errors.Is(err, errChecksum) {
			continue
		}
		if err != nil {
			return Metadata{}, err
		}
		if m.Group != group {
			return Metadata{}, fmt.Errorf("the disks belong to volume group %s now, not to %s", m.Group, group)
		}
		if r.last.PVs != nil && !slices.Equal(m.PVs, r.last.PVs) {
			return Metadata{}, errors.New("the group has other physical volumes now")
		}
		r.headers, r.last = headers, m
		return m, nil
	}
	return Metadata{}, errChecksum
}

func (r *DiskReader) readHeaders() ([]byte, error) {
	out := make([]byte, 0, len(r.areas)*sectorBytes)
	for _, a := range r.areas {
		h, err := a.readAt(a.start, sectorBytes)
		if err != nil {
			return nil, err
		}
		out = append(out, h...)
	}
	return out, nil
}

// newest reads the metadata of every area and keeps the one of the latest commit: a disk that was away may be
// behind. An area that is not in use (pvchange --metadataignore) is empty or behind.
func (r *DiskReader) newest(headers []byte) (Metadata, error) {
	var best Metadata
	var texts []uint32 // checksums of what was parsed: the areas are copies of each other
	var limit int64    // of the smallest area
	for i, a := range r.areas {
		loc, err := parseHeader(headers[i*sectorBytes:(i+1)*sectorBytes], a.size)
		if errors.Is(err, errNoMetadata) || err == nil && loc.ignored {
			continue
		}
		if err != nil {
			return Metadata{}, fmt.Errorf("%s: %w", a.file.Name(), err)
		}
		if limit == 0 || a.textLimit() < limit {
			limit = a.textLimit()
		}
		if slices.Contains(texts, loc.checksum) {
			continue
		}
		text, err := a.readText(loc, &r.buffer)
		if err != nil {
			return Metadata{}, fmt.Errorf("%s: %w", a.file.Name(), err)
		}
		m, err := r.parser.parse(text)
		if err != nil {
			return Metadata{}, fmt.Errorf("%s: %w", a.file.Name(), err)
		}
		texts = append(texts, loc.checksum)
		m.TextBytes = loc.size
		if m.Sequence > best.Sequence {
			best = m
		}
	}
	if best.Sequence == 0 {
		return Metadata{}, errNoMetadata
	}
	best.TextLimitBytes = limit
	return best, nil
}

// metadataArea is a ring of text behind a header of one sector.
type metadataArea struct {
	file        *os.File
	start, size int64
}

// textLimit is how long a text LVM writes to the area: two must fit behind the header, the committed one and the
// next. Measured: 521472 bytes in an area of 1020 KiB, beyond which a commit "exceeds maximum metadata size".
func (a metadataArea) textLimit() int64 { return (a.size-sectorBytes)/2 - sectorBytes }

// location is struct raw_locn: where the committed text is, relative to the area.
type location struct {
	offset, size int64
	checksum     uint32
	ignored      bool
}

const (
	labelMagic     = "LABELONE"
	labelType      = "LVM2 001"
	labelSectors   = 4
	areaMagic      = " LVM2 x[5A%r0N*>"
	ignoredFlag    = 1
	crcInitial     = 0xf597a6cf
	directAlign    = 4096
	maxMetadata    = 128 << 20
	diskLocnBytes  = 16
	pvHeaderBytes  = 40 // uuid 32, device size 8
	labelOffsetAt  = 20
	labelTypeAt    = 24
	areaVersionAt  = 20
	areaStartAt    = 24
	areaSizeAt     = 32
	areaLocationAt = 40
)

// crc is LVM's calc_crc: the usual polynomial, without the usual inversions.
func crc(b []byte) uint32 { return ^crc32.Update(^uint32(crcInitial), crc32.IEEETable, b) }

var errChecksum = errors.New("the checksum of LVM's metadata is wrong")

// openDirect opens a disk with O_DIRECT: LVM writes past the page cache, which would show what was read before.
func openDirect(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0) //nolint:gosec // a path that LVM gave
}

// findAreas reads the label of a physical volume.
func findAreas(path string) (areas []metadataArea, err error) {
	file, err := openDirect(path)
	if err != nil {
		return nil, err
	}
	head, err := readDirect(file, 0, labelSectors*sectorBytes, new([]byte))
	if err == nil {
		areas, err = parseLabel(head)
	}
	if err != nil || len(areas) == 0 {
		return nil, errors.Join(err, file.Close())
	}
	for i := range areas {
		areas[i].file = file
		if i > 0 { // each area closes its own
			fd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return nil, errors.Join(err, file.Close())
			}
			areas[i].file = os.NewFile(uintptr(fd), path)
		}
	}
	return areas, nil
}

// parseLabel finds the metadata areas in the first sectors of a physical volume.
func parseLabel(head []byte) ([]metadataArea, error) {
	le := binary.LittleEndian
	for s := 0; s+sectorBytes <= len(head); s += sectorBytes {
		sector := head[s : s+sectorBytes]
		if string(sector[:len(labelMagic)]) != labelMagic {
			continue
		}
		at := int(le.Uint32(sector[labelOffsetAt:])) + pvHeaderBytes
		if string(sector[labelTypeAt:labelTypeAt+len(labelType)]) != labelType || at < pvHeaderBytes {
			break
		}
		// Two lists of disk_locn, each ended by zeros: data areas, then metadata areas.
		var areas []metadataArea
		for list := 0; list < 2; at += diskLocnBytes {
			if at+diskLocnBytes > len(sector) {
				return nil, errors.New("the label of the physical volume has no end")
			}
			offset, size := le.Uint64(sector[at:]), le.Uint64(sector[at+8:])
			switch {
			case offset == 0:
				list++
			case list == 1:
				if offset > 1<<62 || size > 1<<62 || size < 2*sectorBytes {
					return nil, fmt.Errorf("a metadata area at %d of %d bytes", offset, size)
				}
				areas = append(areas, metadataArea{start: int64(offset), size: int64(size)})
			}
		}
		return areas, nil
	}
	return nil, errors.New("no LVM label")
}

// parseHeader reads struct mda_header.
func parseHeader(h []byte, areaSize int64) (location, error) {
	le := binary.LittleEndian
	if string(h[4:4+len(areaMagic)]) != areaMagic || le.Uint32(h[areaVersionAt:]) != 1 {
		return location{}, errors.New("the metadata area has no header")
	}
	if le.Uint32(h) != crc(h[4:]) {
		return location{}, errChecksum
	}
	at := h[areaLocationAt:]
	offset, size := le.Uint64(at), le.Uint64(at[8:])
	if offset == 0 || size == 0 {
		return location{}, errNoMetadata
	}
	if offset < sectorBytes || offset >= uint64(areaSize) || size > uint64(areaSize)-sectorBytes || size > maxMetadata { //nolint:gosec // positive
		return location{}, fmt.Errorf("metadata at %d, %d bytes, in an area of %d", offset, size, areaSize)
	}
	return location{
		offset: int64(offset), size: int64(size), //nolint:gosec // below areaSize
		checksum: le.Uint32(at[16:]), ignored: le.Uint32(at[20:])&ignoredFlag != 0,
	}, nil
}

// readText reads the committed text, which may go round the end of the ring, into a buffer that is made larger as needed.
func (a metadataArea) readText(loc location, buffer *[]byte) ([]byte, error) {
	first := min(loc.size, a.size-loc.offset)
	text, err := readDirect(a.file, a.start+loc.offset, first, buffer)
	if err == nil && first < loc.size {
		var second []byte
		second, err = a.readAt(a.start+sectorBytes, loc.size-first)
		text = slices.Concat(text, second)
	}
	if err != nil {
		return nil, err
	}
	if crc(text) != loc.checksum {
		return nil, errChecksum
	}
	return text, nil
}

func (a metadataArea) readAt(offset, size int64) ([]byte, error) {
	return readDirect(a.file, offset, size, new([]byte))
}

// readDirect reads any range with the alignment that O_DIRECT wants, into a buffer that is made larger as needed.
func readDirect(f *os.File, offset, size int64, buffer *[]byte) ([]byte, error) {
	begin := offset / directAlign * directAlign
	end := (offset + size + directAlign - 1) / directAlign * directAlign
	if need := end - begin + directAlign; int64(len(*buffer)) < need {
		*buffer = make([]byte, need+need/4)
	}
	raw := *buffer
	shift := int(-uintptr(unsafe.Pointer(&raw[0])) & (directAlign - 1)) //nolint:gosec // only its alignment is looked at
	buf := raw[shift : shift+int(end-begin)]
	n, err := f.ReadAt(buf, begin)
	if int64(n) < offset-begin+size {
		return nil, fmt.Errorf("read %d bytes at %d: %w", size, offset, err)
	}
	return buf[offset-begin : offset-begin+size], nil
}
