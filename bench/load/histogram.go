package load

import (
	"math"
	"math/bits"
	"time"
)

// Each power of two is cut into subBuckets equal parts, so a value is known to within 1/subBuckets of itself (0.8 %).
const (
	subBits    = 7
	subBuckets = 1 << subBits
	buckets    = (64 - subBits + 1) * subBuckets
)

// Histogram counts durations in log-linear buckets: constant memory, constant time a record, an error below 0.8 %.
// The zero value is empty and ready.
type Histogram struct {
	counts [buckets]uint64
	n      uint64
	max    time.Duration
}

// Record counts d; a negative d counts as 0.
func (h *Histogram) Record(d time.Duration) {
	d = max(d, 0)
	h.counts[bucketOf(uint64(d))]++
	h.n++
	h.max = max(h.max, d)
}

// Count returns how many durations were recorded.
func (h *Histogram) Count() uint64 { return h.n }

// Max returns the longest recorded duration, exactly; 0 where there is none.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile returns the duration that the share q (0 to 1) of the recorded ones do not exceed, rounded up to the end of
// its bucket but never above Max; 0 where nothing was recorded.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(math.Ceil(min(max(q, 0), 1) * float64(h.n)))
	rank = max(rank, 1)
	seen := uint64(0)
	for i, c := range h.counts {
		seen += c
		if seen >= rank {
			return min(time.Duration(bucketEnd(i)), h.max)
		}
	}
	return h.max
}

// Reset empties h.
func (h *Histogram) Reset() { *h = Histogram{} }

// bucketOf returns the bucket that v belongs to: v itself below subBuckets, else the power of two and its top bits.
func bucketOf(v uint64) int {
	if v < subBuckets {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift*subBuckets + int(v>>shift)
}

// bucketEnd returns the largest value that belongs to bucket i.
func bucketEnd(i int) uint64 {
	if i < subBuckets {
		return uint64(i)
	}
	shift := i/subBuckets - 1
	top := uint64(i - shift*subBuckets)
	return (top+1)<<shift - 1
}
