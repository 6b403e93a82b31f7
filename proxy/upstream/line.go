package upstream

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/proxy/limit"
)

// This file is the line before a cluster's connections. A request that finds none to use and no room for another waits, in
// the order in which requests came: for HTTP/1 until a connection to its endpoint is given back, or one to another endpoint,
// which is closed to make room; for HTTP/2 until a stream ends, or a connection is there. Envoy has a line for each host and
// version; as there, an endpoint without a connection of a version may always have one: who waits for the one is not helped
// by the end of what the other is used for.

// Turn is an exchange's place in the line. It belongs to one exchange, which can use it again.
type Turn struct {
	// Opaque is for a connection whose bytes pass unread: it waits for no other's end, but fails.
	Opaque bool
	// Fresh asks for a new connection: those that are kept have ended, it seems.
	Fresh bool
	// Deadline bounds what follows the wait; zero does not.
	Deadline time.Time

	place    limit.Place
	endpoint *Endpoint
	wake     chan struct{} // something has come, or Interrupt
	stopped  atomic.Bool
	// What was given, behind limits.mu until wake.
	gift gift
	conn *Conn
	err  error
}

// gift is what ends a wait.
type gift uint8

const (
	nothing gift = iota
	aRoom        // dial: the connection is counted
	aConn        // a connection of HTTP/1
	aLook        // HTTP/2: look for a stream again
	aFailure
)

// NewTurn returns a Turn that is ready for use.
func NewTurn() *Turn {
	t := &Turn{wake: make(chan struct{}, 1)}
	t.place.Owner = t
	return t
}

// Ready makes t ready for the next wait. Whoever may Interrupt it must learn of it after that.
func (t *Turn) Ready(opaque, fresh bool) *Turn {
	t.Opaque, t.Fresh = opaque, fresh
	t.stopped.Store(false)
	select {
	case <-t.wake:
	default:
	}
	return t
}

// bound is ctx up to the deadline.
func (t *Turn) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if t.Deadline.IsZero() {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, t.Deadline)
}

// Interrupt ends the wait, now or when it begins. It may come from anywhere.
func (t *Turn) Interrupt() {
	t.stopped.Store(true)
	t.signal()
}

func (t *Turn) signal() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// give ends t's wait; t is in no line any more, and mu is held.
func (l *limits) give(t *Turn, g gift) {
	l.queued.Add(-1)
	t.gift = g
	t.signal()
}

// wait waits until t, which stands in line, is given something, or interrupted; mu is held, and not any more then.
func (l *limits) wait(t *Turn, line *limit.Line) gift {
	l.mu.Unlock()
	for {
		<-t.wake
		l.mu.Lock()
		g := t.gift
		t.gift = nothing
		if g == nothing && t.stopped.Load() && line.Remove(&t.place) {
			l.queued.Add(-1)
			l.forsake(t.endpoint)
			l.mu.Unlock()
			return nothing
		}
		l.mu.Unlock()
		if g != nothing {
			return g
		}
	}
}

// room finds t a connection of HTTP/1 that is kept, or room for another (nil, nil), which is counted then; it waits where
// there is neither.
func (l *limits) room(e *Endpoint, t *Turn) (*Conn, error) {
	l.mu.Lock()
	l.queued.Add(1)
	if !t.Fresh && !t.Opaque {
		if c := e.Lease(); c != nil { // given back since the exchange looked
			l.queued.Add(-1)
			l.mu.Unlock()
			return c, nil
		}
	}
	if ok := l.enter(e, false, t.Fresh, t.Opaque); ok || t.Opaque {
		l.queued.Add(-1)
		l.mu.Unlock()
		if !ok {
			l.refused.Add(1)
			return nil, errConnections
		}
		return nil, nil
	}
	t.endpoint, t.place.For = e, e
	l.gate.Add(&t.place)
	g := l.wait(t, &l.gate.Line)
	c, err := t.conn, t.err
	t.conn, t.err, t.endpoint = nil, nil, nil
	switch stopped := t.stopped.Load(); {
	case g == aFailure:
		return nil, err
	case g == aConn && stopped:
		c.Unused(c.since)
	case g == aRoom && stopped:
		e.ended(false, nil)
	case g != nothing:
		if c != nil {
			c.Reused = true
		}
		return c, nil
	}
	return nil, ErrInterrupted
}

