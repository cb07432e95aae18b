package main

import (
	"flag"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/lvmsnap/lvmsnap/test/reference"
)

var update = flag.Bool("update", false, "bring docs/reference up to the code (make reference)")

// The flags in docs/reference/flags.md, and their defaults, are the code's. What is written about them is not.
func TestReference(t *testing.T) {
	var rows []reference.Row
	newFlagSet(new(options)).VisitAll(func(f *pflag.Flag) {
		placeholder, help := pflag.UnquoteUsage(f)
		row := reference.Row{Name: f.Name, Cells: []string{
			"`" + strings.TrimSpace("--"+f.Name+" "+strings.ToUpper(placeholder)) + "`", "", strings.ToUpper(help[:1]) + help[1:],
		}}
		// Of these the page says in words what it means. klog gives as the default of -v what it is now, which other tests change.
		if f.Name != "v" && !slices.Contains([]string{"", "false", "[]", "0s"}, f.DefValue) {
			row.Cells[1] = "`" + f.DefValue + "`"
			row.Second = []string{row.Cells[1]}
		}
		rows = append(rows, row)
	})
	reference.Check(t, "../../docs/reference/flags.md", "# Flags of `lvmsnap`", regexp.MustCompile("^\\| `--?([a-z-]+)"), rows, *update)
}
