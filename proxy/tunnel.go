package proxy

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
)

var errUnasked = errors.New("101 to a protocol that the request did not ask for")

// upgraded passes the answer to an upgrade on and from then on bytes, both ways.
func (x *exchange) upgraded() {
	x.counted(x.res.Status)
	x.spend()
	x.accepted()
	x.status = x.res.Status
	if x.stream == nil {
		x.out = http1.AppendResponse(x.out[:0], &x.res, http1.ResponseOptions{Version: x.req.Version})
		x.headSent = int64(len(x.out))
		if !x.write(x.out) {
			return
		}
	} else if err := x.start(false).Flush(); err != nil {
		x.untaken(false)
		return
	}
	x.tunnel()
}

// asked says whether each of the protocols in granted is one of those in wanted, both lists (RFC 9110 §7.8).
func asked(wanted, granted []byte) bool {
	for one := range bytes.SplitSeq(granted, comma) {
		found := false
		for other := range bytes.SplitSeq(wanted, comma) {
			found = found || message.EqualFoldBytes(bytes.TrimSpace(one), bytes.TrimSpace(other))
		}
		if !found {
			return false
		}
	}
	return len(granted) > 0
}

var comma = []byte(",")

// connect answers CONNECT. What a service's HTTP port gets is HTTP, treated as such: the connection goes on with the
// requests inside. Anywhere else bytes are tunnelled.
func (x *exchange) connect() {
	if !x.b.spec.Explicit {
		x.say(noRoute, endings[noRoute].status, tooFar(x.req.Authority()))
		return
	}
	if x.target.cluster.Spec.Kind != model.Passthrough && !opaque(x.target.cluster.Spec.Protocol) {
		x.inside()
		return
	}
	switch x.reach() {
	case failed:
		x.unanswered()
		return
	case over:
		return
	}
	x.established()
	if x.complete {
		x.raw, x.silent = true, true // counted as a connection
		x.received, x.sent, x.headReceived, x.headSent = 0, 0, 0, 0
		x.tunnel()
	}
}

// inside answers CONNECT for a port of HTTP: the connection goes on with the requests inside, which count; CONNECT does not.
func (x *exchange) inside() {
	if x.stream != nil {
		x.within2(!x.undeclared)
		return
	}
	x.established()
	_, x.conn.port, _ = message.SplitAuthority(x.req.Authority()) // the codec sees to it that there is a port
	x.silent, x.again = true, true
	x.conn.inner = inner{name: append([]byte(nil), x.req.Authority()...), declared: !x.undeclared}
}

// established answers 200 to CONNECT: no framing, no body.
func (x *exchange) established() {
	x.watch.arm(now() + int64(x.conn.proxy.limits.HeadTimeout))
	x.status = 200
	if x.stream == nil {
		x.complete = x.write([]byte("HTTP/1.1 200 Connection established\r\n\r\n"))
		return
	}
	x.res.Reset()
	x.res.Status = 200
	x.complete = x.start(false).Flush() == nil
}

// tunnel copies both ways until both sides have ended.
func (x *exchange) tunnel() {
	c := x.conn
	x.complete, x.again = true, false
	x.watch.free.Store(true)
	x.watch.pulse.end()
	x.watch.waiting.Store(0)
	until := never
	if x.raw && x.up != nil {
		if d := x.up.Lifetime(); d > 0 {
			until = now() + int64(d)
		}
	}
	if x.watch.arm(until) && x.up != nil {
		x.up.Resume()
	}
	var countThere, countBack *atomic.Int64
	if x.raw {
		f := x.openFlow()
		defer x.closeFlow(f)
		countThere, countBack = f.counts()
		if x.member != nil { // balancers count connections here, where there are no requests to count
			x.member.Host.Active.Add(1)
			defer x.member.Host.Active.Add(-1)
		}
	}
	var there sync.WaitGroup
	there.Go(func() {
		if p := x.pump; p != nil {
			if <-p.finished; !p.sent { // the request's own body comes first
				x.tear()
				return
			}
		}
		if x.stream == nil && x.call == nil {
			x.received += forwardBytes(&x.up.Link, &c.link, c.in, countThere)
			c.in = nil
			return
		}
		x.received += x.tunnelThere(countThere)
	})
	if x.stream == nil && x.call == nil {
		x.sent += forwardBytes(&c.link, &x.up.Link, x.answer, countBack)
		x.answer = nil
	} else {
		x.sent += x.tunnelBack(countBack)
	}
	there.Wait()
	if x.stream != nil {
		x.complete = !x.torn.Load()
	}
}

