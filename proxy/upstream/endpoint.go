package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
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
func (e *Endpoint) Dial(ctx context.Context, timeout time.Duration, secure *tls.Config) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", e.address)
	if err != nil {
		e.failed.Add(1)
		return nil, fmt.Errorf("cannot connect to %s: %w", e.address, reason(err))
	}
	c := &Conn{endpoint: e}
	if err := c.Init(nc); err != nil {
		_ = nc.Close()
		e.failed.Add(1)
		return nil, fmt.Errorf("cannot use connection to %s: %w", e.address, err)
	}
	if secure != nil {
		t := tls.Client(c.Replay(nil), secure)
		if err := t.HandshakeContext(ctx); err != nil {
			_ = nc.Close()
			e.failed.Add(1)
			return nil, &HandshakeError{Address: e.address, Err: err}
		}
		c.Secure(t)
	}
	e.opened.Add(1)
	e.mu.Lock()
	e.users++
	e.mu.Unlock()
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
	e.mu.Lock()
	e.users--
	if !e.gone && len(e.idle) < maxIdle {
		e.idle = append(e.idle, c)
		e.mu.Unlock()
		return
	}
	e.mu.Unlock()
	_ = c.Close()
}

// Drop closes a connection that an exchange held and that cannot serve another.
func (c *Conn) Drop() {
	e := c.endpoint
	e.mu.Lock()
	e.users--
	e.mu.Unlock()
	_ = c.Close()
}

// sweep closes connections that are idle since before, and, when peek is set, those that the peer has closed.
func (e *Endpoint) sweep(now, idle int64, peek bool) {
	before := now - idle
	e.mu.Lock()
	var ended []*Conn
	kept := e.idle[:0]
	for _, c := range e.idle {
		if c.since < before || peek && !c.Fresh() {
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
	}
	keepAlive := e.keepAlive.Load()
	for _, s := range e.shared() {
		if keepAlive != nil {
			s.test(now, keepAlive)
		}
		s.sweep(before)
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
