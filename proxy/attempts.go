package proxy

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/upstream"
	"github.com/outrider-mesh/outrider/wire/message"
)

// This file sends a request until there is an answer that is to be kept. An attempt is one sending to one endpoint; what
// speaks to the endpoint is in server.go, what may be sent again is decided in retry.go.

// verdict is how an attempt went.
type verdict uint8

const (
	answered verdict = iota // the endpoint's final head is in x.res; its body has not been read
	failed                  // there is no answer, and x.failure says why
	over                    // the exchange has been ended: there is nobody to answer, or it was answered
)

// fate is what an endpoint may have done with a request that it has not answered.
type fate uint8

const (
	unsent    fate = iota // no endpoint has seen it
	unhandled             // it was sent, and certainly not processed
	unknown               // it may have been processed
)

// failure is why there is no answer, and what the client is told if none follows.
type failure struct {
	outcome outcome
	status  int
	why     string
	fate    fate
}

// fail notes a failure.
func (x *exchange) fail(o outcome, f fate) verdict {
	return x.failWith(o, endings[o].status, endings[o].body, f)
}

func (x *exchange) failWith(o outcome, status int, why string, f fate) verdict {
	x.failure = failure{o, status, why, f}
	return failed
}

// attempts sends the request, again where that is allowed, until there is an answer to keep, or none to be had.
func (x *exchange) attempts() verdict {
	x.deposit()
	x.spent = false // by the target that these are the fallback of
	for x.tries = 1; ; x.tries++ {
		e, v := x.pick()
		if e == nil {
			return v
		}
		v = x.attempt(e)
		if v == over || !x.retry(v) {
			return x.overdrawn(v)
		}
		x.forgo(v)
		if !x.pause(x.retries().wait(x.tries, &x.rand)) {
			v, _ = x.broke(nil)
			return v
		}
	}
}

// attempt sends the request to e and waits for its answer.
func (x *exchange) attempt(e *upstream.Endpoint) verdict {
	x.tryLimit()
	x.announce()
	x.engage()
	begin := int64(0)
	measures := x.target.cluster.Balancer.Measures()
	if measures {
		begin = now()
	}
	v, only1 := verdict(failed), !x.target.over2(x.req.Version) || e.SpeaksHTTP1()
	if !only1 {
		v, only1 = x.attempt2(e)
	}
	if only1 {
		v = x.attempt1(e)
	}
	x.judge(v)
	if measures {
		x.measure(v, now()-begin)
	}
	return v
}

// measure tells the balancer how long the endpoint took for an answer, or that it failed.
func (x *exchange) measure(v verdict, took int64) {
	if x.member == nil || v == over || v == failed && x.failure.outcome == upstreamOverflow {
		return
	}
	if v == answered && x.res.Status < 500 && x.res.Status != 429 {
		x.member.Host.Observe(time.Duration(took), now())
		return
	}
	x.member.Host.ObserveFailure(time.Duration(took), x.askedToWait(v), now())
}

// askedToWait is how long the endpoint wants to be spared, by its answer's retry-after in seconds; 0 where it does not say. A
// date is not read: whose clock it was written by is not known.
func (x *exchange) askedToWait(v verdict) time.Duration {
	if v != answered {
		return 0
	}
	text, ok := x.res.Lookup("retry-after")
	if !ok || len(text) == 0 || len(text) > 6 {
		return 0
	}
	n := 0
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0
		}
		n = 10*n + int(c-'0')
	}
	return time.Duration(n) * time.Second
}

// engage counts the exchange as one that its endpoint works on; disengage undoes it.
func (x *exchange) engage() {
	if x.member != nil {
		x.engaged = x.member.Host
		x.engaged.Active.Add(1)
		if a := x.member.Accrual; a != nil {
			if x.probe = a.Enter(); x.probe {
				x.target.cluster.Turned(x.member, now())
			}
		}
	}
}

func (x *exchange) disengage() {
	if x.engaged != nil {
		x.engaged.Active.Add(-1)
		x.engaged = nil
	}
}

// forgo leaves the endpoint after an attempt whose outcome will not be used. Of an answer that is here as a whole, the
// connection can be kept.
func (x *exchange) forgo(v verdict) {
	if v == answered && x.up != nil && x.answer != nil && (x.pump == nil || x.pump.settled()) {
		none := x.res.BodyLength == message.NoBody || x.res.HeadOnly || isHead(&x.req)
		switch n := x.res.BodyLength; {
		case none && x.answer.Len() == 0:
			x.keep()
		case !none && n >= 0 && int64(x.answer.Len()) == n:
			x.answer.Skip(x.answer.Len())
			x.keep()
		}
	}
	x.drop()
	x.disengage()
	if x.accruing { // what its end would have told
		x.accruing = false
		x.unprobed()
	}
	x.there, x.here, x.distrust = netip.AddrPort{}, netip.AddrPort{}, ""
}

