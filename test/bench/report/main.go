// Command report makes tables and plots of what the benchmark has measured (test/bench).
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	samples := flag.String("samples", "_output/bench.txt", "the samples: a `file` in Go's benchmark format")
	table := flag.String("table", "", "write the table to this `file` too")
	docs := flag.String("docs", "", "write the pages for docs/benchmarks, with the samples, into this `directory`")
	flag.Parse()
	if err := run(*samples, *table, *docs, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(samples, table, docs string, out io.Writer) error {
	raw, err := os.ReadFile(samples)
	if err != nil {
		return err
	}
	r, err := parse(strings.NewReader(string(raw)), samples)
	if err != nil {
		return err
	}
	var text strings.Builder
	writeText(&text, r)
	if _, err := io.WriteString(out, text.String()); err != nil {
		return err
	}
	if table != "" {
		err = os.WriteFile(table, []byte(text.String()), 0o644)
	}
	if docs != "" {
		err = errors.Join(err, writeDocs(docs, raw, r))
	}
	return err
}

func writeDocs(dir string, raw []byte, r *results) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, q := range questions(r) {
		if err := q.figure.save(filepath.Join(dir, q.file)); err != nil {
			return err
		}
	}
	var page strings.Builder
	writeMarkdown(&page, r)
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "README.md"), []byte(page.String()), 0o644),
		os.WriteFile(filepath.Join(dir, "bench.txt"), raw, 0o644),
	)
}
