package proxy

import (
	"sync/atomic"

	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/wire/link"
)

// This file ends exchanges whose client holds them up: one that sends nothing of a body that the application waits for, or
// takes nothing of its answer, for Limits.StreamIdle (Envoy's stream_idle_timeout; but who is merely quiet is not ended
// here, neither an application that has nothing to say nor a client that listens to it).

// motion is how the client's side of one exchange moves. Who waits for the client leaves a mark that costs no look at the
// clock; the sweeper finds out how long it has been there.
type motion struct {
	// body and answer are odd while a piece of the request's body is waited for, and while a piece of the answer is being
	// written to a client of HTTP/1.
	body, answer atomic.Uint32
	// excused says that nobody is waiting for the body: the application has answered, or has not yet said that it wants it.
	excused atomic.Bool
	// free says that bytes pass as their ends please: a tunnel.
	free atomic.Bool

	awaited, given stay // the sweeper's
}

// stay is a wait that the sweeper has met before.
type stay struct {
	mark     uint32
	since    int64
	measured bool
	acked    int64 // what the client's kernel had taken when it was measured
}

// lasts says since when the wait of that mark has been seen, in nanoseconds.
func (s *stay) lasts(mark uint32, t int64) int64 {
	if mark != s.mark {
		*s = stay{mark: mark, since: t}
	}
	return t - s.since
}

// stuck says whether a wait for l's peer to read has lasted for limit without a byte taken. The kernel is asked only
// about waits that have lasted half of it.
func (s *stay) stuck(mark uint32, t, limit int64, l *link.Link) bool {
	d := s.lasts(mark, t)
	if d < limit/2 {
		return false
	}
	acked, _ := l.Acked() // where it is not known a piece of some kilobytes is all that is waited for
	switch {
	case !s.measured:
		s.measured, s.acked = true, acked
	case acked != s.acked:
		s.since, s.acked = t-limit/2, acked
	case d >= limit:
		return true
	}
	return false
}

// held says whether the client has held the exchange up for limit, and how. l is a client of HTTP/1; nil says that the
// exchange came on a stream.
func (m *motion) held(t, limit int64, l *link.Link) (how cause, yes bool) {
	if m.free.Load() {
		return 0, false
	}
	if mark := m.body.Load(); mark&1 == 1 && !m.excused.Load() && m.awaited.lasts(mark, t) >= limit {
		return unsentBody, true
	}
	if mark := m.answer.Load(); mark&1 == 1 && l != nil && m.given.stuck(mark, t, limit, l) {
		return unreadAnswer, true
	}
	return 0, false
}

// move ends the phase of an exchange of HTTP/1 whose client holds it up.
func (c *conn) move(t int64) {
	if limit := int64(c.proxy.limits.StreamIdle); limit > 0 {
		d := c.watch.deadline.Load()
		if how, yes := c.watch.held(t, limit, &c.link); yes && d != fired {
			c.watch.fire(d, how, c.watch.interrupt)
		}
	}
}

// move is the same for a stream, whose waits for room the stream itself knows of. full says that the connection's socket is
// full: then the connection is looked at, not its streams.
func (k *stream) move(t, limit int64, full bool) {
	d := k.watch.deadline.Load()
	if d == fired {
		return
	}
	how, yes := k.watch.held(t, limit, nil)
	if since := k.call.Stalled(); !yes && since != 0 && !full && t-since >= limit && !k.watch.free.Load() {
		how, yes = unreadAnswer, true
	}
	if yes {
		k.watch.fire(d, how, k.watch.interrupt)
	}
}

// move ends what clients hold up: streams, or the connection whose socket nobody reads. It is called with s.mu.
func (s *session) move(t int64) {
	limit := int64(s.conn.proxy.limits.StreamIdle)
	if limit <= 0 {
		return
	}
	full := s.m.Stalled()
	for k := range s.streams {
		k.move(t, limit, full != 0)
	}
	if full != 0 && s.unread.stuck(uint32(full), t, limit, &s.conn.link) {
		s.unread = stay{}
		s.conn.proxy.metrics.Abuse(telemetry.SlowRead)
		s.conn.link.Cut()
	}
}

// held ends an exchange that its client has held up: with an answer, if that is possible.
func (x *exchange) held(how cause) {
	m := x.conn.proxy.metrics
	if how == unsentBody {
		m.Abuse(telemetry.SlowBody)
		x.say(slowBody, endings[slowBody].status, "the request's body did not arrive in time")
		return
	}
	m.Abuse(telemetry.SlowRead)
	x.outcome, x.again = slowRead, false // an answer would not be read either
}
