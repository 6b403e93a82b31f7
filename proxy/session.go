package proxy

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/upstream"
	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
	"github.com/outrider-mesh/outrider/wire/mux"
)

// session serves the streams of one client connection of HTTP/2.
type session struct {
	streamEvents
	conn *conn
	m    *mux.Mux

	mu      sync.Mutex
	streams map[*stream]struct{} // with an exchange under way
	serving sync.WaitGroup
	leaving int64 // since when the connection is to end; 0 while it is not
	unread  stay  // the sweeper's: the socket that nobody reads
	over    bool  // it is read no more: nothing is to interrupt what follows

	begun []*stream // the reader's own: exchanges to be run once all frames that are there were handled
}

// stream is a client's stream as an exchange has it.
type stream struct {
	session *session
	watch   watch
	x       *exchange

	mu   sync.Mutex
	st   *http2.Stream // what events must be of; guarded by mu
	call *mux.Call     // set while st is
}

// of returns k's call if st is still its stream.
func (k *stream) of(st *http2.Stream) *mux.Call {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.st != st {
		return nil
	}
	return k.call
}

// streamPool has streams whose watch nothing will end: the sweeper may still look at one that it met before.
var streamPool = sync.Pool{New: func() any { return new(stream) }}

// drainPing is how long a client has to answer before the last stream is named all the same.
const drainPing = int64(1e9)

// multiplex serves HTTP/2 until the connection ends.
func (c *conn) multiplex() {
	p := c.proxy
	s := &session{conn: c, streams: map[*stream]struct{}{}}
	s.m = mux.New(&c.link, http2.Server, s, http2.Options{
		Limits: c.heads(), MaxStreams: p.limits.Streams, ConnectProtocol: true, Stats: &p.floods,
	}, now)
	s.m.Handled = s.run
	c.watch.arm(never)
	c.watch.waiting.Store(0)
	c.session.Store(s)
	if c.leaving() { // retire may have come before there was a session to be retired
		s.retire()
	}
	first := c.in
	c.in = nil
	err := s.m.Serve(first) // why it ended, the streams were told
	s.serving.Wait()
	fault := (*http2.Error)(nil)
	if errors.As(err, &fault) || link.Interrupted(err) {
		s.mu.Lock()
		s.over = true
		s.mu.Unlock()
		c.session.Store(nil) // the sweeper looks after the connection again
		c.link.Resume()
		c.linger() // or what is unread would take our last words with it
	}
}

// retire asks the client to open no more streams; the connection ends with the last.
func (s *session) retire() {
	s.mu.Lock()
	first := s.leaving == 0
	if first {
		s.leaving = max(now(), 1)
	}
	for k := range s.streams {
		k.watch.ring()
	}
	s.mu.Unlock()
	if first {
		s.m.Shutdown()
		s.ended()
	}
}

// ended ends a connection that is to end once nothing goes on there.
func (s *session) ended() {
	if s.m.Idle() {
		s.interrupt()
	}
}

// interrupt ends the reading.
func (s *session) interrupt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.conn.link.InterruptRead()
	}
}

// check ends what lasts too long: exchanges, a head that does not come, a connection that nobody uses. It returns when the
// first of the exchanges' times is over.
func (s *session) check(t int64) (due int64) {
	lim := &s.conn.proxy.limits
	due = never
	s.mu.Lock()
	for k := range s.streams {
		due = min(due, k.watch.check(t))
	}
	s.move(t)
	busy, leaving := len(s.streams) > 0, s.leaving
	s.mu.Unlock()
	partial := s.m.Partial()
	switch {
	case partial != 0 && t-partial > int64(lim.HeadTimeout):
		s.conn.proxy.metrics.Abuse(telemetry.SlowHead)
		s.interrupt()
	case !busy && t-s.m.LastRead() > int64(lim.Idle):
		s.retire()
	}
	if leaving != 0 {
		if t-leaving > drainPing && !s.m.HTTP.Drained() {
			s.m.Shutdown()
		}
		s.ended()
	}
	return due
}

// tell counts the gRPC messages of exchanges that last.
func (s *session) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.streams {
		k.x.tellSoFar()
	}
}

// Request begins an exchange, in a goroutine of its own: one of the crew's.
func (s *session) Request(st *http2.Stream, r *message.Request, end bool) {
	x := getExchange(s.conn)
	*r, x.req = x.req, *r
	x.begin = now()
	x.received = int64(x.req.Size())
	x.headReceived = x.received
	k := streamPool.Get().(*stream)
	k.session, k.x = s, x
	k.call = mux.GetCall(s.m)
	k.call.Accept(st, end)
	st.Owner = k
	k.mu.Lock()
	k.st = st
	k.mu.Unlock()
	k.watch.client = k.call
	k.watch.free.Store(false)
	k.watch.arm(never)
	x.stream, x.watch = k, &k.watch
	if x.req.Upgrade {
		x.fromConnect()
	}
	s.mu.Lock()
	s.streams[k] = struct{}{}
	s.mu.Unlock()
	s.serving.Add(1) // multiplex waits for it
	s.begun = append(s.begun, k)
	if st.ID() >= lastStreams {
		s.retire() // a client that finds no id any more would have to find out by itself
	}
}

// lastStreams is the id from which on a client is asked for a new connection, while those that it opens meanwhile still find
// one (RFC 9113 §5.1.1).
const lastStreams = http2.LastStream - 1<<14

