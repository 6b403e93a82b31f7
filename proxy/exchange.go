package proxy

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/balance"
	"github.com/outrider-mesh/outrider/proxy/breaker"
	"github.com/outrider-mesh/outrider/proxy/policy"
	"github.com/outrider-mesh/outrider/proxy/route"
	"github.com/outrider-mesh/outrider/proxy/upstream"
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
	"github.com/outrider-mesh/outrider/wire/mux"
)

// exchange is one request and its response passing through the proxy. Its life is run on HTTP/1, serve on HTTP/2.
type exchange struct {
	conn *conn
	b    *binding
	// watch is what ends the exchange's waits from outside.
	watch *watch
	// stream is where the request came on, nil where that is the connection itself (HTTP/1).
	stream *stream

	req      message.Request
	res      message.Response
	trailers message.Head

	// What match and forward decided.
	rule     *rule
	missed   *telemetry.HTTP // counts the request where no rule of its host is for it
	prefix   int
	segments bool
	target   *target
	port     int // of an authority that names none
	member   *upstream.Member
	cookie   []byte // Set-Cookie that a cookie hash asks for
	caller   *telemetry.HTTP
	picked   []int // of the target's members, one for each attempt
	tries    int
	engaged  *balance.Host // counts the exchange as active
	failure  failure       // of the last attempt
	breaker  *upstream.Breaker
	ticket   breaker.Ticket

	// The way to the upstream and back.
	up         *upstream.Conn   // HTTP/1
	call       *mux.Call        // HTTP/2
	shared     *upstream.Shared // whose stream call is
	admission  upstream.Admission
	last       lastPiece
	heard      heard
	turn       *upstream.Turn    // nil until the exchange first has to wait for a connection
	retrying   *upstream.Cluster // counts the exchange as a retry
	answer     *link.Buffer      // received from up and not yet used
	back       inflow            // the answer's body, of up
	down       outflow           // the answer as an HTTP/1 client gets it
	pump       *pump
	copies     *copies // of a request whose body is still to come, for mirrors
	inline     int     // bytes of the request's body, all in conn.in, while it was not sent away for good
	streams    bool    // the body is not all there: a pump sends it
	resent     bool
	probe      bool // by it the endpoint's failure accrual finds out whether it is back
	accruing   bool // the exchange's end is still to be told to it
	bounded    bool // the breaker has a deadline, too: bound
	lenient    bool // time limits begin when the request is here as a whole
	fellBack   bool // the answer is that of the breaker's fallback
	spent      bool // the destination's budget for retries did not allow one
	told       bool // the client has an interim response
	started    bool // the final response, or a piece of it, has gone to the client
	complete   bool // the client has the whole response
	raw        bool // an opaque connection: there is nobody to answer
	undeclared bool // CONNECT to a port whose protocol has to be found out
	silent     bool // counts as no request: CONNECT, whose requests inside do
	hurried    bool // asked for the sweeper's fine tick
	linger     bool // the client may still be sending: close with care
	again      bool // the connection can take another request

	// routeSpan and trySpan are what the two deadlines leave the endpoint, where lenient; 0 is a deadline that nothing moves.
	routeSpan, trySpan, bound int64

	begin, deadline int64
	resumed         int64 // when a wait before the first attempt was over, or the fallback began; 0 where there was none
	tryDeadline     int64 // of the attempt under way, never where it has none of its own
	backendDeadline int64 // the same, and of its answer's body
	received, sent  int64 // bytes from and to the client, heads included
	headReceived    int64 // of received, the head's
	headSent        int64 // of sent, the final head's
	outcome         outcome
	flags           telemetry.Flags // besides those of the outcome
	status          int
	out             []byte      // heads are written here
	spare           []byte      // small pieces: a location, joined values
	grpc            bool        // the request is gRPC's
	asked           bool        // the deadline is the one that the client asked for
	foreign         bool        // extended CONNECT asked for a protocol that is not passed on
	key             string      // Sec-WebSocket-Key of a request that went on without
	lasting         atomic.Bool // a gRPC answer is on its way, and its edge known
	torn            atomic.Bool // a tunnel failed
	toldThere       int64       // messages that were counted already
	toldBack        int64
	grpcStatus      int // of the answer, -1 where it has none
	sentMessages    telemetry.Messages
	messages        telemetry.Messages
	rand            balance.Rand
	routes          route.Scratch
	edits           policy.Scratch
	hash            balance.Scratch
	who, account    []byte // calls, where a rate limit may ask
	joined          []byte // values of fields, for rate limits
	quota           quota
	added           *message.Head // to the answer, by a rate limit service
	bell            *bell         // nil until the exchange first naps

	// What an access log tells besides, where there is one.
	original    []byte         // path and query before a rewrite
	there, here netip.AddrPort // of the attempt's connection: the endpoint's address, and ours
	distrust    string         // why TLS with the endpoint failed
	unread      bool           // what came could not be read as a request
	text        []byte         // the line
}

