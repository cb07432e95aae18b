package main

import (
	"math"
	"slices"
)

// quantile is the smallest sample that q of them do not exceed ("nearest rank"): one that was measured, always.
func quantile(samples []float64, q float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(samples))
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

func median(samples []float64) float64 { return quantile(samples, 0.5) }

// ratios divides what was measured side by side. Of two series over the same time the shorter one's samples
// each stand beside several of the other's.
func ratios(a, b []float64) []float64 {
	n := max(len(a), len(b))
	if len(a) == 0 || len(b) == 0 {
		return nil
	}
	out := make([]float64, n)
	for i := range n {
		out[i] = a[i*len(a)/n] / b[i*len(b)/n]
	}
	return out
}

// worst is the largest of the values that f has; where is its argument. Without any it is NaN.
func worst[T any](over []T, f func(T) float64) (value float64, where T) {
	value = math.NaN()
	for _, at := range over {
		if v := f(at); !math.IsNaN(v) && !(v <= value) {
			value, where = v, at
		}
	}
	return value, where
}
