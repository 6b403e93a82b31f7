package breaker

import (
	"math"
	"slices"
)

// samples keeps the latest durations of each bucket of a window, in whole milliseconds. Its rules are those of
// HystrixRollingPercentile: the running bucket is not seen, a full bucket overwrites its oldest sample.
type samples struct {
	size   int64
	next   int64
	keep   int     // samples in a bucket
	values []int32 // of all buckets, keep after keep; nil where percentiles are disabled
	counts []int   // samples that each bucket was given
	at     int     // the running bucket
}

func newSamples(size int64, buckets, keep int, now int64) samples {
	buckets++ // the running one is not one of those that are seen
	return samples{size: size, next: now + size, keep: keep, values: make([]int32, buckets*keep), counts: make([]int, buckets)}
}

func (s *samples) advance(now int64) {
	if s.values == nil {
		return
	}
	if n := (now - s.next) / s.size; n > int64(len(s.counts)) {
		s.next += (n - int64(len(s.counts))) * s.size
	}
	for now >= s.next {
		if s.at++; s.at == len(s.counts) {
			s.at = 0
		}
		s.counts[s.at] = 0
		s.next += s.size
	}
}

// add takes a duration in nanoseconds.
func (s *samples) add(d int64) {
	if s.values == nil {
		return
	}
	s.values[s.at*s.keep+s.counts[s.at]%s.keep] = int32(min(max(d, 0)/1e6, math.MaxInt32))
	s.counts[s.at]++
}

// collect appends the samples of the complete buckets.
func (s *samples) collect(dst []int32) []int32 {
	for i, n := range s.counts {
		if i != s.at {
			dst = append(dst, s.values[i*s.keep:][:min(n, s.keep)]...)
		}
	}
	return dst
}

// Percentiles are the shares at which Latency knows the duration, in the dashboard's order.
var Percentiles = [9]float64{0, 25, 50, 75, 90, 95, 99, 99.5, 100}

// Latency tells durations of a window in whole milliseconds, all -1 where metrics.rollingPercentile.enabled is false.
type Latency struct {
	Mean int
	At   [len(Percentiles)]int // at each of Percentiles
}

// newLatency sorts the samples.
func newLatency(samples []int32) (l Latency) {
	if len(samples) == 0 {
		return l
	}
	slices.Sort(samples)
	var sum int64
	for _, v := range samples {
		sum += int64(v)
	}
	l.Mean = int(sum / int64(len(samples)))
	for i, p := range Percentiles {
		l.At[i] = percentile(samples, p)
	}
	return l
}

// percentile interpolates between the two nearest of the sorted samples, as HystrixRollingPercentile does.
func percentile(sorted []int32, p float64) int {
	n := len(sorted)
	if n == 0 {
		return 0
	}
	if p <= 0 {
		return int(sorted[0])
	}
	rank := p / 100 * float64(n)
	low, high := math.Floor(rank), math.Ceil(rank)
	switch {
	case p >= 100 || int(high) >= n:
		return int(sorted[n-1])
	case low == high:
		return int(sorted[int(rank)])
	}
	a, b := float64(sorted[int(low)]), float64(sorted[int(high)])
	return int(a + (rank-low)*(b-a))
}

// disabledLatency is reported where no samples are kept.
func disabledLatency() (l Latency) {
	l.Mean = -1
	for i := range l.At {
		l.At[i] = -1
	}
	return l
}
