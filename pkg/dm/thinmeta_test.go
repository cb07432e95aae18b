package dm

import (
	"encoding/binary"
	"slices"
	"testing"
)

func TestParseHeldRoot(t *testing.T) {
	for status, want := range map[string]uint64{
		"1 100/1024 5/100 - rw discard_passdown queue_if_no_space - 1024":   0,
		"1 100/1024 5/100 412 rw discard_passdown queue_if_no_space - 1024": 412,
		"Fail": 0, "Error": 0,
	} {
		if got, err := parseHeldRoot(status); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", status, got, err, want)
		}
	}
	for _, status := range []string{"", "1 2/3 4/5", "1 2/3 4/5 x rw"} {
		if got, err := parseHeldRoot(status); err == nil {
			t.Errorf("%q: %d", status, got)
		}
	}
}

func TestParseTargets(t *testing.T) {
	entry := func(name string, last bool) []byte {
		b := make([]byte, (versionNameAt+len(name)+1+7)/8*8)
		if !last {
			binary.NativeEndian.PutUint32(b, uint32(len(b)))
		}
		copy(b[versionNameAt:], name)
		return b
	}
	buf := slices.Concat(make([]byte, headerBytes), entry("thin-pool", false), entry("linear", true))
	if got, err := parseTargets(buf, headerBytes); err != nil || !slices.Equal(got, []string{"linear", "thin-pool"}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range [][]byte{nil, buf[:headerBytes], buf[:headerBytes+30]} {
		if got, err := parseTargets(bad, headerBytes); err == nil {
			t.Errorf("%d bytes: %v", len(bad), got)
		}
	}
}
