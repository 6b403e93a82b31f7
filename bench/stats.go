//go:build linux

package main

import (
	"math"
	"slices"
)

// median returns the middle of values, or the mean of the two middle ones; NaN where there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	m := len(v) / 2
	if len(v)%2 == 1 {
		return v[m]
	}
	return (v[m-1] + v[m]) / 2
}

// spread returns the distance from the least to the greatest value as a share of their median; NaN where there are none.
func spread(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	return (slices.Max(values) - slices.Min(values)) / median(values)
}

// series is what one proxy's rounds of one case gave, by round. A round that was not run or does not count is NaN.
type series []float64

// counted returns the values that count.
func (s series) counted() []float64 {
	return slices.DeleteFunc(slices.Clone(s), math.IsNaN)
}

// ratio returns the median of s over base, round by round, over the rounds that count for both; NaN where there is none.
// Rounds are interleaved, so what the machine does over time touches both sides of a pair alike.
func ratio(s, base series) float64 { return median(ratios(s, base)) }

// ratios returns those of the rounds that count for both.
func ratios(s, base series) (pairs []float64) {
	for i := range min(len(s), len(base)) {
		if r := s[i] / base[i]; !math.IsNaN(r) && !math.IsInf(r, 0) {
			pairs = append(pairs, r)
		}
	}
	return pairs
}
