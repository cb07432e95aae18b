package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchunit"
)

// series names what was measured again and again. Fields that say nothing about it are empty.
type series struct {
	kind      string // Call, Latency, Pause, ...
	op, via   string
	fs        string
	process   string
	volume    string // thin, thick, or raw: an LV of nobody's
	onto      string // what a copy is made to
	data      int    // percent of it that is not zero
	snapshots int
	callers   int
}

// metric is a series in one of its units.
type metric struct {
	series
	unit string
}

// Units, as benchfmt tidies them.
const (
	perOperation = "sec/op"
	inLVM        = "lvm-sec/op"
	commands     = "commands/op"
	commits      = "commits/op"
	stall        = "stall-sec"
	rss          = "RSS-B"
	throughput   = "B/s"
)

// results are the samples of a run, in the order in which they were taken.
type results struct {
	config  []benchfmt.Config
	samples map[metric][]float64
}

func parse(in io.Reader, name string) (*results, error) {
	r := &results{samples: map[metric][]float64{}}
	reader := benchfmt.NewReader(in, name)
	var errs []error
	for reader.Scan() {
		switch rec := reader.Result().(type) {
		case *benchfmt.Result:
			s, err := parseName(rec.Name)
			errs = append(errs, err)
			for _, v := range rec.Values {
				// benchfmt leaves a zero with the unit that it was written with.
				_, unit := benchunit.Tidy(v.Value, v.Unit)
				m := metric{s, unit}
				r.samples[m] = append(r.samples[m], v.Value)
			}
			r.config = rec.Clone().Config
		case *benchfmt.SyntaxError:
			errs = append(errs, rec)
		}
	}
	if len(r.samples) == 0 {
		errs = append(errs, fmt.Errorf("%s: no samples", name))
	}
	return r, errors.Join(append(errs, reader.Err())...)
}

func parseName(name benchfmt.Name) (s series, err error) {
	base, parts := name.Parts()
	s.kind = string(base)
	for _, part := range parts {
		key, value, _ := strings.Cut(strings.TrimPrefix(string(part), "/"), "=")
		var e error
		switch key {
		case "op":
			s.op = value
		case "via":
			s.via = value
		case "fs":
			s.fs = value
		case "process":
			s.process = value
		case "type":
			s.volume = value
		case "onto":
			s.onto = value
		case "data":
			s.data, e = strconv.Atoi(value)
		case "snapshots":
			s.snapshots, e = strconv.Atoi(value)
		case "callers":
			s.callers, e = strconv.Atoi(value)
		default:
			e = fmt.Errorf("unknown part %q", part)
		}
		if e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", name, e))
		}
	}
	return s, err
}

func (r *results) of(s series, unit string) []float64 { return r.samples[metric{s, unit}] }

// distinct are the different values of a field, in order, of the series of a kind.
func distinct[T int | string](r *results, kind string, field func(series) T) []T {
	seen := map[T]bool{}
	for m := range r.samples {
		if m.kind == kind {
			seen[field(m.series)] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func (r *results) sizes(kind string) []int {
	return distinct(r, kind, func(s series) int { return s.snapshots })
}

func (r *results) callers() []int {
	return distinct(r, "Call", func(s series) int { return s.callers })
}

// operations in the order in which they are told of; others after them.
func (r *results) operations() []string {
	ops := distinct(r, "Call", func(s series) string { return s.op })
	slices.SortStableFunc(ops, func(a, b string) int { return rank(a) - rank(b) })
	return ops
}

var order = []string{
	"CreateSnapshot", "DeleteSnapshot", "CreateVolume", "RestoreSnapshot",
	"ListSnapshots", "ListSnapshotsByID", "ListSnapshotsBySource", "GetCapacity",
}

func rank(op string) int {
	if i := slices.Index(order, op); i >= 0 {
		return i
	}
	return len(order)
}

func call(op string, snapshots, callers int, via string) series {
	return series{kind: "Call", op: op, snapshots: snapshots, callers: callers, via: via}
}

// ratio is the median of the ratios of what was measured side by side.
func (r *results) ratio(op string, snapshots, callers int) float64 {
	return median(ratios(
		r.of(call(op, snapshots, callers, "grpc"), perOperation),
		r.of(call(op, snapshots, callers, "exec"), perOperation),
	))
}
