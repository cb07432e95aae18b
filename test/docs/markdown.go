package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// page is what this program wants to know of a Markdown file.
type page struct {
	path    string // from the root of the repository, with slashes
	links   []link
	anchors map[string]bool
	blocks  []block
	spans   []span
}

// span is code within a line of text.
type span struct {
	line int
	text string
}

type link struct {
	line        int
	destination string
}

// block is a block of code. An indented one has no info string.
type block struct {
	line     int // of its first line of code
	indented bool
	info     []string // "sh lab" has two
	text     string
}

// htmlAnchor finds what can be linked to in HTML between the Markdown.
var htmlAnchor = regexp.MustCompile(`(?i)<[a-z]+\s[^>]*\b(?:id|name)="([^"]+)"`)

func readPage(root, path string) (*page, error) {
	source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
	if err != nil {
		return nil, err
	}
	return parsePage(path, source)
}

func parsePage(path string, source []byte) (*page, error) {
	p := &page{path: path, anchors: map[string]bool{}}
	for _, m := range htmlAnchor.FindAllSubmatch(source, -1) {
		p.anchors[string(m[1])] = true
	}
	document := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(source))
	line := 1 // of the last block: inline nodes do not know theirs
	slugs := map[string]int{}
	err := ast.Walk(document, func(n ast.Node, entering bool) (ast.WalkStatus, error) {
		if !entering {
			return ast.WalkContinue, nil
		}
		if n.Type() == ast.TypeBlock && n.Lines().Len() > 0 {
			line = lineOf(source, n.Lines().At(0).Start)
		}
		switch n := n.(type) {
		case *ast.Heading:
			p.addHeading(slugs, inlineText(n, source))
		case *ast.Link:
			p.links = append(p.links, link{line, string(n.Destination)})
		case *ast.Image:
			p.links = append(p.links, link{line, string(n.Destination)})
		case *ast.AutoLink:
			if n.AutoLinkType == ast.AutoLinkURL {
				p.links = append(p.links, link{line, string(n.URL(source))})
			}
		case *ast.CodeSpan:
			p.spans = append(p.spans, span{line, strings.ReplaceAll(inlineText(n, source), "\n", " ")})
		case *ast.FencedCodeBlock:
			var info string
			if n.Info != nil {
				info = string(n.Info.Segment.Value(source))
			}
			p.blocks = append(p.blocks, block{line: line, info: strings.Fields(info), text: linesText(n, source)})
		case *ast.CodeBlock:
			p.blocks = append(p.blocks, block{line: line, indented: true, text: linesText(n, source)})
		}
		return ast.WalkContinue, nil
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// addHeading gives a heading the anchor that GitHub gives it: a second one of the same text ends in -1.
func (p *page) addHeading(slugs map[string]int, heading string) {
	slug := slugOf(heading)
	n := slugs[slug]
	slugs[slug]++
	if n > 0 {
		slug = fmt.Sprintf("%s-%d", slug, n)
	}
	p.anchors[slug] = true
}

func slugOf(heading string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r == '-' || r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r):
			return unicode.ToLower(r)
		}
		return -1
	}, strings.TrimSpace(heading))
}

func inlineText(n ast.Node, source []byte) string {
	var b strings.Builder
	for c := n.FirstChild(); c != nil; c = c.NextSibling() {
		if t, ok := c.(*ast.Text); ok {
			b.Write(t.Segment.Value(source))
		} else {
			b.WriteString(inlineText(c, source))
		}
	}
	return b.String()
}

func linesText(n ast.Node, source []byte) string {
	var b strings.Builder
	for i := range n.Lines().Len() {
		segment := n.Lines().At(i)
		b.Write(segment.Value(source))
	}
	return b.String()
}

func lineOf(source []byte, offset int) int {
	return 1 + strings.Count(string(source[:offset]), "\n")
}
