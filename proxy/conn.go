package proxy

import (
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/proxy/balance"
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
	guard guard
	// upstream is the link that the exchange under way waits on, for interrupt.
	upstream atomic.Pointer[link.Link]
	rand     balance.Rand
	// port is what CONNECT named, for the requests inside; 0 outside of one.
	port int
	// table names the route table that the TLS chain of the connection has, "" for the listener's.
	table string
	// inner is what CONNECT named where the protocol of the bytes inside has to be found out.
	inner []byte
	// gone says that the client went away before it said anything.
	gone bool
}

func newConn(l *listener, nc net.Conn) *conn {
	c := &conn{proxy: l.proxy, listener: l, rand: balance.NewRand(l.proxy.seed())}
	if err := c.link.Init(nc); err != nil {
		l.proxy.log.Error("cannot use connection", "peer", nc.RemoteAddr(), "reason", err)
		return nil
	}
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		ap := a.AddrPort()
		c.remote = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
	}
	c.guard.rest(now() + int64(l.proxy.limits.HeadTimeout))
	return c
}

// serve carries exchanges until the connection ends.
func (c *conn) serve() {
	defer c.end()
	if !c.speak() {
		return
	}
	for c.await() {
		x := getExchange(c)
		again := x.run()
		putExchange(x)
		if !again {
			return
		}
		if name := c.inner; name != nil {
			if c.inner = nil; !c.detect(0, name) {
				return
			}
		}
		c.guard.waiting.Store(0)
		if c.guard.rest(now() + int64(c.proxy.limits.Idle)) {
			c.link.Resume() // the exchange was over when its time was
		}
	}
}

// await waits for the first byte of a request; false means that the connection is over.
func (c *conn) await() bool {
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
func (c *conn) retire() { c.guard.retire(c.link.InterruptRead) }

// interrupt ends every wait of the connection's goroutine.
func (c *conn) interrupt() {
	c.link.Interrupt()
	if up := c.upstream.Load(); up != nil {
		up.Interrupt()
	}
}

// cut ends the connection now, whatever it does.
func (c *conn) cut() {
	c.link.Cut()
	if up := c.upstream.Load(); up != nil {
		up.Cut()
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
	if c.guard.arm(now() + int64(lingerFor)) {
		c.link.Resume()
	}
	c.guard.waiting.Store(0)
	for n := 0; n < lingerBytes; {
		b, err := c.link.Receive()
		if err != nil {
			return
		}
		n += b.Len()
		link.PutBuffer(b)
	}
}
