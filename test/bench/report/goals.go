package main

import (
	"fmt"
	"math"
)

// goal is something that the driver is to keep to. measured is NaN when it was not.
type goal struct {
	text     string
	limit    float64
	format   func(float64) string
	measured float64
	where    string // the worst case, if there are several
}

func (g goal) verdict() string {
	switch {
	case math.IsNaN(g.measured):
		return "not measured"
	case g.measured <= g.limit:
		return "met"
	default:
		return "NOT MET"
	}
}

func (g goal) result() string {
	if math.IsNaN(g.measured) {
		return "-"
	}
	if g.where == "" {
		return g.format(g.measured)
	}
	return g.format(g.measured) + " (" + g.where + ")"
}

// place is an operation at a size of the group.
type place struct {
	op   string
	size int
}

func (p place) String() string { return fmt.Sprintf("%s, %d snapshots", p.op, p.size) }

// manyCallers and manySnapshots are what the goals mean by many.
const (
	manyCallers   = 32
	manySnapshots = 1000
)

func goals(r *results) []goal {
	sizes := r.sizes("Call")
	var places []place
	for _, op := range r.operations() {
		for _, size := range sizes {
			places = append(places, place{op, size})
		}
	}
	deleting, deletingAt := worst(sizes, func(n int) float64 { return r.ratio("DeleteSnapshot", n, 1) })
	slower, slowerAt := worst(places, func(p place) float64 {
		one, many := call(p.op, p.size, 1, "grpc"), call(p.op, p.size, manyCallers, "grpc")
		return median(r.of(many, perOperation)) / median(r.of(one, perOperation))
	})
	tail, tailAt := worst(places, func(p place) float64 {
		s := call(p.op, p.size, manyCallers, "grpc")
		s.kind = "Latency"
		latencies := r.of(s, perOperation)
		return quantile(latencies, 0.99) / median(latencies)
	})
	create := func(n int) float64 { return median(r.of(call("CreateSnapshot", n, 1, "grpc"), perOperation)) }
	list := call("ListSnapshots", manySnapshots, 1, "grpc")
	listCommands, _ := worst(r.callers(), func(n int) float64 {
		return quantile(r.of(call("ListSnapshots", manySnapshots, n, "grpc"), commands), 1)
	})
	restoring, _ := worst(sizes, func(n int) float64 {
		return quantile(r.of(call("RestoreSnapshot", n, 1, "grpc"), commands), 1)
	})
	copying, copied := worst(r.copies(), func(s series) float64 { return median(r.besideDD(s)) })
	start := series{kind: "Start", snapshots: manySnapshots}
	atSize := func(n int) string { return fmt.Sprintf("%d snapshots", n) }
	return []goal{
		{"CreateSnapshot beside an exec'd `lvcreate -s`, 20 snapshots", 0.15, ratioText, r.ratio("CreateSnapshot", 20, 1), ""},
		{"CreateSnapshot beside an exec'd `lvcreate -s`, 500 snapshots", 0.25, ratioText, r.ratio("CreateSnapshot", 500, 1), ""},
		{"DeleteSnapshot beside an exec'd `lvremove`", 0.15, ratioText, deleting, atSize(deletingAt)},
		{"CreateSnapshot with 1,000 snapshots beside the same with 20", 3, ratioText, create(manySnapshots) / create(20), ""},
		{"an operation with 32 callers beside the same with one", 1.3, ratioText, slower, slowerAt.String()},
		{"p99 of the latency beside its median, 32 callers", 3, ratioText, tail, tailAt.String()},
		{"ListSnapshots, a page of 100 of 1,000", 5e-3, durationText, median(r.of(list, perOperation)), ""},
		{"LVM commands of that ListSnapshots", 0, countText, listCommands, ""},
		{"LVM commands of a restore", 2, countText, restoring, ""},
		{"a copy beside `dd` with the block size that was best in the same round", 1 / 0.9, ratioText, copying, copyText(copied)},
		{"start of the driver with 1,000 snapshots", 2, durationText, median(r.of(start, perOperation)), ""},
	}
}
