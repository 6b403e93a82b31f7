package limit

import "sync"

// Place is one exchange's place before a Gate. It belongs to one exchange, which may use it again when it waits nowhere.
type Place struct {
	// Wake is called once when the place is let in after it had to wait, by whoever left; it must not wait for anything,
	// nor call the gate.
	Wake func()

	gate       *Gate // where it waits
	next, back *Place
}

// Entry is what Enter says.
type Entry uint8

const (
	Entered  Entry = iota // go on, and Leave in the end
	Waiting               // Wake will be called, or Withdraw
	Overflow              // too many wait already: Envoy's 503 UO
)

// Gate lets so many in at once, and the others wait, in the order in which they came: connections and http1MaxPendingRequests.
// Many gates may share one count of those that wait. Entering, leaving and waiting are one step, so that what one gives up
// is never lost while another waits. Its methods may be called at the same time.
type Gate struct {
	waiting *Count

	mu          sync.Mutex
	most        uint32
	inside      int
	first, last *Place
}

// NewGate returns a gate that lets most in; waiting counts those before it, and before others that share it.
func NewGate(most uint32, waiting *Count) *Gate { return &Gate{most: most, waiting: waiting} }

// Enter lets in, or queues the place. Nobody overtakes: while others wait, there is no room.
func (g *Gate) Enter(p *Place) Entry {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.first == nil && int64(g.inside) < int64(g.most) {
		g.inside++
		return Entered
	}
	if !g.waiting.Take() {
		return Overflow
	}
	p.gate, p.next, p.back = g, nil, g.last
	if g.last == nil {
		g.first = p
	} else {
		g.last.next = p
	}
	g.last = p
	return Waiting
}

// Force lets in though there may be no room: Envoy lets each host have one connection, whatever the limit.
func (g *Gate) Force() {
	g.mu.Lock()
	g.inside++
	g.mu.Unlock()
}

// Withdraw ends the waiting. It returns false where the place does not wait any more: it was let in, and has to Leave.
func (g *Gate) Withdraw(p *Place) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.gate != g {
		return false
	}
	g.remove(p)
	return true
}

// Leave gives one's room to the one that has waited longest.
func (g *Gate) Leave() {
	g.mu.Lock()
	g.inside--
	wake := g.admit()
	g.mu.Unlock()
	if wake != nil {
		wake()
	}
}

// Configure changes how many are let in. Those inside stay, even above it; where there is more room, those that wait are let in.
func (g *Gate) Configure(most uint32) {
	g.mu.Lock()
	g.most = most
	for {
		wake := g.admit()
		if wake == nil {
			break
		}
		g.mu.Unlock()
		wake()
		g.mu.Lock()
	}
	g.mu.Unlock()
}

// admit lets the next one in where there is room, and returns what wakes it; the lock is held.
func (g *Gate) admit() (wake func()) {
	if g.first == nil || int64(g.inside) >= int64(g.most) {
		return nil
	}
	wake = g.first.Wake
	g.remove(g.first)
	g.inside++
	return wake
}

// remove takes a place out of the line; the lock is held.
func (g *Gate) remove(p *Place) {
	if p.back == nil {
		g.first = p.next
	} else {
		p.back.next = p.next
	}
	if p.next == nil {
		g.last = p.back
	} else {
		p.next.back = p.back
	}
	p.gate, p.next, p.back = nil, nil, nil
	g.waiting.Give()
}

// Inside returns how many are in.
func (g *Gate) Inside() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.inside
}

// Full says whether the next one would have to wait: Envoy's cx_open.
func (g *Gate) Full() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return int64(g.inside) >= int64(g.most)
}
