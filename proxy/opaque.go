package proxy

import (
	"sync"
	"sync/atomic"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/route"
	"github.com/outrider-mesh/outrider/wire/link"
)

// opaque reports whether a protocol's bytes pass unread.
func opaque(p model.Protocol) bool {
	switch p {
	case model.TCP, model.TLS, model.HTTPS:
		return true
	}
	return false
}

// pass carries a connection whose bytes are only its ends' business: matched once, by the server name where there is
// one, then tunnelled. What a failure would be told with has no form here, so it is a reset.
func (c *conn) pass(name []byte) {
	x := getExchange(c)
	defer putExchange(x)
	x.raw, x.begin, x.deadline, x.tryDeadline = true, now(), never, never
	c.watch.waiting.Store(0)
	c.watch.arm(never)
	m := x.matchBytes(name)
	switch {
	case !m.Found || m.Rule.split == nil && len(m.Rule.targets) == 0:
		x.outcome = noRoute
	default:
		x.rule = m.Rule
		x.target = x.choose()
		if x.target.reply != nil {
			x.outcome = x.target.reply.outcome
			break
		}
		if x.reach() == failed {
			x.outcome = x.failure.outcome
		}
	}
	if x.up == nil {
		x.unreached()
		_ = c.link.Reset()
		x.line()
		return
	}
	x.tunnel()
	x.drop()
	x.line()
}

// matchBytes is the match of a connection that is passed on unread.
func (x *exchange) matchBytes(name []byte) (m route.Match[*rule]) {
	x.req.SetAuthority(name)
	if table := x.b.bytes(x.conn.table); table != nil {
		m = table.Match(&x.req, x.b.port, &x.routes)
	}
	return m
}

// leads says whether bytes that nobody has read have a way to go. At a proxy that clients name no destination to there is
// none that they had before.
func (c *conn) leads(name []byte) bool {
	x := getExchange(c)
	defer putExchange(x)
	m := x.matchBytes(name)
	if !m.Found {
		return false
	}
	for i := range m.Rule.targets {
		t := m.Rule.targets[i].cluster
		if t != nil && (t.Spec.Kind != model.Passthrough || name != nil || !x.b.spec.Explicit) {
			return true
		}
	}
	return false
}

// reach connects to an endpoint of the target, another where one cannot be connected to. The verdict is answered where x.up
// is there.
func (x *exchange) reach() verdict {
	for x.tries = 1; ; x.tries++ {
		e, v := x.pick()
		if e == nil {
			return v
		}
		v = x.lease(e, true)
		if v != failed || x.failure.outcome != upstreamConnect || x.tries == connectAttempts || len(x.target.cluster.Members) < 2 {
			return v
		}
	}
}

// edge is the counter of this connection, by who it is for.
func (x *exchange) edge() *telemetry.TCP {
	switch {
	case x.b.inbound != nil:
		return x.b.inbound.TCP(nil, "")
	case x.member != nil && x.member.TCP != nil:
		return x.member.TCP
	case x.target != nil && x.target.cluster != nil && x.target.cluster.UnservedTCP != nil:
		return x.target.cluster.UnservedTCP
	}
	return x.b.unroutedTCP
}

// unreached counts a connection that found no other end.
func (x *exchange) unreached() {
	t, flags := x.edge(), endings[x.outcome].flags
	if x.outcome > configured {
		t.Failed(x.outcome.String(), flags)
	}
	t.Opened(flags)
	t.Bytes(0, 0, flags)
	t.Closed(flags)
}

// flow is a tunnel as the metrics see it: what has passed is told while it lasts, from the kernel's own counts, as the
// bytes themselves may never come up to this process. Where the kernel sees other bytes than the tunnel's (TLS that ends
// here, the frames of HTTP/2), who copies them counts.
type flow struct {
	edge           *telemetry.TCP
	client         *link.Link   // nil where the kernel's counts say nothing
	base           link.Traffic // of the client's connection when the tunnel began
	there, back    atomic.Int64 // bytes copied, without the kernel's counts
	sent, received int64        // told so far; the sweeper's until the tunnel has ended
}

// tell reports what has passed since it was last called.
func (f *flow) tell(sent, received int64) {
	ds, dr := max(0, sent-f.sent), max(0, received-f.received)
	f.sent, f.received = f.sent+ds, f.received+dr
	if ds+dr > 0 {
		f.edge.Bytes(ds, dr, 0)
	}
}

// look tells what was counted.
func (f *flow) look() {
	if f.client == nil {
		f.tell(f.back.Load(), f.there.Load())
		return
	}
	if t, ok := f.client.Traffic(); ok {
		f.tell(t.Sent-f.base.Sent, t.Received-f.base.Received)
	}
}

// counts are where copied bytes are counted, nil for either where the kernel counts them.
func (f *flow) counts() (there, back *atomic.Int64) {
	if f == nil || f.client != nil {
		return nil, nil
	}
	return &f.there, &f.back
}

// openFlow counts the tunnel as open and lets the sweeper look after it. What was read and is not the tunnel's (the head
// of CONNECT), and what was said of ours, does not count; what the client has said already and nobody has read, does.
func (x *exchange) openFlow() *flow {
	f := &flow{edge: x.edge()}
	if base, ok := x.conn.link.Used(); ok && x.stream == nil {
		if x.conn.in != nil {
			base.Received -= int64(x.conn.in.Len())
		}
		f.client, f.base = &x.conn.link, base
	}
	f.edge.Opened(0)
	x.conn.proxy.flows.add(f)
	return f
}

// closeFlow counts the rest, exactly, and the tunnel as closed.
func (x *exchange) closeFlow(f *flow) {
	x.conn.proxy.flows.remove(f)
	f.tell(x.sent, x.received)
	f.edge.Closed(0)
}

// flows are the tunnels that are open and counted.
type flows struct {
	mu  sync.Mutex
	all map[*flow]struct{}
}

func (s *flows) add(f *flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[*flow]struct{}{}
	}
	s.all[f] = struct{}{}
}

// remove returns once nobody looks at f any more.
func (s *flows) remove(f *flow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, f)
}

// look lets every tunnel tell what has passed; the sweeper calls it every few seconds.
func (s *flows) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for f := range s.all {
		f.look()
	}
}
