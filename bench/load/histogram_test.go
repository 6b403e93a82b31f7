package load

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistogramBuckets(t *testing.T) {
	// Every value lies in its own bucket: above the end of the one before, not above its own end.
	f := func(v uint64) {
		t.Helper()
		i := bucketOf(v)
		if i < 0 || i >= buckets {
			t.Fatalf("bucket of %d is %d, outside 0..%d", v, i, buckets-1)
		}
		if end := bucketEnd(i); v > end {
			t.Errorf("%d lies above the end %d of its bucket %d", v, end, i)
		}
		if i > 0 {
			if end := bucketEnd(i - 1); v <= end {
				t.Errorf("%d does not lie above the end %d of the bucket before its own", v, end)
			}
		}
	}
	for shift := range 64 {
		for _, d := range []uint64{0, 1, 2} {
			f(uint64(1)<<shift - 1 + d)
			f(uint64(1)<<shift + uint64(1)<<shift/3 + d)
		}
	}
	f(0)
	f(math.MaxInt64)
}

func TestHistogramQuantile(t *testing.T) {
	h := &Histogram{}
	if h.Quantile(0.5) != 0 || h.Max() != 0 || h.Count() != 0 {
		t.Error("an empty histogram must answer 0 throughout")
	}
	draw := rand.New(rand.NewPCG(7, 7))
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(draw.ExpFloat64() * float64(300*time.Microsecond))
		all = append(all, d)
		h.Record(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		exact := all[max(int(math.Ceil(q*float64(len(all)))), 1)-1]
		got := h.Quantile(q)
		if got < exact || float64(got) > float64(exact)*(1+1.0/subBuckets)+1 {
			t.Errorf("quantile %v is %v, the exact one %v", q, got, exact)
		}
	}
	if h.Max() != all[len(all)-1] || h.Quantile(1) != h.Max() {
		t.Errorf("max is %v and quantile 1 %v, want both %v", h.Max(), h.Quantile(1), all[len(all)-1])
	}
	if h.Count() != 20_000 {
		t.Errorf("count is %d", h.Count())
	}
	h.Reset()
	h.Record(-time.Second)
	if h.Count() != 1 || h.Quantile(1) != 0 {
		t.Error("a negative duration must count as 0")
	}
}
