package balance

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

func newRoundRobin(hosts []*Host, previous Balancer) Balancer {
	if len(hosts) == 0 {
		return nobody{}
	}
	if !sameWeights(hosts) {
		if p, ok := previous.(*weightedRoundRobin); ok && p.made.of(hosts) {
			return p
		}
		return newWeightedRoundRobin(hosts)
	}
	b := &roundRobin{hosts: uint64(len(hosts))}
	if p, ok := previous.(*roundRobin); ok {
		if p.hosts == b.hosts {
			return p // exchanges under way may still pick from it: both must see one cursor
		}
		b.turn.Store(p.turn.Load())
	}
	return b
}

// roundRobin goes through hosts of one weight in order, starting anywhere, so that many proxies do not move in step.
type roundRobin struct {
	hosts uint64
	turn  atomic.Uint64 // 0 is not started
}

func (b *roundRobin) Pick(_ Key, r *Rand) int {
	if b.hosts == 1 {
		return 0
	}
	if b.turn.Load() == 0 {
		b.turn.CompareAndSwap(0, 1+r.below(b.hosts))
	}
	return int((b.turn.Add(1) - 1) % b.hosts)
}

// weightedRoundRobin picks the host whose next turn is due first: the k-th turn of a host of weight w is due at
// (k-½)/w, so that its turns lie evenly (earliest deadline first: 5 1 1 gives a a a b c a a). In each cycle of as many
// picks as the weights' sum every host gets exactly its weight, because due times are compared as fractions.
// A mutex guards it: a pick is a few comparisons in a heap.
type weightedRoundRobin struct {
	made fingerprint

	mu      sync.Mutex
	started bool
	heap    []turn // by due time, then index
	picks   uint64 // since the cycle began
	cycle   uint64 // sum of all weights
}

// turn is the next turn of a host, due at half/(2*weight); half is 2k-1.
type turn struct {
	host   int
	half   uint64
	weight uint64
}

func (t turn) before(o turn) bool {
	hi, lo := bits.Mul64(t.half, o.weight)
	ohi, olo := bits.Mul64(o.half, t.weight)
	if hi != ohi || lo != olo {
		return hi < ohi || hi == ohi && lo < olo
	}
	return t.host < o.host
}

func newWeightedRoundRobin(hosts []*Host) *weightedRoundRobin {
	b := &weightedRoundRobin{made: newFingerprint(hosts), heap: make([]turn, len(hosts))}
	unit := uint64(0)
	for _, h := range hosts {
		unit = divisor(unit, h.weight())
	}
	for i, h := range hosts {
		b.heap[i] = turn{host: i, half: 1, weight: h.weight() / unit}
		b.cycle += b.heap[i].weight
	}
	heapify(b.heap)
	return b
}

func (b *weightedRoundRobin) Pick(_ Key, r *Rand) int {
	b.mu.Lock()
	if !b.started {
		b.started = true
		for range r.N(len(b.heap)) {
			b.next()
		}
	}
	i := b.next()
	b.mu.Unlock()
	return i
}

func (b *weightedRoundRobin) next() int {
	host := b.heap[0].host
	b.heap[0].half += 2
	sink(b.heap, 0)
	if b.picks++; b.picks == b.cycle {
		// Every host has had its weight of turns: setting all due times back by one keeps their order.
		b.picks = 0
		for i := range b.heap {
			b.heap[i].half -= 2 * b.heap[i].weight
		}
	}
	return host
}

// divisor returns the greatest common divisor.
func divisor(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
