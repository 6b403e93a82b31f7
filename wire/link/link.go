// Package link reads and writes one connection for the codecs: no buffer is held while nothing is there to read.
//
// A sidecar has many idle connections and few busy ones, so a Link takes its read buffer from a pool only when the
// kernel has bytes for it. One goroutine reads a Link and one writes it (the same or another); Interrupt and Close may
// come from anywhere.
package link

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// ErrStale says that a kept connection was closed by its peer, or spoken on out of turn, before anything was written to it.
var ErrStale = errors.New("connection was closed while idle")

// Link is one TCP connection. The zero Link is not usable; see Init.
type Link struct {
	conn net.Conn
	raw  syscall.RawConn
	// receive and ask are methods bound once, so that a wait costs no closure; the rest is what one such wait takes and gives.
	receive, ask func(fd uintptr) bool
	out          []byte
	asked        bool
	got          *Buffer
	err          error
}

// Init makes l the link over c.
func (l *Link) Init(c net.Conn) error {
	l.conn = c
	s, ok := c.(syscall.Conn)
	if !ok {
		return errors.New("connection has no file descriptor")
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	l.raw, l.receive, l.ask = raw, l.tryReceive, l.tryAsk
	return nil
}

// Conn returns the connection beneath.
func (l *Link) Conn() net.Conn { return l.conn }

// Receive waits until bytes are there and returns them in a buffer from the pool, which the caller gives back.
// The end of the stream is io.EOF; an interrupted wait is os.ErrDeadlineExceeded.
func (l *Link) Receive() (*Buffer, error) {
	if err := l.raw.Read(l.receive); err != nil {
		return nil, err
	}
	b, err := l.got, l.err
	l.got, l.err = nil, nil
	return b, err
}

// Ask writes a whole request to a connection that was kept, and waits for the first bytes of the answer. ErrStale means
// that the connection had ended before and nothing was written. The look for that costs nothing: it is the read that
// would have to fail once anyway before the kernel's readiness can be waited for.
func (l *Link) Ask(request []byte) (*Buffer, error) {
	l.out, l.asked = request, false
	err := l.raw.Read(l.ask)
	l.out = nil
	if err != nil {
		return nil, err
	}
	b, err := l.got, l.err
	l.got, l.err = nil, nil
	return b, err
}

// More waits for more bytes and adds them to b.
func (l *Link) More(b *Buffer) error {
	n, err := l.conn.Read(b.room())
	b.end += n
	if n > 0 {
		return nil
	}
	return err
}

// Write writes all of p, or fails behind the first n bytes.
func (l *Link) Write(p []byte) (n int, err error) { return l.conn.Write(p) }

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// Interrupt ends every wait on the link, now and until Resume, with os.ErrDeadlineExceeded.
func (l *Link) Interrupt() { _ = l.conn.SetDeadline(past) }

// InterruptRead is Interrupt for reading only.
func (l *Link) InterruptRead() { _ = l.conn.SetReadDeadline(past) }

// Resume undoes Interrupt.
func (l *Link) Resume() { _ = l.conn.SetDeadline(time.Time{}) }

// Close ends the connection in order.
func (l *Link) Close() error { return l.conn.Close() }

// Reset ends the connection so that the peer sees an error and not an end: what was sent must not be taken for complete.
func (l *Link) Reset() error {
	if t, ok := l.conn.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	return l.conn.Close()
}

// Interrupted says whether err is that of an interrupted wait.
func Interrupted(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
