package proxy

import (
	"errors"
	"sync"

	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
)

// A CONNECT to a port of HTTP that came on a stream has no connection of its own for the requests inside: it gets one, a
// pair of sockets. Its far end is a client's connection as any other; the stream's bytes are copied to and from the near
// one. That costs two copies, which a client spares itself by sending the requests as streams.

var errNotNested = errors.New("a socket of the pair cannot be used")

// within2 serves what is inside of a CONNECT that was answered on a stream, until either side has ended.
func (x *exchange) within2(declared bool) {
	c, near, err := x.conn.nest(inner{name: append([]byte(nil), x.req.Authority()...), declared: declared})
	if err != nil {
		x.conn.proxy.log.Error("cannot serve what is inside of CONNECT", "peer", x.conn.remote.String(), "reason", err)
		x.say(noRoute, 503, "cannot open a tunnel")
		return
	}
	_, c.port, _ = message.SplitAuthority(x.req.Authority()) // the codec sees to it that there is a port
	x.silent = true
	x.established()
	x.watch.free.Store(true)
	x.watch.up.Store(near)
	if x.watch.arm(never) {
		near.Resume()
	}
	var all sync.WaitGroup
	all.Go(c.serve)
	all.Go(func() {
		var written int64
		x.join(&outflow{link: near, raw: true, started: new(bool), bytes: &written}, x.stream.call, near)
	})
	var in inflow
	var first *link.Buffer
	in.begin(near, &first, 0, true, nil, nil)
	x.join(outgoing{x.stream.call}, &in, near)
	if first != nil {
		link.PutBuffer(first)
	}
	all.Wait()
	x.watch.up.Store(nil)
	x.watch.arm(never) // who is about to interrupt near has done so from here on
	_ = near.Close()
	x.complete = !x.torn.Load()
}

// join copies one way; a failure ends both.
func (x *exchange) join(to sink, from source, near *link.Link) {
	if _, failed, lost := carry(to, from, nil); failed != nil || lost != nil {
		x.torn.Store(true)
		x.stream.call.Cancel(http2.ConnectError)
		near.Cut()
	}
}

// nest returns a connection of the same client's, for what is inside of a CONNECT, and the link to its other end.
func (c *conn) nest(in inner) (nested *conn, near *link.Link, err error) {
	a, b, err := link.Pair()
	if err != nil {
		return nil, nil, err
	}
	near = new(link.Link)
	if err := near.Init(a); err != nil {
		_, _ = a.Close(), b.Close()
		return nil, nil, err
	}
	if nested = newConn(c.listener, b); nested == nil {
		_, _ = a.Close(), b.Close()
		return nil, nil, errNotNested
	}
	nested.remote, nested.table, nested.inner = c.remote, c.table, in
	c.listener.open.Add(1)
	c.proxy.conns.add(nested)
	return nested, near, nil
}
