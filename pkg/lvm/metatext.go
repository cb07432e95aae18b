package lvm

import (
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
)

// section is a parsed block of LVM's text format, in its order: values are int64, float64, string, []any or section.
// The format is that of lvm.conf(5) and of the metadata on the disks (lib/config in LVM's source). A block has a dozen
// entries, or is gone through as a whole: no map of them is worth its making (measured: half of the time of parsing).
type section []entry

type entry struct {
	name  string
	value any
}

func (s section) value(name string) any {
	for i := range s {
		if s[i].name == name {
			return s[i].value
		}
	}
	return nil
}

func (s section) child(name string) section { c, _ := s.value(name).(section); return c }
func (s section) text(name string) string   { v, _ := s.value(name).(string); return v }
func (s section) int(name string) int64     { v, _ := s.value(name).(int64); return v }
func (s section) list(name string) []any    { v, _ := s.value(name).([]any); return v }

// children are the sections in a section.
func (s section) children() iter.Seq2[string, section] {
	return func(yield func(string, section) bool) {
		for _, e := range s {
			if c, ok := e.value.(section); ok && !yield(e.name, c) {
				return
			}
		}
	}
}

// segment is a volume's segment number i, from 1.
func (s section) segment(i int64) section { return s.child("segment" + strconv.FormatInt(i, 10)) }

// texts is an array of strings.
func (s section) texts(name string) []string {
	list := s.list(name)
	out := make([]string, 0, len(list))
	for _, v := range list {
		if t, ok := v.(string); ok {
			out = append(out, t)
		}
	}
	return out
}

// parseText reads a whole text.
func parseText(text string) (section, error) {
	p := &textParser{text: text} // names and strings are parts of it
	root, err := p.section(0)
	if err != nil {
		return nil, fmt.Errorf("LVM metadata, %d bytes before its end: %w", len(p.text)-p.pos, err)
	}
	return root, nil
}

// maxDepth is far above what LVM nests (group, volumes, volume, segment).
const maxDepth = 16

// textParser keeps a position and not the rest of the text: a pointer would be a write barrier at every byte.
type textParser struct {
	text string
	pos  int
}

// skip passes over white space and comments, and NULs at the end, and returns the next byte; 0 at the end.
func (p *textParser) skip() byte {
	for ; p.pos < len(p.text); p.pos++ {
		switch c := p.text[p.pos]; c {
		case ' ', '\t', '\n', '\r', 0:
		case '#':
			end := strings.IndexByte(p.text[p.pos:], '\n')
			if end < 0 {
				p.pos = len(p.text)
				return 0
			}
			p.pos += end
		default:
			return c
		}
	}
	return 0
}

func (p *textParser) expect(c byte) error {
	if got := p.skip(); got != c {
		return fmt.Errorf("%q where %q should be", got, c)
	}
	p.pos++
	return nil
}

// section reads assignments and sections up to the closing brace, or, outermost, to the end.
func (p *textParser) section(depth int) (section, error) {
	if depth > maxDepth {
		return nil, errors.New("nested too deeply")
	}
	out := make(section, 0, 12) // what a volume has
	for {
		switch c := p.skip(); {
		case c == 0 && depth == 0:
			return out, nil
		case c == 0:
			return nil, errors.New("a section is not closed")
		case c == '}' && depth > 0:
			p.pos++
			return out, nil
		}
		name := p.word()
		if name == "" {
			return nil, fmt.Errorf("%q where a name should be", p.text[p.pos])
		}
		var value any
		var err error
		if p.skip() == '{' {
			p.pos++
			value, err = p.section(depth + 1)
		} else if err = p.expect('='); err == nil {
			value, err = p.value(depth)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, entry{name, value})
	}
}

// word reads a name or a number.
func (p *textParser) word() string {
	start := p.pos
	for p.pos < len(p.text) && isWordByte(p.text[p.pos]) {
		p.pos++
	}
	return p.text[start:p.pos]
}

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.' || c == '+'
}

func (p *textParser) value(depth int) (any, error) {
	switch p.skip() {
	case '"':
		return p.quoted()
	case '[':
		return p.array(depth)
	}
	w := p.word()
	if n, err := strconv.ParseInt(w, 10, 64); err == nil {
		return n, nil
	}
	f, err := strconv.ParseFloat(w, 64)
	if err != nil {
		return nil, fmt.Errorf("%q is not a number", w)
	}
	return f, nil
}

func (p *textParser) array(depth int) ([]any, error) {
	if depth > maxDepth {
		return nil, errors.New("nested too deeply")
	}
	p.pos++
	var out []any
	for {
		switch p.skip() {
		case ']':
			p.pos++
			return out, nil
		case ',':
			p.pos++
			continue
		case 0:
			return nil, errors.New("an array is not closed")
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
}

// quoted reads a string; LVM escapes quotes and backslashes with a backslash.
func (p *textParser) quoted() (string, error) {
	rest := p.text[p.pos+1:]
	escaped := false
	for i := 0; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			p.pos += 1 + i + 1
			if !escaped {
				return rest[:i], nil
			}
			return unescape(rest[:i]), nil
		}
	}
	return "", errors.New("a string is not closed")
}

func unescape(s string) string {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		out = append(out, s[i])
	}
	return string(out)
}
