package proxy

import (
	"bytes"
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/outrider-mesh/outrider/mesh/certificate"
	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/balance"
	"github.com/outrider-mesh/outrider/proxy/upstream"
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
)

// connectAttempts is how many endpoints are tried when connecting fails: nothing was sent then, so no request is
// repeated (Istio's default retry policy: two retries on connect-failure).
const connectAttempts = 3

// forward sends the request to an endpoint and its answer to the client.
func (x *exchange) forward() {
	x.target = x.choose()
	if x.target.reply != nil {
		x.direct(x.target.reply)
		return
	}
	if isConnect(&x.req) {
		x.connect()
		return
	}
	if opaque(x.target.cluster.Spec.Protocol) {
		x.say(noRoute, 503, "no route: this port of "+x.target.cluster.Spec.Service.Host+" does not serve HTTP; CONNECT tunnels to it")
		return
	}
	if !x.target.spoken() {
		x.say(upstreamProtocol, endings[upstreamProtocol].status, "this port speaks HTTP/2, which is passed on unread only: CONNECT tunnels to it")
		return
	}
	x.edit()
	var last *upstream.Endpoint
	for n := 1; ; n++ {
		e := x.pick(last)
		if e == nil {
			return
		}
		if x.attempt(e, n) {
			return
		}
		if n == connectAttempts || len(x.target.cluster.Members) == 1 {
			break
		}
		last = e
	}
	x.say(upstreamConnect, endings[upstreamConnect].status, x.whyNot())
}

// whyNot is the text for an endpoint that could not be connected to; what was wrong with its certificate is said.
func (x *exchange) whyNot() string {
	why := endings[upstreamConnect].body
	if h := (*upstream.HandshakeError)(nil); errors.As(x.refused, &h) {
		why += ", transport failure reason: TLS: " + certificate.Reason(h.Err)
	}
	return why
}

// choose draws the route's destination.
func (x *exchange) choose() *target {
	r := x.rule
	if r.split == nil {
		return &r.targets[0]
	}
	return &r.targets[r.split.Pick(&x.conn.rand)]
}

// edit changes the request as the rule, the destination and the mesh ask for.
func (x *exchange) edit() {
	r := &x.req
	if x.b.spec.Direction != model.Inbound {
		stripControls(&r.Head)
		r.Remove(message.XOutriderPeer)
	}
	x.introduce()
	x.rule.request.Request(r)
	x.target.request.Request(r)
	x.rule.rewrite.Apply(r, x.prefix, x.segments, &x.edits)
}

// introduce sets the fields that proxies add: x-request-id, x-forwarded-proto and, at a gateway, x-forwarded-for.
func (x *exchange) introduce() {
	r := &x.req
	gateway := x.b.spec.Direction == model.Gateway
	if gateway {
		x.spare = append(x.spare[:0], forwardedFor(r, x.spare[:0])...)
		if len(x.spare) > 0 {
			x.spare = append(x.spare, ", "...)
		}
		x.spare = x.conn.remote.Addr().AppendTo(x.spare)
		r.SetBytes(message.XForwardedFor, "x-forwarded-for", x.spare)
		r.Remove(message.XRequestID)
	}
	if _, ok := r.Get(message.XForwardedProto); !ok || gateway {
		r.SetBytes(message.XForwardedProto, "x-forwarded-proto", r.Scheme())
	}
	if _, ok := r.Get(message.XRequestID); !ok {
		x.spare = appendRequestID(x.spare[:0], &x.conn.rand)
		r.SetBytes(message.XRequestID, "x-request-id", x.spare)
	}
}

func forwardedFor(r *message.Request, dst []byte) []byte {
	v, _ := r.Values(dst, message.XForwardedFor, "x-forwarded-for")
	return v
}

// pick chooses an endpoint, another than last where there is one; without any it answers and returns nil.
func (x *exchange) pick(last *upstream.Endpoint) *upstream.Endpoint {
	c := x.target.cluster
	if c.Spec.Kind == model.Passthrough {
		return x.dialled(c)
	}
	var k balance.Key
	if c.Hasher != nil {
		k, x.cookie = c.Hasher.Key(&x.req, x.conn.remote.Addr(), &x.conn.rand, &x.hash)
	}
	for range 5 { // a few draws avoid the endpoint that just failed (Istio's hostSelectionRetryMaxAttempts)
		i := c.Balancer.Pick(k, &x.conn.rand)
		if i < 0 {
			x.say(noHealthyEndpoint, endings[noHealthyEndpoint].status, endings[noHealthyEndpoint].body)
			return nil
		}
		x.member = &c.Members[i]
		if x.member.Endpoint != last {
			break
		}
		k.Has = false
	}
	return x.member.Endpoint
}

