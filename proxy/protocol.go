package proxy

import (
	"crypto/tls"
	"errors"
	"time"

	"github.com/outrider-mesh/outrider/mesh/certificate"
	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/detect"
	"github.com/outrider-mesh/outrider/proxy/upstream"
	"github.com/outrider-mesh/outrider/wire/link"
)

// defaultDetect is how long a client on a port without a declared protocol may stay silent before its server is taken
// for one that speaks first. Istio waits for ever by default, and such servers hang.
const defaultDetect = 500 * time.Millisecond

// speak finds out what is spoken on a new connection, as far as the listener asks for it, and serves what is not HTTP.
// True says that HTTP is to be served.
func (c *conn) speak() bool {
	b := c.listener.live.Load()
	switch {
	case c.inner.name != nil: // a CONNECT led here
		return c.within()
	case b.server != nil:
		return c.secure(b)
	case b.spec.Protocol == model.TCP:
		c.pass(nil)
	case opaque(b.spec.Protocol):
		c.byName()
	case b.spec.Protocol == model.Auto:
		return c.detect(b.spec.Detect.Std(), nil)
	default:
		return true
	}
	return false
}

// detect tells protocols apart by the client's first bytes. name is what an opaque connection is matched by.
func (c *conn) detect(wait time.Duration, name []byte) bool {
	m := c.proxy.metrics
	kind := c.first(wait)
	if kind == detect.More && c.in == nil && !c.gone && !c.leads(name) {
		if kind = c.ahead(); c.in == nil {
			return false
		}
	}
	switch kind {
	case detect.HTTP1:
		m.Detected(telemetry.DetectedHTTP1)
		return true
	case detect.HTTP2:
		m.Detected(telemetry.DetectedHTTP2)
		return true
	case detect.TLS:
		m.Detected(telemetry.DetectedTLS)
		if name == nil {
			c.byName()
			return false
		}
	case detect.More:
		if c.in == nil {
			m.Detected(telemetry.DetectedSilent)
			c.listener.silent.Do(func() {
				c.proxy.log.Warn("a client on a port without a declared protocol waits for the server to speak; declare the port as tcp to spare it the wait",
					"listener", c.listener.asked)
			})
			break
		}
		m.Detected(telemetry.DetectedTCP)
	default:
		m.Detected(telemetry.DetectedTCP)
	}
	if c.in == nil && c.gone {
		return false
	}
	c.pass(name)
	return false
}

// within finds out what is spoken inside of a CONNECT that was answered, and serves what is not HTTP.
func (c *conn) within() bool {
	in := c.inner
	c.inner, c.agreed = inner{}, ""
	return in.declared || c.detect(0, in.name)
}

// first waits for the bytes that tell what is spoken, at most for so long; More says that they did not come.
func (c *conn) first(wait time.Duration) detect.Kind {
	if wait <= 0 {
		wait = defaultDetect
	}
	if wait < fineBelow {
		c.proxy.conns.hurry()
		defer c.proxy.conns.relax()
	}
	c.watch.arm(now() + int64(wait))
	return c.kind()
}

// ahead is first for a silent client where there is no server that could speak first: the connection was opened ahead of
// its first request, and may be kept as long as one on a port of HTTP.
func (c *conn) ahead() detect.Kind {
	c.watch.rest(now() + int64(c.proxy.limits.HeadTimeout))
	if !c.await(true) {
		return detect.More
	}
	c.watch.arm(now() + int64(c.proxy.limits.HeadTimeout))
	return c.kind()
}

// kind reads until it is known what is spoken, or the phase is over.
func (c *conn) kind() detect.Kind {
	for {
		kind := detect.More
		if c.in != nil {
			kind = detect.First(c.in.Bytes())
		}
		if kind != detect.More {
			return kind
		}
		if err := c.fill(); err != nil {
			c.gone = !link.Interrupted(err)
			return detect.More
		}
	}
}

// fill waits for more of what the client sends first.
func (c *conn) fill() (err error) {
	if c.in != nil {
		return c.link.More(c.in)
	}
	c.in, err = c.link.Receive()
	return err
}

// byName passes a TLS connection on, unopened, by the server name that the client asks for; what is no TLS, by none.
func (c *conn) byName() {
	name, err := c.hello()
	if err != nil && c.in == nil {
		return // it left, or said nothing in time
	}
	c.pass(name)
}

// hello reads the client's hello without taking it out of the buffer.
func (c *conn) hello() (name []byte, err error) {
	c.watch.arm(now() + int64(c.proxy.limits.HeadTimeout))
	var h detect.Hello
	for {
		if c.in != nil {
			n, err := detect.ReadHello(c.in.Bytes(), &h)
			if err != nil || n > 0 {
				name = append([]byte(nil), h.ServerName...)
				c.named(string(name))
				return name, err
			}
		}
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
}

// handshaken counts a handshake with an upstream, by what dialling ended with.
func (p *Proxy) handshaken(err error) {
	h := (*upstream.HandshakeError)(nil)
	switch {
	case err == nil:
		p.metrics.Handshake(telemetry.ClientSide, telemetry.HandshakeOK)
	case errors.As(err, &h):
		p.metrics.Handshake(telemetry.ClientSide, telemetry.HandshakeOf(certificate.Reason(h.Err)))
	}
}

// secure takes a TLS connection: opened here, or passed on by its server name, as the listener's chains say. True says
// that HTTP is to be served inside.
func (c *conn) secure(b *binding) bool {
	m := c.proxy.metrics
	chain := (*model.ServerTLS)(nil)
	if b.server.Passes() {
		name, err := c.hello()
		if err != nil {
			m.Handshake(telemetry.ServerSide, telemetry.HandshakeOf(certificate.Reason(err)))
			return false
		}
		if chain = b.server.Match(name); chain != nil && chain.Mode == model.PassthroughTLS {
			c.table = chain.Table
			c.pass(name)
			return false
		}
	}
	c.watch.arm(now() + int64(c.proxy.limits.HeadTimeout))
	t := tls.Server(c.link.Replay(c.in), b.tls)
	c.in = nil
	if err := t.HandshakeContext(c.proxy.life); err != nil {
		if link.Interrupted(err) {
			m.Abuse(telemetry.SlowHandshake)
		}
		reason := certificate.Reason(err)
		m.Handshake(telemetry.ServerSide, telemetry.HandshakeOf(reason))
		c.proxy.log.Info("TLS handshake failed", "listener", c.listener.asked, "peer", c.remote.String(), "reason", reason)
		if !link.Interrupted(err) && reason != "closed" {
			c.linger() // our alert says why, and a client of TLS 1.3 may have sent requests already
		}
		return false
	}
	m.Handshake(telemetry.ServerSide, telemetry.HandshakeOK)
	state := t.ConnectionState()
	if chain = b.server.Chain(state); chain == nil {
		return false
	}
	c.link.Secure(t)
	c.named(state.ServerName)
	c.table = chain.Table
	if chain.Protocol == model.TCP {
		c.pass([]byte(state.ServerName))
		return false
	}
	c.agreed = state.NegotiatedProtocol
	c.watch.rest(now() + int64(c.proxy.limits.HeadTimeout)) // idle, until the first request
	return true
}
