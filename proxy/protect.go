package proxy

import (
	"github.com/outrider-mesh/outrider/proxy/breaker"
	"github.com/outrider-mesh/outrider/proxy/outlier"
	"github.com/outrider-mesh/outrider/proxy/upstream"
)

// This file is where an exchange meets what protects a target: the breaker before it, its fallback, and the detection of
// endpoints that fail. A breaker's execution is all attempts together, up to the answer's head, as Hystrix's is one call of
// a client that retries; its permit is held until the exchange ends.

// protect sends the request if the target's breaker lets it, and falls back where that fails.
func (x *exchange) protect() verdict {
	b := x.guarded()
	if b == nil {
		return x.attempts()
	}
	x.breaker = b
	t := x.lately()
	var v verdict
	switch b.Admit(&x.ticket, t) {
	case breaker.Refused:
		v = x.fail(breakerOpen, unsent)
	case breaker.Throttled:
		v = x.fail(bulkheadFull, unsent)
	default:
		route, latest := x.bind(t)
		v = x.attempts()
		x.unbind(route, latest)
		if v == over || v == answered && x.answeredWith() != breaker.Failed {
			return v // the end is reported with the exchange's
		}
		x.ticket.End(x.executionEnd(v), now())
	}
	return x.fallBack(v)
}

// guarded returns the breaker that stands before the target for the request, or nil.
func (x *exchange) guarded() *upstream.Breaker {
	for _, b := range x.target.cluster.Breakers {
		if covers(b.Spec.Methods, b.Spec.Paths, &x.req) {
			return b
		}
	}
	return nil
}

// bind holds the attempts to the breaker's timeout, which begins at t. Each attempt arms it, and relay lifts it. What it
// returns, unbind takes.
func (x *exchange) bind(t int64) (route, latest int64) {
	route, latest = x.deadline, never
	at, limited := x.ticket.Deadline()
	if !limited || at >= route && !x.lenient {
		return route, latest
	}
	x.deadline, x.bound, x.bounded = min(at, route), at, true
	if x.lenient {
		latest = x.watch.latest.Load()
		x.watch.latest.Store(min(at, latest))
	}
	if at-t < int64(fineBelow) {
		x.hurry()
	}
	return route, latest
}

// unbind undoes what bind did.
func (x *exchange) unbind(route, latest int64) {
	if !x.bounded {
		return
	}
	x.deadline, x.bounded = route, false
	if x.lenient {
		x.watch.latest.Store(latest)
	}
}

// answeredWith is what the answer's head is to the breaker.
func (x *exchange) answeredWith() breaker.Outcome {
	e := &x.breaker.Errors
	if x.grpc && x.res.Status == 200 {
		if s := grpcStatus(&x.res.Head); s >= 0 {
			return e.GRPC(s)
		}
	}
	return e.HTTP(x.res.Status)
}

// executionEnd is what an execution that brought no answer to keep is to the breaker.
func (x *exchange) executionEnd(v verdict) breaker.Outcome {
	if v == answered {
		return breaker.Failed
	}
	switch o := x.failure.outcome; {
	case o.late():
		return breaker.TimedOut
	case o == upstreamOverflow:
		return breaker.PoolRejected
	case o == badRequest:
		return breaker.ClientError
	}
	return breaker.Failed
}

// fallBack answers with the fallback, where the breaker has one and lets it run; otherwise what came before stands.
func (x *exchange) fallBack(v verdict) verdict {
	b := x.breaker
	if b.Spec.FallbackReply == nil && b.Fallback == nil || x.told {
		return v
	}
	if x.ticket.Fallback() != breaker.FallbackGranted {
		return v
	}
	if b.Spec.FallbackReply != nil {
		x.forgo(v)
		x.lean(x.routeSpan)
		x.watch.arm(x.deadline)
		x.direct(&reply{spec: b.Spec.FallbackReply, outcome: fallback})
		x.ticket.EndFallback(true)
		return over
	}
	if x.pump != nil && !x.pump.body.claim() {
		x.ticket.EndFallback(false) // the body is gone
		return v
	}
	x.forgo(v)
	x.target, x.member, x.picked = &target{cluster: b.Fallback, response: x.target.response}, nil, x.picked[:0]
	x.watch.arm(x.deadline)
	x.resumed = now() // its attempts begin here
	v = x.attempts()
	x.fellBack = v == answered
	x.ticket.EndFallback(v == answered && x.res.Status < 500)
	return v
}