// run lets the exchanges that have begun run: now the body is there too of those whose client sent it with the head.
func (s *session) run() {
	for i, k := range s.begun {
		s.begun[i] = nil
		s.conn.proxy.crew.run(k)
	}
	s.begun = s.begun[:0]
	if cap(s.begun) > maxBegun {
		s.begun = nil
	}
}

// maxBegun is for how many exchanges a connection keeps room.
const maxBegun = 128

// serve is the life of an exchange on HTTP/2.
func (k *stream) serve() {
	s, x := k.session, k.x
	x.proceed()
	putExchange(x)
	s.serving.Done()
}

// part ends the stream. failed says that what the client has must not pass for a whole answer.
func (k *stream) part(failed bool) {
	s := k.session
	s.mu.Lock()
	delete(s.streams, k)
	leaving := s.leaving != 0
	s.mu.Unlock()
	k.mu.Lock()
	k.st = nil // from here on nothing ends the watch's phase
	k.mu.Unlock()
	k.watch.gone.Store(false)
	k.watch.arm(never)
	if failed {
		k.call.Cancel(http2.InternalError)
	}
	k.call.Release()
	if leaving {
		s.ended()
	}
	k.x, k.session, k.call = nil, nil, nil
	streamPool.Put(k)
}

// Refused counts a request that the engine has answered.
func (s *session) Refused(r *message.Request, e *http2.Error) {
	x := getExchange(s.conn)
	*r, x.req = x.req, *r
	x.begin, x.outcome, x.status = now(), badRequest, max(e.Status, endings[badRequest].status)
	x.received = int64(x.req.Size())
	x.headReceived = x.received
	x.record()
	putExchange(x)
}

// streamEvents hands what happens on a stream to its owner, in either role.
type streamEvents struct{}

// callOf returns who waits for what happens on st, nil where nobody does any more.
func callOf(st *http2.Stream) *mux.Call {
	switch o := st.Owner.(type) {
	case *stream:
		return o.of(st)
	case *mux.Call:
		return o
	}
	return nil
}

// Request, which no endpoint sends.
func (streamEvents) Request(*http2.Stream, *message.Request, bool) {}

// Refused, which only a server tells.
func (streamEvents) Refused(*message.Request, *http2.Error) {}

// Response gives a head to who waits for it.
func (streamEvents) Response(st *http2.Stream, r *message.Response, end bool) {
	if c := callOf(st); c != nil {
		c.OnResponse(st, r, end)
	}
}

// Data gives a piece of a body to who waits for it.
func (streamEvents) Data(st *http2.Stream, p []byte, end bool) {
	if c := callOf(st); c != nil {
		c.OnData(st, p, end)
	}
}

// Trailers ends a body.
func (streamEvents) Trailers(st *http2.Stream, t *message.Head) {
	if c := callOf(st); c != nil {
		c.OnTrailers(st, t)
	}
}

// Reset ends a stream. With a client's goes the wait for the endpoint.
func (streamEvents) Reset(st *http2.Stream, code http2.Code, remote bool) {
	if c := callOf(st); c != nil {
		c.OnReset(st, code, remote)
	}
	if k, ok := st.Owner.(*stream); ok {
		k.vanish(st)
	}
}

// Writable lets who waits for room go on.
func (streamEvents) Writable(st *http2.Stream) {
	if c := callOf(st); c != nil {
		c.OnWritable(st)
	}
}

// GoAway, whose meaning for streams the engine sees to.
func (streamEvents) GoAway(uint32, http2.Code) {}

// Pong answers a ping of ours.
func (streamEvents) Pong(uint64) {}

// Settings tells that the peer's settings have come.
func (streamEvents) Settings() {}

// vanish ends the exchange's waits, as its client has gone.
func (k *stream) vanish(st *http2.Stream) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.st == st {
		k.watch.gone.Store(true)
		k.watch.vanish()
	}
}

// outgoing is a stream as a sink.
type outgoing struct{ *mux.Call }

// Flush sends what waits. What is wrong with the stream, the next Send tells.
func (o outgoing) Flush() error {
	o.Call.Flush()
	return nil
}

// endpointEvents are those of a connection to an endpoint.
type endpointEvents struct {
	streamEvents
	shared *upstream.Shared
}

// Settings tells those who wait for them.
func (e *endpointEvents) Settings() { e.shared.Settled() }

// GoAway ends the connection where nobody uses it.
func (e *endpointEvents) GoAway(uint32, http2.Code) { e.shared.Leaving() }

// speak2 makes the HTTP/2 of a connection to an endpoint.
func (p *Proxy) speak2(s *upstream.Shared) *mux.Mux {
	return mux.New(s.Link(), http2.Client, &endpointEvents{shared: s}, http2.Options{
		Limits: p.limits.Head, Stats: &p.floods, FirstStream: p.firstStream,
	}, now)
}

// countFloods tells the metrics which limits of HTTP/2 act.
func (p *Proxy) countFloods() {
	f := &p.floods
	for limit, n := range map[telemetry.Limit]*atomic.Uint64{
		telemetry.RapidReset: &f.Resets, telemetry.Continuation: &f.Continuations, telemetry.PingFlood: &f.Pings,
		telemetry.SettingsFlood: &f.Settings, telemetry.PriorityFlood: &f.Priorities, telemetry.WindowFlood: &f.Windows,
		telemetry.EmptyFrames: &f.Empties, telemetry.InterimFlood: &f.Interims, telemetry.Unread: &f.Unread,
		telemetry.HeadSize: &f.Heads, telemetry.Streams: &f.Refused,
	} {
		p.metrics.CountAbuse(limit, n)
	}
}