// tryLimit arms the deadline of one attempt, where it has one of its own.
func (x *exchange) tryLimit() {
	x.tryDeadline, x.trySpan, x.backendDeadline = never, 0, never
	if r := x.rule; r != nil && (r.perTry > 0 || r.backendTimeout > 0) {
		t := x.lately()
		if x.tries > 1 {
			t = now()
		}
		perTry := r.perTry
		if r.retries.spec.LastUnbound && x.tries > int(r.retries.attempts) {
			perTry = 0
		}
		for _, limit := range [2]int64{perTry, r.backendTimeout} {
			if limit > 0 && (x.trySpan == 0 || limit < x.trySpan) {
				x.tryDeadline, x.trySpan = t+limit, limit
			}
		}
		if r.backendTimeout > 0 {
			x.backendDeadline = t + r.backendTimeout
		}
	}
	switch {
	case x.lenient:
		x.armLenient()
	case x.tryDeadline < x.deadline || x.tries > 1 || x.bounded:
		x.watch.arm(min(x.deadline, x.tryDeadline))
	}
}

// lately returns a moment before the first attempt, with no wait since: it is not worth a look at the clock, which would be
// most of what a breaker costs (BenchmarkGuarded).
func (x *exchange) lately() int64 { return max(x.begin, x.resumed) }

// unhurry lifts the limits that hold until an answer has come: the timeout for each try, and the breaker's.
func (x *exchange) unhurry() {
	if x.rule.perTry == 0 && x.breaker == nil {
		return
	}
	x.tryDeadline, x.trySpan = x.backendDeadline, x.rule.backendTimeout
	if x.lenient {
		x.armLenient()
		return
	}
	x.watch.arm(min(x.deadline, x.tryDeadline))
}

// announce tells the next proxy who sends the request, and how often it was tried.
func (x *exchange) announce() {
	r := &x.req
	if x.b.spec.Direction == model.Inbound {
		return
	}
	x.spare = strconv.AppendInt(x.spare[:0], int64(x.tries), 10)
	r.SetBytes(message.XEnvoyAttemptCount, "x-envoy-attempt-count", x.spare)
	if x.member != nil && x.member.Spec.Sidecar {
		r.SetBytes(message.XOutriderPeer, "x-outrider-peer", x.b.peer)
	}
}

// pause waits, in an exchange that has no endpoint now; false means that its time is over, or its client has gone.
func (x *exchange) pause(d time.Duration) bool {
	if d <= 0 {
		return !x.watch.over()
	}
	x.lean(x.routeSpan)
	x.watch.arm(x.deadline)
	return x.nap(d, nil, false)
}

// broke decides what ended a wait for the endpoint with err: this side of the exchange, as its time is over, its client has
// gone or its body is broken; then stopped is true.
func (x *exchange) broke(err error) (v verdict, stopped bool) {
	switch {
	case x.watch.over() || x.due() <= now():
		if x.watch.over() && x.left() {
			return over, true
		}
		return x.fail(x.late(), unknown), true
	case x.pump != nil && x.pump.failed(err):
		x.pumpFailed()
		return over, true
	}
	return failed, false
}

// late is what an exchange ends for whose time is over.
func (x *exchange) late() outcome {
	switch t := now(); {
	case x.idled():
		return idleTimeout
	case t < x.due() && x.tryDue() < x.due():
		return upstreamTimeout
	case x.bounded && t >= x.bound:
		return breakerTimeout
	case x.asked:
		return clientDeadline
	}
	return routeTimeout
}

// unanswered tells the client why there is no answer. Where retries that the configuration asks for did not help, or their
// budget was spent, the first of them included, that is why, besides the last attempt's flag.
func (x *exchange) unanswered() {
	f := &x.failure
	o := f.outcome
	if x.retries().spec.Origin != nil {
		switch {
		case x.flags&telemetry.URX != 0:
			o = retryExhausted
		case x.flags&telemetry.UO != 0:
			o = retryBudget
		}
		x.flags |= endings[f.outcome].flags
	}
	x.say(o, f.status, f.why)
}
