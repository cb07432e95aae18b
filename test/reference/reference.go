// Package reference keeps the tables of docs/reference current: what the code knows (names, defaults, values) comes from the
// code, and the text beside it is written by people and stays.
package reference

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Row is what the code knows of a row.
type Row struct {
	Name string
	// Cells are those of a row that is not there yet.
	Cells []string
	// Second are words that must be in the second cell; without them it becomes Cells[1].
	Second []string
}

// Check compares the first table under a heading with the rows that the code wants, and with update brings it up to them. The
// first group of name finds a row's name in its line.
func Check(t *testing.T, file, heading string, name *regexp.Regexp, rows []Row, update bool) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, ok := mend(string(text), heading, name, rows)
	switch {
	case !ok:
		t.Errorf("%s: no table under %q", file, heading)
	case update:
		if err := os.WriteFile(file, []byte(want), 0o600); err != nil { // the mode of a file that is there stays
			t.Fatal(err)
		}
	default:
		if diff := cmp.Diff(want, string(text)); diff != "" {
			t.Errorf("%s is not current: make reference\n%s", file, diff)
		}
	}
}

// mend takes away rows that the code does not have, sets second cells right, and adds what is missing at the end of the table.
func mend(text, heading string, name *regexp.Regexp, rows []Row) (string, bool) {
	lines := strings.SplitAfter(text, "\n")
	begin := slices.Index(lines, heading+"\n")
	if begin < 0 {
		return text, false
	}
	isRow := func(line string) bool { return strings.HasPrefix(line, "|") }
	first := slices.IndexFunc(lines[begin:], isRow)
	if first < 0 {
		return text, false
	}
	first += begin + 2 // below the header and its rule
	end := first
	for end < len(lines) && isRow(lines[end]) {
		end++
	}
	var table []string
	missing := slices.Clone(rows)
	for _, line := range lines[first:end] {
		m := name.FindStringSubmatch(line)
		i := -1
		if m != nil {
			i = slices.IndexFunc(missing, func(r Row) bool { return r.Name == m[1] })
		}
		if i < 0 {
			continue
		}
		table = append(table, missing[i].applied(line))
		missing = slices.Delete(missing, i, i+1)
	}
	for _, r := range missing {
		table = append(table, "| "+strings.Join(r.Cells, " | ")+" |\n")
	}
	return strings.Join(slices.Concat(lines[:first], table, lines[end:]), ""), true
}

func (r Row) applied(line string) string {
	cells := strings.SplitN(line, " | ", 3)
	if len(cells) < 3 || !slices.ContainsFunc(r.Second, func(word string) bool { return !strings.Contains(cells[1], word) }) {
		return line
	}
	cells[1] = r.Cells[1]
	return strings.Join(cells, " | ")
}
