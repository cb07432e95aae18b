package main

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// testdata/bench.txt is a part of a run: one size, two operations and a list, and the writes and copies of a quick one.
const recorded = "testdata/bench.txt"

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-update writes it anew):\n%s", path, diff)
	}
}

func TestReport(t *testing.T) {
	dir := t.TempDir()
	docs, table := filepath.Join(dir, "docs"), filepath.Join(dir, "table.txt")
	var out strings.Builder
	if err := run(recorded, table, docs, &out); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.golden", out.String())
	written, err := os.ReadFile(table)
	if err != nil || string(written) != out.String() {
		t.Errorf("the file is not what was printed: %v", err)
	}
	page, err := os.ReadFile(filepath.Join(docs, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "page.golden", string(page))
	for _, file := range []string{"bench.txt", "snapshots.svg", "callers.svg", "pause.svg", "volumes.svg", "lists.svg", "memory.svg", "writes.svg", "copies.svg"} {
		if !strings.Contains(string(page), "("+file+")") {
			t.Errorf("the page does not show %s", file)
		}
		if strings.HasSuffix(file, ".svg") {
			checkXML(t, filepath.Join(docs, file))
		}
	}
}

func checkXML(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	decoder := xml.NewDecoder(f)
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
	}
}

func TestParseUnits(t *testing.T) {
	r, err := parse(strings.NewReader("BenchmarkCall/op=X 1 2000000000 ns/op 0 lvm-ns/op\nBenchmarkCall/op=X 1 1 ns/op 1000000000 lvm-ns/op\n"), "units")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]float64{0, 1}, r.of(series{kind: "Call", op: "X"}, inLVM)); diff != "" {
		t.Error(diff)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":          "goos: linux\n",
		"an unknown field": "BenchmarkCall/color=red 1 5 ns/op\n",
		"a word as a size": "BenchmarkCall/op=X/snapshots=many 1 5 ns/op\n",
		"half a line":      "BenchmarkStart/snapshots=1 1 5\nBenchmarkStart/snapshots=1 1 5 ns/op\n",
	} {
		if _, err := parse(strings.NewReader(text), name); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestQuantile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for _, c := range []struct {
		samples []float64
		q, want float64
	}{
		{[]float64{3, 1, 2}, 0, 1},
		{[]float64{3, 1, 2}, 0.5, 2},
		{[]float64{3, 1, 2}, 1, 3},
		{[]float64{7}, 0.99, 7},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
	} {
		if got := quantile(c.samples, c.q); got != c.want {
			t.Errorf("quantile(%v, %v) = %v, want %v", c.samples, c.q, got, c.want)
		}
	}
	if !math.IsNaN(median(nil)) {
		t.Error("nothing has a median")
	}
}

func TestRatios(t *testing.T) {
	for _, c := range []struct{ a, b, want []float64 }{
		{[]float64{1, 4}, []float64{2, 2}, []float64{0.5, 2}},
		{[]float64{1, 2, 3, 4}, []float64{1, 2}, []float64{1, 2, 1.5, 2}}, // two turns of a for each of b
		{[]float64{6}, []float64{1, 2, 3}, []float64{6, 3, 2}},
		{nil, []float64{1}, nil},
	} {
		if diff := cmp.Diff(c.want, ratios(c.a, c.b)); diff != "" {
			t.Errorf("ratios(%v, %v):\n%s", c.a, c.b, diff)
		}
	}
}

func TestGoals(t *testing.T) {
	r, err := parse(strings.NewReader(`
BenchmarkCall/op=CreateSnapshot/snapshots=20/callers=1/via=grpc 1 10000000 ns/op
BenchmarkCall/op=CreateSnapshot/snapshots=20/callers=1/via=exec 1 100000000 ns/op
BenchmarkCall/op=CreateSnapshot/snapshots=1000/callers=1/via=grpc 1 40000000 ns/op
BenchmarkCall/op=DeleteSnapshot/snapshots=20/callers=1/via=grpc 1 1 ns/op
BenchmarkCall/op=DeleteSnapshot/snapshots=20/callers=1/via=exec 1 10 ns/op
BenchmarkCall/op=DeleteSnapshot/snapshots=1000/callers=1/via=grpc 1 2 ns/op
BenchmarkCall/op=DeleteSnapshot/snapshots=1000/callers=1/via=exec 1 10 ns/op
BenchmarkCall/op=ListSnapshots/snapshots=1000/callers=1/via=grpc 1 4000000 ns/op 0 commands/op
BenchmarkCall/op=ListSnapshots/snapshots=1000/callers=8/via=grpc 8 4000000 ns/op 0.125 commands/op
`), "goals")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, g := range goals(r) {
		got = append(got, g.result()+": "+g.verdict())
	}
	want := []string{
		"0.10: met",
		"-: not measured",
		"0.20 (1000 snapshots): NOT MET", // the worst size
		"4.00: NOT MET",
		"-: not measured",
		"-: not measured",
		"4 ms: met",
		"0.125: NOT MET", // with any number of callers
		"-: not measured",
		"-: not measured",
		"-: not measured",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestFormat(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.01234: "0.0123", 1.5: "1.50", 12.34: "12.3", 123.4: "123", 12345: "12300"} {
		if got := significant(v); got != want {
			t.Errorf("significant(%v) = %q, want %q", v, got, want)
		}
	}
	for n, want := range map[int]string{20: "20", 999: "999", 1000: "1,000", 12034: "12,034"} {
		if got := thousands(n); got != want {
			t.Errorf("thousands(%d) = %q, want %q", n, got, want)
		}
	}
}
