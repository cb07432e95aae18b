package lvm

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// section is a parsed block of LVM's text format: values are int64, float64, string, []any or section.
// The format is that of lvm.conf(5) and of the metadata on the disks (lib/config in LVM's source).
type section map[string]any

func (s section) child(name string) section { c, _ := s[name].(section); return c }
func (s section) text(name string) string   { v, _ := s[name].(string); return v }
func (s section) int(name string) int64     { v, _ := s[name].(int64); return v }

// texts is an array of strings.
func (s section) texts(name string) []string {
	list, _ := s[name].([]any)
	out := make([]string, 0, len(list))
	for _, v := range list {
		if t, ok := v.(string); ok {
			out = append(out, t)
		}
	}
	return out
}

// parseText reads a whole text.
func parseText(text []byte) (section, error) {
	p := &textParser{rest: string(text)} // once: names and strings are parts of it
	root, err := p.section(0)
	if err != nil {
		return nil, fmt.Errorf("LVM metadata, %d bytes before its end: %w", len(p.rest), err)
	}
	return root, nil
}

// maxDepth is far above what LVM nests (group, volumes, volume, segment).
const maxDepth = 16

type textParser struct{ rest string }

// skip passes over white space and comments, and NULs at the end, and returns the next byte; 0 at the end.
func (p *textParser) skip() byte {
	for len(p.rest) > 0 {
		switch c := p.rest[0]; c {
		case ' ', '\t', '\n', '\r', 0:
			p.rest = p.rest[1:]
		case '#':
			end := strings.IndexByte(p.rest, '\n')
			if end < 0 {
				end = len(p.rest) - 1
			}
			p.rest = p.rest[end+1:]
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
	p.rest = p.rest[1:]
	return nil
}

// section reads assignments and sections up to the closing brace, or, outermost, to the end.
func (p *textParser) section(depth int) (section, error) {
	if depth > maxDepth {
		return nil, errors.New("nested too deeply")
	}
	out := section{}
	for {
		switch c := p.skip(); {
		case c == 0 && depth == 0:
			return out, nil
		case c == 0:
			return nil, errors.New("a section is not closed")
		case c == '}' && depth > 0:
			p.rest = p.rest[1:]
			return out, nil
		}
		name := p.word()
		if name == "" {
			return nil, fmt.Errorf("%q where a name should be", p.rest[0])
		}
		var value any
		var err error
		if p.skip() == '{' {
			p.rest = p.rest[1:]
			value, err = p.section(depth + 1)
		} else if err = p.expect('='); err == nil {
			value, err = p.value(depth)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out[name] = value
	}
}

// word reads a name or a number.
func (p *textParser) word() string {
	n := 0
	for n < len(p.rest) && isWordByte(p.rest[n]) {
		n++
	}
	w := p.rest[:n]
	p.rest = p.rest[n:]
	return w
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
	p.rest = p.rest[1:]
	var out []any
	for {
		switch p.skip() {
		case ']':
			p.rest = p.rest[1:]
			return out, nil
		case ',':
			p.rest = p.rest[1:]
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
	rest := p.rest[1:]
	escaped := false
	for i := 0; i < len(rest); i++ {
		switch rest[i] {
		case '\\':
			escaped = true
			i++
		case '"':
			p.rest = rest[i+1:]
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
