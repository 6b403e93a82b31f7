package breaker

import "math/bits"

// tally is what a health snapshot knows of its time.
type tally struct{ total, errors uint64 }

// health is the window of health snapshots. Only snapshots that are complete count, as in Hystrix: what happened since
// the last one is seen at the next.
type health struct {
	size    int64   // a bucket's nanoseconds
	next    int64   // when the running bucket ends
	ring    []tally // the complete buckets; ring[oldest] leaves next
	oldest  int
	sum     tally // of ring
	running tally
}

func newHealth(size int64, buckets int, now int64) health {
	return health{size: size, next: now + size, ring: make([]tally, buckets)}
}

// restart empties the window; its buckets begin anew at the instant.
func (h *health) restart(now int64) {
	clear(h.ring)
	h.sum, h.running, h.oldest, h.next = tally{}, tally{}, 0, now+h.size
}

// turn completes the running bucket.
func (h *health) turn() {
	left := &h.ring[h.oldest]
	h.sum.total += h.running.total - left.total
	h.sum.errors += h.running.errors - left.errors
	*left, h.running = h.running, tally{}
	if h.oldest++; h.oldest == len(h.ring) {
		h.oldest = 0
	}
	h.next += h.size
}

// skip leaps over the boundaries up to now that an empty window has nothing to see at.
func (h *health) skip(now int64) {
	if h.sum.total == 0 && h.running.total == 0 && now >= h.next {
		h.next += (now - h.next) / h.size * h.size
	}
}

// percentage returns errors in a hundred requests, cut to an integer; 0 without requests. Integer arithmetic keeps
// 29 of 100 at 29, where Hystrix's floating point makes 28 of it.
func (t tally) percentage() int {
	if t.total == 0 {
		return 0
	}
	return int(100 * t.errors / t.total)
}

// bucket is what rolling statistics know of a bucket's time.
type bucket struct {
	counts [EventCount]uint32
	peak   uint32 // the most executions at once, seen when one begins
}

// rolling counts events over a window of complete buckets, and for ever.
type rolling struct {
	size    int64
	next    int64
	ring    []bucket
	oldest  int
	sum     [EventCount]uint64 // of ring
	ever    [EventCount]uint64 // without running
	running bucket
}

func newRolling(size int64, buckets int, now int64) rolling {
	return rolling{size: size, next: now + size, ring: make([]bucket, buckets)}
}

// advance completes the buckets that ended at or before now.
func (r *rolling) advance(now int64) {
	if n := (now - r.next) / r.size; n > int64(len(r.ring)) {
		r.next += (n - int64(len(r.ring))) * r.size // the turns below empty the window anyway
	}
	for now >= r.next {
		left := &r.ring[r.oldest]
		for e := range r.sum {
			r.sum[e] += uint64(r.running.counts[e]) - uint64(left.counts[e])
			r.ever[e] += uint64(r.running.counts[e])
		}
		*left, r.running = r.running, bucket{}
		if r.oldest++; r.oldest == len(r.ring) {
			r.oldest = 0
		}
		r.next += r.size
	}
}

// add counts each event of the set once.
func (r *rolling) add(s events) {
	for ; s != 0; s &= s - 1 {
		r.running.counts[bits.TrailingZeros32(uint32(s))]++
	}
}

// window returns the counts of the complete buckets.
func (r *rolling) window() (counts [EventCount]uint64) {
	counts = r.sum
	for _, b := range r.ring {
		counts[CommandMaxActive] = max(counts[CommandMaxActive], uint64(b.peak))
	}
	for _, e := range thrown {
		counts[ExceptionThrown] += counts[e]
	}
	return counts
}

// total returns the counts since the breaker was made, the running bucket's too. Its peak is not kept.
func (r *rolling) total() (counts [EventCount]uint64) {
	for e := range counts {
		counts[e] = r.ever[e] + uint64(r.running.counts[e])
	}
	for _, e := range thrown {
		counts[ExceptionThrown] += counts[e]
	}
	return counts
}
