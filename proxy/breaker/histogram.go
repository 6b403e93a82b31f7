package breaker

import (
	"math"
	"slices"
)

// LatencyBounds are the upper bounds of a Histogram's buckets in seconds: those of the usual exporter for Hystrix,
// 31 from 1 ms on, each 1.31 times the last.
var LatencyBounds = latencyBounds()

const boundCount = 31

func latencyBounds() (bounds [boundCount]float64) {
	for i := range bounds {
		bounds[i] = 0.001 * math.Pow(1.31, float64(i))
	}
	return bounds
}

// nanoBounds are LatencyBounds in nanoseconds, cut: a whole number is above a bound where it is above the cut one.
var nanoBounds = func() (bounds [boundCount]int64) {
	for i, b := range LatencyBounds {
		bounds[i] = int64(b * 1e9)
	}
	return bounds
}()

// Histogram counts durations since the breaker was made.
type Histogram struct {
	Counts [boundCount + 1]uint64 // of each bucket, not cumulative; the last is above all of LatencyBounds
	Sum    uint64                 // nanoseconds
}

// add takes a duration in nanoseconds.
func (h *Histogram) add(d int64) {
	d = max(d, 0)
	i, _ := slices.BinarySearch(nanoBounds[:], d)
	h.Counts[i]++
	h.Sum += uint64(d)
}
