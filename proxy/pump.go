package proxy

import (
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
)

// pump sends the part of a request's body that was not there with its head, in a goroutine of its own: the answer may
// come, and must be relayed, before the body has ended. It owns the reading side of the client's connection meanwhile.
type pump struct {
	conn     *conn
	up       *link.Link // the exchange may have dropped it already; then writing fails
	length   int64      // of the body, or message.UnknownLength
	finished chan struct{}
	// taken says that all of the body has been read from the client: its connection is free for the next request. It is
	// set before the last write, as the upstream may answer that before this goroutine runs on.
	taken atomic.Bool
	// sent says that all of the body was written; read it after finished is closed.
	sent bool
	// outcome is what went wrong on the client's side, passed where nothing did, and refusal what is wrong with the body,
	// where something is; read them after finished is closed.
	outcome outcome
	refusal error
	bytes   int64
	out     []byte
}

func (x *exchange) startPump() {
	p := &pump{conn: x.conn, up: &x.up.Link, length: x.req.BodyLength, finished: make(chan struct{})}
	x.pump = p
	go p.run() // pump.end waits for it
}

// run sends the body. When the client fails it ends the exchange's wait for the upstream.
func (p *pump) run() {
	if p.length > 0 {
		p.sent = p.measured(p.length)
	} else {
		p.sent = p.chunked()
	}
	close(p.finished)
	if p.outcome != passed {
		p.up.Interrupt() // after finished: who wakes up by it looks there for the reason
	}
}

// settled says whether all of the body was written, for an upstream that has answered: then it has been, but for this
// goroutine's last steps, unless the answer did not wait for the body.
func (p *pump) settled() bool {
	if !p.taken.Load() {
		return false
	}
	t := time.NewTimer(lastSteps)
	defer t.Stop()
	select {
	case <-p.finished:
		return p.sent
	case <-t.C:
		return false
	}
}

// lastSteps is how long settled waits.
const lastSteps = 100 * time.Millisecond

// failed says whether the client's side broke the exchange, of which a wait for the upstream ended with err.
func (p *pump) failed(err error) bool {
	if link.Interrupted(err) {
		<-p.finished // nobody else interrupts that wait, but for the sweeper
	}
	select {
	case <-p.finished:
		return p.outcome != passed
	default:
		return false
	}
}

// end stops the pump and waits for it.
func (p *pump) end() {
	select {
	case <-p.finished:
		return
	default:
	}
	p.conn.link.InterruptRead()
	p.up.Interrupt()
	<-p.finished
	p.conn.link.Resume()
}

// next waits until conn.in has bytes.
func (p *pump) next() bool {
	c := p.conn
	if c.in != nil && c.in.Len() > 0 {
		return true
	}
	c.consumed()
	in, err := c.link.Receive()
	if err != nil {
		if !link.Interrupted(err) {
			p.outcome = clientGone
		}
		return false
	}
	c.in = in
	return true
}

func (p *pump) write(b []byte) bool {
	_, err := p.up.Write(b)
	return err == nil
}

// measured sends n bytes.
func (p *pump) measured(n int64) bool {
	c := p.conn
	for n > 0 {
		if !p.next() {
			return false
		}
		here := int(min(n, int64(c.in.Len())))
		piece := c.in.Bytes()[:here]
		// Skipped before it is written: whether or not the upstream takes it, it must never be read as the next request.
		c.in.Skip(here)
		p.bytes += int64(here)
		if n -= int64(here); n == 0 {
			p.taken.Store(true)
		}
		if !p.write(piece) {
			return false // the answer, if there is one, is relayed all the same
		}
	}
	c.consumed()
	return true
}

// chunked sends a body whose end its framing tells.
func (p *pump) chunked() bool {
	c := p.conn
	var chunks http1.Chunks
	var trailers message.Head
	lim := &c.proxy.limits.Head
	for {
		if !p.next() {
			return false
		}
		p.out = p.out[:0]
		for c.in.Len() > 0 {
			data, n, done, err := chunks.Next(c.in.Bytes(), &trailers, lim)
			if err != nil {
				p.outcome, p.refusal = badRequest, err
				return false
			}
			if n == 0 && !done {
				break
			}
			p.out = appendChunk(p.out, data, true)
			c.in.Skip(n)
			p.bytes += int64(n)
			if done {
				c.consumed()
				p.taken.Store(true)
				return p.write(http1.AppendLastChunk(p.out, &trailers))
			}
		}
		if len(p.out) > 0 && !p.write(p.out) {
			return false
		}
		if c.in.Len() > 0 { // half a chunk's line
			if err := c.link.More(c.in); err != nil {
				if !link.Interrupted(err) {
					p.outcome = clientGone
				}
				return false
			}
		}
	}
}

// pumpFailed ends the exchange for what went wrong on the client's side.
func (x *exchange) pumpFailed() {
	if x.pump.outcome == clientGone {
		x.vanish()
		return
	}
	x.say(badRequest, statusOf(x.pump.refusal), x.pump.refusal.Error())
}
