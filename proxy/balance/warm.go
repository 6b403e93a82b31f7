package balance

import (
	"math"
	"sync"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// warming picks while hosts warm up (slow start): the host whose deadline is first, whose next one is a turn divided by
// its weight later, as that is at this moment. The weight of a host grows over the window from its least percentage to
// the whole, by a power of the time that has passed (Envoy's slow_start_config).
type warming struct {
	hosts      []*Host
	clock      Clock
	window     float64 // nanoseconds
	least      float64 // 0 to 1
	exponent   float64 // 1/aggression
	byRequests bool    // deadlines follow the exchanges under way, too
	until      int64   // when all are warm
	after      Balancer

	mu      sync.Mutex
	started bool
	heap    []deadline
	arrived uint64
}

// warmUp returns a warming balancer where some hosts are further than others, else the steady one: where all hosts
// began together, none is to get less than another.
func warmUp(lb model.LoadBalancer, hosts []*Host, previous Balancer, clock Clock) Balancer {
	former, _ := previous.(*warming)
	if former != nil {
		previous = former.after
	}
	after := steady(lb.Policy, hosts, previous)
	until, together := warmAt(lb, hosts)
	if together || clock() >= until {
		return after
	}
	b := &warming{
		hosts: hosts, clock: clock, until: until, after: after,
		window: float64(lb.Warmup.Duration), least: lb.Warmup.MinimumPercent / 100, exponent: 1 / max(lb.Warmup.Aggression, 1),
		byRequests: lb.Policy != model.RoundRobin,
	}
	if former.same(b) {
		return former
	}
	b.heap = make([]deadline, len(hosts))
	b.arrived = uint64(len(hosts))
	now := clock()
	for i := range hosts {
		b.heap[i] = deadline{due: 1 / b.weight(i, now), arrival: uint64(i), host: i}
	}
	heapify(b.heap)
	return b
}

// warmAt returns when the last host is warm, and whether all began at the same instant.
func warmAt(lb model.LoadBalancer, hosts []*Host) (until int64, together bool) {
	together = true
	for i, h := range hosts {
		since := h.Since.Load()
		if i == 0 {
			until = since
		}
		together = together && since == hosts[0].Since.Load()
		until = max(until, since)
	}
	return until + int64(lb.Warmup.Duration), together
}

// same says whether b, which may be nil, does what o would do.
func (b *warming) same(o *warming) bool {
	if b == nil || len(b.hosts) != len(o.hosts) || b.window != o.window || b.least != o.least || b.exponent != o.exponent ||
		b.byRequests != o.byRequests || b.until != o.until {
		return false
	}
	for i, h := range b.hosts {
		if !h.alike(o.hosts[i]) {
			return false
		}
	}
	return true
}

// weight is never 0: a host that has just come would not be asked before its deadline, however warm it is by then.
func (b *warming) weight(i int, now int64) float64 {
	h := b.hosts[i]
	passed := max(float64(now-h.Since.Load()), float64(time.Millisecond)) / b.window
	if passed >= 1 {
		return float64(h.weight())
	}
	return float64(h.weight()) * max(b.least, math.Pow(passed, b.exponent))
}

func (b *warming) Pick(k Key, r *Rand) int {
	now := b.clock()
	if now >= b.until {
		return b.after.Pick(k, r)
	}
	b.mu.Lock()
	if !b.started {
		b.started = true
		for range r.N(len(b.heap)) {
			b.next(now)
		}
	}
	i := b.next(now)
	b.mu.Unlock()
	return i
}

func (b *warming) next(now int64) int {
	d := &b.heap[0]
	host := d.host
	cost := 1.0
	if b.byRequests {
		cost = float64(max(b.hosts[host].Active.Load(), 0) + 1)
	}
	d.due += cost / b.weight(host, now)
	d.arrival = b.arrived
	b.arrived++
	sink(b.heap, 0)
	return host
}