// release reports to the breaker how the exchange ended at t, where that was not done before, and gives back what it holds.
func (x *exchange) release(t int64) {
	if x.accruing {
		x.accrued(x.outcome != passed || accrualFailure(x.grpcStatus), x.grpcStatus == exhausted)
	}
	if x.breaker == nil {
		return
	}
	end := breaker.Abandoned
	switch {
	case x.outcome == passed && x.complete && x.grpc && x.grpcStatus >= 0:
		end = x.breaker.Errors.GRPC(x.grpcStatus)
	case x.outcome == passed && x.complete && x.grpc && x.status == 200:
		end = x.breaker.Errors.GRPC(unknownStatus) // as clients of gRPC take an answer that says nothing
	case x.outcome == passed && x.complete:
		end = x.breaker.Errors.HTTP(x.status)
	case x.outcome.late():
		end = breaker.TimedOut
	case x.outcome.brokeOff():
		end = breaker.Failed
	}
	x.ticket.Finish(end, t)
}

// judge counts what came of an attempt with its endpoint, and tells the outlier detection.
func (x *exchange) judge(v verdict) {
	f := &x.failure
	switch {
	case v == answered && x.res.Status != 101:
		x.counted(x.res.Status)
	case v == failed && f.fate == unknown:
		x.counted(f.status)
	}
	m := x.member
	if m != nil && m.Accrual != nil {
		x.accrue(v)
	}
	if m == nil || m.Outlier == nil || v == over {
		return
	}
	var c outlier.Change
	switch {
	case v == answered:
		if s := x.seenStatus(); !m.Outlier.Passed(s) {
			c = m.Outlier.Answered(s, now())
		}
	case f.outcome.late():
		c = m.Outlier.TimedOut(now())
	case f.outcome == upstreamConnect || f.outcome == streamReset || f.fate == unknown && f.outcome.brokeOff():
		c = m.Outlier.Failed(now())
	}
	x.target.cluster.Health.Tell(c)
}

// accrue tells the failure accrual of the endpoint how an attempt ended; of gRPC the exchange's end tells it.
func (x *exchange) accrue(v verdict) {
	switch {
	case v == over || v == failed && x.failure.fate == unhandled:
		x.unprobed()
	case v == failed:
		x.accrued(true, false)
	case x.grpc && x.res.Status == 200 && grpcStatus(&x.res.Head) < 0:
		x.accruing = true
	case x.grpc && x.res.Status == 200:
		status := grpcStatus(&x.res.Head)
		x.accrued(accrualFailure(status), status == exhausted)
	default:
		x.accrued(x.res.Status >= 500, x.res.Status == 429)
	}
}

// gRPC's UNKNOWN and RESOURCE_EXHAUSTED.
const unknownStatus, exhausted = 2, 8

// accrued tells what came of the request that x.member was sent: a failure, an answer that it was asked too much, or a success.
func (x *exchange) accrued(failed, limited bool) {
	a, t := x.member.Accrual, now()
	probe := x.probe
	x.probe, x.accruing = false, false
	if x.outcome == clientGone || x.outcome == clientReset {
		x.probe = probe
		x.unprobed()
		return
	}
	changed := false
	switch {
	case failed:
		changed = a.Failed(probe, t, float64(x.rand.Uint64()>>11)/(1<<53))
	case limited:
		changed = a.Limited(probe, t, float64(x.rand.Uint64()>>11)/(1<<53))
	default:
		changed = a.Succeeded(probe, t)
	}
	if changed {
		x.target.cluster.Turned(x.member, t)
	}
}

// unprobed gives a probe back whose end nobody will know.
func (x *exchange) unprobed() {
	if x.probe {
		x.probe = false
		x.member.Accrual.Abandon()
		x.target.cluster.Turned(x.member, now())
	}
}

// accrualFailure says which gRPC statuses Linkerd counts as failures: UNKNOWN, DEADLINE_EXCEEDED, PERMISSION_DENIED, INTERNAL,
// UNAVAILABLE, DATA_LOSS, and none at all.
func accrualFailure(status int) bool {
	switch status {
	case -1, 2, 4, 7, 13, 14, 15:
		return true
	}
	return false
}

// connected tells the outlier detection that the endpoint takes a connection, or that a kept one is used: where it tells
// origins apart, what breaks off afterwards is in no row with what could not be connected to (Envoy).
func (x *exchange) connected() {
	x.locate()
	if m := x.member; m != nil && m.Outlier != nil {
		m.Outlier.Connected()
	}
}

// seenStatus is an answer's status as Envoy's outlier detection sees it: a gRPC status counts where it comes in the head.
func (x *exchange) seenStatus() int {
	if x.grpc && x.res.Status == 200 {
		if s := grpcStatus(&x.res.Head); s >= 0 {
			return outlier.HTTPStatus(s)
		}
	}
	return x.res.Status
}
