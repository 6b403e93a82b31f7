package proxy

import (
	"errors"
	"strconv"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/upstream"
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
	"github.com/outrider-mesh/outrider/wire/mux"
)

// This file is the endpoint's side of an exchange: an HTTP/1 connection of its own (x.up), or a stream on a shared HTTP/2
// connection (x.call).

// attempt sends the request to e and, when an answer comes, relays it. False means that nothing was sent and another
// endpoint may be tried.
func (x *exchange) attempt(e *upstream.Endpoint, n int) (done bool) {
	if x.member != nil {
		x.member.Host.Active.Add(1)
		defer x.member.Host.Active.Add(-1)
	}
	x.announce(n)
	if x.target.over2(x.req.Version) && !e.SpeaksHTTP1() {
		if done, only1 := x.attempt2(e); !only1 {
			return done
		}
	}
	return x.attempt1(e)
}

// announce tells the next proxy who sends the request, and how often it was tried.
func (x *exchange) announce(attempt int) {
	r := &x.req
	if x.b.spec.Direction == model.Inbound {
		return
	}
	x.spare = strconv.AppendInt(x.spare[:0], int64(attempt), 10)
	r.SetBytes(message.XEnvoyAttemptCount, "x-envoy-attempt-count", x.spare)
	if x.member != nil && x.member.Spec.Sidecar {
		r.SetBytes(message.XOutriderPeer, "x-outrider-peer", x.b.peer)
	}
}

// over2 says whether a target is spoken to with HTTP/2, on behalf of a client of that version.
func (t *target) over2(client message.Version) bool {
	switch t.cluster.Spec.Protocol {
	case model.HTTP2, model.GRPC:
		return true
	case model.Auto:
		return client == message.HTTP2
	}
	return false
}

// attempt1 is an attempt over a connection of HTTP/1.
func (x *exchange) attempt1(e *upstream.Endpoint) (done bool) {
	if x.req.Upgrade {
		x.toUpgrade()
	}
	request := x.encode()
	for fresh := false; ; fresh = true {
		if !x.lease(e, fresh) {
			return x.outcome != passed // the wait for it was ended: answered
		}
		answer, err := x.send(request)
		if err == nil {
			x.answer = answer
			x.relay()
			return true
		}
		if !x.resend(err) {
			return true
		}
	}
}

// encode writes the request's head, and behind it the body where that is here as a whole.
func (x *exchange) encode() []byte {
	x.out = http1.AppendRequest(x.out[:0], &x.req, http1.RequestOptions{})
	if x.inline == 0 {
		return x.out
	}
	if whole, ok := x.conn.in.Lead(x.out, x.inline); ok {
		return whole
	}
	x.out = append(x.out, x.conn.in.Bytes()[:x.inline]...)
	return x.out
}

// send writes the request and waits for the first bytes of the answer.
func (x *exchange) send(request []byte) (*link.Buffer, error) {
	up := x.up
	if !x.streams {
		return up.Ask(request)
	}
	if up.Reused && !up.Fresh() {
		return nil, link.ErrStale
	}
	if _, err := up.Write(request); err != nil {
		return nil, err
	}
	x.startPump()
	return up.Receive()
}

// resend decides what an attempt's error means: true asks for the request to be sent again on another connection, when it
// certainly was not processed or may be processed twice (RFC 9110 §9.2.2). A fresh connection that fails is not replaced:
// its peer closes or speaks first each time.
func (x *exchange) resend(err error) bool {
	reused := x.up.Reused
	x.drop()
	switch {
	case errors.Is(err, link.ErrStale) && reused:
		return true
	case x.ended(err):
		return false
	case reused && x.repeatable():
		return true
	}
	x.unanswered(upstreamReset)
	return false
}

// repeatable says whether the request may be sent once more although an endpoint may have seen it, and counts that.
func (x *exchange) repeatable() bool {
	if x.resent || x.streams || !idempotent(x.req.Method()) {
		return false
	}
	x.resent = true
	x.conn.proxy.stats.resent.Add(1)
	return true
}

// unanswered ends an exchange whose endpoint went away, or garbled its answer, before there was a head.
func (x *exchange) unanswered(o outcome) {
	x.counted(endings[o].status)
	x.say(o, endings[o].status, endings[o].body)
}

// attempt2 is an attempt over a stream of a shared connection. only1 says that e turned out to speak HTTP/1 alone.
func (x *exchange) attempt2(e *upstream.Endpoint) (done, only1 bool) {
	for refused := 0; ; {
		s, err := x.share(e)
		if err != nil {
			return x.outcome != passed, errors.Is(err, upstream.ErrHTTP1)
		}
		switch err := x.open(s); {
		case errors.Is(err, http2.ErrNoStreams):
			continue // others took its last streams
		case errors.Is(err, errNoUpgrade):
			x.say(upstreamProtocol, endings[upstreamProtocol].status, err.Error())
			return true, false
		case err != nil:
			x.say(badRequest, 431, "the endpoint takes no head of that size")
			return true, false
		}
		if err := x.call.Head(&x.res); err != nil {
			if refused++; refused < connectAttempts && x.reopen(err) {
				continue
			}
			return true, false
		}
		x.relay()
		return true, false
	}
}