var exchanges = sync.Pool{New: func() any { return &exchange{out: make([]byte, 0, 1<<10), rand: balance.NewRand(rand.Uint64())} }}

// maxHeads and maxOut are how much memory a pooled exchange may hold on to, for heads, and to write from: the pieces of a
// chunked body are as large as a read buffer (BenchmarkExchange, in chunks).
const (
	maxHeads = 16 << 10
	maxOut   = 64 << 10
)

func getExchange(c *conn) *exchange {
	x := exchanges.Get().(*exchange)
	x.conn, x.b, x.watch = c, c.listener.live.Load(), &c.watch
	return x
}

func putExchange(x *exchange) {
	if x.pump != nil {
		x.pump.release()
	}
	if cap(x.out)+cap(x.down.out)+cap(x.text) > maxOut || x.req.Footprint()+x.res.Footprint()+x.trailers.Footprint() > maxHeads {
		return
	}
	x.req.Reset()
	x.res.Reset()
	x.trailers.Reset()
	*x = exchange{
		req: x.req, res: x.res, trailers: x.trailers,
		out: x.out[:0], spare: x.spare[:0], rand: x.rand, routes: x.routes, edits: x.edits, hash: x.hash, bell: x.bell, who: x.who[:0], joined: x.joined[:0],
		original: x.original[:0], text: x.text[:0],
		account: x.account[:0],
		down:    outflow{out: x.down.out[:0]}, picked: x.picked[:0], turn: x.turn,
	}
	exchanges.Put(x)
}

// run is an exchange's life. It reports whether the connection can take another request.
func (x *exchange) run() (again bool) {
	if !x.receive() {
		return false
	}
	x.proceed()
	return x.again
}

// proceed carries a request that is here to its end.
func (x *exchange) proceed() {
	if x.match() && x.admit() {
		x.forward()
	}
	x.finish()
	x.record()
}

// receive reads the request's head. A refused head is answered and recorded here: there is no exchange to speak of.
func (x *exchange) receive() bool {
	c := x.conn
	lim := c.heads()
	for from := 0; ; {
		n, err := http1.HeadEnd(c.in.Bytes(), from, &lim)
		if err == nil && n > 0 {
			x.begin = now()
			err = http1.ReadRequest(&x.req, c.in.Bytes()[:n], &lim)
		}
		if err != nil {
			x.refuse(err)
			return false
		}
		if n > 0 {
			c.in.Skip(n)
			x.received, x.headReceived = int64(n), int64(n)
			return true
		}
		if from == 0 {
			x.watch.arm(now() + int64(c.proxy.limits.HeadTimeout))
		}
		from = c.in.Len()
		if err := c.link.More(c.in); err != nil {
			if link.Interrupted(err) {
				c.proxy.metrics.Abuse(telemetry.SlowHead)
				x.answerEarly(requestTimeout, endings[requestTimeout].status, "the request's head did not arrive in time")
			}
			return false
		}
	}
}

