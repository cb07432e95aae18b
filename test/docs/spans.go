package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
)

var (
	// looks are commands in the text that only look. Those that change something stand in blocks.
	looks = regexp.MustCompile(`^(lvs|vgs|pvs|dmsetup (status|info|table)) `)
	// unnamed is in commands that the reader has to complete.
	unnamed = regexp.MustCompile(`\.\.\.|\b[A-Z]{2,}\b`)
)

// spansPage is a page of all commands that only look and stand in the text of the others, as `lvs -o lv_tags data`: are there
// such fields?
func spansPage(pages map[string]*page) *page {
	out := &page{path: "commands in the text", blocks: []block{{info: []string{language, markLab}, text: `vgcreate --metadatasize 16m data /dev/sdX
lvcreate --type thin-pool --name pool --size 1g data
lvcreate --thinpool data/pool --virtualsize 1g --name db
lvcreate --snapshot --name monday data/db
`}}}
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(pages)) {
		for _, s := range pages[name].spans {
			if !looks.MatchString(s.text) || unnamed.MatchString(s.text) || seen[s.text] {
				continue
			}
			seen[s.text] = true
			out.blocks = append(out.blocks, block{line: s.line, info: []string{language, markLab}, text: fmt.Sprintf("# %s:%d\n%s\n", name, s.line, s.text)})
		}
	}
	return out
}
