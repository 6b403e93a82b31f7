package proxy

import (
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
)

// This file is the client's side of an exchange: an HTTP/1 connection, or an HTTP/2 stream (x.stream).

// start begins the final response with x.res and returns where its body goes; end says that none follows. On HTTP/1 nothing
// is written before the body's first piece, or Flush.
func (x *exchange) start(end bool) sink {
	if x.pump != nil {
		x.watch.excused.Store(true)
	}
	if s := x.stream; s != nil {
		x.started = true
		x.headSent = int64(x.res.Size())
		x.sent += x.headSent
		s.call.Respond(&x.res, end)
		return outgoing{s.call}
	}
	o := x.options()
	if _, ok := x.res.Lookup("trailer"); ok && x.call != nil && x.res.BodyLength > 0 {
		x.res.BodyLength = message.UnknownLength // in HTTP/2 trailers may follow a body of known length, in HTTP/1 not
	}
	x.down = outflow{
		link: &x.conn.link, out: http1.AppendResponse(x.down.out[:0], &x.res, o), chunked: http1.Chunked(&x.res, o),
		started: &x.started, bytes: &x.sent, mark: &x.watch.answer,
	}
	x.headSent = int64(len(x.down.out))
	return &x.down
}

// options say how an answer is written to an HTTP/1 client.
func (x *exchange) options() http1.ResponseOptions {
	return http1.ResponseOptions{Version: x.req.Version, Close: !x.again, Head: isHead(&x.req)}
}

// interim passes a 1xx on, to a client that knows them. False means that the exchange has been ended.
func (x *exchange) interim() bool {
	x.told = true
	if x.pump != nil && x.res.Status == 100 {
		x.watch.excused.Store(false) // the client may have waited for this
	}
	if s := x.stream; s != nil {
		s.call.Respond(&x.res, false)
		s.call.Flush()
		return true
	}
	if x.req.Version < message.HTTP11 {
		return true
	}
	x.out = http1.AppendResponse(x.out[:0], &x.res, http1.ResponseOptions{Version: x.req.Version})
	return x.push(x.out)
}

// write sends bytes that are no more than the final response to an HTTP/1 client.
func (x *exchange) write(p []byte) bool {
	x.started = true
	return x.push(p)
}

// push sends bytes to an HTTP/1 client.
func (x *exchange) push(p []byte) bool {
	before := x.sent
	x.watch.answer.Add(1)
	n, err := x.conn.link.Write(p)
	x.watch.answer.Add(1)
	x.sent += int64(n)
	if err != nil {
		x.untaken(x.sent == before)
		return false
	}
	return true
}

// untaken ends an exchange whose client does not take what it is sent: it has gone, or let the exchange's time run out.
// clean says that the client has nothing of the message that was to be sent.
func (x *exchange) untaken(clean bool) {
	if x.watch.over() && (x.started || clean) {
		if clean {
			x.started = false // another answer can be given instead
		}
		x.interrupted()
		return
	}
	x.vanish()
}

// persist decides whether an HTTP/1 client's connection goes on after the endpoint's answer.
func (x *exchange) persist() {
	if x.stream != nil {
		return
	}
	x.again = !x.req.Close && !x.conn.leaving()
	if x.pump != nil && !x.pump.taken() {
		x.again = false // the answer comes before the request has ended: what follows cannot be told apart
		x.linger = true
	}
	x.again = !http1.Closes(&x.res, x.options())
}

// settle is persist for an answer of our own: only where the request's body is out of the way.
func (x *exchange) settle() {
	x.again = !x.req.Close && !x.conn.leaving()
	if x.streams {
		x.again = false
		x.linger = true
	}
}

// part brings the client's side to a defined end.
func (x *exchange) part() {
	if s := x.stream; s != nil {
		s.part(x.started && !x.complete)
		return
	}
	c := x.conn
	x.spend()
	c.consumed()
	x.again = x.again && x.complete
	switch {
	case x.again:
	case x.started && !x.complete:
		_ = c.link.Reset() // what the client has must not pass for a whole response
	case x.linger, c.in != nil, c.link.Pending():
		c.linger()
	}
}

// spend drops the request's body where it was all there: it was sent, or the answer came without it. Where it was not, a pump
// has conn.in.
func (x *exchange) spend() {
	if x.inline > 0 {
		x.conn.in.Skip(x.inline)
		x.inline = 0
		x.conn.consumed()
	}
}

// refill waits for more from an HTTP/1 endpoint; no buffer is held meanwhile.
func (x *exchange) refill() (err error) {
	if x.answer != nil {
		link.PutBuffer(x.answer)
		x.answer = nil
	}
	x.answer, err = x.up.Receive()
	return err
}
