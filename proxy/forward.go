package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/outrider-mesh/outrider/mesh/certificate"
	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/balance"
	"github.com/outrider-mesh/outrider/proxy/upstream"
	"github.com/outrider-mesh/outrider/wire/message"
)

// connectAttempts is how many endpoints a connection that is passed on is tried with, and how often a request is sent that
// an endpoint's connection turns out not to take any more.
const connectAttempts = 3

// forward sends the request to an endpoint and its answer to the client.
func (x *exchange) forward() {
	x.target = x.choose()
	if x.target.reply != nil {
		x.direct(x.target.reply)
		return
	}
	switch string(x.req.Method()) {
	case "CONNECT":
		x.connect()
		return
	case "OPTIONS", "TRACE":
		if x.lastHop() {
			return
		}
	}
	if opaque(x.target.cluster.Spec.Protocol) {
		x.say(noRoute, 503, "no route: this port of "+x.target.cluster.Spec.Service.Host+" does not serve HTTP; CONNECT tunnels to it")
		return
	}
	x.edit()
	if x.rule.mirrors != nil {
		x.mirror()
	}
	switch x.protect() {
	case answered:
		x.relay()
	case failed:
		x.unanswered()
	}
}

// choose draws the route's destination.
func (x *exchange) choose() *target {
	r := x.rule
	if r.split == nil {
		return &r.targets[0]
	}
	return &r.targets[r.split.Pick(&x.rand)]
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
	x.remember()
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
		r.RemoveName("x-forwarded-client-cert") // who writes it vouches for a client (Istio's gateways sanitize it)
	}
	if _, ok := r.Get(message.XForwardedProto); !ok || gateway {
		r.SetBytes(message.XForwardedProto, "x-forwarded-proto", r.Scheme())
	}
	if _, ok := r.Get(message.XRequestID); !ok {
		x.spare = appendRequestID(x.spare[:0], &x.rand)
		r.SetBytes(message.XRequestID, "x-request-id", x.spare)
	}
}

func forwardedFor(r *message.Request, dst []byte) []byte {
	v, _ := r.Values(dst, message.XForwardedFor, "x-forwarded-for")
	return v
}

// pick chooses an endpoint, another than those that were tried where one is left; without any it says why and returns nil.
func (x *exchange) pick() (*upstream.Endpoint, verdict) {
	c := x.target.cluster
	if c.Spec.Kind == model.Passthrough {
		return x.dialled(c)
	}
	var k balance.Key
	if c.Hasher != nil {
		k, x.cookie = c.Hasher.Key(&x.req, x.conn.remote.Addr(), &x.rand, &x.hash)
	}
	i := -1
	if x.tries > 1 && !x.retries().spec.SameHosts {
		i = c.Balancer.PickOther(k, &x.rand, x.picked, x.retries().spec.RemoteLocalities)
	} else {
		i = c.Balancer.Pick(k, &x.rand)
	}
	if i < 0 {
		return nil, x.fail(noHealthyEndpoint, unsent)
	}
	x.member = &c.Members[i]
	x.picked = append(x.picked, i)
	return x.member.Endpoint, failed
}

// dialled finds the endpoint that the request itself names.
func (x *exchange) dialled(c *upstream.Cluster) (*upstream.Endpoint, verdict) {
	if len(x.req.Authority()) == 0 {
		return nil, x.failWith(badRequest, endings[badRequest].status, "the request names no host", unsent)
	}
	x.spare = appendHostPort(x.spare[:0], x.req.Authority(), x.port)
	return c.Dialled(x.spare, x.begin), failed
}

// lease gets a connection to e: a kept one, or a new one where there is none or fresh asks for it. The verdict is answered
// where there is one.
func (x *exchange) lease(e *upstream.Endpoint, fresh bool) verdict {
	if !fresh {
		x.up = e.Lease()
	}
	if x.up == nil {
		up, err := x.dial(e, fresh)
		if err != nil {
			return x.unconnected(e, err)
		}
		if x.conn.listener.leadsTo(&up.Link) {
			up.Drop()
			return x.fail(loop, unsent)
		}
		x.up = up
	}
	if !x.opaque() {
		if err := e.Admit(&x.admission); err != nil {
			x.up.Unused(now())
			x.up = nil
			return x.unconnected(e, err)
		}
	}
	x.connected()
	x.watch.up.Store(&x.up.Link)
	if x.watch.over() { // before up was there to be interrupted
		v, _ := x.broke(nil)
		return v
	}
	return answered
}

// unconnected notes that e could not be connected to, if it was not for the exchange's time; what was wrong with the
// endpoint's certificate is said.
func (x *exchange) unconnected(e *upstream.Endpoint, err error) verdict {
	if what, ok := overflowed(err); ok {
		return x.overflow(what)
	}
	x.conn.proxy.log.Debug("cannot connect", "peer", e.Address(), "reason", err)
	if v, stopped := x.broke(err); stopped {
		return v
	}
	why := endings[upstreamConnect].body
	if h := (*upstream.HandshakeError)(nil); errors.As(err, &h) {
		x.distrust = "TLS: " + certificate.Reason(h.Err)
		why += ", transport failure reason: " + x.distrust
		x.target.cluster.Distrusted.Do(func() {
			x.conn.proxy.log.Warn("no TLS with an endpoint; it is said once", "service", x.target.cluster.Spec.Service.Host, "peer", e.Address(), "reason", h.Err)
		})
	}
	if d := (*net.DNSError)(nil); errors.As(err, &d) {
		why += ": the name " + d.Name + " cannot be resolved" // a misspelt service is taken for a host outside the mesh
	}
	return x.failWith(upstreamConnect, endings[upstreamConnect].status, why, unsent)
}

// patience is how long connecting may take: the cluster's connect timeout, or what is left of the exchange's own.
func (x *exchange) patience() (time.Duration, error) {
	timeout := x.target.cluster.ConnectTimeout
	if due := x.tryDue(); due != never {
		timeout = min(timeout, time.Duration(due-now()))
		if timeout <= 0 {
			return 0, context.DeadlineExceeded
		}
	}
	return timeout, nil
}

// dial opens a connection for HTTP/1, or for bytes; where the destination has limits, it may wait for one that is given back.
func (x *exchange) dial(e *upstream.Endpoint, fresh bool) (*upstream.Conn, error) {
	timeout, err := x.patience()
	if err != nil {
		return nil, err
	}
	turn := x.queue(fresh)
	defer x.watch.dequeue(turn)
	alpn := []string{"http/1.1"}
	if x.opaque() {
		alpn = nil
	}
	return x.conn.proxy.dial(e, timeout, x.secure(alpn...), turn)
}

// connect2 opens a connection for HTTP/2, unless somebody else is about to.
func (x *exchange) connect2(e *upstream.Endpoint, timeout time.Duration, most uint32, sends int64) (*upstream.Shared, error) {
	turn := x.queue(false)
	defer x.watch.dequeue(turn)
	return x.conn.listener.apart(x.conn.proxy.connect(e, timeout, x.secure("h2", "http/1.1"), most, sends, turn))
}

// secure is how TLS is spoken to the target, nil where it is not.
func (x *exchange) secure(alpn ...string) *tls.Config {
	c := x.target.cluster
	host, _, _ := message.SplitAuthority(x.req.Authority())
	if c.Spec.Kind != model.Passthrough {
		host = []byte(c.Spec.Service.Host) // connections are shared, so their name is not the request's
	}
	return secured(c, string(host), alpn...)
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

// isConnect says whether r asks for a tunnel; extended CONNECT is an upgrade and has another method by now.
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
