package main

import (
	"fmt"
	"image/color"
	"slices"
	"strconv"
	"strings"
)

// What is about blocks: writes to a volume that has snapshots, and copies.

// rawVolume is what writes are compared with: an LV that has no snapshots.
const rawVolume = "raw"

// patterns of writing, as they are called by the samples and by people.
var patterns = []struct{ op, name, short string }{
	{"sequential64k", "64 KiB, sequential", "64k"}, {"random4k", "4 KiB, random", "4k"},
}

func writeSeries(op, volume string, snapshots int) series {
	return series{kind: "Write", op: op, volume: volume, snapshots: snapshots}
}

// besideRaw is how many times as long writes take as to the raw volume in the same round.
func (r *results) besideRaw(op, volume string, snapshots int) []float64 {
	return ratios(r.of(writeSeries(op, volume, snapshots), perOperation), r.of(writeSeries(op, rawVolume, 0), perOperation))
}

func writeQuestion(r *results) question {
	f := figure{x: "writes, snapshots of the volume", y: "time of a write, in times of one to a plain LV without snapshots", yTicks: times}
	f.curves = []curve{{name: "thin", color: blue}, {name: "thick", color: vermillion}}
	for _, p := range patterns {
		for _, n := range r.sizes("Write") {
			place := float64(len(f.words))
			f.words = append(f.words, fmt.Sprintf("%s, %d", p.short, n))
			for i := range f.curves {
				f.curves[i].add(place, r.besideRaw(p.op, f.curves[i].name, n))
			}
		}
	}
	return question{
		"What do snapshots cost those who write?", "writes.svg",
		"One writer, one write at a time, O_DIRECT, with a flush at the end. The volume has all of its blocks, the snapshots are cut, and " +
			"each write is the first to its place since: after it, writes to the same place cost no more than without snapshots. A ratio is the " +
			"median of those within a round, to a linear LV of the same group that has no snapshots; 1 is as fast.",
		f, writeTable(r),
	}
}

func writeTable(r *results) table {
	t := table{{"writes", "snapshots", "plain LV, MB/s", "thin, MB/s", "time, in plain LV's", "thick, MB/s", "time, in plain LV's"}}
	for _, p := range patterns {
		for _, n := range r.sizes("Write") {
			row := []string{p.name, strconv.Itoa(n), spread(r.of(writeSeries(p.op, rawVolume, n), throughput), perMega)}
			for _, volume := range []string{"thin", "thick"} {
				row = append(row, spread(r.of(writeSeries(p.op, volume, n), throughput), perMega), one(median(r.besideRaw(p.op, volume, n)), ratioText))
			}
			t = append(t, row)
		}
	}
	return t
}

func perMega(bytes float64) string { return significant(bytes / 1e6) }

// copies are the ways in which the driver's copies were measured.
func (r *results) copies() []series {
	var out []series
	for m := range r.samples {
		if m.kind == "Copy" && m.via == "lvmsnap" && m.unit == perOperation {
			out = append(out, m.series)
		}
	}
	slices.SortFunc(out, func(a, b series) int {
		return strings.Compare(fmt.Sprintf("%s %03d", a.onto, 100-a.data), fmt.Sprintf("%s %03d", b.onto, 100-b.data))
	})
	return out
}

// ddBlocks are the block sizes of dd, from small to large.
func (r *results) ddBlocks() []string {
	var out []string
	for _, via := range distinct(r, "Copy", func(s series) string { return s.via }) {
		if block, ok := strings.CutPrefix(via, "dd-"); ok {
			out = append(out, block)
		}
	}
	size := func(block string) int {
		n, _ := strconv.Atoi(strings.TrimRight(block, "kM"))
		if strings.HasSuffix(block, "M") {
			n *= 1024
		}
		return n
	}
	slices.SortFunc(out, func(a, b string) int { return size(a) - size(b) })
	return out
}

// besideDD is the time of each copy beside that of the dd that was fastest in its round.
func (r *results) besideDD(s series) []float64 {
	ours := r.of(s, perOperation)
	best := make([]float64, len(ours))
	for _, block := range r.ddBlocks() {
		dd := s
		dd.via = "dd-" + block
		for i, took := range r.of(dd, perOperation) {
			if i < len(best) && (best[i] == 0 || took < best[i]) {
				best[i] = took
			}
		}
	}
	if slices.Contains(best, 0) {
		return nil
	}
	return ratios(ours, best)
}

func copyText(s series) string { return fmt.Sprintf("onto %s, %d %% data", s.onto, s.data) }

func copyQuestion(r *results) question {
	f := figure{x: "", y: "of the volume, a second", yTicks: megabytes}
	shades := []color.Color{gray, green, purple, vermillion}
	curves := []curve{{name: "lvmsnap", color: blue}}
	for i, block := range r.ddBlocks() {
		curves = append(curves, curve{name: "dd bs=" + block, color: shades[i%len(shades)]})
	}
	for i, s := range r.copies() {
		f.words = append(f.words, copyText(s))
		curves[0].add(float64(i), r.of(s, throughput))
		for n, block := range r.ddBlocks() {
			s.via = "dd-" + block
			curves[n+1].add(float64(i), r.of(s, throughput))
		}
	}
	f.curves = curves
	return question{
		"How fast is a copy?", "copies.svg",
		"A restore of a thick snapshot, and all else that cannot share blocks, waits for `pkg/blockcopy`. Beside it stands `dd iflag=direct " +
			"oflag=direct conv=fsync,notrunc`, in turns, from one disk to another, the start of dd included. Onto a new thin volume zeroes need " +
			"not be written, and dd writes them. The ratio is the median of those of the time to that of the dd that was fastest in the same round.",
		f, copyTable(r),
	}
}

func copyTable(r *results) table {
	header := []string{"copy", "lvmsnap, MB/s"}
	for _, block := range r.ddBlocks() {
		header = append(header, "dd "+block+", MB/s")
	}
	t := table{append(header, "time beside the best dd")}
	for _, s := range r.copies() {
		row := []string{copyText(s), spread(r.of(s, throughput), perMega)}
		ours := s
		for _, block := range r.ddBlocks() {
			s.via = "dd-" + block
			row = append(row, spread(r.of(s, throughput), perMega))
		}
		t = append(t, append(row, one(median(r.besideDD(ours)), ratioText)))
	}
	return t
}
