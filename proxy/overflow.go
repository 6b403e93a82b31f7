package proxy

import (
	"errors"
	"time"

	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/upstream"
)

// This file is what the limits of a cluster (connectionPool) mean to an exchange: it may have to wait for a connection, and
// is refused where too many wait or are under way.

// overflow notes that a limit of the destination was reached. Envoy never sends such a request again.
func (x *exchange) overflow(what upstream.Overflow) verdict {
	x.conn.proxy.log.Debug("overflow", "service", x.target.cluster.Spec.Service.Host, "reason", what)
	return x.fail(upstreamOverflow, unsent)
}

// overflowed is the limit that err says was reached, if it does.
func overflowed(err error) (upstream.Overflow, bool) {
	o := (*upstream.ErrOverflow)(nil)
	if !errors.As(err, &o) {
		return "", false
	}
	return o.What, true
}

// queue makes ready to wait for a connection, where the destination has limits; dequeue has to follow. The exchange's end
// ends the wait.
func (x *exchange) queue(fresh bool) *upstream.Turn {
	if !x.target.cluster.Limited() {
		return nil
	}
	if x.turn == nil {
		x.turn = upstream.NewTurn()
	}
	return x.watch.queue(x.turn.Ready(x.opaque(), fresh), x.tryDue())
}

// queue lets the end of the phase end the wait for t, which is Ready. What follows the wait is over at the deadline.
func (w *watch) queue(t *upstream.Turn, deadline int64) *upstream.Turn {
	t.Deadline = time.Time{}
	if deadline != never {
		t.Deadline = time.Now().Add(time.Duration(deadline - now()))
	}
	w.turn.Store(t)
	if w.over() { // before the turn was there to be interrupted
		t.Interrupt()
	}
	return t
}

// dequeue is called once the wait has ended. Nobody interrupts the turn from then on.
func (w *watch) dequeue(t *upstream.Turn) {
	if t == nil {
		return
	}
	w.turn.Store(nil)
	if w.over() {
		_ = w.why() // returns when whoever ended the phase has interrupted all
	}
}

// opaque says whether the exchange passes bytes on, not requests.
func (x *exchange) opaque() bool { return x.raw || isConnect(&x.req) }

// permit counts a retry among those under way to the destination; false where there are too many.
func (x *exchange) permit() bool {
	c := x.target.cluster
	if !c.Limited() {
		return true
	}
	if !c.Retry() {
		x.flags |= telemetry.UO
		return false
	}
	x.retrying = c
	return true
}

// permitted ends what permit began: the retry has been judged, or the exchange ends.
func (x *exchange) permitted() {
	if c := x.retrying; c != nil {
		x.retrying = nil
		c.RetryDone()
	}
}

// lastPiece is an answer's body from a destination with limits.
type lastPiece struct {
	source
	x *exchange
}

// Next gives back what the exchange has of the destination before the client gets the last piece: a client that sends its
// next request then finds it free.
func (l *lastPiece) Next() (p []byte, end bool, err error) {
	p, end, err = l.source.Next()
	if x := l.x; end && err == nil {
		x.yield(x.call == nil && (x.answer == nil || x.answer.Len() == x.back.used))
	}
	return p, end, err
}

// yield gives back what the exchange has of a destination with limits: its answer is here. clean says that nothing
// is behind it.
func (x *exchange) yield(clean bool) {
	if !x.target.cluster.Limited() {
		return
	}
	x.admission.Done()
	up := x.up
	if up == nil || !clean || x.pump != nil || x.res.Close || x.res.UntilClose || x.watch.over() {
		return // keep or drop sees to it
	}
	x.watch.up.Store(nil)
	x.up = nil
	up.Keep(now())
}
