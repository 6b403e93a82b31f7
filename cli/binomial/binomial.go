// Package binomial says which counts a share of independent draws can be expected to lead to.
package binomial

import "math"

// Bounds returns the least and the greatest count of n independent draws, each won with probability p, between which the
// count lies with probability confidence or more; at most half of the rest lies on either side. The bounds are exact
// quantiles of the binomial distribution, not an approximation. p and confidence are between 0 and 1; n is not negative.
func Bounds(n int, p, confidence float64) (least, most int) {
	switch {
	case n <= 0 || p <= 0:
		return 0, 0
	case p >= 1:
		return n, n
	}
	tail := (1 - confidence) / 2
	mean, deviation := float64(n)*p, math.Sqrt(float64(n)*p*(1-p))
	// Beyond 40 standard deviations and 400 draws on either side there is nothing that a float64 could tell from zero.
	from := max(0, int(mean-40*deviation)-400)
	to := min(n, int(mean+40*deviation)+400)
	least, most = from, to
	for k, sum := from, 0.0; k <= to; k++ {
		if sum += mass(n, k, p); sum > tail {
			least = k
			break
		}
	}
	for k, sum := to, 0.0; k >= from; k-- {
		if sum += mass(n, k, p); sum > tail {
			most = k
			break
		}
	}
	return least, most
}

// mass is the probability of exactly k wins.
func mass(n, k int, p float64) float64 {
	return math.Exp(logFactorial(n) - logFactorial(k) - logFactorial(n-k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
}

func logFactorial(n int) float64 {
	v, _ := math.Lgamma(float64(n) + 1)
	return v
}
