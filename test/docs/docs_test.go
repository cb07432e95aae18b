package main

import (
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const root = "../.."

// Links of all pages lead to a file that is there, and anchors to a heading; targets of make and files in commands are there.
func TestLinks(t *testing.T) {
	pages, err := readPages(root)
	if err != nil {
		t.Fatal(err)
	}
	known, err := targets(root)
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, p := range pages {
		links += len(p.links)
		for _, wrong := range append(checkLinks(root, pages, p), checkNames(root, known, p)...) {
			t.Error(wrong)
		}
	}
	if len(pages) < 20 || links < 100 {
		t.Errorf("%d pages with %d links: where are the others?", len(pages), links)
	}
}

func parse(t *testing.T, path, source string) *page {
	t.Helper()
	p, err := parsePage(path, []byte(source))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestCheckLink(t *testing.T) {
	target := parse(t, "docs/adr/README.md", "# Two `words`, and more: 3\n\n## Again\n\n## Again\n\n<a id=\"by-hand\"></a>\n")
	here := parse(t, "docs/README.md", "# Here\n")
	pages := map[string]*page{"docs/adr/README.md": target, "docs/README.md": here}
	for destination, words := range map[string]string{
		"adr/README.md":                       "",
		"adr/":                                "",
		"../README.md":                        "",
		"#here":                               "",
		"adr/README.md#two-words-and-more-3":  "",
		"adr/README.md#again":                 "",
		"adr/README.md#again-1":               "",
		"adr/README.md#by-hand":               "",
		"https://example.org/a#b":             "",
		"mailto:somebody@example.org":         "",
		"adr/none.md":                         "no such file",
		"adr/README.md#again-2":               "no heading #again-2",
		"adr/README.md#Again":                 "no heading",
		"#there":                              "no heading #there",
		"../Makefile#test":                    "no page",
		"../../elsewhere.md":                  "leaves the repository",
		"../bin/lab":                          "is built",
		"/docs/README.md":                     "nor relative",
		"//example.org/a":                     "nor relative",
		"https://":                            "no host",
		"https://nowhere/a":                   "no host",
		"htps://example.org":                  "not one of the web",
		"https://example.org:port/":           "invalid port",
		"https://raw.example.org/%zz":         "invalid URL escape",
		"https://example.org),https://b.org/": "no host",
	} {
		err := checkLink(root, pages, here, destination)
		switch {
		case words == "" && err != nil:
			t.Errorf("%s: %v", destination, err)
		case words != "" && (err == nil || !strings.Contains(err.Error(), words)):
			t.Errorf("%s: got %v, want %q", destination, err, words)
		}
	}
}

func TestParsePage(t *testing.T) {
	p := parse(t, "x.md", strings.Join([]string{
		"A [link](a.md#b), <https://example.org/>, `some code`,",
		"and ![one](c.svg) of a picture.",
		"",
		"- In a list:",
		"",
		"  ```sh lab",
		"  echo 1",
		"",
		"  echo 2",
		"  ```",
		"",
		"| a | b |",
		"|---|---|",
		"| [in a table](t.md) | |",
		"",
		"```",
		"nothing",
		"```",
		"",
		"    indented",
		"",
	}, "\n"))
	links := []link{{1, "a.md#b"}, {1, "https://example.org/"}, {1, "c.svg"}, {14, "t.md"}}
	if diff := cmp.Diff(links, p.links, cmp.AllowUnexported(link{})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]span{{1, "some code"}}, p.spans, cmp.AllowUnexported(span{})); diff != "" {
		t.Error(diff)
	}
	blocks := []block{
		{line: 7, info: []string{"sh", "lab"}, text: "echo 1\n\necho 2\n"},
		{line: 17, info: []string{}, text: "nothing\n"},
		{line: 20, indented: true, text: "indented\n"},
	}
	if diff := cmp.Diff(blocks, p.blocks, cmp.AllowUnexported(block{})); diff != "" {
		t.Error(diff)
	}
}

func TestCheckBlocks(t *testing.T) {
	fence := func(info string) string { return "```" + info + "\nx\n```\n\n" }
	for source, words := range map[string][]string{
		fence("sh lab") + fence("text output") + fence("yaml"): nil,
		fence("sh cluster"):                        nil,
		fence("sh"):                                {"2: a shell block says"},
		fence("sh lab twice"):                      {"2: a shell block says"},
		fence("sh sometimes"):                      {"2: a shell block says"},
		fence("") + "    indented\n":               {"2: a block of code without", "5: an indented block"},
		fence("text output"):                       {"2: output of no block"},
		fence("sh cluster") + fence("text output"): {"6: output of no block"},
	} {
		got := checkBlocks(parse(t, "docs/how-to/x.md", source))
		if len(got) != len(words) {
			t.Errorf("%q: %q, want %q", source, got, words)
			continue
		}
		for i := range got {
			if !strings.HasPrefix(got[i], "docs/how-to/x.md:"+words[i]) {
				t.Errorf("%q: %q, want %q", source, got[i], words[i])
			}
		}
	}
}

func TestSpansPage(t *testing.T) {
	pages := map[string]*page{
		"a.md": parse(t, "a.md", "`lvs -o lv_tags data`, `lvs`, `lvextend --size +1g data/pool`, `lvs data/POOL`\n"),
		"b.md": parse(t, "b.md", "Again\n`lvs -o lv_tags data`, and\n`vgs -o\nvg_free data`, `dmsetup status data-pool-tpool`, `dmsetup suspend x`, `pvs ...`\n"),
	}
	var got []string
	for _, b := range spansPage(pages).blocks[1:] {
		got = append(got, b.text)
	}
	want := []string{"# a.md:1\nlvs -o lv_tags data\n", "# b.md:1\nvgs -o vg_free data\n", "# b.md:1\ndmsetup status data-pool-tpool\n"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCheckNames(t *testing.T) {
	source := "Run `make docs PAGE=x`, `make nothing` or `lvs make it`, with `examples/volume.yaml`.\n\n" +
		"```sh cluster\nkubectl apply -f examples/volume.yaml -f examples/none.yaml\nhelm upgrade --install x \\\n  deploy/helm/none && make lint\n```\n\n" +
		"```yaml\nexamples/none.yaml\n```\n"
	known, err := targets(root)
	if err != nil || !known["docs"] || known["nothing"] {
		t.Fatal(known, err)
	}
	want := []string{"x.md:1: there is no make nothing", "x.md:4: there is no examples/none.yaml", "x.md:4: there is no deploy/helm/none"}
	if diff := cmp.Diff(want, checkNames(root, known, parse(t, "x.md", source))); diff != "" {
		t.Error(diff)
	}
}

func TestCompareOutput(t *testing.T) {
	const printed = "  LV   Attr       LSize\n  pool twi-aotz-- 1.00g\n\n{\n  \"id\": \"v1/abc/csi-v-1\"\n}\nlast\n"
	for shown, want := range map[string][]string{
		"LV Attr LSize\npool twi-aotz-- 1.00g\nlast\n": nil,
		"  pool   twi-... 1.00g\n":                     nil,
		"...\n\"id\": \"v1/...\"\n...\n":               nil,
		"... 1.00g\n":                                  nil,
		"pool ...\n":                                   nil,
		"pool\n":                                       {"pool"},
		"twi-aotz-- 1.00g\n":                           {"twi-aotz-- 1.00g"},
		"last\npool ...\n":                             {"pool ..."},
		"pool ...\npool ...\n":                         {"pool ..."},
		"pool twi-... 2.00g\n":                         {"pool twi-... 2.00g"},
	} {
		if got := compareOutput(shown, printed); !slices.Equal(got, want) {
			t.Errorf("%q: missing %q, want %q", shown, got, want)
		}
	}
}

func TestJudge(t *testing.T) {
	p := parse(t, "x.md", "```sh lab\necho a\n```\n\n```text output\na\n```\n\n```sh lab\nfalse\n```\n")
	first, second := "\n"+marker+"0\na\n", "\n"+marker+"2\nno\n"
	if err := judge(p, first+second, nil); err != nil {
		t.Error(err)
	}
	for words, err := range map[string]error{
		"x.md:10: EOF\nfalse\n\nprinted\nno\n": judge(p, first+second, io.EOF),
		"x.md:2: EOF":                          judge(p, first, io.EOF),
		"x.md: before the first block: EOF":    judge(p, "", io.EOF),
		"x.md:6: not printed: a":               judge(p, "\n"+marker+"0\nb\n"+second, nil),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), words) {
			t.Errorf("got %v, want %q", err, words)
		}
	}
}
