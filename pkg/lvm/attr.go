package lvm

import "fmt"

// Attr is a parsed lv_attr, ten characters; lvs(8), "lv_attr bits".
type Attr string

// VolumeType is the first character of lv_attr.
type VolumeType byte

// The volume types that this driver meets; lvs(8) has all.
const (
	TypeLinear        VolumeType = '-'
	TypeThinVolume    VolumeType = 'V'
	TypeThinPool      VolumeType = 't'
	TypeOrigin        VolumeType = 'o'
	TypeSnapshot      VolumeType = 's'
	TypeMergingSnap   VolumeType = 'S'
	TypeRaid          VolumeType = 'r'
	TypeRaidNoSync    VolumeType = 'R'
	attrLength                   = 10
	attrTypeBit                  = 0
	attrPermissionBit            = 1
	attrStateBit                 = 4
	attrOpenBit                  = 5
	attrZeroBit                  = 7
	attrHealthBit                = 8
	attrSkipBit                  = 9
)

// ParseAttr checks that s looks like an lv_attr.
func ParseAttr(s string) (Attr, error) {
	if len(s) < attrLength {
		return "", fmt.Errorf("lv_attr %q has fewer than %d characters", s, attrLength)
	}
	return Attr(s), nil
}

func (a Attr) bit(n int) byte {
	if len(a) <= n {
		return '-'
	}
	return a[n]
}

// Type is the volume type.
func (a Attr) Type() VolumeType { return VolumeType(a.bit(attrTypeBit)) }

// Writable: the permission is w, whatever the device is now.
func (a Attr) Writable() bool { return a.bit(attrPermissionBit) == 'w' }

// Active: the device exists (active, suspended or with an invalid snapshot).
func (a Attr) Active() bool {
	switch a.bit(attrStateBit) {
	case '-', 'h', 'X':
		return false
	default:
		return true
	}
}

// Suspended: I/O to the device hangs.
func (a Attr) Suspended() bool {
	switch a.bit(attrStateBit) {
	case 's', 'S':
		return true
	default:
		return false
	}
}

// InvalidSnapshot: a COW snapshot that overflowed; it can only be removed.
func (a Attr) InvalidSnapshot() bool {
	switch a.bit(attrStateBit) {
	case 'I', 'S':
		return true
	default:
		return false
	}
}

// Open: somebody holds the device open or has it mounted.
func (a Attr) Open() bool { return a.bit(attrOpenBit) == 'o' }

// Zero: newly provisioned blocks are zeroed first.
func (a Attr) Zero() bool { return a.bit(attrZeroBit) == 'z' }

// Health is '-' when well; p partial, X unknown, r refresh needed, F failed, D out of data space, M metadata
// read only, and others of lvs(8).
func (a Attr) Health() byte { return a.bit(attrHealthBit) }

// SkipActivation: activated only when asked to ignore the flag.
func (a Attr) SkipActivation() bool { return a.bit(attrSkipBit) == 'k' }
