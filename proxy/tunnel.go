package proxy

import (
	"io"
	"net"
	"sync"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
)

// upgraded passes a 101 on and from then on bytes, both ways.
func (x *exchange) upgraded() {
	x.out = http1.AppendResponse(x.out[:0], &x.res, http1.ResponseOptions{Version: x.req.Version})
	x.started, x.status = true, x.res.Status
	if !x.write(x.out) {
		return
	}
	x.tunnel()
}

// connect answers CONNECT. What a service's HTTP port gets is HTTP, treated as such: the connection goes on with the
// requests inside. Anywhere else bytes are tunnelled.
func (x *exchange) connect() {
	c := x.conn
	if !x.b.spec.Explicit {
		x.say(noRoute, endings[noRoute].status, tooFar(x.req.Authority()))
		return
	}
	if x.target.cluster.Spec.Kind != model.Passthrough {
		x.established()
		c.port = portOf(x.req.Authority(), x.b.port)
		x.silent, x.again = true, true
		return
	}
	e := x.dialled(x.target.cluster)
	if e == nil {
		return
	}
	if !x.lease(e, true) {
		if x.outcome == passed {
			x.say(upstreamConnect, endings[upstreamConnect].status, endings[upstreamConnect].body)
		}
		return
	}
	x.established()
	if x.complete {
		x.tunnel()
	}
}

// established answers 200 to CONNECT: no framing, no body.
func (x *exchange) established() {
	x.started, x.status = true, 200
	x.complete = x.write([]byte("HTTP/1.1 200 Connection established\r\n\r\n"))
}

// tunnel copies both ways until both sides have ended.
func (x *exchange) tunnel() {
	c, up := x.conn, x.up
	x.complete, x.again = true, false
	c.guard.arm(never)
	c.guard.waiting.Store(0)
	var there sync.WaitGroup
	there.Go(func() {
		x.received += forwardBytes(&up.Link, &c.link, c.in)
		c.in = nil
	})
	x.sent += forwardBytes(&c.link, &up.Link, x.answer)
	x.answer = nil
	there.Wait()
}

// forwardBytes sends first and then all that src gives to dst, and passes the end on. On Linux the kernel moves the bytes.
func forwardBytes(dst, src *link.Link, first *link.Buffer) (n int64) {
	if first != nil {
		n = int64(first.Len())
		err := dst.Write(first.Bytes())
		link.PutBuffer(first)
		if err != nil {
			_ = src.Close()
			return 0
		}
	}
	m, err := io.Copy(dst.Conn(), src.Conn())
	if t, ok := dst.Conn().(*net.TCPConn); ok && err == nil {
		_ = t.CloseWrite()
		return n + m
	}
	_ = dst.Close() // a failure on one side ends both
	_ = src.Close()
	return n + m
}

// portOf returns the port of authority, or other where it has none.
func portOf(authority []byte, other int) int {
	if _, port, ok := message.SplitAuthority(authority); ok && port != 0 {
		return port
	}
	return other
}
