package binomial

import (
	"math"
	"testing"
)

func TestBounds(t *testing.T) {
	f := func(n int, p, confidence float64, least, most int) {
		t.Helper()
		if l, m := Bounds(n, p, confidence); l != least || m != most {
			t.Errorf("Bounds(%d, %v, %v) = %d, %d, want %d, %d", n, p, confidence, l, m, least, most)
		}
	}
	f(0, 0.5, 0.95, 0, 0)
	f(10, 0, 0.95, 0, 0)
	f(10, 1, 0.95, 10, 10)
	f(10, 0.5, 0.95, 2, 8)    // P(X<2) = 11/1024 ≤ 2.5 %, P(X≤2) = 56/1024
	f(10, 0.5, 0.9999, 0, 10) // 1/1024 is more than half of 0.01 %
	f(100, 0.5, 0.95, 40, 60) // the textbook's example
	f(3, 0.001, 0.999, 0, 1)  // P(X≥1) = 0.3 %, P(X≥2) ≈ 3e-6
	f(20, 0.05, 0.999, 0, 5)  // P(X≥6) ≈ 0.033 %, no more than half of 0.1 %; P(X≥5) ≈ 0.26 %
	f(1, 0.5, 0.95, 0, 1)
}

// TestBoundsHold adds up the distribution itself: no more than the promised rest lies outside, and the bounds are tight.
func TestBoundsHold(t *testing.T) {
	f := func(n int, p, confidence float64) {
		t.Helper()
		least, most := Bounds(n, p, confidence)
		inside := 0.0
		for k := least; k <= most; k++ {
			inside += mass(n, k, p)
		}
		if inside < confidence {
			t.Errorf("n %d, p %v: %v of the draws lie in [%d, %d], want %v", n, p, inside, least, most, confidence)
		}
		tail, below, above := (1-confidence)/2, 0.0, 0.0
		for k := 0; k <= least; k++ {
			below += mass(n, k, p)
		}
		for k := most; k <= n; k++ {
			above += mass(n, k, p)
		}
		if below <= tail || above <= tail {
			t.Errorf("n %d, p %v: [%d, %d] is not tight: %v and %v are left with its ends", n, p, least, most, below, above)
		}
	}
	for _, n := range []int{1, 7, 100, 1000, 20000} {
		for _, p := range []float64{0.001, 0.05, 0.15, 0.5, 0.8, 0.999} {
			f(n, p, 0.95)
			f(n, p, 0.9999)
		}
	}
	if total := sum(5000, 0.15); math.Abs(total-1) > 1e-9 {
		t.Errorf("the distribution adds up to %v", total)
	}
}

func sum(n int, p float64) (total float64) {
	for k := 0; k <= n; k++ {
		total += mass(n, k, p)
	}
	return total
}
