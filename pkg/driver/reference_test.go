package driver

import (
	"flag"
	"regexp"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/test/reference"
)

var update = flag.Bool("update", false, "bring docs/reference up to the code (make reference)")

// The parameters in docs/reference/parameters.md are the code's, and so are the values of those that are one of a few.
func TestReference(t *testing.T) {
	const file = "../../docs/reference/parameters.md"
	values := map[string][]string{
		keyType:     {string(storage.TypeThin), string(storage.TypeThick)},
		keyFSType:   fsTypes,
		keyRAIDType: {"raid1", "raid5", "raid10"},
	}
	rows := func(keys []string) []reference.Row {
		var out []reference.Row
		for _, key := range keys {
			row := reference.Row{Name: key, Cells: []string{"`" + key + "`", "", ""}}
			for _, value := range values[key] {
				row.Second = append(row.Second, "`"+value+"`")
			}
			row.Cells[1] = strings.Join(row.Second, ", ")
			out = append(out, row)
		}
		return out
	}
	name := regexp.MustCompile("^\\| `([A-Za-z./0-9]+)`")
	reference.Check(t, file, "## StorageClass", name, rows(volumeKeys), *update)
	reference.Check(t, file, "## VolumeSnapshotClass", name, rows([]string{keyCOWSize}), *update)
}
