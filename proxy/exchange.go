package proxy

import (
	"errors"
	"io"
	"sync"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/balance"
	"github.com/outrider-mesh/outrider/proxy/policy"
	"github.com/outrider-mesh/outrider/proxy/route"
	"github.com/outrider-mesh/outrider/proxy/upstream"
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
)

// exchange is one request and its response passing through the proxy. Its life is run.
type exchange struct {
	conn *conn
	b    *binding

	req      message.Request
	res      message.Response
	trailers message.Head

	// What match and forward decided.
	rule     *rule
	prefix   int
	segments bool
	target   *target
	member   *upstream.Member
	cookie   []byte // Set-Cookie that a cookie hash asks for
	caller   *telemetry.HTTP

	// The way to the upstream and back.
	up       *upstream.Conn
	answer   *link.Buffer // received from up and not yet used
	pump     *pump
	inline   int  // bytes of the request's body, all in conn.in, while it was not sent away for good
	streams  bool // the body is not all there: a pump sends it
	resent   bool
	started  bool // a final response head has gone to the client
	complete bool // the client has the whole response
	silent   bool // counts as no request: CONNECT, whose requests inside do
	hurried  bool // asked for the sweeper's fine tick
	linger   bool // the client may still be sending: close with care
	again    bool // the connection can take another request

	begin, deadline int64
	received, sent  int64 // bytes from and to the client, heads included
	outcome         outcome
	status          int
	out             []byte // heads are written here
	spare           []byte // small pieces: a location, joined values
	routes          route.Scratch
	edits           policy.Scratch
	hash            balance.Scratch
}

var exchanges = sync.Pool{New: func() any { return &exchange{out: make([]byte, 0, 1<<10)} }}

// maxKept is how much memory the heads of a pooled exchange may hold on to.
const maxKept = 16 << 10

func getExchange(c *conn) *exchange {
	x := exchanges.Get().(*exchange)
	x.conn, x.b = c, c.listener.live.Load()
	return x
}

func putExchange(x *exchange) {
	if cap(x.out)+x.req.Footprint()+x.res.Footprint() > maxKept {
		return
	}
	x.req.Reset()
	x.res.Reset()
	x.trailers.Reset()
	*x = exchange{
		req: x.req, res: x.res, trailers: x.trailers,
		out: x.out[:0], spare: x.spare[:0], routes: x.routes, edits: x.edits, hash: x.hash,
	}
	exchanges.Put(x)
}

// run is an exchange's life. It reports whether the connection can take another request.
func (x *exchange) run() (again bool) {
	if !x.receive() {
		return false
	}
	if x.match() && x.admit() {
		x.forward()
	}
	x.finish()
	x.record()
	return x.again
}

// receive reads the request's head. A refused head is answered and recorded here: there is no exchange to speak of.
func (x *exchange) receive() bool {
	c := x.conn
	lim := &c.proxy.limits.Head
	for from := 0; ; {
		n, err := http1.HeadEnd(c.in.Bytes(), from, lim)
		if err == nil && n > 0 {
			x.begin = now()
			err = http1.ReadRequest(&x.req, c.in.Bytes()[:n], lim)
		}
		if err != nil {
			x.refuse(err)
			return false
		}
		if n > 0 {
			c.in.Skip(n)
			x.received = int64(n)
			return true
		}
		if from == 0 && c.guard.arm(now()+int64(c.proxy.limits.HeadTimeout)) {
			c.link.Resume()
		}
		from = c.in.Len()
		if err := x.more(); err != nil {
			if link.Interrupted(err) && from > 0 {
				x.answerEarly(requestTimeout, endings[requestTimeout].status, "the request's head did not arrive in time")
			}
			return false
		}
	}
}

// more reads on in a head that is not complete. Being told to leave does not stop it.
func (x *exchange) more() error {
	c := x.conn
	err := c.link.More(c.in)
	if err != nil && link.Interrupted(err) && c.guard.why() == drained {
		c.guard.arm(now() + int64(c.proxy.limits.HeadTimeout))
		c.link.Resume()
		err = c.link.More(c.in)
	}
	return err
}

// refuse answers a head that the codec does not accept.
func (x *exchange) refuse(err error) {
	x.begin = now()
	refusal := (*http1.Error)(nil)
	if errors.As(err, &refusal) {
		x.answerEarly(badRequest, refusal.Status, refusal.Reason)
		return
	}
	x.answerEarly(badRequest, endings[badRequest].status, err.Error())
}

// answerEarly answers before there is a request to answer, ends the connection and records.
func (x *exchange) answerEarly(o outcome, status int, why string) {
	c := x.conn
	if c.guard.arm(now() + int64(lingerFor)) {
		c.link.Resume()
	}
	x.req.Version = message.HTTP11
	x.req.Close = true
	x.linger = true
	if x.begin == 0 {
		x.begin = now()
	}
	x.say(o, status, why)
	x.finish()
	x.record()
}

