package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

var (
	makeTarget = regexp.MustCompile(`(?m)^([a-z0-9-]+):`)
	// makes is a call of make by its first target; what is before it ends a word of a shell.
	makes = regexp.MustCompile(`(?m)(?:^|[;&|] )make ([a-z][a-z0-9-]*)`)
	// ours are paths of the repository that commands of a cluster have.
	ours = regexp.MustCompile(`(?:^|[\s'"])((?:examples|deploy)/[\w./-]*\w)`)
)

// targets are those of the Makefile.
func targets(root string) (map[string]bool, error) {
	text, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		return nil, err
	}
	out := map[string]bool{}
	for _, m := range makeTarget.FindAllStringSubmatch(string(text), -1) {
		out[m[1]] = true
	}
	return out, nil
}

// checkNames says which targets of make and which of our files do not exist that commands of a page name: also of those commands
// that cannot be run here.
func checkNames(root string, known map[string]bool, p *page) []string {
	var wrong []string
	check := func(line int, text string) {
		for _, m := range makes.FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				wrong = append(wrong, fmt.Sprintf("%s:%d: there is no make %s", p.path, line, m[1]))
			}
		}
		for _, m := range ours.FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(m[1]))); err != nil {
				wrong = append(wrong, fmt.Sprintf("%s:%d: there is no %s", p.path, line, m[1]))
			}
		}
	}
	for _, s := range p.spans {
		check(s.line, s.text)
	}
	for _, b := range p.blocks {
		if len(b.info) > 0 && b.info[0] == language {
			check(b.line, strings.ReplaceAll(b.text, "\\\n", " "))
		}
	}
	return wrong
}
