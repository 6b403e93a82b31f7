package balance

import (
	"math"
	"sync/atomic"
	"time"
)

// Linkerd's numbers.
const (
	unknownLatency = 30 * time.Millisecond // of an endpoint that has not answered yet
	latencyFades   = 10 * time.Second      // in this time an estimate loses all but 1/e of what it was
	failureCosts   = 5 * time.Second       // what a failure counts for at least
	mostPenalty    = 5 * time.Minute       // what an endpoint may ask to be spared for
)

// latency estimates how long an endpoint takes: a slower answer than expected counts at once, a faster one moves the
// estimate the more, the longer ago the last one is (peak EWMA). Without answers it fades to nothing, so that an endpoint
// that was slow is tried again.
//
// One word holds the estimate (a float32, nanoseconds) and when it was made (2^20 ns, about a millisecond, modulo 2^32:
// 52 days, of which the last minute is taken for clocks that were read out of turn), so that neither readers nor writers lock.
// Of the answers within one such moment only the slowest counts.
type latency struct{ word atomic.Uint64 }

const momentBits = 20

// passed is how many moments have passed since one; of what is a little ahead, none.
func passed(since, moment uint32) uint32 {
	const minute = uint32(time.Minute >> momentBits)
	if since-moment <= minute {
		return 0
	}
	return moment - since
}

func (l *latency) observe(took float64, now int64) {
	moment := uint32(now >> momentBits)
	for {
		old := l.word.Load()
		next := float32(took)
		if old != 0 {
			estimate, since := unpack(old)
			n := passed(since, moment)
			if n == 0 {
				moment = since // another's clock may have been read later
			}
			left := fade(n)
			if faded := float64(estimate) * left; took <= faded {
				if n == 0 {
					return
				}
				next = float32(faded + took*(1-left))
			}
		}
		if l.word.CompareAndSwap(old, uint64(math.Float32bits(next))<<32|uint64(moment)) {
			return
		}
	}
}

// expected returns the estimate in nanoseconds. That of an endpoint that has not answered yet fades too, since it came:
// else it would never be asked where all others are faster than that.
func (v *Vitals) expected(now int64) float64 {
	moment := uint32(now >> momentBits)
	estimate, since := float32(unknownLatency), uint32(v.Since.Load()>>momentBits)
	if word := v.latency.word.Load(); word != 0 {
		estimate, since = unpack(word)
	}
	return float64(estimate) * fade(passed(since, moment))
}

func unpack(word uint64) (estimate float32, moment uint32) {
	return math.Float32frombits(uint32(word >> 32)), uint32(word)
}

// fade is what is left of an estimate after so many moments.
func fade(moments uint32) float64 {
	if moments == 0 {
		return 1
	}
	return math.Exp(-float64(moments) * (1 << momentBits) / float64(latencyFades))
}

// Observe notes that the endpoint answered, and how long that took; now is the clock's instant.
func (v *Vitals) Observe(took time.Duration, now int64) {
	v.latency.observe(float64(max(took, 1)), now)
}

// ObserveFailure notes that it failed, or answered that it is overloaded. This counts as a slow answer, or a fast failure
// would look like a fast endpoint and draw the load of all others (Linkerd's load biaser): of 5 s at least, and of
// retryAfter where the endpoint asked to be spared for longer (Retry-After, at most 5 min).
func (v *Vitals) ObserveFailure(took, retryAfter time.Duration, now int64) {
	v.latency.observe(float64(max(took, failureCosts, min(retryAfter, mostPenalty))), now)
}

// peakEWMA draws two different hosts, by weight, and takes the one that costs less: its expected latency times the
// exchanges that it would then have.
type peakEWMA struct {
	hosts []*Vitals
	split *Split // nil where all weigh the same
	clock Clock
}

func newPeakEWMA(hosts []*Host, clock Clock) Balancer {
	if len(hosts) == 0 {
		return nobody{}
	}
	b := &peakEWMA{hosts: make([]*Vitals, len(hosts)), clock: clock}
	for i, h := range hosts {
		b.hosts[i] = h.Vitals
	}
	if !sameWeights(hosts) {
		b.split = splitOf(hosts)
	}
	return b
}

func (b *peakEWMA) Pick(_ Key, r *Rand) int {
	if len(b.hosts) == 1 {
		return 0
	}
	i, j := b.two(r)
	now := b.clock()
	if b.cost(j, now) < b.cost(i, now) {
		return j
	}
	return i
}

// two draws two hosts; they are different, but where one has nearly all the weight.
func (b *peakEWMA) two(r *Rand) (i, j int) {
	if b.split == nil {
		i, j = r.N(len(b.hosts)), r.N(len(b.hosts)-1)
		if j >= i {
			j++
		}
		return i, j
	}
	i = b.split.Pick(r)
	for range 8 {
		if j = b.split.Pick(r); j != i {
			break
		}
	}
	return i, j
}

func (b *peakEWMA) cost(i int, now int64) float64 {
	v := b.hosts[i]
	return v.expected(now) * float64(max(v.Active.Load(), 0)+1)
}