// refuse answers a head that the codec does not accept.
func (x *exchange) refuse(err error) {
	x.begin = now()
	status := statusOf(err)
	if large(err) {
		x.conn.proxy.metrics.Abuse(telemetry.HeadSize)
	}
	x.answerEarly(badRequest, status, err.Error())
}

// oversized refuses a head that is within the limit only with what proxies before a sidecar add, if none has sent it: one
// that has introduces itself.
func (x *exchange) oversized() bool {
	if x.headReceived <= int64(x.conn.proxy.limits.Head.Head) {
		return false
	}
	if _, ok := x.req.Get(message.XOutriderPeer); ok {
		return false
	}
	x.conn.proxy.metrics.Abuse(telemetry.HeadSize)
	x.req.Close, x.linger = true, x.stream == nil
	x.say(badRequest, 431, "the head is larger than the limit")
	return true
}

// large says that a limit on heads and trailers acted.
func large(err error) bool {
	refusal := (*http1.Error)(nil)
	return errors.As(err, &refusal) && refusal.Large()
}

// statusOf returns the status that the codec wants a message to be refused with.
func statusOf(err error) int {
	if refusal := (*http1.Error)(nil); errors.As(err, &refusal) {
		return refusal.Status
	}
	return endings[badRequest].status
}

// answerEarly answers before there is a request to answer, ends the connection and records.
func (x *exchange) answerEarly(o outcome, status int, why string) {
	x.received, x.unread = int64(x.conn.in.Len()), true
	x.headReceived = x.received
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
	if x.b.spec.Direction == model.Inbound && x.oversized() {
		return false
	}
	x.recognise()
	x.body()
	if x.foreign { // h2c among them, whose requests would pass unread (RFC 9220 §3)
		x.say(badRequest, 501, "only websocket can be asked for with extended CONNECT")
		return false
	}
	if !x.normalize() {
		return false
	}
	if x.port = x.b.port; c.port != 0 {
		x.port = c.port
	}
	table := x.b.routes(c.table)
	if table == nil {
		x.req.Close = true
		x.say(noRoute, endings[noRoute].status, "the TLS settings of this server name are gone")
		return false
	}
	m := table.Match(&x.req, x.port, &x.routes)
	if x.b.spec.Direction == model.Inbound {
		if m.Found && m.Rule.limits != nil {
			header, _ := x.req.Get(message.XOutriderPeer)
			x.who, x.account = append(x.who[:0], callerOf(header)...), appendAccount(x.account[:0], header)
		}
		x.identify()
	}
	if x.b.spec.Explicit && m.Known && isConnect(&x.req) && !(m.Found && (m.Rule.refuses() || m.Rule.opaque())) {
		x.undeclared = m.Found && m.Rule.undeclared()
		x.inside() // whatever the rules say of paths and fields, they say to the requests inside
		return false
	}
	if !m.Found {
		why := "no rule matches the request"
		if !m.Known {
			why = "no route for the host " + string(x.req.Authority())
		} else if m.Host.Service != (model.Service{}) {
			x.missed = x.b.answers[m.Host.Service]
		}
		x.say(noRoute, endings[noRoute].status, why)
		return false
	}
	x.rule, x.prefix, x.segments = m.Rule, m.Prefix, m.Segments
	x.limit()
	return true
}

var schemeHTTP, schemeHTTPS = []byte("http"), []byte("https")

// limit arms the exchange's deadline: the route's timeout, or what a gRPC client asks for.
func (x *exchange) limit() {
	timeout := x.rule.timeout
	if x.grpc {
		timeout = x.cap(timeout)
	}
	if timeout > 0 {
		x.deadline = x.begin + timeout
	}
	for _, t := range [4]int64{timeout, x.rule.perTry, x.rule.backendTimeout, x.rule.idle} {
		if t > 0 && t < int64(fineBelow) {
			x.hurry()
		}
	}
	x.tryDeadline = never
	if x.rule.idle > 0 {
		x.watch.pulse.begin(x.rule.idle)
	}
	x.allow(timeout)
	x.watch.arm(x.deadline)
	if x.stream == nil {
		x.watch.waiting.Store(x.begin)
	}
}

