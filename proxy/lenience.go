package proxy

import "sync/atomic"

// lenience moves the deadline of a phase while the request's body is still to come: time limits are for the endpoint, and begin
// when the request is here as a whole (Envoy). A client that takes its time has all that it wants, as long as it goes on (motion).
//
// Who receives the body only notes since when the client is not waited for; it is the sweeper that finds a deadline passed and
// moves it. So nothing is armed from two sides, and an endpoint that does not take the body is timed as one that does not answer.
type lenience struct {
	// span is how long the phase may last from then on, in nanoseconds; 0 is for deadlines that nothing moves.
	span atomic.Int64
	// since is when the client was last waited for, never while it is.
	since atomic.Int64
	// latest is the deadline that the phase has in any case: the breaker's, or the client's own.
	latest atomic.Int64
}

// wait notes that the client is waited for.
func (l *lenience) wait() { l.since.Store(never) }

// goOn notes that it is not any more.
func (l *lenience) goOn() { l.since.Store(now()) }

// due is when the deadline d of a phase is really over, never while nobody knows.
func (l *lenience) due(d, span int64) int64 {
	if span == 0 || d == never {
		return d
	}
	at := l.since.Load()
	if at != never {
		at += span
	}
	return max(d, min(at, l.latest.Load()))
}

// moved returns a deadline to look again at in place of d, which has passed at t; d itself where it is really over.
func (l *lenience) moved(d, t int64) int64 {
	span := l.span.Load()
	if span == 0 {
		return d
	}
	return min(l.due(d, span), t+span)
}

// allow decides whether the exchange's limits begin only when its body is here. A client that was asked to wait before it sends
// (100-continue) is not waited for.
func (x *exchange) allow(timeout int64) {
	r := x.rule
	if !x.streams || x.req.ExpectContinue || timeout <= 0 && r.perTry <= 0 && r.backendTimeout <= 0 {
		return
	}
	l := &x.watch.lenience
	x.lenient = true
	l.since.Store(x.begin)
	if l.latest.Store(never); x.asked {
		l.latest.Store(x.deadline)
		return
	}
	x.routeSpan = max(timeout, 0)
}

// lean lets the deadline that is armed be moved by the span, 0 being none.
func (x *exchange) lean(span int64) {
	if x.lenient {
		x.watch.span.Store(span)
	}
}

// armLenient arms the deadline of an attempt: the first of the two spans to be over ends it.
func (x *exchange) armLenient() {
	span := x.trySpan
	if span == 0 || x.routeSpan > 0 && x.routeSpan < span {
		span = x.routeSpan
	}
	x.lean(span)
	due := x.tryDue()
	if due == never && span > 0 {
		due = now() + span // to be moved
	}
	x.watch.arm(due)
}

// due is when the whole exchange's time is over.
func (x *exchange) due() int64 {
	if !x.lenient {
		return x.deadline
	}
	return x.watch.due(x.deadline, x.routeSpan)
}

// tryDue is when that of the attempt under way is over.
func (x *exchange) tryDue() int64 {
	if !x.lenient {
		return min(x.deadline, x.tryDeadline)
	}
	return min(x.due(), x.watch.due(x.tryDeadline, x.trySpan))
}
