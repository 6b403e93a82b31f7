package telemetry

import "sync/atomic"

// flow is the connections of one edge that have the same flags.
type flow struct {
	flags                          Flags
	born                           int64 // Unix time in nanoseconds
	opened, closed, sent, received atomic.Uint64
}

// TCP counts the connections of one edge that are passed on unread. It is safe for concurrent use until it was released.
//
// Istio decides the labels of a connection when it first reports it, its flags included, and keeps them to its end: of a
// connection that was established everything has "-", however it ends; of one that never was, everything has the reason
// (UF, UH, NR, ...). So a caller reports a connection when its endpoint is connected or has failed, and passes
// the same flags to all three methods; then connections opened less those closed are those open, for each series.
type TCP edge

// TCP returns the handle of an edge. Whoever calls it must call ReleaseTCP when done; equal edges share one handle, with
// HTTP too.
func (m *Metrics) TCP(e Edge) *TCP {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.labels(&e)
	return (*TCP)(m.edge(&l))
}

// ReleaseTCP gives a handle back; see Release.
func (m *Metrics) ReleaseTCP(t *TCP) { m.Release((*HTTP)(t)) }

// Opened counts a connection once its endpoint is connected, or could not be.
func (t *TCP) Opened(flags Flags) { t.flow(flags).opened.Add(1) }

// Bytes counts what was sent to the client and received from it since Bytes was last called for the same connection:
// every five seconds while it is open, and before Closed. TLS records around it are not counted.
func (t *TCP) Bytes(sent, received int64, flags Flags) {
	f := t.flow(flags)
	if sent > 0 {
		f.sent.Add(uint64(sent))
	}
	if received > 0 {
		f.received.Add(uint64(received))
	}
}

// Closed counts a connection that ended.
func (t *TCP) Closed(flags Flags) { t.flow(flags).closed.Add(1) }

func (t *TCP) flow(flags Flags) *flow {
	flags &= flagsEnd - 1
	for _, f := range known(&t.flows) {
		if f.flags == flags {
			return f
		}
	}
	return t.learn(flags)
}

// learn returns the flow of flags that t has not seen, or where it has seen too many, that of no flags.
func (t *TCP) learn(flags Flags) *flow {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := known(&t.flows)
	if len(list) >= maxEndings {
		t.m.statusLimit.Inc()
		flags = 0
	}
	for _, f := range list {
		if f.flags == flags {
			return f
		}
	}
	f := &flow{flags: flags, born: t.m.clock().UnixNano()}
	extend(&t.flows, f)
	return f
}
