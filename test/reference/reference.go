// Package reference keeps the tables of docs/reference what the code says. They lie between two markers, and are made of the
// help texts of flags, parameters and metrics; what is to be said beside them is written by people, outside of the markers.
package reference

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Check compares what lies between the markers of a name with what the code says, and with update writes it there.
func Check(t *testing.T, file, name, want string, update bool) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	page, ok := replace(string(text), name, want)
	switch {
	case !ok:
		t.Errorf("%s: no markers %q and %q", file, begin(name), end(name))
	case update:
		if err := os.WriteFile(file, []byte(page), 0o600); err != nil { // the mode of a file that is there stays
			t.Fatal(err)
		}
	default:
		if diff := cmp.Diff(page, string(text)); diff != "" {
			t.Errorf("%s is not current: make reference\n%s", file, diff)
		}
	}
}

func begin(name string) string { return fmt.Sprintf("<!-- %s: made by make reference -->\n", name) }

func end(name string) string { return fmt.Sprintf("<!-- end of %s -->\n", name) }

func replace(page, name, want string) (string, bool) {
	head, rest, ok := strings.Cut(page, begin(name))
	if !ok {
		return page, false
	}
	_, tail, ok := strings.Cut(rest, end(name))
	if !ok {
		return page, false
	}
	return head + begin(name) + "\n" + want + "\n" + end(name) + tail, true
}

// Table is a table in Markdown.
func Table(header []string, rows [][]string) string {
	var b strings.Builder
	line := func(cells []string) {
		for _, cell := range cells {
			b.WriteString("|")
			if cell != "" {
				b.WriteString(" " + strings.ReplaceAll(cell, "|", `\|`))
			}
			b.WriteString(" ")
		}
		b.WriteString("|\n")
	}
	line(header)
	b.WriteString(strings.Repeat("|---", len(header)) + "|\n")
	for _, row := range rows {
		line(row)
	}
	return b.String()
}

var (
	quoted  = regexp.MustCompile(`(^|[\s(])'([^']+)'`)
	evident = regexp.MustCompile(`(^|[\s(])(--[a-z][a-z-]*(?:=[^\s,;:.)]+)?|\$[A-Z_]+)`)
)

// Text makes Markdown of a help text: it begins with a capital letter, and what is quoted ('text'), a flag or a variable is code.
func Text(help string) string {
	if help == "" {
		return ""
	}
	if !strings.HasPrefix(help, "'") {
		help = strings.ToUpper(help[:1]) + help[1:]
	}
	return evident.ReplaceAllString(quoted.ReplaceAllString(help, "$1`$2`"), "$1`$2`")
}
