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
	mu   sync.Mutex
	past
}

// NewRecent returns a count of nothing over a span, which must be at least 10 ns.
func NewRecent(span time.Duration, now int64) *Recent {
	return &Recent{span: span, past: newPast(11, max(int64(span)/10, 1), now)}
}

// Span returns how long what has begun is counted.
func (r *Recent) Span() time.Duration { return r.span }

// Add counts one.
func (r *Recent) Add(now int64) {
	r.mu.Lock()
	r.advance(now)
	r.add(1)
	r.mu.Unlock()
}

// Sum returns how many have begun in the span before now.
func (r *Recent) Sum(now int64) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.advance(now)
	return int(r.sum)
}

// past is a sum over the last slots of time.
type past struct {
	size  int64 // a slot's nanoseconds
	next  int64 // when the running slot ends
	slots []int64
	at    int // the running slot
	sum   int64
}

func newPast(slots int, size, now int64) past {
	return past{size: size, next: now + size, slots: make([]int64, slots)}
}

func (p *past) add(n int64) {
	p.slots[p.at] += n
	p.sum += n
}

// advance forgets the slots that are over.
func (p *past) advance(now int64) {
	if now < p.next {
		return
	}
	n := 1 + (now-p.next)/p.size
	p.next += n * p.size
	for range min(n, int64(len(p.slots))) {
		p.at = (p.at + 1) % len(p.slots)
		p.sum -= p.slots[p.at]
		p.slots[p.at] = 0
	}
}
