package proxy

import (
	"errors"
	"time"

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
}

// startPump begins to send the request's body, from its beginning: an attempt before may have sent some of it.
func (x *exchange) startPump() {
	p := x.pump
	if p == nil {
		p = x.newPump()
		x.pump = p
	}
	p.body.rewind()
	p.finished = make(chan struct{})
	p.sent, p.outcome, p.refusal, p.started = false, passed, nil, false
	if x.call != nil {
		p.to, p.server = outgoing{x.call}, x.call
	} else {
		p.out = outflow{link: &x.up.Link, chunked: x.req.BodyLength < 0, started: &p.started, bytes: &p.written, out: p.out.out[:0]}
		p.to, p.server = &p.out, &x.up.Link
	}
	go p.run() // pump.end waits for it
}

func (x *exchange) newPump() *pump {
	p := &pump{body: replay{count: x.requestMessages(), most: x.retries().keep(), mark: &x.watch.body, copies: x.copies}}
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
	_, failed, lost := carry(p.to, &p.body, nil)
	p.bytes = p.body.bytes
	if p.body.from == &p.in {
		p.in.skip()
		p.bytes = p.in.bytes
	}
	bad := (*http1.Error)(nil)
	switch {
	case errors.As(lost, &bad):
		p.outcome, p.refusal = badRequest, bad
	case lost != nil && !link.Interrupted(lost) && !errors.Is(lost, errClaimed):
		p.outcome = clientGone
	case lost == nil && failed == nil:
		p.sent = true
	}
	close(p.finished)
	if p.outcome != passed {
		p.server.Interrupt() // after finished: who wakes up by it looks there for the reason
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
	x.say(badRequest, statusOf(x.pump.refusal), x.pump.refusal.Error())
}
