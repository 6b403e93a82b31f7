package balance

import "math/bits"

// Rand is a small pseudo-random generator (SplitMix64: a counter and a mixing function, 64 bits of state). Equal seeds
// give equal sequences. It is not safe for concurrent use: each connection owns one. Never use it for secrets.
type Rand struct{ state uint64 }

// NewRand returns a generator; any seed is as good as any other.
func NewRand(seed uint64) Rand { return Rand{mix(seed)} }

// Uint64 returns 64 random bits.
func (r *Rand) Uint64() uint64 {
	r.state += 0x9e3779b97f4a7c15
	return mix(r.state)
}

// N returns an unbiased number in [0, n); n must be at least 1.
func (r *Rand) N(n int) int { return int(r.below(uint64(n))) }

// below returns an unbiased number in [0, n) by multiplication, throwing away the few draws that would favour small
// numbers (Lemire, "Fast Random Integer Generation in an Interval", 2019).
func (r *Rand) below(n uint64) uint64 {
	hi, lo := bits.Mul64(r.Uint64(), n)
	if lo < n {
		for floor := -n % n; lo < floor; {
			hi, lo = bits.Mul64(r.Uint64(), n)
		}
	}
	return hi
}

func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
