package proxy

import (
	"crypto/tls"
	"errors"
	"time"

	"github.com/outrider-mesh/outrider/proxy/upstream"
)

// This file opens connections to endpoints, for exchanges, their copies and questions to rate limit services.

// secured is how TLS is spoken to a cluster under that name, nil where it is not.
func secured(c *upstream.Cluster, host string, alpn ...string) *tls.Config {
	if c.TLS == nil {
		return nil
	}
	return c.TLS.Config(host, alpn...)
}

// dial is upstream.Endpoint.Dial; it counts the handshake.
func (p *Proxy) dial(e *upstream.Endpoint, timeout time.Duration, secure *tls.Config, t *upstream.Turn) (*upstream.Conn, error) {
	up, err := e.Dial(p.life, timeout, secure, t)
	if secure != nil {
		p.handshaken(err)
	}
	return up, err
}

// connect is upstream.Endpoint.Connect; it counts the handshake.
func (p *Proxy) connect(e *upstream.Endpoint, timeout time.Duration, secure *tls.Config, most uint32, sends int64, t *upstream.Turn) (*upstream.Shared, error) {
	s, err := e.Connect(p.life, timeout, secure, most, sends, t)
	if secure != nil {
		p.handshaken(err)
	}
	return s, err
}

var errLoop = errors.New("the connection comes back to this proxy")

// apart refuses a connection that comes back to this proxy.
func (l *listener) apart(s *upstream.Shared, err error) (*upstream.Shared, error) {
	if err == nil && l.leadsTo(s.Link()) {
		s.Cut()
		return nil, errLoop
	}
	return s, err
}
