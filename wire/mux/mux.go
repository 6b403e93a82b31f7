// Package mux runs HTTP/2 connections over links: one reader each, writes that are batched and never waited for.
//
// A Mux joins an http2.Conn with a link.Link. Its reader (Serve) handles all frames that are there, then flushes the
// connections that these had it send on, each once, then reads on. A flush writes what the socket takes; where it is
// full, a goroutine waits for it, so that nobody else has to. There is no goroutine or channel for a stream: a Call is a
// stream for those who bring a goroutine of their own.
package mux

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/link"
)

// Defaults of http2.Options, which the engine does not tell.
const (
	defaultWriteBuffer  = 256 << 10
	defaultStreamWindow = 64 << 10
	minStreamWindow     = 1<<16 - 1
)

// farewell is how long a connection that ends for a fault of its peer's, or because its reading was interrupted, waits
// for a full socket to take the last words.
const farewell = time.Second

// errServed says that Serve was called on a Mux that was served.
var errServed = errors.New("cannot serve a connection twice")

// Mux runs one http2.Conn over one link.
type Mux struct {
	// HTTP is the connection's engine. Its Receive, Flush and Close are the Mux's own; use the Mux's for these.
	HTTP *http2.Conn
	// Handled, where it is set before Serve, is called by the reader each time that it has handled all frames that are
	// there, before it flushes: for what is better begun once the rest is known.
	Handled func()

	link     *link.Link
	role     http2.Role
	now      func() int64
	limit    int // bytes waiting to be written beyond which nothing is read
	window   int // that of a stream, in bytes
	try      func(p []byte) (int, error)
	force    func(p []byte) (int, error)
	frames   frames
	touched  []*Mux // the reader's own
	lastRead atomic.Int64
	partial  atomic.Int64
	stalled  atomic.Int64
	end      atomic.Pointer[error]

	mu      sync.Mutex
	cond    sync.Cond // what follows has changed
	writing bool      // somebody writes; it will write what others have to say meanwhile
	again   bool      // others have had something to say meanwhile
	waiting bool      // the one who writes is a goroutine that waits for the socket
	broken  bool      // nothing can be written any more
	served  bool
	closed  bool // Serve is at its end: no goroutine is to be started
}

// New returns the connection over l, with what it begins with waiting to be flushed. A secured link must be over
// link.Replay. h is called as http2.Handler says, from Serve and, for Writable, from any Flush; now is the time in
// nanoseconds from any fixed moment on, and o.Now where that is nil.
func New(l *link.Link, role http2.Role, h http2.Handler, o http2.Options, now func() int64) *Mux {
	if o.Now == nil {
		o.Now = now
	}
	if o.WriteBuffer == 0 {
		o.WriteBuffer = defaultWriteBuffer
	}
	if o.StreamWindow == 0 {
		o.StreamWindow = defaultStreamWindow
	}
	o.StreamWindow = max(o.StreamWindow, minStreamWindow)
	m := &Mux{
		HTTP: http2.New(role, h, o), link: l, role: role, now: now,
		limit: 2 * o.WriteBuffer, window: int(o.StreamWindow),
	}
	m.try, m.force, m.cond.L = l.TryWrite, m.write, &m.mu
	m.frames.preface = role == http2.Server
	t := now()
	m.lastRead.Store(t)
	m.partial.Store(t)
	return m
}

// Link returns the link.
func (m *Mux) Link() *link.Link { return m.link }

// LastRead is when bytes came last, or the connection began, by the clock that New was given.
func (m *Mux) LastRead() int64 { return m.lastRead.Load() }

// Partial is since when a head has been incomplete, 0 where none is: a field section, less than the head of a frame, or
// what a peer begins its connection with: the preface of a client, the SETTINGS of either.
func (m *Mux) Partial() int64 { return m.partial.Load() }

// Stalled is since when the socket has been full, or 0: a peer that does not read.
func (m *Mux) Stalled() int64 { return m.stalled.Load() }

// Err is why the connection has ended, as Serve will return it; nil while it has not. It is there before the calls of
// Handler.Reset that the end brings.
func (m *Mux) Err() error {
	if e := m.end.Load(); e != nil {
		return *e
	}
	return nil
}

// Shutdown begins to end the connection gracefully (http2.Conn.Shutdown), which a second call hurries. The connection
// can be closed when Idle says so: InterruptRead on its link ends Serve then.
func (m *Mux) Shutdown() {
	m.HTTP.Shutdown()
	m.Flush()
}

