package lvm

import "testing"

// The attrs are real ones, from LVM 2.03.16 in the lab, or of lvs(8).
func TestAttr(t *testing.T) {
	for _, c := range []struct {
		attr                                                    Attr
		typ                                                     VolumeType
		writable, active, suspended, invalid, open, zero, skips bool
		health                                                  byte
	}{
		{attr: "Vwi---tz-k", typ: TypeThinVolume, writable: true, zero: true, skips: true, health: '-'},
		{attr: "Vri-a-tz-k", typ: TypeThinVolume, active: true, zero: true, skips: true, health: '-'},
		{attr: "Vwi-aotz--", typ: TypeThinVolume, writable: true, active: true, open: true, zero: true, health: '-'},
		{attr: "Vwi-a-t---", typ: TypeThinVolume, writable: true, active: true, health: '-'},
		{attr: "Vwi-s-tz--", typ: TypeThinVolume, writable: true, active: true, suspended: true, zero: true, health: '-'},
		{attr: "twi-aotzD-", typ: TypeThinPool, writable: true, active: true, open: true, zero: true, health: 'D'},
		{attr: "twi-aotzM-", typ: TypeThinPool, writable: true, active: true, open: true, zero: true, health: 'M'},
		{attr: "twi---tz--", typ: TypeThinPool, writable: true, zero: true, health: '-'},
		{attr: "-wi-a-----", typ: TypeLinear, writable: true, active: true, health: '-'},
		{attr: "-wi-a---p-", typ: TypeLinear, writable: true, active: true, health: 'p'},
		{attr: "owi-a-s---", typ: TypeOrigin, writable: true, active: true, health: '-'},
		{attr: "sri-a-s---", typ: TypeSnapshot, active: true, health: '-'},
		{attr: "swi-I-s---", typ: TypeSnapshot, writable: true, active: true, invalid: true, health: '-'},
		{attr: "swi-S-s---", typ: TypeSnapshot, writable: true, active: true, suspended: true, invalid: true, health: '-'},
		{attr: "Owi-a-s---", typ: 'O', writable: true, active: true, health: '-'},
		{attr: "Swi-a-s---", typ: TypeMergingSnap, writable: true, active: true, health: '-'},
		{attr: "rwi-a-r---", typ: TypeRaid, writable: true, active: true, health: '-'},
		{attr: "ewi-------", typ: 'e', writable: true, health: '-'},
		{attr: "Twi-ao----", typ: 'T', writable: true, active: true, open: true, health: '-'},
		{attr: "-wi-XX--X-", typ: TypeLinear, writable: true, health: 'X'}, // nothing is known of the device
		{attr: "-wi-d-----", typ: TypeLinear, writable: true, active: true, health: '-'},
	} {
		if _, err := ParseAttr(string(c.attr)); err != nil {
			t.Errorf("%s: %v", c.attr, err)
		}
		a := c.attr
		got := []any{a.Type(), a.Writable(), a.Active(), a.Suspended(), a.InvalidSnapshot(), a.Open(), a.Zero(), a.SkipActivation(), a.Health()}
		want := []any{c.typ, c.writable, c.active, c.suspended, c.invalid, c.open, c.zero, c.skips, c.health}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: predicate %d is %v, want %v", a, i, got[i], want[i])
			}
		}
	}
	for _, bad := range []string{"", "V", "Vwi---tz-"} {
		if _, err := ParseAttr(bad); err == nil {
			t.Errorf("%q was taken for an lv_attr", bad)
		}
	}
}

func FuzzAttr(f *testing.F) {
	f.Add("Vwi-aotz-k")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		_, err := ParseAttr(s)
		if (err == nil) != (len(s) >= attrLength) {
			t.Fatalf("%q: %v", s, err)
		}
		a := Attr(s) // no predicate panics, whatever it is
		if a.Suspended() && !a.Active() {
			t.Errorf("%q is suspended and not active", s)
		}
		_, _, _, _, _, _, _ = a.Type(), a.Writable(), a.InvalidSnapshot(), a.Open(), a.Zero(), a.Health(), a.SkipActivation()
	})
}
