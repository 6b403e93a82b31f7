package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/proxy/upstream"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/mux"
)

const (
	// coarseTick is how often deadlines are looked at when none is near, fineTick when one is, or when an exchange has a short
	// one: so late can a timeout be, and in return no exchange starts or stops a timer.
	coarseTick = 100 * time.Millisecond
	fineTick   = 5 * time.Millisecond
	// fineBelow is how short a timeout must be to ask for the fine tick. The coarse one sees a longer one before it is over,
	// whenever it began, and the sweeper then comes in time.
	fineBelow = 2 * coarseTick
	// goneAfter is how long an exchange waits for its upstream before the sweeper looks whether the client is still there.
	goneAfter = int64(100 * time.Millisecond)
	// flowSeconds is how often a tunnel that lasts tells what has passed (Istio's reporting interval).
	flowSeconds = 5
)

// never is the deadline of a busy phase that may last.
const never = int64(1<<63 - 2)

// fired stands in a guard's deadline once the phase was ended from outside.
const fired = int64(-1)

// idleBit marks the deadline of an idle phase: one that may be ended for the proxy's own reasons.
const idleBit = int64(1)

// guard watches the current phase of one connection, or of one exchange on HTTP/2, on behalf of the goroutine that serves it.
//
// The goroutine begins each phase with one atomic swap of its deadline. The sweeper, when it finds the deadline passed or
// the client gone, puts fired in its place and interrupts the connection's waits; whoever swaps first has the phase, so
// an interruption never reaches the phase after.
type guard struct {
	deadline atomic.Int64
	// waiting is when the exchange began to wait for its upstream, 0 while the client is not to be looked after.
	waiting atomic.Int64
	mu      sync.Mutex // held while firing
	cause   cause      // guarded by mu
}

// cause says why a phase was ended.
type cause uint8

const (
	expired cause = iota
	vanished
	drained
	unsentBody   // the client does not go on with its body
	unreadAnswer // the client does not go on reading
	stilled      // nothing has passed for as long as the route allows
)

// arm begins a busy phase that may last until deadline. It reports whether the phase before was ended from outside, which
// then is over: what was interrupted must be resumed before it is waited on again.
func (g *guard) arm(deadline int64) (interrupted bool) { return g.begin(deadline &^ idleBit) }

// rest is arm for an idle phase.
func (g *guard) rest(deadline int64) (interrupted bool) { return g.begin(deadline | idleBit) }

func (g *guard) begin(deadline int64) (interrupted bool) {
	if g.deadline.Swap(deadline) != fired {
		return false
	}
	// Whoever fired may not have come to interrupt yet: wait, or it would meet the phase that begins here.
	g.mu.Lock()
	defer g.mu.Unlock()
	return true
}

// over says whether the phase was ended from outside.
func (g *guard) over() bool { return g.deadline.Load() == fired }

// why returns the cause, after the phase was found to be over.
func (g *guard) why() cause {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cause
}

// fire ends the phase that has this deadline, unless it is over already.
func (g *guard) fire(deadline int64, c cause, interrupt func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.deadline.CompareAndSwap(deadline, fired) {
		g.cause = c
		interrupt()
	}
}

// retire ends the phase if it is an idle one.
func (g *guard) retire(interrupt func()) {
	if d := g.deadline.Load(); d != fired && d&idleBit != 0 {
		g.fire(d, drained, interrupt)
	}
}

// waiter is what a goroutine waits on: a link, or a stream.
type waiter interface {
	Interrupt()
	Resume()
}

// watch is what ends the waits of one HTTP/1 connection, or of one exchange on HTTP/2, from outside.
type watch struct {
	guard
	motion
	lenience
	pulse
	client waiter
	// gone says that a stream has ended for good: that ends every phase, the ones that are yet to begin included.
	gone atomic.Bool
	// up and call are what the exchange under way waits on at the endpoint's side.
	up   atomic.Pointer[link.Link]
	call atomic.Pointer[mux.Call]
	// bell wakes the exchange from its nap.
	bell atomic.Pointer[bell]
	// turn is the exchange's place in the line before a cluster's connections.
	turn atomic.Pointer[upstream.Turn]
}