// enter counts a connection to e that is to be dialled, of HTTP/2 where it will be shared, if there is room, or if an idle
// connection can go for it. mu is held.
func (l *limits) enter(e *Endpoint, shared, fresh, opaque bool) bool {
	none := e.having(shared) == 0
	switch {
	case l.gate.Enter():
	case fresh && e.lose():
	case (none || l.gate.Len() == 0 && l.gate.Room(1)) && l.spare(e, shared):
	case none && !opaque:
		l.gate.Force(1)
	default:
		return false
	}
	l.count(e, shared)
	return true
}

// count counts a connection to e that has been let in; mu is held.
func (l *limits) count(e *Endpoint, shared bool) {
	e.mu.Lock()
	e.more(shared, 1)
	e.mu.Unlock()
	l.excess.Store(l.gate.Excess())
}

// spare closes an idle connection of HTTP/1, but not one to e that is of use for what is wanted there, and rather one that is not
// its endpoint's last; mu is held.
func (l *limits) spare(e *Endpoint, shared bool) bool {
	for _, least := range []int{2, 1} {
		for _, o := range l.endpoints {
			if (o != e || shared) && o.connections() >= least && o.lose() {
				return true
			}
		}
	}
	return false
}

// connections returns how many are open or being dialled.
func (e *Endpoint) connections() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.open
}

// having is connections for those of HTTP/2, or the others.
func (e *Endpoint) having(shared bool) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if shared {
		return e.shares.count
	}
	return e.open - e.shares.count
}

// more counts n more connections, of HTTP/2 where they are shared; e.mu is held.
func (e *Endpoint) more(shared bool, n int) {
	e.open += n
	if shared {
		e.shares.count += n
	}
}

// lose closes the connection that has been idle for longest, if there is one; its room is the caller's.
func (e *Endpoint) lose() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.idle) == 0 {
		return false
	}
	c := e.idle[0]
	e.idle = slices.Delete(e.idle, 0, 1)
	e.open--
	c.Cut()
	return true
}

// pass gives a connection that an exchange gives back to who waits for it, keeps it, or closes it to make room.
func (l *limits) pass(c *Conn) {
	e := c.endpoint
	l.mu.Lock()
	if p := l.gate.PopFor(e); p != nil {
		t := p.Owner.(*Turn)
		t.conn = c
		l.give(t, aConn)
		l.mu.Unlock()
		return
	}
	e.mu.Lock()
	needed := l.gate.Len() > 0 && l.gate.Room(1)
	surplus := l.gate.Excess() && e.open-e.shares.count > 1
	kept := !e.gone && !needed && !surplus && len(e.idle) < maxIdle
	if e.users--; kept {
		e.idle = append(e.idle, c)
	}
	e.mu.Unlock()
	l.mu.Unlock()
	if !kept {
		_ = c.Close()
		e.ended(false, nil)
	}
}

// begin counts a connection to e that is dialled whatever the limit, for an exchange of a configuration without.
func (e *Endpoint) begin(shared bool) {
	e.mu.Lock()
	e.more(shared, 1)
	l := e.limits.Load()
	e.mu.Unlock()
	if l != nil {
		l.mu.Lock()
		l.gate.Force(1)
		l.excess.Store(l.gate.Excess())
		l.mu.Unlock()
	}
}

// ended counts a connection as closed, or as one that could not be opened, for err. Those who wait for one of its version have
// the next.
func (e *Endpoint) ended(shared bool, err error) {
	e.mu.Lock()
	e.more(shared, -1)
	l := e.limits.Load()
	e.mu.Unlock()
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate.Leave()
	switch none := e.having(shared) == 0; {
	case none && err != nil: // what they wait for does not come
		l.fail(e, shared, err)
	case none && shared:
		if e.shares.line.Len() > 0 {
			l.withdraw(e)
			l.seek(e)
		}
	case none:
		if p := l.gate.PopFor(e); p != nil {
			l.gate.Force(1)
			l.admitted(p)
		}
	}
	l.admit()
	l.seek(e)
}

// fail ends all waits for e in one version; mu is held.
func (l *limits) fail(e *Endpoint, shared bool, err error) {
	line := &l.gate.Line
	if shared {
		line = &e.shares.line
		l.withdraw(e)
	}
	for p := line.PopFor(e); p != nil; p = line.PopFor(e) {
		t := p.Owner.(*Turn)
		t.err = err
		l.give(t, aFailure)
	}
}

