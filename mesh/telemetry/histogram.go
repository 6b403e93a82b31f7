package telemetry

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// Buckets are the upper bounds of Istio's histograms, in milliseconds and in bytes alike (Envoy's defaults).
var Buckets = []float64{
	0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000,
}

const bucketCount = 19 // of Buckets; what is above the last is counted one place further

// bounds are Buckets in the unit of whole numbers that are observed.
type bounds struct {
	upper [bucketCount]int64
	// first is by how many bits a value has the first bucket that such a value can be in. Hardly two bounds have equally
	// many bits, so what follows is one or two comparisons; BenchmarkRecord.
	first [64]uint8
}

var (
	byteBounds = newBounds(1)
	timeBounds = newBounds(int64(time.Millisecond))
)

func newBounds(unit int64) *bounds {
	b := new(bounds)
	for i, u := range Buckets {
		b.upper[i] = int64(math.Floor(u * float64(unit)))
	}
	for n := range b.first {
		least := int64(0) // of the values that have n bits
		if n > 0 {
			least = 1 << (n - 1)
		}
		b.first[n] = uint8(b.bucket(0, least))
	}
	return b
}

// bucket returns the bucket of v, which is not below from.
func (b *bounds) bucket(from int, v int64) int {
	for from < bucketCount && v > b.upper[from] {
		from++
	}
	return from
}

// histogram counts values that are 0 or more. Its count is the sum of its buckets, so that a reader never sees one
// without the other; the sum of values may be some observations ahead or behind.
type histogram struct {
	counts [bucketCount + 1]atomic.Uint64 // not cumulative; the last is above all bounds
	sum    atomic.Uint64
}

// observe counts v, which adds amount to the sum.
func (h *histogram) observe(b *bounds, v int64, amount uint64) {
	h.counts[b.bucket(int(b.first[bits.Len64(uint64(v))&63]), v)].Add(1)
	h.sum.Add(amount)
}

func (h *histogram) observeBytes(n int64) {
	n = max(n, 0)
	h.observe(byteBounds, n, uint64(n))
}

// observeTime sums microseconds: nanoseconds would overflow within days where thousands of streams stay open.
func (h *histogram) observeTime(d time.Duration) {
	d = max(d, 0)
	h.observe(timeBounds, int64(d), uint64(d+time.Microsecond/2)/uint64(time.Microsecond))
}