// arm begins a busy phase that may last until deadline. It reports whether the phase before was ended from outside: the
// client's side can be waited on again then.
func (w *watch) arm(deadline int64) (interrupted bool) {
	if interrupted = w.guard.arm(deadline); interrupted {
		w.client.Resume()
	}
	if w.gone.Load() { // behind the swap: who comes later finds the phase that has begun
		w.vanish()
	}
	return interrupted
}

// rest is arm for an idle phase.
func (w *watch) rest(deadline int64) {
	if w.guard.rest(deadline) {
		w.client.Resume()
	}
}

// interrupt ends every wait.
func (w *watch) interrupt() {
	w.client.Interrupt()
	if up := w.up.Load(); up != nil {
		up.Interrupt()
	}
	if call := w.call.Load(); call != nil {
		call.Interrupt()
	}
	w.ring()
	if turn := w.turn.Load(); turn != nil {
		turn.Interrupt()
	}
}

// check ends the phase if its time is over, and returns when a busy one's is.
func (w *watch) check(t int64) (due int64) {
	d := w.guard.deadline.Load()
	switch {
	case d == fired:
		return never
	case w.limit.Load() > 0 && d&idleBit == 0 && w.still(t):
		w.guard.fire(d, stilled, w.interrupt)
		return t
	case d <= t:
		if m := w.moved(d, t); m > t {
			w.guard.deadline.CompareAndSwap(d, m&^idleBit)
			return m
		}
		w.guard.fire(d, expired, w.interrupt)
		return d // what follows may be short: another look soon
	case d&idleBit != 0:
		return never // none the wiser for being punctual
	}
	return min(d, w.beat())
}

// vanish ends the phase, whatever it is, as the client has gone.
func (w *watch) vanish() {
	for d := w.guard.deadline.Load(); d != fired; d = w.guard.deadline.Load() {
		w.guard.fire(d, vanished, w.interrupt)
	}
}

// registry is the set of connections under a proxy, and the sweeper's work list.
type registry struct {
	mu    sync.Mutex
	conns map[*conn]struct{}
	// fine counts exchanges under way with a short deadline.
	fine atomic.Int64
	wake chan struct{}
}

func (r *registry) add(c *conn) {
	r.mu.Lock()
	r.conns[c] = struct{}{}
	r.mu.Unlock()
}

func (r *registry) remove(c *conn) {
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
}

func (r *registry) list(dst []*conn) []*conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.conns {
		dst = append(dst, c)
	}
	return dst
}

func (r *registry) count() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return int64(len(r.conns))
}

// hurry asks for the fine tick until the exchange calls relax.
func (r *registry) hurry() {
	if r.fine.Add(1) == 1 {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

func (r *registry) relax() { r.fine.Add(-1) }

// sweep enforces deadlines, notices clients that went away, and lets upstream tidy up, until ctx ends.
func (p *Proxy) sweep(ctx context.Context) {
	var conns []*conn
	tick := time.NewTimer(coarseTick)
	defer tick.Stop()
	lastPeek, lastTidy, seconds := now(), now(), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-p.conns.wake:
		}
		t := now()
		peek := t-lastPeek >= goneAfter
		if peek {
			lastPeek = t
			p.upstream.Judge(t)
		}
		due := p.mirrors.check(t)
		conns = p.conns.list(conns[:0])
		for _, c := range conns {
			due = min(due, c.check(t, peek))
		}
		clear(conns)
		if t-lastTidy >= int64(time.Second) {
			lastTidy = t
			p.upstream.Sweep(t)
			p.crew.trim()
			if seconds++; seconds%flowSeconds == 0 {
				p.flows.look()
				for _, c := range p.conns.list(nil) {
					c.tell()
				}
			}
		}
		if p.conns.fine.Load() > 0 {
			tick.Reset(fineTick)
		} else {
			tick.Reset(min(max(time.Duration(due-now()), fineTick), coarseTick))
		}
	}
}

// check ends c's phase if its time is over or, when peek is set, if it waits for an endpoint on behalf of a client that has gone.
// It returns when the time of a busy phase is over.
func (c *conn) check(t int64, peek bool) (due int64) {
	if s := c.session.Load(); s != nil {
		return s.check(t)
	}
	w := &c.watch
	due = w.check(t)
	c.move(t)
	if since := w.waiting.Load(); peek && since != 0 && t-since >= goneAfter && c.link.Ended() {
		if d := w.deadline.Load(); d != fired {
			w.fire(d, vanished, w.interrupt)
		}
	}
	return due
}
