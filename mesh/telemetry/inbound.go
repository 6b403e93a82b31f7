package telemetry

import (
	"maps"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Inbound resolves who is calling one inbound service: from the peer's header and certificate to the edge's handle.
// It is safe for concurrent use until it was closed.
//
// What clients say in a header must not be able to grow the sidecar: at most Options.MaxPeers edges come from headers,
// those counted that are released and retained, and an Inbound keeps at most as many headers, and besides one for each edge
// that is there: many headers of one workload do not keep another from its own edge when a new generation begins. Beyond,
// newcomers count for the unknown peer and outrider_metrics_overflow_total{limit="peers"}, until callers that were quiet for
// the time that series are retained have made room.
type Inbound struct {
	m       *Metrics
	base    Edge
	unknown *edge // the edge of callers that say nothing, or too much
	callers atomic.Pointer[map[caller]*callerEdge]
	headers map[*edge]int // of those callers, how many each edge has; guarded by m.mu
	sought  time.Time     // when room was last sought; guarded by m.mu
	closed  bool          // guarded by m.mu
}

// caller is what a request says of its peer.
type caller struct{ header, principal string }

// callerEdge is a kept caller; called is cleared when room is sought, and set again by its next request.
type callerEdge struct {
	edge   *edge
	called atomic.Bool
}

// Inbound returns the resolver of an inbound service; base has everything of its edges but the peer.
// Whoever calls it must call Close when the generation retires.
func (m *Metrics) Inbound(base Edge) *Inbound {
	base.Reporter, base.Peer = or(base.Reporter, Destination), model.Peer{}
	i := &Inbound{m: m, base: base, unknown: (*edge)(m.HTTP(base)), headers: map[*edge]int{}, sought: m.clock()}
	i.callers.Store(&map[caller]*callerEdge{})
	return i
}

// HTTP returns the edge of a request by its x-outrider-peer header (empty where there is none) and the SPIFFE id of the
// connection's peer (empty where it showed none). The handle is i's: the caller does not release it. A caller that was
// seen before costs no allocation.
func (i *Inbound) HTTP(header []byte, principal string) *HTTP {
	return (*HTTP)(i.edge(header, principal))
}

// TCP returns the edge of a connection by what its peer is known by; see HTTP. Most connections carry no header.
func (i *Inbound) TCP(header []byte, principal string) *TCP {
	return (*TCP)(i.edge(header, principal))
}

func (i *Inbound) edge(header []byte, principal string) *edge {
	if len(header) == 0 && principal == "" {
		return i.unknown
	}
	if c, ok := (*i.callers.Load())[caller{string(header), principal}]; ok {
		if !c.called.Load() {
			c.called.Store(true)
		}
		return c.edge
	}
	return i.admit(header, principal)
}

func (i *Inbound) admit(header []byte, principal string) *edge {
	peer, ok := ParsePeer(header)
	if !ok && principal == "" {
		return i.unknown
	}
	m := i.m
	m.mu.Lock()
	defer m.mu.Unlock()
	if i.closed {
		return i.unknown
	}
	key := caller{string(header), principal}
	if !ok {
		key.header = "" // unreadable headers share one place
	}
	callers := *i.callers.Load()
	if c, ok := callers[key]; ok {
		return c.edge
	}
	e := i.base
	e.Peer, e.PeerPrincipal = peer, principal
	l := m.labels(&e)
	m.sweep()
	old, there := m.edges[l]
	full := len(callers) >= m.maxPeers
	if there && full && i.headers[old] > 0 || !there && (full || m.peers >= m.maxPeers) {
		m.peerLimit.Inc()
		i.makeRoom()
		return i.unknown
	}
	h := m.edge(&l)
	if !there {
		h.claimed = true
		m.peers++
	}
	c := &callerEdge{edge: h}
	c.called.Store(true)
	callers = maps.Clone(callers)
	callers[key] = c
	i.headers[h]++
	i.callers.Store(&callers)
	return h
}

// makeRoom releases the callers that sent nothing since room was last sought, which it does once in the time that
// series are retained; m.mu is held.
func (i *Inbound) makeRoom() {
	now := i.m.clock()
	if now.Sub(i.sought) < i.m.retain {
		return
	}
	i.sought = now
	callers := maps.Clone(*i.callers.Load())
	for k, c := range callers {
		if !c.called.Swap(false) {
			delete(callers, k)
			if i.headers[c.edge]--; i.headers[c.edge] == 0 {
				delete(i.headers, c.edge)
			}
			i.m.release(&c.edge.hold)
		}
	}
	i.callers.Store(&callers)
}

// Close releases all edges of i.
func (i *Inbound) Close() {
	i.m.mu.Lock()
	defer i.m.mu.Unlock()
	if i.closed {
		return
	}
	i.closed = true
	for _, c := range *i.callers.Load() {
		i.m.release(&c.edge.hold)
	}
	i.m.release(&i.unknown.hold)
	i.callers.Store(&map[caller]*callerEdge{})
	i.m.sweep()
}
