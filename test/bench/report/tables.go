package main

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
)

// table is rows of cells; the first row is the header.
type table [][]string

// text writes a table for a terminal.
func (t table) text(w *strings.Builder) {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range t {
		_, _ = fmt.Fprintln(tw, strings.Join(row, "\t"))
	}
	_ = tw.Flush() // a strings.Builder cannot fail
}

// markdown writes a table for a page.
func (t table) markdown(w *strings.Builder) {
	for i, row := range t {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			fmt.Fprintln(w, strings.Repeat("|---", len(row))+"|")
		}
	}
	fmt.Fprintln(w)
}

func goalTable(r *results) table {
	t := table{{"goal", "at most", "measured", ""}}
	for _, g := range goals(r) {
		t = append(t, []string{g.text, g.format(g.limit), g.result(), g.verdict()})
	}
	return t
}

// callTable has a row for every size of the group and number of callers. What is the same in all rows is left out:
// with a single caller their number, and the latency, which is what the operation takes.
func callTable(r *results, ops []string, callers []int) table {
	many := len(callers) > 1
	header := []string{"operation", "snapshots"}
	if many {
		header = append(header, "callers", "latency, ms: median / p99")
	}
	t := table{append(header, "gRPC, ms", "of that in LVM", "exec, ms", "ratio", "tuned exec, ms", "ratio", "LVM commands", "commits")}
	for _, op := range ops {
		for _, size := range r.sizes("Call") {
			for _, n := range callers {
				grpc, exec, tuned := call(op, size, n, "grpc"), call(op, size, n, "exec"), call(op, size, n, "tuned")
				if len(r.of(grpc, perOperation)) == 0 {
					continue
				}
				row := []string{op, strconv.Itoa(size)}
				if many {
					row = append(row, strconv.Itoa(n), latencyCell(r, grpc))
				}
				t = append(t, append(row,
					spread(r.of(grpc, perOperation), milliseconds), one(median(r.of(grpc, inLVM)), milliseconds),
					spread(r.of(exec, perOperation), milliseconds), one(r.ratio(op, size, n), ratioText),
					one(median(r.of(tuned, perOperation)), milliseconds), one(median(ratios(r.of(grpc, perOperation), r.of(tuned, perOperation))), ratioText),
					one(median(r.of(grpc, commands)), countText), one(median(r.of(grpc, commits)), countText)))
			}
		}
	}
	return t
}

// latencyCell tells what the callers see. A single caller sees what the operation takes.
func latencyCell(r *results, s series) string {
	s.kind = "Latency"
	latencies := r.of(s, perOperation)
	if len(latencies) == 0 {
		return "-"
	}
	return milliseconds(median(latencies)) + " / " + milliseconds(quantile(latencies, 0.99))
}

func pauseTable(r *results) table {
	t := table{{"file system", "snapshots", "no cut, ms", "gRPC, ms", "exec, ms", "ratio"}}
	for _, fs := range distinct(r, "Pause", func(s series) string { return s.fs }) {
		for _, size := range r.sizes("Pause") {
			row := []string{fs, strconv.Itoa(size)}
			stalls := map[string][]float64{}
			for _, via := range []string{"none", "grpc", "exec"} {
				stalls[via] = r.of(series{kind: "Pause", fs: fs, snapshots: size, via: via}, stall)
				row = append(row, spread(stalls[via], milliseconds))
			}
			t = append(t, append(row, one(median(ratios(stalls["grpc"], stalls["exec"])), ratioText)))
		}
	}
	return t
}

func processTable(r *results) table {
	t := table{{"snapshots", "start until ready, ms", "first CreateSnapshot, ms", "RSS of the driver, MiB", "RSS of its LVM shell, MiB"}}
	for _, size := range r.sizes("Start") {
		t = append(t, []string{
			strconv.Itoa(size),
			spread(r.of(series{kind: "Start", snapshots: size}, perOperation), milliseconds),
			spread(r.of(series{kind: "FirstSnapshot", snapshots: size}, perOperation), milliseconds),
			spread(r.of(series{kind: "Memory", process: "driver", snapshots: size}, rss), mebibytes),
			spread(r.of(series{kind: "Memory", process: "shell", snapshots: size}, rss), mebibytes),
		})
	}
	return t
}

func machineTable(r *results) table {
	t := table{{"", "measured on"}}
	for _, c := range r.config {
		if c.File {
			t = append(t, []string{c.Key, string(c.Value)})
		}
	}
	return t
}

// writeText writes all tables for a terminal.
func writeText(w *strings.Builder, r *results) {
	for _, t := range []table{
		machineTable(r), callTable(r, r.operations(), r.callers()), pauseTable(r), processTable(r), writeTable(r), copyTable(r), goalTable(r),
	} {
		if len(t) > 1 {
			t.text(w)
			fmt.Fprintln(w)
		}
	}
}
