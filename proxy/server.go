package proxy

import (
	"errors"

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
func (x *exchange) attempt1(e *upstream.Endpoint) verdict {
	if x.req.Upgrade {
		x.toUpgrade()
	}
	request := x.encode()
	for fresh := false; ; fresh = true {
		if v := x.lease(e, fresh); v != answered {
			return v
		}
		answer, err := x.send(request)
		if err == nil {
			x.answer = answer
			return x.head1()
		}
		v, again := x.resend(err)
		if !again {
			return v
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
	if whole, ok := x.behind(request); ok {
		return up.Ask(whole)
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

// resend decides what the end of a connection before any answer means: again asks for the request to be sent once more, on
// another connection, when it certainly was not processed or may be processed twice (RFC 9110 §9.2.2). A fresh connection
// that fails is not replaced: its peer closes or speaks first each time.
func (x *exchange) resend(err error) (v verdict, again bool) {
	reused := x.up.Reused
	if errors.Is(err, link.ErrStale) && reused {
		x.drop()
		return failed, true
	}
	v, stopped := x.broke(err)
	switch {
	case stopped:
		x.drop()
		return v, false
	case reused && x.repeatable():
		x.drop()
		return failed, true
	}
	x.drop()
	return x.fail(upstreamReset, unknown), false
}

// repeatable says whether the request may be sent once more although an endpoint may have seen it, and counts that.
func (x *exchange) repeatable() bool {
	if x.resent || x.told || !idempotent(x.req.Method()) || x.pump != nil && !x.pump.body.claim() {
		return false
	}
	x.resent = true
	x.conn.proxy.stats.resent.Add(1)
	return true
}

// attempt2 is an attempt over a stream of a shared connection. only1 says that e turned out to speak HTTP/1 alone.
func (x *exchange) attempt2(e *upstream.Endpoint) (v verdict, only1 bool) {
	for refused := 0; ; {
		s, err := x.share(e)
		switch {
		case errors.Is(err, upstream.ErrHTTP1):
			return failed, true
		case errors.Is(err, errLoop):
			return x.fail(loop, unsent), false
		case err != nil:
			return x.unconnected(e, err), false
		}
		switch err := x.open(s); {
		case errors.Is(err, http2.ErrNoStreams):
			continue // others took its last streams
		case errors.Is(err, upstream.ErrTooMany):
			return x.overflow(upstream.OverflowRequests), false
		case errors.Is(err, errNoUpgrade):
			return x.failWith(upstreamProtocol, endings[upstreamProtocol].status, err.Error(), unsent), false
		case err != nil:
			return x.failWith(badRequest, 431, "the endpoint takes no head of that size", unsent), false
		}
		err = x.call.Head(&x.res)
		if err == nil {
			return x.head2(), false
		}
		var again bool
		if v, again = x.reopen(err); !again {
			return v, false
		}
		if refused++; refused == connectAttempts {
			return x.fail(upstreamReset, unhandled), false
		}
	}
}

// share finds a connection to e that takes one more stream.
func (x *exchange) share(e *upstream.Endpoint) (*upstream.Shared, error) {
	max := x.target.cluster.Spec.MaxStreams
	sends := int64(0)
	if x.streams || x.inline > 0 || x.req.Upgrade {
		sends = now()
	}
	if s := e.Share(max, sends); s != nil {
		return s, nil
	}
	timeout, err := x.patience()
	if err != nil {
		return nil, err
	}
	return x.connect2(e, timeout, max, sends)
}

var errNoUpgrade = errors.New("the endpoint does not take an upgrade over HTTP/2 (RFC 8441)")

// open opens a stream on s and sends the request.
func (x *exchange) open(s *upstream.Shared) error {
	if x.req.Upgrade {
		if x.streams || x.inline > 0 || !s.Upgrades(x.conn.proxy.limits.HeadTimeout) {
			s.Unused()
			return errNoUpgrade
		}
		x.toConnect()
	}
	call, err := s.Open(&x.admission, x.target.cluster.Spec.MaxStreams, &x.req, !x.streams && x.inline == 0 && !x.req.Upgrade)
	if err != nil {
		return err
	}
	x.call, x.shared = call, s
	x.connected()
	x.watch.call.Store(call)
	if x.watch.over() { // before the call was there to be interrupted
		call.Interrupt()
	}
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
func (x *exchange) reopen(err error) (v verdict, again bool) {
	defer x.drop()
	reset := (*mux.ResetError)(nil)
	errors.As(err, &reset)
	refused := refusedStream(err)
	if v, stopped := x.broke(err); stopped && !(refused && v == failed) {
		return v, false
	}
	switch {
	case refused && reset.Gone: // the connection's end crossed the request, which is nobody's refusal
		return x.fail(upstreamReset, unhandled), x.pump == nil || x.pump.body.claim()
	case refused: // whether a refusal is asked about again, how often and after what wait, is the policy's
		return x.fail(streamReset, unhandled), false
	case reset != nil && reset.Remote && reset.Gone && x.repeatable():
		return failed, true
	case reset != nil && !reset.Remote:
		x.conn.proxy.log.Warn("malformed response", "peer", x.where(), "reason", reset.Reason)
		return x.fail(upstreamProtocol, unknown), false
	}
	return x.fail(blame(err), unknown), false
}

// maxInterims is how many interim responses one request may get, as in wire/http2.
const maxInterims = 100

var errInterims = errors.New("interim responses without end")

// head1 reads the final response head into x.res, and passes interim ones on.
func (x *exchange) head1() verdict {
	lim := &x.conn.proxy.limits.Head
	interims := 0
	for from := 0; ; {
		n, err := http1.ResponseHeadEnd(x.answer.Bytes(), from, lim)
		if err == nil && n > 0 {
			err = http1.ReadResponse(&x.res, x.answer.Bytes()[:n], x.req.Method(), lim)
		}
		if err != nil {
			return x.malformed(err)
		}
		if n == 0 {
			from = x.answer.Len()
			if err := x.up.More(x.answer); err != nil {
				return x.lost(err, upstreamCut)
			}
			continue
		}
		x.answer.Skip(n)
		if x.res.Status >= 200 || x.res.Status == 101 {
			return x.agreed()
		}
		if interims++; interims > maxInterims {
			x.conn.proxy.metrics.Abuse(telemetry.InterimFlood)
			return x.malformed(errInterims)
		}
		from = 0
		if !x.interim() {
			return over
		}
		if x.answer.Len() == 0 {
			if err := x.refill(); err != nil {
				return x.lost(err, upstreamReset)
			}
		}
	}
}

// head2 is head1 for a stream, whose first head is in x.res.
func (x *exchange) head2() verdict {
	for x.res.Status < 200 {
		if !x.interim() {
			return over
		}
		if err := x.call.Head(&x.res); err != nil {
			return x.lost(err, blame(err))
		}
	}
	return x.agreed()
}

// agreed sees to it that a final head is one that the request can be answered with.
func (x *exchange) agreed() verdict {
	switched := x.res.Status == 101
	switch {
	case switched && (!x.req.Upgrade || !asked(x.req.UpgradeTo(), x.res.UpgradeTo())):
		return x.malformed(errUnasked)
	case x.stream != nil && x.call == nil && x.req.Upgrade && x.res.Status/100 == 2:
		return x.malformed(errNoSwitch) // to the client it would be consent (RFC 8441 §5)
	}
	return answered
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
	if up == nil {
		return // by yield
	}
	x.up = nil
	x.admission.Done()
	clean := x.answer == nil || x.answer.Len() == 0 // bytes after the answer belong to nobody
	if !clean || x.res.Close || x.res.UntilClose || x.pump != nil && !x.pump.settled() || x.watch.over() {
		up.Drop()
		return
	}
	up.Keep(now())
}

// drop leaves the endpoint: what sends the request's body ends, its connection is closed, its stream given back and reset if
// it has not ended.
func (x *exchange) drop() {
	if x.answer != nil {
		link.PutBuffer(x.answer)
		x.answer = nil
	}
	if x.up == nil && x.call == nil {
		return
	}
	if x.pump != nil {
		x.pump.end()
	}
	if up := x.up; up != nil {
		x.watch.up.Store(nil)
		x.up = nil
		x.admission.Done()
		up.Drop()
	}
	if call := x.call; call != nil {
		x.watch.call.Store(nil)
		x.call = nil
		x.shared.Close(call, &x.admission)
		x.shared = nil
	}
}
