package breaker

import (
	"math"
	"slices"
)

// samples keeps the latest durations of each bucket of a window, in whole milliseconds: each time an execution's and that
// of its command, with the fallback. Its rules are those of HystrixRollingPercentile: the running bucket is not seen, a
// full bucket overwrites its oldest sample.
type samples struct {
	size   int64
	next   int64
	keep   int      // samples in a bucket
	values []sample // of all buckets, keep after keep; nil where percentiles are disabled
	counts []int    // samples that each bucket was given
	at     int      // the running bucket
	place  int      // in it, for the next sample
}

// sample is one command's durations in milliseconds.
type sample struct{ ran, took int32 }

func newSamples(size int64, buckets, keep int, now int64) samples {
	buckets++ // the running one is not one of those that are seen
	return samples{size: size, next: now + size, keep: keep, values: make([]sample, buckets*keep), counts: make([]int, buckets)}
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
		s.counts[s.at], s.place = 0, 0
		s.next += s.size
	}
}

// add takes durations in nanoseconds, which are not negative.
func (s *samples) add(ran, took int64) {
	if s.values == nil {
		return
	}
	s.values[s.at*s.keep+s.place] = sample{int32(min(ran/1e6, math.MaxInt32)), int32(min(took/1e6, math.MaxInt32))}
	s.counts[s.at]++
	if s.place++; s.place == s.keep {
		s.place = 0
	}
}

// collect appends the durations of the complete buckets: first all that executions ran, then all that commands took.
func (s *samples) collect(dst []int32) []int32 {
	dst = s.each(dst, func(v sample) int32 { return v.ran })
	return s.each(dst, func(v sample) int32 { return v.took })
}

func (s *samples) each(dst []int32, of func(sample) int32) []int32 {
	for i, n := range s.counts {
		if i == s.at {
			continue
		}
		for _, v := range s.values[i*s.keep:][:min(n, s.keep)] {
			dst = append(dst, of(v))
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
