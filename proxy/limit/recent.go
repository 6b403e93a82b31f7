package limit

import (
	"sync"
	"time"
)

// Recent counts what has begun lately. It may be used by many at the same time.
//
// Each is counted for the span and up to a tenth of it longer, as in Envoy's retry budget with a budget_interval.
type Recent struct {
	span time.Duration
	size int64 // a slot's nanoseconds

	mu    sync.Mutex
	next  int64 // when the running slot ends
	slots [11]int64
	at    int // the running slot
	sum   int64
}

// NewRecent returns a count of nothing over a span, which must be at least 10 ns.
func NewRecent(span time.Duration, now int64) *Recent {
	size := max(int64(span)/10, 1)
	return &Recent{span: span, size: size, next: now + size}
}

// Span returns how long what has begun is counted.
func (r *Recent) Span() time.Duration { return r.span }

// Add counts one.
func (r *Recent) Add(now int64) {
	r.mu.Lock()
	r.advance(now)
	r.slots[r.at]++
	r.sum++
	r.mu.Unlock()
}

// Sum returns how many have begun in the span before now.
func (r *Recent) Sum(now int64) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(now)
	return int(r.sum)
}

func (r *Recent) advance(now int64) {
	if now < r.next {
		return
	}
	n := 1 + (now-r.next)/r.size
	r.next += n * r.size
	for range min(n, int64(len(r.slots))) {
		r.at = (r.at + 1) % len(r.slots)
		r.sum -= r.slots[r.at]
		r.slots[r.at] = 0
	}
}
