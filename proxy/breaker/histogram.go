package breaker

import (
	"math"
	"math/bits"
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

// add takes a duration in nanoseconds, which is in that bucket.
func (h *Histogram) add(bucket int, d int64) {
	h.Counts[bucket]++
	h.Sum += uint64(d)
}

// bucketOf returns the bucket for a duration that is not negative, in nanoseconds.
func bucketOf(d int64) int {
	i := firstBounds[bits.Len64(uint64(d))]
	for i < boundCount && d > nanoBounds[i] {
		i++
	}
	return i
}

// firstBounds is, for each number of bits, the first bucket for a duration that has so many; not many follow that it may be in.
var firstBounds = func() (first [65]int) {
	for n := range first {
		for i := 0; i < boundCount && bits.Len64(uint64(nanoBounds[i])) < n; i++ {
			first[n] = i + 1
		}
	}
	return first
}()
