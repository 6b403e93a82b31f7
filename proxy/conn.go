package proxy

import (
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/link"
)

// conn is one client connection. Its goroutine reads requests and carries them, one after the other, all the way.
type conn struct {
	proxy    *Proxy
	listener *listener
	link     link.Link
	remote   netip.AddrPort
	// in holds bytes that were received and not yet used; nil while there are none.
	in    *link.Buffer
	watch watch
	// session serves the connection where it is one of HTTP/2.
	session atomic.Pointer[session]
	// port is what CONNECT named, for the requests inside; 0 outside of one.
	port int
	// table names the route table that the TLS chain of the connection has, "" for the listener's.
	table string
	// inner is what CONNECT named: the protocol of the bytes inside has to be found out.
	inner inner
	// agreed is the protocol that ALPN agreed on, or "": nothing else may follow (RFC 7301 §3.2).
	agreed string
	// asked is the server name that the client asked for in TLS, where somebody logs it.
	asked string
	// gone says that the client went away before it said anything.
	gone bool
}

// inner is what a CONNECT that was answered leads to.
type inner struct {
	name     []byte // authority, nil outside of one
	declared bool   // the port is one of HTTP: nothing else may follow
}

func newConn(l *listener, nc net.Conn) *conn {
	c := &conn{proxy: l.proxy, listener: l}
	if err := c.link.Init(nc); err != nil {
		l.proxy.log.Error("cannot use connection", "peer", nc.RemoteAddr(), "reason", err)
		return nil
	}
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		c.remote = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	c.watch.client = &c.link
	c.watch.rest(now() + int64(l.proxy.limits.HeadTimeout))
	return c
}

// serve carries exchanges until the connection ends.
func (c *conn) serve() {
	defer c.end()
	if !c.speak() {
		return
	}
	if c.agreed == "h2" {
		c.multiplex()
		return
	}
	for fresh := true; c.await(fresh); {
		if fresh && c.agreed == "" && c.version2() {
			c.multiplex()
			return
		}
		fresh = false
		x := getExchange(c)
		again := x.run()
		putExchange(x)
		if !again {
			return
		}
		if c.inner.name != nil {
			if !c.within() {
				return
			}
			fresh = true
		}
		c.watch.waiting.Store(0)
		c.watch.rest(now() + int64(c.proxy.limits.Idle))
	}
}

// heads are the limits of requests' heads.
func (c *conn) heads() (l http1.Limits) {
	l = c.proxy.limits.Head
	switch c.listener.live.Load().spec.Direction {
	case model.Gateway:
		l.NoUnderscore = !c.proxy.limits.Underscores
	case model.Inbound:
		l.Head += addedBytes
	}
	return l
}

// addedBytes is for a head that was within the limit where it came in: proxies before a sidecar have added fields, and in
// HTTP/2 each of 100 counts for 28 bytes more than in HTTP/1.
const addedBytes = 8 << 10

// version2 says whether the connection's first bytes are those of HTTP/2: by prior knowledge it may be spoken wherever
// HTTP is. What begins so and goes on otherwise is refused by the codec of HTTP/1.
func (c *conn) version2() bool {
	for {
		b := c.in.Bytes()
		n := min(len(b), len(http2.Preface))
		switch {
		case string(b[:n]) != http2.Preface[:n]:
			return false
		case n == len(http2.Preface):
			return true
		case n == 1: // a "P" may begin a POST
			c.watch.arm(now() + int64(c.proxy.limits.HeadTimeout))
		}
		if c.link.More(c.in) != nil {
			return false
		}
	}
}

// await waits for the first byte of a request; false means that the connection is over. fresh says that none came before.
func (c *conn) await(fresh bool) bool {
	if c.in != nil {
		return true
	}
	if !c.leaving() { // retire meets an idle connection from here on, and ends the wait
		in, err := c.link.Receive()
		if err == nil {
			c.in = in
			return true
		}
		if !link.Interrupted(err) || !c.leaving() {
			if fresh && link.Interrupted(err) {
				c.proxy.metrics.Abuse(telemetry.SlowHandshake)
			}
			return false
		}
	}
	// Told to leave: a request that is there already is still served.
	c.link.Resume()
	if c.link.Pending() {
		c.in, _ = c.link.Receive()
	}
	return c.in != nil
}

// leaving says that no further exchange is to begin.
func (c *conn) leaving() bool { return c.listener.retired.Load() }

// retire ends the connection if it is idle; a busy one sees leaving when its exchange is done.
func (c *conn) retire() {
	if s := c.session.Load(); s != nil {
		s.retire()
		return
	}
	c.watch.retire(c.link.InterruptRead)
	c.watch.ring()
}

// tell counts what passes on exchanges that last.
func (c *conn) tell() {
	if s := c.session.Load(); s != nil {
		s.tell()
	}
}

// cut ends the connection now, whatever it does.
func (c *conn) cut() {
	c.link.Cut()
	if up := c.watch.up.Load(); up != nil {
		up.Cut()
	}
	if call := c.watch.call.Load(); call != nil {
		call.Interrupt()
	}
}

// end gives back all that the connection holds.
func (c *conn) end() {
	if c.in != nil {
		link.PutBuffer(c.in)
		c.in = nil
	}
	_ = c.link.Close()
	c.proxy.conns.remove(c)
	c.listener.open.Add(-1)
}

// consumed releases the read buffer once nothing is left in it.
func (c *conn) consumed() {
	if c.in != nil && c.in.Len() == 0 {
		link.PutBuffer(c.in)
		c.in = nil
	}
}

const (
	// lingerFor and lingerBytes bound how long a connection that is closed with unread bytes keeps reading, so that the
	// kernel does not answer them with a reset which would take our last answer with it (RFC 9112 §9.6). A client that
	// sends more has had the time to see the answer.
	lingerFor   = 2 * time.Second
	lingerBytes = 64 << 20
)

// linger ends our side and reads what the client still sends, for a while.
func (c *conn) linger() {
	if c.link.CloseWrite() != nil {
		return
	}
	c.watch.arm(now() + int64(lingerFor))
	c.watch.waiting.Store(0)
	for n := 0; n < lingerBytes; {
		b, err := c.link.Receive()
		if err != nil {
			return
		}
		n += b.Len()
		link.PutBuffer(b)
	}
}
