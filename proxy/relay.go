package proxy

import (
	"errors"
	"io"
	"strconv"

	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
)

// relay reads the upstream's answer and gives it to the client.
func (x *exchange) relay() {
	if !x.head() {
		return
	}
	if x.res.Status == 101 {
		x.upgraded()
		return
	}
	x.counted(x.res.Status)
	x.mark()
	x.persist()
	head := http1.AppendResponse(x.out[:0], &x.res, x.options())
	x.out = head
	x.status = x.res.Status
	if !x.content(head) {
		return
	}
	x.complete = true
	x.keep()
}

// head reads the final response head, and passes interim ones on. False means that the exchange has been ended.
func (x *exchange) head() bool {
	lim := &x.conn.proxy.limits.Head
	for from := 0; ; {
		n, err := http1.ResponseHeadEnd(x.answer.Bytes(), from, lim)
		if err == nil && n > 0 {
			err = http1.ReadResponse(&x.res, x.answer.Bytes()[:n], x.req.Method(), lim)
		}
		if err != nil {
			x.malformed(err)
			return false
		}
		if n == 0 {
			from = x.answer.Len()
			if err := x.up.More(x.answer); err != nil {
				x.lost(err)
				return false
			}
			continue
		}
		x.answer.Skip(n)
		if x.res.Status >= 200 || x.res.Status == 101 {
			return true
		}
		from = 0
		if !x.interim() {
			return false
		}
	}
}

// interim passes a 1xx on, to a client that knows them, and waits for what follows.
func (x *exchange) interim() bool {
	if x.req.Version >= message.HTTP11 {
		x.out = http1.AppendResponse(x.out[:0], &x.res, http1.ResponseOptions{Version: x.req.Version})
		if !x.push(x.out) {
			return false
		}
	}
	if x.answer.Len() > 0 {
		return true
	}
	if err := x.refill(); err != nil {
		x.lost(err)
		return false
	}
	return true
}

// refill waits for more from the upstream; no buffer is held meanwhile.
func (x *exchange) refill() (err error) {
	if x.answer != nil {
		link.PutBuffer(x.answer)
		x.answer = nil
	}
	x.answer, err = x.up.Receive()
	return err
}

// lost ends an exchange whose upstream went away before its final head was there.
func (x *exchange) lost(err error) {
	if x.ended(err) {
		return
	}
	x.counted(endings[upstreamReset].status)
	x.say(upstreamReset, endings[upstreamReset].status, endings[upstreamReset].body)
}

// malformed ends an exchange whose answer must not be forwarded: its framing is broken or ambiguous.
func (x *exchange) malformed(err error) {
	x.conn.proxy.log.Warn("malformed response", "peer", x.up.Conn().RemoteAddr().String(), "reason", err)
	x.counted(endings[upstreamProtocol].status)
	x.say(upstreamProtocol, endings[upstreamProtocol].status, endings[upstreamProtocol].body)
}

// mark adds to the answer what the rule, the destination and the mesh ask for.
func (x *exchange) mark() {
	res := &x.res
	x.spare = strconv.AppendInt(x.spare[:0], (now()-x.begin)/1e6, 10)
	res.SetBytes(message.XEnvoyUpstreamServiceTime, "x-envoy-upstream-service-time", x.spare)
	if x.rule.cors != nil {
		x.rule.cors.Mark(x.origin(), res)
	}
	x.target.response.Response(res)
	x.rule.response.Response(res)
	if len(x.cookie) > 0 {
		res.Append(message.Other, nameSetCookie, x.cookie)
	}
}

var nameSetCookie = []byte("set-cookie")

// persist decides whether the client's connection goes on after this answer.
func (x *exchange) persist() {
	x.again = !x.req.Close && !x.conn.leaving()
	if x.pump != nil && !x.pump.taken.Load() {
		x.again = false // the answer comes before the request has ended: what follows cannot be told apart
		x.linger = true
	}
	x.again = !http1.Closes(&x.res, x.options())
}

// options say how an answer is written to this client.
func (x *exchange) options() http1.ResponseOptions {
	return http1.ResponseOptions{Version: x.req.Version, Close: !x.again, Head: isHead(&x.req)}
}

// content sends the head and the body after it. False means that the exchange has been ended.
func (x *exchange) content(head []byte) bool {
	switch n := x.res.BodyLength; {
	case n == message.NoBody, isHead(&x.req):
		return x.write(head)
	case n > 0:
		return x.measured(head, n)
	case x.res.UntilClose:
		return x.untilClose(head)
	default:
		return x.chunked(head)
	}
}

