package reference

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestReplace(t *testing.T) {
	const (
		page = "# Flags\n\nBy hand.\n\n<!-- flags: made by make reference -->\nold\n<!-- end of flags -->\n\nMore by hand.\n"
		want = "# Flags\n\nBy hand.\n\n<!-- flags: made by make reference -->\n\nnew\n\n<!-- end of flags -->\n\nMore by hand.\n"
	)
	got, ok := replace(page, "flags", "new\n")
	if diff := cmp.Diff(want, got); diff != "" || !ok {
		t.Error(ok, diff)
	}
	again, ok := replace(got, "flags", "new\n")
	if diff := cmp.Diff(want, again); diff != "" || !ok {
		t.Error("a second time:", ok, diff)
	}
	for _, other := range []string{"# None\n", "<!-- flags: made by make reference -->\n", "<!-- end of flags -->\n"} {
		if got, ok := replace(other, "flags", "new\n"); ok || got != other {
			t.Errorf("%q: %v %q", other, ok, got)
		}
	}
}

func TestTable(t *testing.T) {
	const want = "| A | | C |\n|---|---|---|\n| a | b \\| b | |\n"
	if diff := cmp.Diff(want, Table([]string{"A", "", "C"}, [][]string{{"a", "b | b", ""}})); diff != "" {
		t.Error(diff)
	}
}

func TestText(t *testing.T) {
	for help, want := range map[string]string{
		"":                                 "",
		"the driver's, and nobody else's":  "The driver's, and nobody else's",
		"'unix:///path' or ('path')":       "`unix:///path` or (`path`)",
		"less than --pool-data-reserve":    "Less than `--pool-data-reserve`",
		"(--threshold=100, say) is --off.": "(`--threshold=100`, say) is `--off`.",
		"default $NODE_NAME, else a--b":    "Default `$NODE_NAME`, else a--b",
		"--first word":                     "`--first` word",
	} {
		if got := Text(help); got != want {
			t.Errorf("%q: got %q, want %q", help, got, want)
		}
	}
}
