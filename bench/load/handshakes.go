//go:build linux

package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Handshakes opens connections with TLS 1.3 to one address as fast as they succeed, each with a full handshake, and
// closes each at once. What it counts as done are connections that the other side has closed too, in order.
type Handshakes struct {
	loop     *Loop
	addr     string
	config   *tls.Config
	parallel int

	ctx    context.Context
	cancel context.CancelFunc
	active sync.WaitGroup // goroutines, each with a connection at a time
	done   atomic.Uint64
	failed atomic.Uint64
	group  atomic.Uint32

	mu    sync.Mutex
	first error
}

// NewHandshakes returns a load of so many handshakes at a time. It needs no backend.
func (l *Loop) NewHandshakes(addr string, parallel int, config *tls.Config) *Handshakes {
	h := &Handshakes{loop: l, addr: addr, parallel: parallel, config: config}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	return h
}

// Saturate makes handshakes for d. Some are under way when it returns, and go on until Close.
func (h *Handshakes) Saturate(d time.Duration) error {
	for ; h.parallel > 0; h.parallel-- {
		h.active.Go(h.repeat)
	}
	const look = 20 * time.Millisecond
	for end := time.Now().Add(d); ; {
		if h.loop.stopped.Load() {
			return ErrStopped
		}
		if n, first := h.Failures(); n > tolerated {
			return fmt.Errorf("more than %d handshakes failed, the first: %w", tolerated, first)
		}
		left := time.Until(end)
		if left <= 0 {
			return nil
		}
		time.Sleep(min(left, look))
	}
}

// repeat makes one handshake after the other.
func (h *Handshakes) repeat() {
	for h.ctx.Err() == nil && h.failed.Load() <= tolerated {
		err := h.one()
		if h.ctx.Err() != nil {
			return
		}
		if err == nil {
			h.done.Add(1)
			continue
		}
		h.failed.Add(1)
		h.mu.Lock()
		if h.first == nil {
			h.first = err
		}
		h.mu.Unlock()
	}
}

func (h *Handshakes) one() error {
	ctx, cancel := context.WithTimeout(h.ctx, patience)
	defer cancel()
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, "tcp4", h.addr)
	if err != nil {
		return err
	}
	defer func() { _ = nc.Close() }() // both sides are done with it
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c := tls.Client(nc, h.config)
	if err := c.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("cannot open TLS with %s: %w", h.addr, err)
	}
	s := c.ConnectionState()
	if s.Version != tls.VersionTLS13 || s.DidResume {
		return fmt.Errorf("the handshake is %s, resumed %v: want a full one of TLS 1.3", tls.VersionName(s.Version), s.DidResume)
	}
	h.group.Store(uint32(s.CurveID))
	// The other side has done all that it does for a handshake when it closes.
	if err := c.CloseWrite(); err != nil {
		return err
	}
	if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if n, err := io.Copy(io.Discard, nc); err != nil || n > maxGoodbye {
		return errors.Join(fmt.Errorf("%d bytes came behind the handshake", n), err)
	}
	return nil
}

// maxGoodbye is more than session tickets and a close_notify take.
const maxGoodbye = 4 << 10

// Group returns the group of the last handshake's key exchange; empty before the first.
func (h *Handshakes) Group() string {
	if g := h.group.Load(); g != 0 {
		return tls.CurveID(g).String()
	}
	return ""
}

// Done returns how many handshakes have succeeded.
func (h *Handshakes) Done() uint64 { return h.done.Load() }

// Failures returns how many have not, and why the first has not.
func (h *Handshakes) Failures() (uint64, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed.Load(), h.first
}

// Drain does nothing: Close ends what is under way.
func (h *Handshakes) Drain() error { return nil }

// Close ends the handshakes that are under way and waits for them.
func (h *Handshakes) Close() {
	h.cancel()
	h.active.Wait()
}
