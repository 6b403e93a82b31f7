package proxy

import (
	"errors"
	"sync"
	"time"

	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
)

// pump sends the part of a request's body that was not there with its head, in a goroutine of its own: the answer may
// come, and must be relayed, before the body has ended. It owns the receiving side of the client meanwhile.
type pump struct {
	body     replay
	to       sink
	client   waiter // whose receiving ends the pump
	server   waiter // the exchange may have dropped it already; then sending fails
	finished chan struct{}
	shared   bool // a goroutine had it, which may have it still when all is done
	// sent says that all of the body was sent; read it, and what follows, after finished is closed.
	sent bool
	// outcome is what went wrong on the client's side, passed where nothing did, and refusal what is wrong with the body,
	// where something is.
	outcome outcome
	refusal error
	bytes   int64
	// What HTTP/1 needs on either side.
	in       inflow
	trailers message.Head
	out      outflow
	started  bool
	written  int64
	gathered gathered
}

// startPump begins to send the request's body, from its beginning: an attempt before may have sent some of it.
func (x *exchange) startPump() {
	p := x.preparePump()
	if x.call != nil {
		p.to, p.server = outgoing{x.call}, x.call
	} else {
		p.out = outflow{link: &x.up.Link, chunked: x.req.BodyLength < 0, started: &p.started, bytes: &p.written, out: p.out.out[:0]}
		p.to, p.server = &p.out, &x.up.Link
	}
	if x.call != nil && x.quick() {
		x.sendAtOnce()
		return
	}
	p.finished, p.shared = make(chan struct{}), true
	go p.run() // pump.end waits for it
}

// preparePump readies the exchange's pump for sending the body from its beginning.
func (x *exchange) preparePump() *pump {
	if x.pump == nil {
		x.pump = x.newPump()
	}
	p := x.pump
	p.body.rewind()
	p.sent, p.outcome, p.refusal, p.started = false, passed, nil, false
	p.finished = finished // nothing runs yet
	return p
}

// sendAtOnce sends a body that is quick.
func (x *exchange) sendAtOnce() {
	p := x.pump
	p.send()
	if p.outcome != passed {
		p.server.Interrupt()
	}
}

// behind returns the head with the body behind it, where that is quick: both leave in one write, as they do where an
// HTTP/1 client's body came with its head.
func (x *exchange) behind(head []byte) (whole []byte, ok bool) {
	p := x.preparePump()
	if !x.quick() {
		return nil, false
	}
	p.gathered = gathered{out: head, chunked: x.req.BodyLength < 0}
	p.to, p.server = &p.gathered, &x.up.Link
	x.sendAtOnce()
	x.out, p.gathered.out = p.gathered.out, nil
	return x.out, p.outcome == passed
}

// gathered is a body in HTTP/1's framing that is written later.
type gathered struct {
	out     []byte
	chunked bool
}

// Send adds a piece.
func (g *gathered) Send(p []byte, end bool) error {
	if !g.chunked {
		g.out = append(g.out, p...)
		return nil
	}
	g.out = appendChunk(g.out, p)
	if end {
		g.out = http1.AppendLastChunk(g.out, nil)
	}
	return nil
}

// SendTrailers ends the body with fields, where there is a place for them.
func (g *gathered) SendTrailers(t *message.Head) error {
	if g.chunked {
		g.out = http1.AppendLastChunk(g.out, t)
	}
	return nil
}

// Flush leaves it to whoever has the head.
func (g *gathered) Flush() error { return nil }

// finished is that of pumps that have no goroutine.
var finished = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// quickBody is how many bytes of a body are written at once with the head of HTTP/1 before them.
const quickBody = 8 << 10

// quick says whether the body came with the head, as that of a unary call does, and can be sent without waiting: then the
// exchange does it itself.
func (x *exchange) quick() bool {
	if x.stream == nil {
		return false
	}
	b := &x.pump.body
	n := len(b.kept)
	if !b.ended {
		rest := x.stream.call.Whole()
		if rest < 0 {
			return false
		}
		n += rest
	}
	if x.call == nil {
		return n <= quickBody
	}
	return x.call.Fits(n)
}

