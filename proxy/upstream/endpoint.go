package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/accrual"
	"github.com/outrider-mesh/outrider/proxy/balance"
	"github.com/outrider-mesh/outrider/wire/link"
)

// maxIdle bounds the connections that one endpoint keeps for later.
const maxIdle = 1024

// Endpoint is one address of one cluster, with all that outlives a configuration: its connections and what is under way.
type Endpoint struct {
	address string
	set     *Set // which waits for the readers of shared connections
	vitals  balance.Vitals

	mu    sync.Mutex
	idle  []*Conn // last used last
	gone  bool    // no configuration names it any more: keep nothing
	users int     // connections that exchanges hold
	open  int     // connections of either version, those being dialled included

	limits         atomic.Pointer[limits]          // of the cluster, nil where there never were any; written with mu
	shares         shares                          // connections of HTTP/2
	keepAlive      atomic.Pointer[model.KeepAlive] // of those, by the configuration in force; nil is none
	accrual        *accrual.Endpoint               // guarded by the set's mu
	opened, failed atomic.Uint64
	lastUse        atomic.Int64 // coarse; for endpoints that traffic brought
}

// Conn is one connection to an endpoint. One exchange holds it at a time.
type Conn struct {
	link.Link
	endpoint *Endpoint
	// Reused says that an earlier exchange used the connection: its peer may have closed it in the meantime.
	Reused bool
	since  int64 // when it became idle
	born   time.Time
	served uint32 // exchanges that have given it back
}

// Address returns host:port as it is dialled.
func (e *Endpoint) Address() string { return e.address }

// Lease takes the connection that was used last from those kept, or nil where there is none.
func (e *Endpoint) Lease() *Conn {
	e.mu.Lock()
	n := len(e.idle)
	if n == 0 {
		e.mu.Unlock()
		return nil
	}
	c := e.idle[n-1]
	e.idle[n-1] = nil
	e.idle = e.idle[:n-1]
	e.users++
	e.mu.Unlock()
	c.Reused = true
	return c
}

// Dial opens a connection, through TLS where secure is not nil; timeout bounds name resolution, connecting and the
// handshake together. A handshake that fails is an error that HandshakeError tells apart.
//
// Where limits hold, t waits for room first, and may be given a kept connection in place of a new one; ErrOverflow and
// ErrInterrupted say that it was not. t is nil where the exchange's configuration has none.
func (e *Endpoint) Dial(ctx context.Context, timeout time.Duration, secure *tls.Config, t *Turn) (*Conn, error) {
	if l := e.limits.Load(); l != nil && t != nil {
		var cancel context.CancelFunc
		ctx, cancel = t.bound(ctx)
		defer cancel()
		if !t.Opaque { // whoever has no connection is pending, as in Envoy
			if !l.pending.Take() {
				return nil, errPending
			}
			defer l.pending.Give()
		}
		if c, err := l.room(e, t); c != nil || err != nil {
			return c, err
		}
	} else {
		e.begin(false)
	}
	c, err := e.dial(ctx, timeout, secure)
	if err != nil {
		e.failed.Add(1)
		e.ended(false, err)
		return nil, err
	}
	e.opened.Add(1)
	e.mu.Lock()
	e.users++
	e.mu.Unlock()
	return c, nil
}

func (e *Endpoint) dial(ctx context.Context, timeout time.Duration, secure *tls.Config) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	nc, err := e.tuning().dialer.DialContext(ctx, "tcp", e.address)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", e.address, reason(err))
	}
	c := &Conn{endpoint: e, born: time.Now()}
	if err := c.Init(nc); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("cannot use connection to %s: %w", e.address, err)
	}
	if secure != nil {
		t := tls.Client(c.Replay(nil), secure)
		if err := t.HandshakeContext(ctx); err != nil {
			_ = nc.Close()
			return nil, &HandshakeError{Address: e.address, Err: err}
		}
		c.Secure(t)
	}
	return c, nil
}

// HandshakeError is a TLS handshake with an endpoint that failed.
type HandshakeError struct {
	Address string
	Err     error
}

func (e *HandshakeError) Error() string {
	return fmt.Sprintf("cannot speak TLS to %s: %v", e.Address, e.Err)
}

// Unwrap returns the cause.
func (e *HandshakeError) Unwrap() error { return e.Err }

