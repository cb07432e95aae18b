package mount

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The super block of btrfs: struct btrfs_super_block in the kernel's include/uapi/linux/btrfs_tree.h. All
// numbers are little-endian.
const (
	superSize         = 4096
	superFSID         = 0x20
	superFlags        = 0x38
	superMagic        = 0x40
	superNumDevices   = 0x88
	superIncompat     = 0xbc
	superCsumType     = 0xc4
	superDevFSID      = 0x11b // dev_item.fsid
	superMetadataUUID = 0x23b
	uuidSize          = 16

	btrfsMagic           = "_BHRfS_M"
	incompatMetadataUUID = 1 << 10
	// Seeding (1 << 32) belongs to several devices; changing fsid (1 << 35, 1 << 36) is what a btrfstune
	// leaves that was interrupted; metadump (1 << 33, 1 << 34) has no data.
	flagsNotRenewable = 0x1f << 32
)

// superOffsets are where the copies are; the last ones only on devices that are that large.
var superOffsets = []int64{64 << 10, 64 << 20, 256 << 30}

var errNotSuper = errors.New("no valid btrfs super block")

type btrfsSuper []byte

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s btrfsSuper) checksum() uint32 { return crc32.Checksum(s[superFSID:], castagnoli) }

func (s btrfsSuper) valid() bool { return binary.LittleEndian.Uint32(s) == s.checksum() }

func (s btrfsSuper) uuid(at int) []byte { return s[at : at+uuidSize] }

func (s btrfsSuper) hasMetadataUUID() bool {
	return binary.LittleEndian.Uint64(s[superIncompat:])&incompatMetadataUUID != 0
}

// readSuper reads and verifies the super block at offset, and completes one that a crash tore.
func readSuper(r io.ReaderAt, offset int64) (btrfsSuper, error) {
	s := make(btrfsSuper, superSize)
	if _, err := r.ReadAt(s, offset); err != nil {
		return nil, fmt.Errorf("super block at %d: %w", offset, err)
	}
	if string(s[superMagic:superMagic+len(btrfsMagic)]) != btrfsMagic {
		return nil, fmt.Errorf("%w: %w at %d", ErrDamaged, errNotSuper, offset)
	}
	// Only crc32c, mkfs's default, is known here: a super block with another checksum was not made by this driver.
	if csum := binary.LittleEndian.Uint16(s[superCsumType:]); csum != 0 {
		return nil, fmt.Errorf("%w: btrfs with checksum type %d; only crc32c can be cloned", ErrDamaged, csum)
	}
	if !s.valid() && !s.mend() {
		return nil, fmt.Errorf("%w: %w at %d (checksum)", ErrDamaged, errNotSuper, offset)
	}
	return s, nil
}

// mend completes the write of renew if a power cut tore it: on a disk with sectors of 512 bytes either the
// first (checksum, fsid, feature) or the second (metadata_uuid) may be the only one that arrived.
func (s btrfsSuper) mend() bool {
	field := s.uuid(superMetadataUUID)
	was := bytes.Clone(field)
	for _, candidate := range [][]byte{make([]byte, uuidSize), s.uuid(superDevFSID)} {
		copy(field, candidate)
		if s.valid() {
			return true
		}
	}
	copy(field, was)
	return false
}

func (s btrfsSuper) checkRenewable() error {
	if n := binary.LittleEndian.Uint64(s[superNumDevices:]); n != 1 {
		return fmt.Errorf("%w: a btrfs over %d devices; a clone of one of them is not a file system", ErrDamaged, n)
	}
	if flags := binary.LittleEndian.Uint64(s[superFlags:]); flags&flagsNotRenewable != 0 {
		return fmt.Errorf("%w: btrfs super block flags %#x (a seed device, or the remains of an interrupted btrfstune); only an ordinary file system can be cloned",
			ErrDamaged, flags)
	}
	return nil
}

// metadataUUID is what the metadata blocks carry.
func (s btrfsSuper) metadataUUID() []byte {
	if s.hasMetadataUUID() {
		return s.uuid(superMetadataUUID)
	}
	return s.uuid(superFSID)
}

// renew makes up a new fsid. The old one stays as the metadata's; of a clone of a clone it has been so before.
func (s btrfsSuper) renew() error {
	var fsid [uuidSize]byte
	if _, err := rand.Read(fsid[:]); err != nil {
		return err
	}
	fsid[6] = fsid[6]&0x0f | 0x40 // version 4 (RFC 9562)
	fsid[8] = fsid[8]&0x3f | 0x80
	s.setIdentity(fsid[:])
	return nil
}

func (s btrfsSuper) takeIdentity(from btrfsSuper) { s.setIdentity(from.uuid(superFSID)) }

func (s btrfsSuper) setIdentity(fsid []byte) {
	copy(s.uuid(superMetadataUUID), s.metadataUUID())
	copy(s.uuid(superFSID), fsid)
	incompat := binary.LittleEndian.Uint64(s[superIncompat:]) | incompatMetadataUUID
	binary.LittleEndian.PutUint64(s[superIncompat:], incompat)
	binary.LittleEndian.PutUint32(s, s.checksum())
}

func (s btrfsSuper) sameFileSystem(other btrfsSuper) bool {
	return bytes.Equal(s.metadataUUID(), other.metadataUUID())
}

func (s btrfsSuper) write(w io.WriterAt, offset int64) error {
	if _, err := w.WriteAt(s, offset); err != nil {
		return fmt.Errorf("super block at %d: %w", offset, err)
	}
	return nil
}