// Idle says whether no stream is open and, Shutdown having run its course, none will come; and whether the peer's socket
// has taken all that was said to it.
func (m *Mux) Idle() bool {
	return m.HTTP.Streams() == 0 && m.HTTP.Drained() && (m.Stalled() == 0 || m.HTTP.Pending() == 0)
}

// Serve reads until the connection ends and hands every frame to the handler; first, which may be nil, holds bytes that
// came before, and is taken over. It returns why it has ended: io.EOF, os.ErrDeadlineExceeded where the link's reading
// was interrupted, an *http2.Error, or another error of the link's. Before that it flushes what waits, a GOAWAY that says
// why included, and ends the streams that are left: the handler's last calls. It does not close the link, and no
// goroutine of m's remains. One goroutine calls it, once.
//
// While more than twice the write buffer waits for the socket, nothing is read, and then it is Interrupt or Cut of the
// link that ends Serve, not InterruptRead.
func (m *Mux) Serve(first *link.Buffer) error {
	m.mu.Lock()
	served := m.served
	m.served = true
	m.mu.Unlock()
	if served {
		return errServed
	}
	m.Flush()
	err := m.read(first)
	m.end.Store(&err)
	m.flushTouched()
	m.quit(err)
	code := http2.Cancel
	var e *http2.Error
	if errors.As(err, &e) {
		code = e.Code
	}
	m.HTTP.Close(code)
	m.flushTouched()
	m.partial.Store(0)
	return err
}

// read handles what comes until no more does.
func (m *Mux) read(b *link.Buffer) (err error) {
	defer func() {
		if b != nil {
			link.PutBuffer(b)
		}
	}()
	for {
		if b != nil && b.Len() > 0 {
			n, err := m.HTTP.Receive(b.Bytes())
			m.note(b.Bytes(), n)
			if b.Skip(n); b.Len() == 0 { // before the flush, which lets others run: many connections at once would each hold one
				link.PutBuffer(b)
				b = nil
			}
			if m.Handled != nil {
				m.Handled()
			}
			if err != nil {
				return err
			}
			m.flushTouched()
			if err := m.await(); err != nil {
				return err
			}
		}
		if b != nil && b.Len() > 0 {
			err = m.link.More(b)
		} else {
			if b != nil {
				link.PutBuffer(b)
			}
			b, err = m.link.Receive()
		}
		if err != nil {
			return err
		}
		m.lastRead.Store(m.now())
	}
}

// note keeps Partial up, after the first n bytes of b were handled.
func (m *Mux) note(b []byte, n int) {
	progress, partial := m.frames.pass(b[:n], b[n:])
	switch {
	case !partial:
		if m.partial.Load() != 0 {
			m.partial.Store(0)
		}
	case progress || m.partial.Load() == 0:
		m.partial.Store(m.lastRead.Load())
	}
}

// await waits while too much waits to be written: the peer does not read what it asks for.
func (m *Mux) await() error {
	if m.HTTP.Pending() <= m.limit {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.writing && !m.broken && m.HTTP.Pending() > m.limit {
		m.cond.Wait()
	}
	if m.broken {
		return fmt.Errorf("cannot write: %w", io.ErrClosedPipe)
	}
	return nil
}

// Touch notes, during a handler call on m's reader, that other, which may be m, has something to flush: it is flushed
// once m has handled all frames that are there.
func (m *Mux) Touch(other *Mux) {
	if other == m {
		return // it is flushed anyway
	}
	for i := len(m.touched) - 1; i >= 0; i-- {
		if m.touched[i] == other {
			return
		}
	}
	m.touched = append(m.touched, other)
}

func (m *Mux) flushTouched() {
	m.Flush()
	for i := 0; i < len(m.touched); i++ { // a Writable that the flush brings may touch another
		m.touched[i].Flush()
		m.touched[i] = nil
	}
	m.touched = m.touched[:0]
}

// quit waits until nobody writes any more and what was said has been written, for as long as it is worth it, and lets
// nobody else begin to wait for the socket.
func (m *Mux) quit(err error) {
	var e *http2.Error
	wait := time.Duration(0)
	if errors.As(err, &e) || link.Interrupted(err) {
		wait = farewell
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	if m.waiting {
		m.link.LimitWrite(wait)
	}
	for m.writing { // who writes may have taken over what another had to say: a stream's trailers, say
		m.cond.Wait()
	}
	if wait == 0 || m.broken || !m.left() {
		return
	}
	// The socket got full behind m.closed.
	m.writing, m.waiting = true, true
	m.mu.Unlock()
	m.link.LimitWrite(wait)
	m.push()
	m.mu.Lock()
}