// match finds the rule for the request; without one it answers.
func (x *exchange) match() bool {
	c := x.conn
	x.deadline = never
	x.body()
	if !x.normalize() {
		return false
	}
	if len(x.req.Scheme()) == 0 {
		x.req.SetScheme(schemeHTTP)
	}
	port := x.b.port
	if c.port != 0 {
		port = c.port
	}
	m := x.b.table.Match(&x.req, port, &x.routes)
	if x.b.spec.Direction == model.Inbound {
		x.identify()
	}
	if !m.Found {
		why := "no rule matches the request"
		if !m.Known {
			why = "no route for the host " + string(x.req.Authority())
		}
		x.say(noRoute, endings[noRoute].status, why)
		return false
	}
	x.rule, x.prefix, x.segments = m.Rule, m.Prefix, m.Segments
	x.limit()
	return true
}

var schemeHTTP = []byte("http")

// limit arms the exchange's deadline: the route's timeout, or that of its one attempt where it is shorter.
func (x *exchange) limit() {
	c, timeout := x.conn, x.rule.timeout
	if b := x.rule.backendTimeout; b > 0 && (timeout == 0 || b < timeout) {
		timeout = b
	}
	if timeout > 0 {
		x.deadline = x.begin + timeout
		if timeout < int64(fineBelow) {
			x.hurried = true
			c.proxy.conns.hurry()
		}
	}
	if c.guard.arm(x.deadline) {
		// The sweeper ended the idle phase in the moment that the request came: serve it, and close.
		c.link.Resume()
		x.req.Close = true
	}
	c.guard.waiting.Store(x.begin)
}

// body works out how the request's body comes: none, all there, or still to be streamed.
func (x *exchange) body() {
	n := x.req.BodyLength
	c := x.conn
	switch {
	case n == message.NoBody:
		c.consumed()
	case n > 0 && int64(c.in.Len()) >= n && !x.req.ExpectContinue:
		x.inline = int(n)
		x.received += n
	default:
		x.streams = true
	}
}

// normalize gives the path its one form, which is matched, authorised and forwarded.
func (x *exchange) normalize() bool {
	err := x.req.NormalizePath(x.b.paths)
	if err == nil {
		return true
	}
	x.linger, x.req.Close = true, true
	x.say(badRequest, endings[badRequest].status, err.Error())
	return false
}

// admit runs the gates before forwarding, in their order; false means that one of them has answered.
func (x *exchange) admit() bool {
	r := x.rule
	if r.cors != nil {
		if handled := r.cors.Preflight(&x.req, &x.res); handled {
			x.reply(configured)
			return false
		}
	}
	switch {
	case r.redirect != nil:
		x.redirect()
		return false
	case r.reply != nil:
		x.direct(r.reply)
		return false
	}
	return true
}

// finish brings the connection, the upstream connection and the pump to a defined end.
func (x *exchange) finish() {
	c := x.conn
	if x.hurried {
		c.proxy.conns.relax()
	}
	if x.pump != nil {
		x.pump.end()
		x.received += x.pump.bytes
	}
	if x.answer != nil {
		link.PutBuffer(x.answer)
		x.answer = nil
	}
	if x.up != nil {
		c.upstream.Store(nil)
		x.up.Drop() // what could be kept has been given back already
		x.up = nil
	}
	if x.inline > 0 && c.in != nil {
		c.in.Skip(x.inline) // answered without being sent
		x.inline = 0
	}
	c.consumed()
	x.again = x.again && x.complete && !c.leaving()
	switch {
	case x.started && !x.complete:
		_ = c.link.Reset() // what the client has must not pass for a whole response
	case x.linger && !x.again:
		c.linger()
	}
}

// vanish ends an exchange whose client has gone.
func (x *exchange) vanish() {
	x.outcome, x.again = clientGone, false
}

// interrupted turns an interrupted wait into the exchange's ending.
func (x *exchange) interrupted() {
	c := x.conn
	if c.guard.why() == vanished {
		x.vanish()
		return
	}
	c.guard.arm(now() + int64(lingerFor))
	c.link.Resume()
	if x.started {
		x.outcome = routeTimeout
		return
	}
	x.req.Close = true
	x.linger = true
	o := routeTimeout
	if b := x.rule.backendTimeout; b > 0 && (x.rule.timeout == 0 || b < x.rule.timeout) {
		o = upstreamTimeout
	}
	x.say(o, endings[o].status, endings[o].body)
}

// isEnd says whether a read error means that the peer has simply ended.
func isEnd(err error) bool { return errors.Is(err, io.EOF) }
