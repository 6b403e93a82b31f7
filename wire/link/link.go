// Package link reads and writes one connection for the codecs: no buffer is held while nothing is there to read.
//
// A sidecar has many idle connections and few busy ones, so a Link takes its read buffer from a pool only when the
// kernel has bytes for it. One goroutine reads a Link and one writes it (the same or another); Interrupt, Cut and Ended may
// come from anywhere. A writer that must not wait uses TryWrite.
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
	conn net.Conn // what is read and written
	tcp  net.Conn // what carries it: the same, or what TLS runs over
	raw  syscall.RawConn
	// receive and ask are methods bound once, so that a wait costs no closure; the rest is what one such wait takes and gives.
	receive, ask func(fd uintptr) bool
	out          []byte
	asked        bool
	got          *Buffer
	err          error
	// dispatch is tryPush bound once; the rest is what one such write takes and gives.
	dispatch func(fd uintptr)
	pushing  []byte
	pushed   int
	pushErr  error
	carrier  carrier // what TLS runs over; unused in a plain link
}

// Init makes l the link over c.
func (l *Link) Init(c net.Conn) error {
	l.conn, l.tcp = c, c
	s, ok := c.(syscall.Conn)
	if !ok {
		return errors.New("connection has no file descriptor")
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	l.raw, l.receive, l.ask, l.dispatch = raw, l.tryReceive, l.tryAsk, l.tryPush
	return nil
}

// Secure makes l read and write t, which runs over l's connection: over what Replay returned, or a buffer is held while
// waiting from then on.
func (l *Link) Secure(t net.Conn) { l.conn = t }

// Secured says whether Secure was called.
func (l *Link) Secured() bool { return l.conn != l.tcp }

// Replay returns l's connection for TLS to run over, once: one that gives what is in first, which may be nil, before all
// else. It takes first over. Writing to it waits until TryWrite is called for the first time, and never does after that.
func (l *Link) Replay(first *Buffer) net.Conn {
	c := &l.carrier
	c.Conn, c.l, c.first = l.tcp, l, first
	return c
}

// Conn returns the connection that is read and written.
func (l *Link) Conn() net.Conn { return l.conn }

// Receive waits until bytes are there and returns them in a buffer from the pool, which the caller gives back.
// The end of the stream is io.EOF; an interrupted wait is os.ErrDeadlineExceeded.
func (l *Link) Receive() (*Buffer, error) {
	if l.Secured() && l.carrier.l == nil {
		b := GetBuffer()
		if err := l.More(b); err != nil {
			PutBuffer(b)
			return nil, err
		}
		return b, nil
	}
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
	if l.Secured() {
		if !l.Fresh() {
			return nil, ErrStale
		}
		if _, err := l.Write(request); err != nil {
			return nil, err
		}
		return l.Receive()
	}
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
func (l *Link) Write(p []byte) (n int, err error) {
	if !l.Secured() || !l.carrier.spills() {
		return l.conn.Write(p)
	}
	for {
		k, err := l.TryWrite(p[n:])
		n += k
		if err != nil {
			return n, err
		}
		if err = l.Drain(); err != nil || n == len(p) {
			return n, err
		}
	}
}

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// Interrupt ends every wait on the link, now and until Resume, with os.ErrDeadlineExceeded. It may come while Secure runs, and
// so does not look at what Secure changes.
func (l *Link) Interrupt() { _ = l.tcp.SetDeadline(past) }

// InterruptRead is Interrupt for reading only.
func (l *Link) InterruptRead() { _ = l.tcp.SetReadDeadline(past) }

// LimitWrite ends every wait for writing that lasts longer than d from now on, as Interrupt does; Resume undoes it.
func (l *Link) LimitWrite(d time.Duration) { _ = l.tcp.SetWriteDeadline(time.Now().Add(d)) }

// Resume undoes Interrupt.
func (l *Link) Resume() { _ = l.tcp.SetDeadline(time.Time{}) }

// Cut ends the connection at once and without a word; like Interrupt, it may come from anywhere.
func (l *Link) Cut() { _ = l.tcp.Close() }

// Close ends the connection in order. What is Spilled is lost: Drain first.
func (l *Link) Close() error { return l.conn.Close() }

// Reset ends the connection so that the peer sees an error and not an end: what was sent must not be taken for complete.
func (l *Link) Reset() error {
	if t, ok := l.tcp.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	return l.tcp.Close()
}

// CloseWrite ends our side in order; what the peer still sends can be read. What is Spilled is lost: Drain first.
func (l *Link) CloseWrite() error {
	if c, ok := l.conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return l.conn.Close()
}

// Interrupted says whether err is that of an interrupted wait.
func Interrupted(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

// probe is how long a secured connection with unread bytes is listened to for whether they mean its end.
const probe = 2 * time.Millisecond

// quiet says whether what is there to read on a secured connection is only what TLS has to say to itself.
func (l *Link) quiet() bool {
	if l.conn.SetReadDeadline(time.Now().Add(probe)) != nil {
		return false
	}
	var one [1]byte
	_, err := l.conn.Read(one[:])
	return Interrupted(err) && l.conn.SetReadDeadline(time.Time{}) == nil
}
