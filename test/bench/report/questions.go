package main

import (
	"fmt"
	"image/color"

	"gonum.org/v1/plot/vg"
)

// question is one that a reader has, and the answer as a figure and as a table.
type question struct {
	text, file string
	explained  string
	figure     figure
	table      table
}

func questions(r *results) []question {
	snapshots := []string{"CreateSnapshot", "DeleteSnapshot"}
	lists := []string{"ListSnapshots", "ListSnapshotsByID", "ListSnapshotsBySource", "GetCapacity"}
	all := []question{
		{
			"How long does a snapshot take as the group grows?", "snapshots.svg",
			"One caller. Points are medians, bars reach from the fastest to the slowest sample.",
			bySize(r, []way{
				{"lvcreate -s, by exec", "CreateSnapshot", "exec", vermillion, nil},
				{"lvremove, by exec", "DeleteSnapshot", "exec", vermillion, dashed},
				{"CreateSnapshot", "CreateSnapshot", "grpc", blue, nil},
				{"DeleteSnapshot", "DeleteSnapshot", "grpc", blue, dashed},
			}),
			callTable(r, snapshots, []int{1}),
		},
		{
			"How many callers does a node bear?", "callers.svg",
			"All callers cut a snapshot of the same volume at once. Shown is the time until the last of them has it; the table has the " +
				"time for each (that divided by the number of callers), and what the callers see.",
			byCallers(r), callTable(r, snapshots, r.callers()),
		},
		{
			"How long does the workload pause?", "pause.svg",
			"A writer overwrites 4 KiB blocks of a file with O_DIRECT and O_DSYNC for a second, in which a snapshot of its volume is cut by the " +
				"driver, by an exec'd `lvcreate -s`, or by nobody. Each point is the longest time that the writer waited for a block.",
			pauses(r), pauseTable(r),
		},
		{
			"How long do a volume and a restore take?", "volumes.svg",
			"One caller. A restore is a CreateVolume with a snapshot as its source; beside it stands an `lvcreate -s` of the snapshot that makes a " +
				"writable, active LV.",
			bySize(r, []way{
				{"lvcreate -s of a snapshot, by exec", "RestoreSnapshot", "exec", vermillion, dashed},
				{"lvcreate -V, by exec", "CreateVolume", "exec", vermillion, nil},
				{"CreateVolume from a snapshot", "RestoreSnapshot", "grpc", blue, dashed},
				{"CreateVolume", "CreateVolume", "grpc", blue, nil},
			}),
			callTable(r, []string{"CreateVolume", "RestoreSnapshot"}, []int{1}),
		},
		{
			"What does a list cost?", "lists.svg",
			"One caller. A page of ListSnapshots has at most 100 entries; `lvs` has no pages.",
			bySize(r, []way{
				{"lvs of the group, by exec", "ListSnapshots", "exec", vermillion, nil},
				{"ListSnapshots, a page of 100", "ListSnapshots", "grpc", blue, nil},
				{"ListSnapshots by source", "ListSnapshotsBySource", "grpc", green, nil},
				{"ListSnapshots by id", "ListSnapshotsByID", "grpc", purple, nil},
				{"GetCapacity", "GetCapacity", "grpc", gray, nil},
			}),
			callTable(r, lists, []int{1}),
		},
		{
			"What does the driver itself need?", "memory.svg",
			"Resident memory during the run. The start is from the beginning of the process until Probe says that it is ready; the LVM shell " +
				"starts with the first call that needs it.",
			memory(r), processTable(r),
		},
	}
	if len(r.sizes("Write")) > 0 {
		all = append(all, writeQuestion(r))
	}
	if len(r.sizes("Copy")) > 0 {
		all = append(all, copyQuestion(r))
	}
	for i := range all {
		all[i].figure.title = all[i].text
	}
	return all
}

// way is one way to do something, for a curve.
type way struct {
	name, op, via string
	color         color.Color
	dashes        []vg.Length
}

// bySize compares ways for a single caller over the number of snapshots.
func bySize(r *results, ways []way) figure {
	f := figure{x: "snapshots in the volume group", y: "time", ticks: floats(r.sizes("Call")), yTicks: durations}
	for _, w := range ways {
		c := curve{name: w.name, color: w.color, dashes: w.dashes}
		for _, size := range r.sizes("Call") {
			c.add(float64(size), r.of(call(w.op, size, 1, w.via), perOperation))
		}
		f.curves = append(f.curves, c)
	}
	return f
}

// byCallers has the smallest and the largest group.
func byCallers(r *results) figure {
	f := figure{x: "callers at once", y: "time until all have their snapshot", ticks: floats(r.callers()), yTicks: durations}
	sizes := r.sizes("Call")
	for _, w := range []way{
		{"lvcreate -s, by exec", "CreateSnapshot", "exec", vermillion, nil},
		{"CreateSnapshot", "CreateSnapshot", "grpc", blue, nil},
	} {
		for _, size := range []int{sizes[len(sizes)-1], sizes[0]} {
			c := curve{name: fmt.Sprintf("%s, %s snapshots", w.name, thousands(size)), color: w.color}
			if size == sizes[0] {
				c.dashes = dashed
			}
			for _, n := range r.callers() {
				c.add(float64(n), scaled(r.of(call(w.op, size, n, w.via), perOperation), float64(n)))
			}
			f.curves = append(f.curves, c)
		}
	}
	return f
}

func pauses(r *results) figure {
	f := figure{x: "file system, snapshots in the volume group", y: "longest stall of the writer", yTicks: durations}
	systems, sizes := distinct(r, "Pause", func(s series) string { return s.fs }), r.sizes("Pause")
	for _, w := range []way{
		{name: "no cut", via: "none", color: gray},
		{name: "CreateSnapshot", via: "grpc", color: blue},
		{name: "lvcreate -s, by exec", via: "exec", color: vermillion},
	} {
		c := curve{name: w.name, color: w.color}
		for _, fs := range systems {
			for _, size := range sizes {
				if w.via == "none" {
					f.words = append(f.words, fs+", "+thousands(size))
				}
				c.add(float64(len(c.x)), r.of(series{kind: "Pause", fs: fs, snapshots: size, via: w.via}, stall))
			}
		}
		f.curves = append(f.curves, c)
	}
	return f
}

func memory(r *results) figure {
	f := figure{x: "snapshots in the volume group", y: "resident memory, MiB", ticks: floats(r.sizes("Memory"))}
	largest := 0.0
	for _, w := range []struct {
		name, process string
		color         color.Color
	}{{"driver", "driver", blue}, {"its LVM shell", "shell", green}} {
		c := curve{name: w.name, color: w.color}
		for _, size := range r.sizes("Memory") {
			samples := scaled(r.of(series{kind: "Memory", process: w.process, snapshots: size}, rss), 1.0/(1<<20))
			c.add(float64(size), samples)
			if len(samples) > 0 {
				largest = max(largest, quantile(samples, 1))
			}
		}
		f.curves = append(f.curves, c)
	}
	f.yTicks = fromZero(largest, 10)
	return f
}

func floats(ints []int) []float64 {
	out := make([]float64, len(ints))
	for i, n := range ints {
		out[i] = float64(n)
	}
	return out
}

func scaled(samples []float64, by float64) []float64 {
	out := make([]float64, len(samples))
	for i, v := range samples {
		out[i] = v * by
	}
	return out
}