// tunnelThere copies from the client where one side at least is a stream.
func (x *exchange) tunnelThere(count *atomic.Int64) int64 {
	var in inflow
	var out outflow
	var written int64
	from, to := source(&in), sink(&out)
	if x.stream != nil {
		from = x.stream.call
	} else {
		in.begin(&x.conn.link, &x.conn.in, 0, true, nil, nil)
	}
	if x.call != nil {
		to = outgoing{x.call}
	} else {
		out = outflow{link: &x.up.Link, raw: true, started: new(bool), bytes: &written}
	}
	n, failed, lost := carry(counting(to, count), from, nil)
	if failed != nil || lost != nil {
		x.tear()
	}
	return n
}

// tunnelBack copies from the endpoint.
func (x *exchange) tunnelBack(count *atomic.Int64) int64 {
	var in inflow
	var out outflow
	var written int64
	from, to := source(&in), sink(&out)
	if x.call != nil {
		from = x.call
	} else {
		in.begin(&x.up.Link, &x.answer, 0, true, nil, nil)
	}
	if x.stream != nil {
		to = outgoing{x.stream.call}
	} else {
		out = outflow{link: &x.conn.link, raw: true, started: new(bool), bytes: &written}
	}
	n, failed, lost := carry(counting(to, count), from, nil)
	if failed != nil || lost != nil {
		x.tear()
	}
	return n
}

// countedSink is a sink whose bytes are counted as they are taken.
type countedSink struct {
	sink
	n *atomic.Int64
}

func counting(to sink, n *atomic.Int64) sink {
	if n == nil {
		return to
	}
	return countedSink{to, n}
}

// Send sends a piece.
func (c countedSink) Send(p []byte, end bool) error {
	err := c.sink.Send(p, end)
	if err == nil {
		c.n.Add(int64(len(p)))
	}
	return err
}

// countedBytes is a writer whose bytes are counted.
type countedBytes struct {
	io.Writer
	n *atomic.Int64
}

func (c countedBytes) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// tear ends both sides of a tunnel so that it looks like a failure.
func (x *exchange) tear() {
	x.torn.Store(true)
	if x.stream != nil {
		x.stream.call.Cancel(http2.ConnectError)
		x.stream.call.Flush()
	} else {
		_ = x.conn.link.Reset()
	}
	if x.call != nil {
		x.call.Cancel(http2.Cancel)
		x.call.Flush()
	} else {
		_ = x.up.Reset()
	}
}

// forwardBytes sends first and then all that src gives to dst, and passes the end on. On Linux the kernel moves the bytes,
// unless they are to be counted one by one.
func forwardBytes(dst, src *link.Link, first *link.Buffer, count *atomic.Int64) (n int64) {
	var err error
	if first != nil {
		n = int64(first.Len())
		_, err = dst.Write(first.Bytes())
		link.PutBuffer(first)
		if count != nil {
			count.Add(n)
		}
	}
	if err == nil {
		to := io.Writer(dst.Conn())
		if count != nil {
			to = countedBytes{to, count}
		}
		var m int64
		m, err = io.Copy(to, src.Conn())
		n += m
	}
	if err == nil && dst.CloseWrite() == nil {
		return n
	}
	_, _ = dst.Reset(), src.Reset() // a failure on one side ends both, and looks like one
	return n
}