// dialled finds the endpoint that the request itself names.
func (x *exchange) dialled(c *upstream.Cluster) *upstream.Endpoint {
	if len(x.req.Authority()) == 0 {
		x.say(badRequest, endings[badRequest].status, "the request names no host")
		return nil
	}
	x.spare = appendHostPort(x.spare[:0], x.req.Authority(), x.port)
	return c.Dialled(x.spare, x.begin)
}

// attempt sends the request to e and, when an answer comes, relays it. False means that nothing was sent and another
// endpoint may be tried.
func (x *exchange) attempt(e *upstream.Endpoint, n int) (done bool) {
	if x.member != nil {
		x.member.Host.Active.Add(1)
		defer x.member.Host.Active.Add(-1)
	}
	request := x.encode(n)
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

// lease gets a connection to e: a kept one, or a new one where there is none or fresh asks for it.
func (x *exchange) lease(e *upstream.Endpoint, fresh bool) bool {
	c := x.conn
	if !fresh {
		x.up = e.Lease()
	}
	if x.up == nil {
		up, err := x.dial(e)
		if err != nil {
			c.proxy.log.Debug("cannot connect", "peer", e.Address(), "reason", err)
			x.refused = err
			if c.guard.over() || x.deadline <= now() {
				x.interrupted()
			}
			return false
		}
		if c.listener.leadsTo(&up.Link) {
			up.Drop()
			x.say(loop, endings[loop].status, endings[loop].body)
			return false
		}
		x.up = up
	}
	c.upstream.Store(&x.up.Link)
	if c.guard.over() { // before upstream was there to be interrupted
		x.interrupted()
		return false
	}
	return true
}

// dial connects within the cluster's connect timeout and what is left of the exchange's own.
func (x *exchange) dial(e *upstream.Endpoint) (*upstream.Conn, error) {
	timeout := x.target.cluster.ConnectTimeout
	if x.deadline != never {
		timeout = min(timeout, time.Duration(x.deadline-now()))
		if timeout <= 0 {
			return nil, context.DeadlineExceeded
		}
	}
	c := x.target.cluster
	if c.TLS == nil {
		return e.Dial(x.conn.proxy.life, timeout, nil)
	}
	host, _, _ := message.SplitAuthority(x.req.Authority())
	if c.Spec.Kind != model.Passthrough {
		host = []byte(c.Spec.Service.Host) // connections are shared, so their name is not the request's
	}
	alpn := []string{"http/1.1"}
	if x.raw || isConnect(&x.req) {
		alpn = nil
	}
	up, err := e.Dial(x.conn.proxy.life, timeout, c.TLS.Config(string(host), alpn...))
	x.conn.proxy.handshaken(err)
	return up, err
}

// encode writes the request's head, and behind it the body where that is here as a whole.
func (x *exchange) encode(attempt int) []byte {
	r := &x.req
	if x.b.spec.Direction != model.Inbound {
		x.spare = strconv.AppendInt(x.spare[:0], int64(attempt), 10)
		r.SetBytes(message.XEnvoyAttemptCount, "x-envoy-attempt-count", x.spare)
		if x.member != nil && x.member.Spec.Sidecar {
			r.SetBytes(message.XOutriderPeer, "x-outrider-peer", x.b.peer)
		}
	}
	x.out = http1.AppendRequest(x.out[:0], r, http1.RequestOptions{})
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
	c, up := x.conn, x.up
	c.upstream.Store(nil)
	x.up = nil
	up.Drop()
	switch {
	case errors.Is(err, link.ErrStale) && up.Reused:
		return true
	case x.ended(err):
		return false
	case up.Reused && !x.resent && !x.streams && idempotent(x.req.Method()):
		x.resent = true
		c.proxy.stats.resent.Add(1)
		return true
	}
	x.counted(endings[upstreamReset].status)
	x.say(upstreamReset, endings[upstreamReset].status, endings[upstreamReset].body)
	return false
}

// counted counts what the endpoint gave for an answer.
func (x *exchange) counted(status int) {
	if x.member != nil && x.member.Counter != nil {
		x.member.Counter.Record(status)
	}
}

// idempotent says whether a request of this method may be processed twice (RFC 9110 §9.2.2).
func idempotent(method []byte) bool {
	switch string(method) {
	case "GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE":
		return true
	}
	return false
}

func isConnect(r *message.Request) bool { return string(r.Method()) == "CONNECT" }

// appendHostPort appends authority with a port, the given one where it has none.
func appendHostPort(dst, authority []byte, port int) []byte {
	host, p, _ := message.SplitAuthority(authority)
	if p != 0 {
		port = p
	}
	bare := bytes.IndexByte(host, ':') >= 0 && host[0] != '['
	if bare {
		dst = append(dst, '[')
	}
	dst = append(dst, host...)
	if bare {
		dst = append(dst, ']')
	}
	return strconv.AppendInt(append(dst, ':'), int64(port), 10)
}
