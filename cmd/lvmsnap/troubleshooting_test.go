package main

import (
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
)

// Texts that docs/how-to/troubleshooting.md has in its headings, for users to find, are what the driver says.
func TestTroubleshootingQuotesTheDriver(t *testing.T) {
	page, err := os.ReadFile("../../docs/how-to/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	pkg := os.DirFS("../../pkg")
	err = fs.WalkDir(pkg, ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil || path.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return err
		}
		text, err := fs.ReadFile(pkg, name)
		source.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	quotes := 0
	for line := range strings.Lines(string(page)) {
		if !strings.HasPrefix(line, "## ") {
			continue
		}
		for _, quote := range regexp.MustCompile("`[^`]+`").FindAllString(line, -1) {
			quotes++
			if text := strings.Trim(quote, "`"); !strings.Contains(source.String(), text) {
				t.Errorf("%q is nowhere in the driver's source", text)
			}
		}
	}
	if quotes < 8 {
		t.Errorf("%d texts found in the page's headings: has their form changed?", quotes)
	}
}