// pumps are unused ones, with their memory for a body that is kept.
var pumps = sync.Pool{New: func() any { return new(pump) }}

// maxKeptBody is how much of it a pooled one may hold on to.
const maxKeptBody = 4 << 10

// release gives p back, when its exchange is over.
func (p *pump) release() {
	if p.shared || cap(p.body.kept)+cap(p.out.out)+p.trailers.Footprint() > maxKeptBody {
		return
	}
	p.trailers.Reset()
	*p = pump{body: replay{kept: p.body.kept[:0]}, out: outflow{out: p.out.out[:0]}, trailers: p.trailers}
	pumps.Put(p)
}

func (x *exchange) newPump() *pump {
	p := pumps.Get().(*pump)
	p.body.count, p.body.most, p.body.mark, p.body.copies = x.requestMessages(), x.retries().keep(), &x.watch.body, x.copies
	if p.body.spare = nil; x.lenient {
		p.body.spare = &x.watch.lenience
	}
	if p.body.pulse = nil; x.rule != nil && x.rule.idle > 0 {
		p.body.pulse = &x.watch.pulse
	}
	x.watch.excused.Store(x.req.ExpectContinue) // until it is told to go on
	if s := x.stream; s != nil {
		p.body.from, p.client = s.call, s.call
	} else {
		c := x.conn
		p.in.begin(&c.link, &c.in, x.req.BodyLength, false, &p.trailers, &c.proxy.limits.Head)
		p.body.from, p.client = &p.in, receiving{&c.link}
	}
	return p
}

// receiving interrupts a link's receiving side only: its answer may be under way.
type receiving struct{ *link.Link }

func (r receiving) Interrupt() { r.InterruptRead() }

// run sends the body. When the client fails it ends the exchange's wait for the endpoint.
func (p *pump) run() {
	p.send()
	outcome, server := p.outcome, p.server
	close(p.finished) // from here on p may run for another attempt
	if outcome != passed {
		server.Interrupt() // after finished: who wakes up by it looks there for the reason
	}
}

// send sends the body and notes what came of it.
func (p *pump) send() {
	_, failed, lost := carry(p.to, &p.body, nil)
	p.bytes = p.body.bytes
	if p.body.from == &p.in {
		p.in.skip()
		p.bytes = p.in.bytes
	}
	if lost == nil {
		p.sent = failed == nil
		return
	}
	bad := (*http1.Error)(nil)
	switch {
	case errors.As(lost, &bad):
		p.outcome, p.refusal = badRequest, bad
	case !link.Interrupted(lost) && !errors.Is(lost, errClaimed):
		p.outcome = clientGone
	}
}

// taken says that all of the body has been received: an HTTP/1 connection is free for the next request.
func (p *pump) taken() bool { return p.in.taken.Load() }

// settled says whether all of the body was sent, for an endpoint that has answered: then it has been, but for this
// goroutine's last steps, unless the answer did not wait for the body.
func (p *pump) settled() bool {
	if p.body.from == &p.in && !p.taken() {
		return false
	}
	select {
	case <-p.finished:
		return p.sent
	default:
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

// failed says whether the client's side broke the exchange, of which a wait for the endpoint ended with err.
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
	p.client.Interrupt()
	p.server.Interrupt()
	<-p.finished
	p.client.Resume()
}

// pumpFailed ends the exchange for what went wrong on the client's side.
func (x *exchange) pumpFailed() {
	if x.pump.outcome == clientGone {
		x.vanish()
		return
	}
	if large(x.pump.refusal) {
		x.conn.proxy.metrics.Abuse(telemetry.HeadSize)
	}
	x.say(badRequest, statusOf(x.pump.refusal), x.pump.refusal.Error())
}