// share finds a connection to e that takes one more stream.
func (x *exchange) share(e *upstream.Endpoint) (*upstream.Shared, error) {
	max := x.target.cluster.Spec.MaxStreams
	if s := e.Share(max); s != nil {
		return s, nil
	}
	timeout, err := x.patience()
	if err == nil {
		var s *upstream.Shared
		if s, err = x.connect2(e, timeout, max); err == nil {
			return s, nil
		}
	}
	if x.outcome == passed && !errors.Is(err, upstream.ErrHTTP1) {
		x.unconnected(e, err)
	}
	return nil, err
}

var errNoUpgrade = errors.New("the endpoint does not take an upgrade over HTTP/2 (RFC 8441)")

// open opens a stream on s and sends the request.
func (x *exchange) open(s *upstream.Shared) error {
	if x.req.Upgrade {
		if x.streams || x.inline > 0 || !s.Upgrades(x.conn.proxy.limits.HeadTimeout) {
			return errNoUpgrade
		}
		x.toConnect()
	}
	call := mux.GetCall(s.Mux)
	if err := call.Open(&x.req, !x.streams && x.inline == 0 && !x.req.Upgrade); err != nil {
		call.Release()
		return err
	}
	x.call = call
	x.watch.call.Store(call)
	switch {
	case x.inline > 0:
		_ = call.Send(x.conn.in.Bytes()[:x.inline], true) // what went wrong, Head tells
	case x.streams:
		x.startPump()
	}
	call.Flush()
	return nil
}

// reopen is resend for a stream.
func (x *exchange) reopen(err error) bool {
	reset := (*mux.ResetError)(nil)
	errors.As(err, &reset)
	touched := x.pump != nil // its body may be under way
	if touched && x.ended(err) {
		x.drop()
		return false
	}
	x.drop()
	switch {
	case reset == nil && x.ended(err):
		return false
	case reset != nil && reset.Code == http2.RefusedStream && !touched:
		return true // nothing was done (RFC 9113 §8.7)
	case reset != nil && reset.Remote && x.repeatable():
		return true
	case reset != nil && !reset.Remote:
		x.conn.proxy.log.Warn("malformed response", "peer", x.where(), "reason", reset.Reason)
		x.unanswered(upstreamProtocol)
		return false
	}
	x.unanswered(upstreamReset)
	return false
}

// maxInterims is how many interim responses one request may get, as in wire/http2.
const maxInterims = 100

var errInterims = errors.New("interim responses without end")

// head reads the final response head into x.res, and passes interim ones on. False means that the exchange has been ended.
func (x *exchange) head() bool {
	if x.call != nil {
		return x.head2()
	}
	lim := &x.conn.proxy.limits.Head
	interims := 0
	for from := 0; ; {
		n, err := http1.ResponseHeadEnd(x.answer.Bytes(), from, lim)
		if err == nil && n > 0 {
			err = http1.ReadResponse(&x.res, x.answer.Bytes()[:n], x.req.Method(), lim)
		}
		if err != nil {
			x.malformed(err)
			return false
		}
		if n == 0 {
			from = x.answer.Len()
			if err := x.up.More(x.answer); err != nil {
				x.lost(err)
				return false
			}
			continue
		}
		x.answer.Skip(n)
		if x.res.Status >= 200 || x.res.Status == 101 {
			return true
		}
		if interims++; interims > maxInterims {
			x.conn.proxy.metrics.Abuse(telemetry.InterimFlood)
			x.malformed(errInterims)
			return false
		}
		from = 0
		if !x.interim() {
			return false
		}
		if x.answer.Len() == 0 {
			if err := x.refill(); err != nil {
				x.lost(err)
				return false
			}
		}
	}
}

// head2 is head for a stream, whose first head is in x.res.
func (x *exchange) head2() bool {
	for x.res.Status < 200 {
		if !x.interim() {
			return false
		}
		if err := x.call.Head(&x.res); err != nil {
			x.lost(err)
			return false
		}
	}
	return true
}

// content returns the body of x.res.
func (x *exchange) content() source {
	if x.call != nil {
		return x.call
	}
	x.back.begin(&x.up.Link, &x.answer, x.res.BodyLength, x.res.UntilClose, &x.trailers, &x.conn.proxy.limits.Head)
	if x.stream == nil {
		x.down.ahead = &x.back
	}
	return &x.back
}

// where is the endpoint's address, for logs.
func (x *exchange) where() string {
	switch {
	case x.up != nil:
		return x.up.Conn().RemoteAddr().String()
	case x.member != nil:
		return x.member.Address()
	}
	return ""
}

// keep gives the endpoint's connection back for later exchanges, if nothing speaks against it.
func (x *exchange) keep() {
	if x.call != nil {
		x.drop()
		return
	}
	x.watch.up.Store(nil)
	up := x.up
	x.up = nil
	clean := x.answer == nil || x.answer.Len() == 0 // bytes after the answer belong to nobody
	if !clean || x.res.Close || x.res.UntilClose || x.pump != nil && !x.pump.settled() || x.watch.over() {
		up.Drop()
		return
	}
	up.Keep(now())
}

// drop leaves the endpoint: its connection is closed, its stream given back and reset if it has not ended.
func (x *exchange) drop() {
	if up := x.up; up != nil {
		x.watch.up.Store(nil)
		x.up = nil
		up.Drop()
	}
	if call := x.call; call != nil {
		x.watch.call.Store(nil)
		x.call = nil
		if x.pump != nil {
			x.pump.end()
		}
		call.Release()
	}
}