// measured relays a body of n bytes.
func (x *exchange) measured(head []byte, n int64) bool {
	here := int(min(n, int64(x.answer.Len())))
	whole, ok := x.answer.Lead(head, here)
	if !ok {
		whole = append(head, x.answer.Bytes()[:here]...)
		x.out = whole[:0]
	}
	if !x.write(whole) {
		return false
	}
	x.answer.Skip(here)
	for n -= int64(here); n > 0; {
		if err := x.refill(); err != nil {
			x.broken(err)
			return false
		}
		here = int(min(n, int64(x.answer.Len())))
		if !x.write(x.answer.Bytes()[:here]) {
			return false
		}
		x.answer.Skip(here)
		n -= int64(here)
	}
	return true
}

// chunked relays a body whose end its framing tells; each piece leaves as it comes.
func (x *exchange) chunked(head []byte) bool {
	var chunks http1.Chunks
	out := head
	reframe := http1.Chunked(&x.res, x.options())
	for {
		for x.answer.Len() > 0 {
			data, n, done, err := chunks.Next(x.answer.Bytes(), &x.trailers, &x.conn.proxy.limits.Head)
			if err != nil {
				x.conn.proxy.log.Warn("malformed response body", "peer", x.up.Conn().RemoteAddr().String(), "reason", err)
				x.say(upstreamProtocol, endings[upstreamProtocol].status, endings[upstreamProtocol].body)
				return false
			}
			if n == 0 && !done {
				break
			}
			out = appendChunk(out, data, reframe)
			x.answer.Skip(n)
			if done {
				if reframe {
					out = http1.AppendLastChunk(out, &x.trailers)
				}
				ok := x.write(out)
				x.out = out[:0]
				return ok
			}
		}
		if len(out) > 0 && !x.write(out) {
			return false
		}
		out = out[:0]
		var err error
		if x.answer.Len() > 0 {
			err = x.up.More(x.answer) // half a chunk's line
		} else {
			err = x.refill()
		}
		if err != nil {
			x.broken(err)
			return false
		}
	}
}

// untilClose relays a body that ends with the upstream's connection.
func (x *exchange) untilClose(head []byte) bool {
	reframe := http1.Chunked(&x.res, x.options())
	out := appendChunk(head, x.answer.Bytes(), reframe)
	for {
		if !x.write(out) {
			return false
		}
		err := x.refill()
		if errors.Is(err, io.EOF) {
			x.out = out[:0]
			return !reframe || x.write(http1.AppendLastChunk(out[:0], nil))
		}
		if err != nil {
			x.broken(err)
			return false
		}
		out = appendChunk(out[:0], x.answer.Bytes(), reframe)
	}
}

func appendChunk(dst, data []byte, reframe bool) []byte {
	if len(data) == 0 {
		return dst
	}
	if !reframe {
		return append(dst, data...)
	}
	dst = append(http1.AppendChunkHead(dst, len(data)), data...)
	return append(dst, '\r', '\n')
}

// broken ends an exchange whose upstream went away in the middle of its answer.
func (x *exchange) broken(err error) {
	if !x.ended(err) {
		x.outcome = upstreamReset
	}
}

// write sends a piece of the final response to the client.
func (x *exchange) write(p []byte) bool {
	x.started = true
	return x.push(p)
}

// push sends to the client. A client that does not take it has gone, or let the exchange's time run out.
func (x *exchange) push(p []byte) bool {
	n, err := x.conn.link.Write(p)
	x.sent += int64(n)
	switch {
	case err == nil:
		return true
	case x.conn.guard.over() && (x.started || n == 0): // n is of an interim response, which then was not begun
		x.interrupted()
	default:
		x.vanish()
	}
	return false
}

// keep gives the upstream connection back for later exchanges, if nothing speaks against it.
func (x *exchange) keep() {
	x.conn.upstream.Store(nil)
	up := x.up
	x.up = nil
	clean := x.answer == nil || x.answer.Len() == 0 // bytes after the answer belong to nobody
	if !clean || x.res.Close || x.res.UntilClose || x.pump != nil && !x.pump.settled() || x.conn.guard.over() {
		up.Drop()
		return
	}
	up.Keep(now())
}

func isHead(r *message.Request) bool { return string(r.Method()) == "HEAD" }
