package lvm

import (
	"bytes"
	"fmt"
)

// metadataParser reads the texts of one group, one after the other. From one commit to the next little changes, but all of
// it is written anew, so what it read of each volume is kept, and only a volume whose text has changed is parsed again.
// Measured with 1,000 volumes: docs/adr/0012.
type metadataParser struct {
	extentBytes int64
	volumes     map[string]*parsedVolume
}

// parsedVolume is what was read of one volume, and from what.
type parsedVolume struct {
	name, text string
	section    section

	// What else lv was made from: the group's other volumes say of this one whether it is a COW, and an origin.
	cow     section
	origin  bool
	visible bool
	lv      LV
	made    bool
}

// volumeText is the text of one volume, with its name: `lvol0 { ... }`.
type volumeText struct{ name, text []byte }

// sections are the volumes of a group as one section.
func (p *metadataParser) sections(texts []volumeText) (section, error) {
	now := make(map[string]*parsedVolume, len(texts))
	out := make(section, 0, len(texts))
	for _, t := range texts {
		v := p.volumes[string(t.name)]
		if v == nil || v.text != string(t.text) {
			v = &parsedVolume{name: string(t.name), text: string(t.text)}
			root, err := parseText(v.text)
			if err != nil {
				return nil, err
			}
			v.section = root.child(v.name)
		}
		if v.section == nil || now[v.name] != nil {
			return nil, fmt.Errorf("LVM metadata: the volume %q has no name of its own", v.name)
		}
		now[v.name] = v
		out = append(out, entry{v.name, v.section})
	}
	p.volumes = now
	return out, nil
}

// volume reads one volume, unless nothing that it says comes from has changed.
func (p *metadataParser) volume(name string, s section, extentBytes int64, cow cows) (*parsedVolume, error) {
	v := p.volumes[name]
	tie, origin := cow.snapshots[name], cow.origins[name]
	if v.made && v.origin == origin && same(v.cow, tie) {
		return v, nil
	}
	v.cow, v.origin = tie, origin
	v.visible = isVisible(s, tie)
	if v.visible {
		lv, err := parseVolume(name, s, extentBytes, cow)
		if err != nil {
			return nil, err
		}
		v.lv = lv
	}
	v.made = true
	return v, nil
}

// same says whether two sections are one and not only alike.
func same(a, b section) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// splitVolumes takes the texts of the volumes out of a group's metadata. Whatever is not one stays in the rest, for the
// parser to judge.
func splitVolumes(text []byte) (rest []byte, volumes []volumeText) {
	depth, within := 0, false // within logical_volumes
	taken, start := 0, 0      // up to where the text was dealt with, and where the volume begins
	var name []byte
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			i = endOfString(text, i)
		case '#':
			i = endOfLine(text, i)
		case '{':
			depth++
			switch word, at := nameBefore(text, i); {
			case depth == 2:
				within = string(word) == "logical_volumes"
			case depth == 3 && within:
				name, start = word, at
			}
		case '}':
			depth--
			if depth == 2 && within {
				rest = append(rest, text[taken:start]...)
				volumes = append(volumes, volumeText{name, text[start : i+1]})
				taken = i + 1
			}
		}
	}
	return append(rest, text[taken:]...), volumes
}

// endOfString is where the string ends that begins at i.
func endOfString(text []byte, i int) int {
	for begin := i; ; {
		n := bytes.IndexByte(text[i+1:], '"')
		if n < 0 {
			return len(text)
		}
		i += 1 + n
		escape := i
		for escape-1 > begin && text[escape-1] == '\\' {
			escape--
		}
		if (i-escape)%2 == 0 {
			return i
		}
	}
}

func endOfLine(text []byte, i int) int {
	if n := bytes.IndexByte(text[i:], '\n'); n >= 0 {
		return i + n
	}
	return len(text)
}

// nameBefore is the word before the brace at i, and where it begins.
func nameBefore(text []byte, i int) (name []byte, at int) {
	for i > 0 && (text[i-1] == ' ' || text[i-1] == '\t' || text[i-1] == '\n' || text[i-1] == '\r') {
		i--
	}
	at = i
	for at > 0 && isWordByte(text[at-1]) {
		at--
	}
	return text[at:i], at
}