// admit lets in who has room now; mu is held.
func (l *limits) admit() {
	for p := l.gate.Admit(); p != nil; p = l.gate.Admit() {
		l.admitted(p)
	}
	l.excess.Store(l.gate.Excess())
}

// admitted tells who was let in, an exchange, or an endpoint on behalf of those that wait for a stream; mu is held.
func (l *limits) admitted(p *limit.Place) {
	if t, ok := p.Owner.(*Turn); ok {
		l.count(t.endpoint, false)
		l.give(t, aRoom)
		return
	}
	e := p.Owner.(*Endpoint)
	e.shares.seeking = false
	l.count(e, true)
	l.send(e)
}

// send has the first of those that wait for a stream of e dial; mu is held.
func (l *limits) send(e *Endpoint) {
	e.shares.dials++
	l.give(e.shares.line.Pop().Owner.(*Turn), aRoom)
}

// share finds t a connection of HTTP/2 that takes one more stream, or room for another (nil, nil), which is counted then.
// Where a stream that sends is better put elsewhere (see Share), but there is no room for another, it is not.
func (l *limits) share(e *Endpoint, t *Turn, most uint32, now int64) (*Shared, error) {
	sh := &e.shares
	for again := false; ; again = true {
		l.mu.Lock()
		l.queued.Add(1)
		if again || sh.line.Len() == 0 {
			s := e.Share(most, now)
			if s == nil && (sh.dials > 0 || !l.gate.Room(0)) {
				s = e.Share(most, 0)
			}
			if s != nil {
				l.queued.Add(-1)
				l.mu.Unlock()
				return s, nil
			}
		}
		t.endpoint, t.place.For = e, e
		if again {
			sh.line.AddFirst(&t.place) // another was quicker
		} else {
			sh.line.Add(&t.place)
		}
		l.seek(e)
		g := l.wait(t, &sh.line)
		err := t.err
		t.err, t.endpoint = nil, nil
		switch stopped := t.stopped.Load(); {
		case g == aFailure:
			return nil, err
		case g == aRoom && stopped:
			l.undialled(e, nil)
		case g == aLook && stopped:
			l.look(e)
		case g == aRoom:
			return nil, nil
		case g == aLook:
			continue
		}
		return nil, ErrInterrupted
	}
}

// seek sees to it that a connection comes for those that wait for a stream of e; mu is held.
func (l *limits) seek(e *Endpoint) {
	sh := &e.shares
	switch {
	case sh.line.Len() == 0 || sh.seeking || sh.dials > 0:
	case l.enter(e, true, false, false):
		l.send(e)
	default:
		sh.seeking, sh.place.Owner = true, e
		l.gate.Add(&sh.place)
	}
}

// withdraw takes e out of the line in which it stands for those that wait for a stream; mu is held.
func (l *limits) withdraw(e *Endpoint) {
	if e.shares.seeking {
		e.shares.seeking = false
		l.gate.Remove(&e.shares.place)
	}
}

// forsake is called when one who waits for e has left its line; mu is held.
func (l *limits) forsake(e *Endpoint) {
	if e.shares.line.Len() == 0 {
		l.withdraw(e)
	}
}

// look has the first of those that wait for a stream of e look again.
func (l *limits) look(e *Endpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lookUp(e, 1)
}

// lookUp is look for so many of them; mu is held.
func (l *limits) lookUp(e *Endpoint, n int) {
	for ; n > 0; n-- {
		p := e.shares.line.Pop()
		if p == nil {
			break
		}
		l.give(p.Owner.(*Turn), aLook)
	}
	l.forsake(e)
}

// dialled tells those that wait for a stream of e that there is a connection, one of whose streams is taken.
func (l *limits) dialled(e *Endpoint, s *Shared, most uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.shares.dials--
	l.lookUp(e, s.HTTP.Room(most)-1)
	l.seek(e)
}

// undialled gives back the room for a connection of HTTP/2 that was not opened.
func (l *limits) undialled(e *Endpoint, err error) {
	l.mu.Lock()
	e.shares.dials--
	l.mu.Unlock()
	e.ended(true, err)
}
