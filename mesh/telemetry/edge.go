package telemetry

import (
	"sync"
	"sync/atomic"
)

// edge is what is counted between two workloads, of HTTP and of TCP. HTTP and TCP are its two faces, so that a peer is
// resolved and bounded once whatever it speaks; what an edge never carried has no series.
type edge struct {
	hold
	m      *Metrics
	labels edgeLabels
	// failures are those of the edge's service, which edges share.
	failures *failures
	// claimed says that the edge came from what a client said of itself; guarded by m.mu.
	claimed bool

	// series and flows are replaced, never changed: most edges know two or three endings, and scanning them is cheaper
	// than a map. mu guards the replacement.
	mu       sync.Mutex
	series   atomic.Pointer[[]*series]
	flows    atomic.Pointer[[]*flow]
	messages atomic.Pointer[messages]
}

// edge takes the handle of those labels; m.mu is held.
func (m *Metrics) edge(l *edgeLabels) *edge {
	m.sweep()
	e, ok := m.edges[*l]
	if !ok {
		e = &edge{m: m, labels: *l, failures: m.failing(l)}
		m.edges[*l] = e
	}
	m.take(&e.hold, !ok)
	return e
}

// known returns what a list of an edge holds; such a list is nil until there is something in it.
func known[T any](p *atomic.Pointer[[]*T]) []*T {
	if list := p.Load(); list != nil {
		return *list
	}
	return nil
}

// extend replaces a list by one that has t too.
func extend[T any](p *atomic.Pointer[[]*T], t *T) {
	old := known(p)
	list := append(old[:len(old):len(old)], t)
	p.Store(&list)
}
