package main

import (
	"fmt"
	"slices"
	"strings"
)

// The second word of a shell block's info string says whether its commands are run: ```sh lab, and, if not, why not.
const (
	language    = "sh"
	markLab     = "lab"
	markSystemd = "systemd"
)

var notRun = map[string]string{
	"cluster":     "needs a Kubernetes cluster; make e2e applies the same manifests",
	markSystemd:   "needs systemd as process 1: make deb-test boots one, and runs it",
	"source":      "builds something in the source tree, or runs a make target",
	"internet":    "downloads something",
	"placeholder": "has names that the reader puts in",
	"host":        "changes the machine outside of the lab's disks",
	"slow":        "takes longer than this check may",
}

// markOutput is on a text block that follows a shell block: what its commands print. "..." stands for anything.
const markOutput = "output"

// checkBlocks says which code blocks are not marked, or marked in a way that nobody knows.
func checkBlocks(p *page) []string {
	var wrong []string
	for i, b := range p.blocks {
		at := fmt.Sprintf("%s:%d", p.path, b.line)
		switch {
		case b.indented:
			wrong = append(wrong, at+": an indented block of code; a fence says what it is")
		case len(b.info) == 0:
			wrong = append(wrong, at+": a block of code without a language")
		case b.info[0] == language && (len(b.info) != 2 || b.info[1] != markLab && notRun[b.info[1]] == ""):
			wrong = append(wrong, fmt.Sprintf("%s: a shell block says `%s %s`, or why it is not run", at, language, markLab))
		case isOutput(b) && (i == 0 || !isRun(p.blocks[i-1], true)):
			wrong = append(wrong, at+": output of no block that is run")
		}
	}
	return wrong
}

// isRun: by make docs, or, where there is a systemd, by make deb-test.
func isRun(b block, systemd bool) bool {
	return slices.Equal(b.info, []string{language, markLab}) || systemd && isSystemd(b)
}

func isSystemd(b block) bool { return slices.Equal(b.info, []string{language, markSystemd}) }

func isOutput(b block) bool { return slices.Equal(b.info, []string{"text", markOutput}) }

// compareOutput says which lines that the page shows were not printed, in their order. Runs of spaces are one.
func compareOutput(shown, printed string) []string {
	var missing []string
	lines := strings.Split(printed, "\n")
	for want := range strings.Lines(shown) {
		want = strings.TrimSpace(want)
		if want == "" || want == "..." {
			continue
		}
		i := slices.IndexFunc(lines, func(have string) bool { return matches(want, have) })
		if i < 0 {
			missing = append(missing, want)
			continue
		}
		lines = lines[i+1:]
	}
	return missing
}

// matches compares word by word, so that the widths of columns do not matter; "..." is anything within a line.
func matches(want, have string) bool {
	want, have = strings.Join(strings.Fields(want), " "), strings.Join(strings.Fields(have), " ")
	parts := strings.Split(want, "...")
	for i, part := range parts {
		at := strings.Index(have, part)
		switch {
		case at < 0 || i == 0 && at > 0:
			return false
		case i == len(parts)-1 && i > 0 && part == "":
			return true
		case i == len(parts)-1:
			return strings.HasSuffix(have, part) && (i > 0 || have == part)
		}
		have = have[at+len(part):]
	}
	return false
}
