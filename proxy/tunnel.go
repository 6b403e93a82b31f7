package proxy

import (
	"errors"
	"io"
	"sync"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
)

var errUnasked = errors.New("101 although the request asked for no other protocol")

// upgraded passes a 101 on and from then on bytes, both ways.
func (x *exchange) upgraded() {
	if !x.req.Upgrade {
		x.malformed(errUnasked)
		return
	}
	x.counted(x.res.Status)
	x.spend()
	x.out = http1.AppendResponse(x.out[:0], &x.res, http1.ResponseOptions{Version: x.req.Version})
	x.status = x.res.Status
	if !x.write(x.out) {
		return
	}
	x.tunnel()
}

// connect answers CONNECT. What a service's HTTP port gets is HTTP, treated as such: the connection goes on with the
// requests inside. Anywhere else bytes are tunnelled.
func (x *exchange) connect() {
	if !x.b.spec.Explicit {
		x.say(noRoute, endings[noRoute].status, tooFar(x.req.Authority()))
		return
	}
	if x.target.cluster.Spec.Kind != model.Passthrough && !unread(x.target.cluster.Spec.Protocol) {
		x.inside()
		return
	}
	x.reach()
	if x.up == nil {
		if !x.started && x.outcome == upstreamConnect {
			x.say(x.outcome, endings[x.outcome].status, endings[x.outcome].body)
		}
		return
	}
	x.established()
	if x.complete {
		x.raw, x.silent = true, true // counted as a connection
		x.received, x.sent = 0, 0
		x.tunnel()
	}
}

// inside answers CONNECT for a port of HTTP: the connection goes on with the requests inside, which count; CONNECT does not.
func (x *exchange) inside() {
	x.established()
	_, x.conn.port, _ = message.SplitAuthority(x.req.Authority()) // the codec sees to it that there is a port
	x.silent, x.again = true, true
	if x.undeclared {
		x.conn.inner = append([]byte(nil), x.req.Authority()...)
	}
}

// established answers 200 to CONNECT: no framing, no body.
func (x *exchange) established() {
	c := x.conn
	if c.guard.arm(now() + int64(c.proxy.limits.HeadTimeout)) {
		c.link.Resume()
	}
	x.status = 200
	x.complete = x.write([]byte("HTTP/1.1 200 Connection established\r\n\r\n"))
}

// tunnel copies both ways until both sides have ended.
func (x *exchange) tunnel() {
	c, up := x.conn, x.up
	x.complete, x.again = true, false
	c.guard.waiting.Store(0)
	if c.guard.arm(never) {
		c.link.Resume()
		up.Resume()
	}
	if x.raw {
		f := x.openFlow()
		defer x.closeFlow(f)
		if x.member != nil { // balancers count connections here, where there are no requests to count
			x.member.Host.Active.Add(1)
			defer x.member.Host.Active.Add(-1)
		}
	}
	var there sync.WaitGroup
	there.Go(func() {
		if p := x.pump; p != nil {
			if <-p.finished; !p.sent { // the request's own body comes first
				_, _ = up.Reset(), c.link.Reset()
				return
			}
		}
		x.received += forwardBytes(&up.Link, &c.link, c.in)
		c.in = nil
	})
	x.sent += forwardBytes(&c.link, &up.Link, x.answer)
	x.answer = nil
	there.Wait()
}

// forwardBytes sends first and then all that src gives to dst, and passes the end on. On Linux the kernel moves the bytes.
func forwardBytes(dst, src *link.Link, first *link.Buffer) (n int64) {
	var err error
	if first != nil {
		n = int64(first.Len())
		_, err = dst.Write(first.Bytes())
		link.PutBuffer(first)
	}
	if err == nil {
		var m int64
		m, err = io.Copy(dst.Conn(), src.Conn())
		n += m
	}
	if err == nil && dst.CloseWrite() == nil {
		return n
	}
	_, _ = dst.Reset(), src.Reset() // a failure on one side ends both, and looks like one
	return n
}
