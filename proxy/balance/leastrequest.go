package balance

import "sync"

func newLeastRequest(hosts []*Host, previous Balancer) Balancer {
	if len(hosts) == 0 {
		return nobody{}
	}
	if sameWeights(hosts) {
		choices := make(twoChoices, len(hosts))
		for i, h := range hosts {
			choices[i] = h.Vitals
		}
		return choices
	}
	if p, ok := previous.(*weightedLeastRequest); ok && p.over(hosts) {
		return p
	}
	return newWeightedLeastRequest(hosts)
}

// twoChoices draws two hosts with replacement; the second wins only with strictly fewer exchanges under way (Envoy's
// choice_count 2). Of two hosts the busier one is picked a quarter of the time: when both draws meet it.
type twoChoices []*Vitals

func (b twoChoices) Pick(_ Key, r *Rand) int {
	if len(b) == 1 {
		return 0
	}
	i, j := r.N(len(b)), r.N(len(b))
	if b[j].Active.Load() < b[i].Active.Load() {
		return j
	}
	return i
}

// weightedLeastRequest picks the host whose deadline is first and sets its next one (active+1)/weight later (Envoy's
// form for differing weights, activeRequestBias 1). A mutex guards it: a pick is a few comparisons in a heap.
type weightedLeastRequest struct {
	hosts []*Host

	mu      sync.Mutex
	started bool
	heap    []deadline // by due, then order of arrival
	arrived uint64
}

type deadline struct {
	due     float64 // in turns of a host of weight 1; grows for ever, exact enough for 10^15 picks
	arrival uint64
	host    int
}

func (d deadline) before(o deadline) bool {
	return d.due < o.due || d.due == o.due && d.arrival < o.arrival
}

func newWeightedLeastRequest(hosts []*Host) *weightedLeastRequest {
	b := &weightedLeastRequest{hosts: hosts, heap: make([]deadline, len(hosts)), arrived: uint64(len(hosts))}
	for i, h := range hosts {
		b.heap[i] = deadline{due: 1 / float64(h.weight()), arrival: uint64(i), host: i}
	}
	heapify(b.heap)
	return b
}

// over says whether b picks among these very endpoints, of these weights.
func (b *weightedLeastRequest) over(hosts []*Host) bool {
	if len(b.hosts) != len(hosts) {
		return false
	}
	for i, h := range hosts {
		if !b.hosts[i].alike(h) {
			return false
		}
	}
	return true
}

func (b *weightedLeastRequest) Pick(_ Key, r *Rand) int {
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

func (b *weightedLeastRequest) next() int {
	d := &b.heap[0]
	host := d.host
	h := b.hosts[host]
	d.due += float64(max(h.Active.Load(), 0)+1) / float64(h.weight())
	d.arrival = b.arrived
	b.arrived++
	sink(b.heap, 0)
	return host
}
