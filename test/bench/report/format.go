package main

import (
	"fmt"
	"math"
	"strconv"
)

// significant writes a number with three significant digits, and never an exponent.
func significant(v float64) string {
	if v == 0 {
		return "0"
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	scale := math.Pow(10, float64(digits))
	return strconv.FormatFloat(math.Round(v*scale)/scale, 'f', max(0, digits), 64)
}

func milliseconds(seconds float64) string { return significant(seconds * 1000) }

func ratioText(v float64) string { return strconv.FormatFloat(v, 'f', 2, 64) }
func countText(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }

func durationText(seconds float64) string {
	if seconds >= 1 {
		return strconv.FormatFloat(seconds, 'g', 3, 64) + " s"
	}
	return strconv.FormatFloat(seconds*1000, 'g', 3, 64) + " ms"
}

func mebibytes(bytes float64) string { return significant(bytes / (1 << 20)) }

// spread is min / median / max.
func spread(samples []float64, format func(float64) string) string {
	if len(samples) == 0 {
		return "-"
	}
	return fmt.Sprintf("%s / %s / %s", format(quantile(samples, 0)), format(median(samples)), format(quantile(samples, 1)))
}

// one is a statistic that may not exist.
func one(v float64, format func(float64) string) string {
	if math.IsNaN(v) {
		return "-"
	}
	return format(v)
}
