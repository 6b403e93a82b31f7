package mux

import (
	"runtime"

	"github.com/outrider-mesh/outrider/wire/http2"
)

// Flush sends what waits, without waiting; where the socket is full, a goroutine of m's goes on with it, and Serve waits
// for that one. It may come from anywhere, but not while a lock is held that the handler's Writable takes. An error cuts
// the link, so that Serve ends.
func (m *Mux) Flush() {
	m.mu.Lock()
	if m.writing {
		m.again = true
		m.mu.Unlock()
		return
	}
	if !m.broken && !m.left() { // others have sent what this one was to send
		m.mu.Unlock()
		return
	}
	m.writing = true
	m.mu.Unlock()
	// Whoever else is about to send gets to it first, and this one write takes all along: with a goroutine for each exchange
	// the writes would otherwise be as many as the exchanges (bench, h2c and grpc; docs/decisions/008). A client without
	// streams has no others, and many such connections at once would each hold a write buffer meanwhile.
	if m.role == http2.Client || m.HTTP.Streams() > 0 {
		runtime.Gosched()
	}
	m.mu.Lock()
	for !m.broken {
		m.again = false
		m.mu.Unlock()
		err := m.HTTP.Flush(m.try)
		if err == nil && m.HTTP.Pending() == 0 && m.link.Spilled() {
			_, err = m.link.TryWrite(nil)
		}
		full := err == nil && m.left()
		m.mu.Lock()
		switch {
		case err != nil:
			m.fail()
		case full && !m.closed:
			m.waiting = true
			m.stalled.Store(m.now())
			go m.push() // Serve waits for it, in quit
			m.mu.Unlock()
			return
		}
		if !m.again || full {
			break
		}
	}
	m.writing = false
	m.cond.Broadcast()
	m.mu.Unlock()
}

// left says whether something waits to be written.
func (m *Mux) left() bool { return m.HTTP.Pending() > 0 || m.link.Spilled() }

// push writes what waits until nothing does, waiting for the socket.
func (m *Mux) push() {
	for {
		err := m.link.Drain()
		if err == nil {
			err = m.HTTP.Flush(m.force)
		}
		if err == nil {
			err = m.link.Drain()
		}
		m.mu.Lock()
		if err != nil {
			m.fail()
		}
		if m.broken || !m.again && !m.left() {
			break
		}
		m.again = false
		m.mu.Unlock()
	}
	m.stalled.Store(0)
	m.writing, m.waiting, m.again = false, false, false
	m.cond.Broadcast()
	m.mu.Unlock()
}

// forcePiece is how many bytes are written before those who wait for less to be waiting may look again.
const forcePiece = 128 << 10

// write waits until the socket has taken a piece of p.
func (m *Mux) write(p []byte) (n int, err error) {
	n, err = m.link.Write(p[:min(len(p), forcePiece)])
	m.mu.Lock()
	m.cond.Broadcast()
	m.mu.Unlock()
	return n, err
}

// fail ends a connection that cannot be written, called with mu: its reader sees the end.
func (m *Mux) fail() {
	m.broken = true
	m.link.Cut()
	m.cond.Broadcast()
}
