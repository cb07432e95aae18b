package main

import (
	"fmt"
	"strings"
)

const introduction = `<!-- Made by ` + "`make bench-docs`" + `; do not edit. -->
# Benchmarks

One run of ` + "`make bench`" + `: one volume group, grown step by step, and at each size every operation through gRPC to the real
driver and by exec of LVM's own commands, in turns. Figures are min / median / max of samples in milliseconds per operation,
that is, of the time of all callers divided by their number; latency is what each of them sees. A ratio is the median of the
ratios of what was measured side by side: gRPC / exec, below 1 the driver is faster.

The milliseconds are this machine's, and starting a program is slow where the lab is User Mode Linux (` + "`uml`" + `,
[adr/0005](../adr/0005-lab.md)): ratios travel better. *exec* is a command with LVM's own defaults, as an administrator or a
peer runs it, but without udevd and dmeventd, which the lab does not have; *tuned exec* is the same command with the settings for
speed of the driver's private lvm.conf ([adr/0006](../adr/0006-private-lvm-conf.md)).

Every sample is in [bench.txt](bench.txt), in Go's benchmark format: ` + "`benchstat -col /via bench.txt`" + `.

`

// writeMarkdown writes the page of docs/benchmarks.
func writeMarkdown(w *strings.Builder, r *results) {
	fmt.Fprint(w, introduction)
	machineTable(r).markdown(w)
	fmt.Fprint(w, "## Goals\n\nWhere a goal has many cases, the worst is shown.\n\n")
	goalTable(r).markdown(w)
	for _, q := range questions(r) {
		fmt.Fprintf(w, "## %s\n\n![%s](%s)\n\n%s\n\n", q.text, q.text, q.file, q.explained)
		q.table.markdown(w)
	}
	fmt.Fprint(w, "## Every figure\n\n")
	callTable(r, r.operations(), r.callers()).markdown(w)
}
