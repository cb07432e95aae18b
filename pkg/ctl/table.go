package ctl

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"sigs.k8s.io/yaml"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// painter colors, where that is wanted.
type painter bool

// The colors of ECMA-48, SGR, that every terminal has.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	dim    = "2"
)

func (p painter) color(code, text string) string {
	if !p || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// state colors a state by the worst of the conditions.
func (p painter) state(text string, conditions []Condition) string {
	switch {
	case len(conditions) == 0 && (text == "NotReady" || text == "Deleted"):
		return p.color(yellow, text)
	case len(conditions) == 0:
		return p.color(green, text)
	}
	for _, c := range conditions {
		if c.Severity != storage.SeverityDegraded {
			return p.color(red, text)
		}
	}
	return p.color(yellow, text)
}

// percent colors how full something is.
func (p painter) percent(n float64, text string) string {
	switch {
	case n >= 90:
		return p.color(red, text)
	case n >= 75:
		return p.color(yellow, text)
	default:
		return p.color(green, text)
	}
}

const barCells = 20

// bar shows how full something is.
func (p painter) bar(percent float64) string {
	full := min(max(int(percent*barCells/100+0.5), 0), barCells)
	return "[" + p.percent(percent, strings.Repeat("#", full)) + strings.Repeat(".", barCells-full) + "]"
}

// cell is a text with its color, which has no width.
type cell struct{ text, painted string }

func plain(text string) cell { return cell{text, text} }

// table aligns columns as kubectl does.
type table struct {
	header []string
	rows   [][]cell
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

const columnGap = "   "

func (t *table) write(w io.Writer, noHeaders bool) error {
	rows := t.rows
	if !noHeaders {
		header := make([]cell, len(t.header))
		for i, h := range t.header {
			header[i] = plain(h)
		}
		rows = append([][]cell{header}, rows...)
	}
	width := make([]int, len(t.header))
	for _, row := range rows {
		for i, c := range row {
			width[i] = max(width[i], utf8.RuneCountInString(c.text))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for i, c := range row {
			line.WriteString(c.painted)
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(c.text)) + columnGap)
			}
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(line.String(), " ")); err != nil {
			return err
		}
	}
	return nil
}

// list is the JSON and YAML of several objects.
type list struct {
	Items any `json:"items"`
}

// structured writes JSON or YAML.
func structured(w io.Writer, format string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	if format == "yaml" {
		if text, err = yaml.JSONToYAML(text); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintln(w, strings.TrimRight(string(text), "\n"))
	return err
}

// age is a time as kubectl shows it.
func age(now time.Time, t *time.Time) string {
	if t == nil {
		return "-"
	}
	return span(now.Sub(*t))
}

func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 3*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

func size(n int64) string { return storage.HumanBytes(n) }

func percentText(n float64) string { return fmt.Sprintf("%.1f%%", n) }

func ratio(part, whole int64) float64 {
	if whole <= 0 {
		return 0
	}
	return float64(part) * 100 / float64(whole)
}