// reason takes the addresses off a dial error: the message around it names them already.
func reason(err error) error {
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Err != nil {
		return op.Err
	}
	return err
}

// Keep gives a connection back for later exchanges; now is coarse monotonic nanoseconds.
func (c *Conn) Keep(now int64) {
	e := c.endpoint
	c.since = now
	c.served++
	e.mu.Lock()
	if l := e.limits.Load(); l != nil {
		if t := l.tuning.Load(); t.perConnection > 0 && c.served >= t.perConnection || c.aged(t) {
			e.mu.Unlock()
			c.Drop()
			return
		}
		if l.queued.Load() > 0 || l.excess.Load() { // looked at with mu: see limits.queued
			e.mu.Unlock()
			l.pass(c)
			return
		}
	}
	e.users--
	if !e.gone && len(e.idle) < maxIdle {
		e.idle = append(e.idle, c)
		e.mu.Unlock()
		return
	}
	e.mu.Unlock()
	_ = c.Close()
	e.ended(false, nil)
}

// Unused is Keep for a connection that carried nothing.
func (c *Conn) Unused(now int64) {
	c.served-- // which Keep adds
	c.Keep(now)
}

// aged says whether the connection has lasted for as long as it may.
func (c *Conn) aged(t *tuning) bool { return t.duration > 0 && int64(time.Since(c.born)) >= t.duration }

// Lifetime returns how long the connection may last from now on (maxConnectionDuration); 0 is for ever.
func (c *Conn) Lifetime() time.Duration {
	d := c.endpoint.tuning().duration
	if d == 0 {
		return 0
	}
	return max(1, time.Duration(d)-time.Since(c.born))
}

// Drop closes a connection that an exchange held and that cannot serve another.
func (c *Conn) Drop() {
	e := c.endpoint
	e.mu.Lock()
	e.users--
	e.mu.Unlock()
	_ = c.Close()
	e.ended(false, nil)
}

// sweep closes connections that are idle for longer than they may, but at most for so long where that is not 0, and, when
// peek is set, those that the peer has closed.
func (e *Endpoint) sweep(now, longest int64, peek bool) {
	t := e.tuning()
	idle := t.idle
	if longest > 0 && (idle == 0 || idle > longest) {
		idle = longest
	}
	before := now - idle
	if idle == 0 {
		before = math.MinInt64
	}
	e.mu.Lock()
	var ended []*Conn
	kept := e.idle[:0]
	for _, c := range e.idle {
		if c.since < before || c.aged(t) || peek && !c.Fresh() {
			ended = append(ended, c)
			continue
		}
		kept = append(kept, c)
	}
	clear(e.idle[len(kept):])
	e.idle = kept
	e.mu.Unlock()
	for _, c := range ended {
		_ = c.Close()
		e.ended(false, nil)
	}
	keepAlive := e.keepAlive.Load()
	for _, s := range e.shared() {
		if keepAlive != nil {
			s.test(now, keepAlive)
		}
		s.sweep(before, t)
	}
}

// shared returns the connections of HTTP/2.
func (e *Endpoint) shared() []*Shared {
	if open := e.shares.open.Load(); open != nil {
		return *open
	}
	return nil
}

// retire closes what is idle and sees that nothing is kept from now on; revive undoes it.
func (e *Endpoint) retire() {
	e.mu.Lock()
	idle := e.idle
	e.idle, e.gone = nil, true
	shared := e.shared()
	e.shares.open.Store(nil)
	e.mu.Unlock()
	for _, c := range idle {
		_ = c.Close()
		e.ended(false, nil)
	}
	for _, s := range shared {
		s.discard()
	}
}

func (e *Endpoint) revive() {
	e.mu.Lock()
	e.gone = false
	e.mu.Unlock()
}

// Opened returns how many connections were opened, and how many could not be.
func (e *Endpoint) Opened() (opened, failed uint64) { return e.opened.Load(), e.failed.Load() }

// Connections returns how many connections exchanges use, and how many are kept for later.
func (e *Endpoint) Connections() (active, idle int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	active, idle = e.users, len(e.idle)
	for _, s := range e.shared() {
		if s.HTTP.Streams() > 0 {
			active++
		} else {
			idle++
		}
	}
	return active, idle
}