// hurry asks for the sweeper's fine tick until the exchange ends.
func (x *exchange) hurry() {
	if !x.hurried {
		x.hurried = true
		x.conn.proxy.conns.hurry()
	}
}

// body works out how the request's body comes: none, all there, or still to be streamed.
func (x *exchange) body() {
	n := x.req.BodyLength
	c := x.conn
	switch {
	case x.stream != nil:
		x.streams = n != message.NoBody
	case n == message.NoBody:
		c.consumed()
	case n > 0 && int64(c.in.Len()) >= n && !x.req.ExpectContinue:
		x.inline = int(n)
		x.received += n
	default:
		x.streams = true
	}
}

// normalize gives the path its one form, which is matched, authorised and forwarded, and the request a scheme.
func (x *exchange) normalize() bool {
	if err := x.req.NormalizePath(x.b.paths); err != nil {
		x.req.Close = true
		x.say(badRequest, endings[badRequest].status, err.Error())
		return false
	}
	switch scheme := x.req.Scheme(); {
	case x.conn.link.Secured():
		x.req.SetScheme(schemeHTTPS)
	case x.stream != nil: // an HTTP/2 client whose TLS ended before us says https
		x.req.SetScheme(schemeHTTP)
	case len(scheme) == 0:
		x.req.SetScheme(x.forwardedScheme())
	case string(scheme) != "http": // whoever wrote https did not mean it to be sent in the clear
		x.say(badRequest, endings[badRequest].status, "a target of the scheme https cannot be fetched in the clear; use CONNECT")
		return false
	}
	return true
}

// forwardedScheme is the scheme of a request of HTTP/1 in the clear, which names none: a sidecar believes whoever says that a
// proxy before it ended TLS, as Istio's do, and a gateway is that proxy itself.
func (x *exchange) forwardedScheme() []byte {
	if x.b.spec.Direction != model.Gateway {
		if v, ok := x.req.Get(message.XForwardedProto); ok && string(v) == "https" {
			return schemeHTTPS
		}
	}
	return schemeHTTP
}

// admit runs the gates before forwarding, in their order; false means that one of them has answered.
func (x *exchange) admit() bool {
	r := x.rule
	if r.limits != nil && !x.ration(r.limits) {
		return false
	}
	if r.fault != nil && !x.inject(r.fault) {
		return false
	}
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

// finish brings the endpoint's side, the pump and the client's side to a defined end.
func (x *exchange) finish() {
	if x.hurried {
		x.conn.proxy.conns.relax()
	}
	x.lean(0)
	x.watch.pulse.end()
	if x.pump != nil {
		x.pump.end()
		x.received += x.pump.bytes
	}
	if x.copies != nil {
		x.copies.abandon()
	}
	x.drop() // what could be kept has been given back already
	x.disengage()
	x.permitted()
	x.part()
}

// vanish ends an exchange whose client has gone.
func (x *exchange) vanish() {
	x.outcome, x.again = clientGone, false
	if x.stream != nil && x.stream.call.WasReset() {
		x.outcome = clientReset
	}
}

// interrupted ends an exchange whose time is over, or whose client has gone.
func (x *exchange) interrupted() {
	if x.left() {
		return
	}
	o := x.late()
	x.say(o, endings[o].status, endings[o].body)
}

// left ends an exchange that was ended from outside for its client's sake, who has gone or holds it up; false means that its
// time is over.
func (x *exchange) left() bool {
	switch how := x.watch.guard.why(); how {
	case vanished:
		x.vanish()
	case unsentBody, unreadAnswer:
		x.held(how)
	default:
		return false
	}
	return true
}

// ended ends the exchange where it was not the upstream that broke a wait, but the sweeper or the client's side; err is what
// the wait ended with.
func (x *exchange) ended(err error) bool {
	switch {
	case x.watch.over():
		x.interrupted()
	case x.pump != nil && x.pump.failed(err):
		x.pumpFailed()
	default:
		return false
	}
	return true
}
