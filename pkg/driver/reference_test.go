package driver

import (
	"flag"
	"testing"

	"github.com/lvmsnap/lvmsnap/test/reference"
)

//go:generate go test -count 1 -run TestReference . -args -update

var update = flag.Bool("update", false, "bring docs/reference up to the code (make reference)")

// What a page says beyond the code's text.
var moreOfParameters = map[string]string{
	keyOverprovisionRatio: "[Why](../adr/0016-pools-that-fill.md)",
	keyRAIDType:           "[lvmraid(7)](https://man7.org/linux/man-pages/man7/lvmraid.7.html)",
	keyType:               "[Which to take](../explanation/thin-or-thick.md)",
}

func TestReference(t *testing.T) {
	for name, parameters := range map[string][]parameter{"storage class": classParameters, "snapshot class": snapshotClassParameters} {
		var rows [][]string
		for _, p := range parameters {
			text := reference.Text(p.help)
			if more := moreOfParameters[p.key]; more != "" {
				text += ". " + more
			}
			rows = append(rows, []string{"`" + p.key + "`", reference.Text(p.values), reference.Text(p.fallback), text})
		}
		table := reference.Table([]string{"Parameter", "Values", "Default", ""}, rows)
		reference.Check(t, "../../docs/reference/parameters.md", name, table, *update)
	}
}
