package reference

import (
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMend(t *testing.T) {
	const page = `# Flags

Text, and a | in it.

| Flag | Default | |
|---|---|---|
| ` + "`--kept NAME` | `1`, usually | By hand. A | in it |" + `
| ` + "`--gone` | | Text |" + `
| ` + "`--other` | ` 2 ` | Text |" + `

| Another | table |
|---|---|
| ` + "`--gone` | stays |" + `
`
	const want = `# Flags

Text, and a | in it.

| Flag | Default | |
|---|---|---|
| ` + "`--kept NAME` | `1`, usually | By hand. A | in it |" + `
| ` + "`--other` | `3` | Text |" + `
| ` + "`--new` | `4` | its help |" + `

| Another | table |
|---|---|
| ` + "`--gone` | stays |" + `
`
	name := regexp.MustCompile("^\\| `--([a-z]+)")
	rows := []Row{
		{Name: "other", Cells: []string{"`--other`", "`3`", "its help"}, Second: []string{"`3`"}},
		{Name: "new", Cells: []string{"`--new`", "`4`", "its help"}},
		{Name: "kept", Cells: []string{"`--kept`", "`1`", "its help"}, Second: []string{"`1`"}},
	}
	got, ok := mend(page, "# Flags", name, rows)
	if diff := cmp.Diff(want, got); diff != "" || !ok {
		t.Error(ok, diff)
	}
	again, ok := mend(got, "# Flags", name, rows)
	if diff := cmp.Diff(want, again); diff != "" || !ok {
		t.Error("a second time:", ok, diff)
	}
	for _, heading := range []string{"# None", "| Another | table |"} {
		if got, ok := mend("# Flags\n", heading, name, rows); ok || got != "# Flags\n" {
			t.Errorf("%s: %v %q", heading, ok, got)
		}
	}
}
