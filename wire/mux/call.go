package mux

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/message"
)

// ErrNoHead says that Head was asked for a head behind the final one.
var ErrNoHead = errors.New("no head comes behind the final one")

// ResetError says that a stream has ended before its time.
type ResetError struct {
	Code http2.Code
	// Remote says that the peer did it, or that its connection has ended; otherwise it was for an error of the peer's that
	// we found, or by Cancel.
	Remote bool
	// Gone says that it was not the stream alone: the connection has ended, or takes no further stream (GOAWAY).
	Gone bool
	// Reason is a sentence fit for a log.
	Reason string
}

func (e *ResetError) Error() string {
	who := "the stream was reset"
	if e.Remote {
		who = "the stream was reset by its peer"
	}
	if e.Reason == "" {
		return fmt.Sprintf("%s with %s", who, e.Code)
	}
	return fmt.Sprintf("%s with %s: %s", who, e.Code, e.Reason)
}

// Call is one stream for goroutines that wait: one may receive (Head, Next, Wait, Trailers) while another sends (Respond,
// Send, SendTrailers). What comes is kept until it is asked for; the stream's window bounds it, as the peer gets credit
// only for what was asked for. The methods whose names begin with On are for the http2.Handler of the Call's Mux, and
// do nothing when the Call has another stream by now. Interrupt, Resume and Ended may come from anywhere before Release.
type Call struct {
	mux *Mux
	// s is the stream, written with mu by the goroutine that owns the Call, nil before Accept or Open.
	s      *http2.Stream
	server bool

	// The receiving goroutine's own.
	lent int // bytes that Next gave out last
	owed int // bytes given back to the peer since the last flush

	stalled atomic.Int64 // since when Send has waited for room with nothing taken

	mu          sync.Mutex
	in, out     sync.Cond // there is something to receive; there is room to send
	interrupted bool
	reset       *ResetError // the stream has ended so
	canceled    bool        // by Cancel
	// What has come: heads[next:], then data, then the end with its trailers.
	heads    []message.Response
	next     int
	final    bool // the final head has come
	data     queue
	ended    bool
	trailers message.Head
	writable bool
}

var calls = sync.Pool{New: func() any {
	c := new(Call)
	c.in.L, c.out.L = &c.mu, &c.mu
	return c
}}

// maxKeptHeads is how much memory the heads of a pooled Call may hold on to, in bytes.
const maxKeptHeads = 32 << 10

// GetCall returns a Call for a stream of m: Accept or Open binds it.
func GetCall(m *Mux) *Call {
	c := calls.Get().(*Call)
	c.mux, c.server = m, m.role == http2.Server
	return c
}

// Release ends a stream that has not ended, and returns what is left on the connection, as http2.Stream.Release says; it
// flushes, and puts c back into its pool. It comes exactly once, from the goroutine that owns c, when no other uses c any
// more.
func (c *Call) Release() (streams int, leaving bool) {
	m := c.mux
	c.mu.Lock()
	s := c.s
	c.s, c.mux = nil, nil
	c.interrupted, c.reset, c.canceled = false, nil, false
	c.final, c.ended, c.writable = false, false, false
	c.data.clear()
	c.lent, c.owed, c.next = 0, 0, 0
	c.shrink()
	c.mu.Unlock()
	if s != nil {
		streams, leaving = s.Release()
		m.Flush()
	}
	calls.Put(c)
	return streams, leaving
}

// shrink empties the heads and lets go of memory out of the ordinary.
func (c *Call) shrink() {
	kept := 0
	heads := c.heads[:cap(c.heads)]
	for i := range heads {
		if kept += heads[i].Footprint(); kept > maxKeptHeads {
			heads = nil
			break
		}
	}
	c.heads = heads[:0]
	c.trailers.Reset()
	if c.trailers.Footprint() > maxKeptHeads {
		c.trailers = message.Head{}
	}
}

// Accept binds the stream of a request that has come (server): to be called in Handler.Request, whose end it takes.
func (c *Call) Accept(s *http2.Stream, end bool) {
	c.mu.Lock()
	c.s, c.ended = s, end
	c.mu.Unlock()
	s.Owner = c
}

// Open opens a stream and sends the request's head (client), without flushing; end says that no body follows. It fails with
// http2.ErrNoStreams or http2.ErrHead, and then nothing was sent and c can be used again.
func (c *Call) Open(r *message.Request, end bool) error { return c.OpenWithin(0, r, end) }

// OpenWithin is Open that fails with http2.ErrNoStreams, too, where most streams are open already; 0 sets no bound but the
// peer's.
func (c *Call) OpenWithin(most uint32, r *message.Request, end bool) error {
	c.mu.Lock() // until c.s is set: the answer may come at once
	defer c.mu.Unlock()
	s, err := c.mux.HTTP.OpenWithin(most, r, c, end)
	if err == nil {
		c.s = s
	}
	return err
}

// Stream returns the stream that c is bound to.
func (c *Call) Stream() *http2.Stream { return c.s }

// OnResponse takes a response's head, interim or final, by trading it for one of c's.
func (c *Call) OnResponse(s *http2.Stream, r *message.Response, end bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.s != s {
		return
	}
	n := len(c.heads)
	if n == cap(c.heads) {
		c.heads = append(c.heads, message.Response{})
	}
	c.heads = c.heads[:n+1]
	*r, c.heads[n] = c.heads[n], *r
	c.final = c.heads[n].Status >= 200
	c.ended = end
	c.in.Broadcast()
}

// OnData takes a piece of the body.
func (c *Call) OnData(s *http2.Stream, p []byte, end bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.s != s {
		return
	}
	c.data.add(p)
	c.ended = end
	c.in.Broadcast()
}

// OnTrailers takes the fields that end the body.
func (c *Call) OnTrailers(s *http2.Stream, t *message.Head) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.s != s {
		return
	}
	for i := range t.Len() {
		id, name, value := t.Field(i)
		if len(name) == 0 {
			continue
		}
		c.trailers.Append(id, name, value)
		if t.Private(i) {
			c.trailers.SetPrivate()
		}
	}
	c.ended = true
	c.in.Broadcast()
}

// OnReset takes the stream's end before its time.
func (c *Call) OnReset(s *http2.Stream, code http2.Code, remote bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.s != s || c.reset != nil {
		return
	}
	c.reset = &ResetError{Code: code, Remote: remote}
	if e := s.Err(); e != nil {
		c.reset.Gone, c.reset.Reason = remote, e.Reason
	} else if err := c.mux.Err(); err != nil {
		c.reset.Gone, c.reset.Reason = true, "the connection has ended: "+err.Error()
	}
	c.in.Broadcast()
	c.out.Broadcast()
}

// OnWritable takes that there is room to send.
func (c *Call) OnWritable(s *http2.Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.s != s {
		return
	}
	c.writable = true
	c.out.Broadcast()
}

// broken returns the error that ends receiving, called with mu and asked when there is nothing to give out: not where
// the peer had said all it had to say before its reset (RFC 9113 §8.1), but always for a client that has turned away.
func (c *Call) broken() error {
	if c.reset != nil && (!c.ended || c.server || c.canceled) {
		return c.reset
	}
	return nil
}

// Head waits for the next head of the response, interim or final (client), flushing first where it has to wait, and
// trades it for r's.
func (c *Call) Head(r *message.Response) error {
	flushed := false
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		switch {
		case c.canceled:
			return c.reset
		case c.next < len(c.heads):
			*r, c.heads[c.next] = c.heads[c.next], *r
			if c.next++; c.next == len(c.heads) {
				c.next, c.heads = 0, c.heads[:0]
			}
			return nil
		case c.final:
			return ErrNoHead
		case c.reset != nil:
			return c.reset
		}
		if err := c.sleep(&c.in, &flushed); err != nil {
			return err
		}
	}
}

// sleep waits for a signal, called with mu. The first time it only flushes: what this brings may have been waited for.
func (c *Call) sleep(on *sync.Cond, flushed *bool) error {
	switch {
	case c.interrupted:
		return os.ErrDeadlineExceeded
	case !*flushed:
		*flushed = true
		c.mu.Unlock()
		c.mux.Flush()
		c.mu.Lock()
	default:
		on.Wait()
	}
	return nil
}

// Next returns a piece of the body, valid until the next call of Next, which gives the peer credit for it. Nothing and no
// error says that there is nothing yet; end that no more follows, besides Trailers. It never waits.
func (c *Call) Next() (p []byte, end bool, err error) {
	n := c.lent
	c.mu.Lock()
	if n > 0 {
		c.data.drop(n)
	}
	p, err = c.data.head(), nil
	if len(p) == 0 || c.server || c.canceled {
		if err = c.broken(); err != nil {
			p = nil
		}
	}
	end = err == nil && c.ended && (c.data.first == nil || c.data.first.next == nil)
	c.lent = len(p)
	c.mu.Unlock()
	if n > 0 {
		c.s.Consume(n)
		// The peer may be out of credit while we are busy elsewhere with this piece.
		if c.owed += n; c.owed >= c.mux.window/2 {
			c.owed = 0
			c.mux.Flush()
		}
	}
	return p, end, err
}

// Wait waits until Next has something to return, be it the end, flushing first where it has to wait. It returns an
// error where Next would. Bytes that Next has returned count no more, though their credit is given back only by Next.
func (c *Call) Wait() error {
	flushed := false
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		more := len(c.data.head()) > c.lent || c.data.first != nil && c.data.first.next != nil
		switch err := c.broken(); {
		case more && !c.server && !c.canceled:
			return nil
		case err != nil:
			return err
		case more || c.ended:
			return nil
		}
		if err := c.sleep(&c.in, &flushed); err != nil {
			return err
		}
	}
}

// Whole returns how many bytes Next would return where the rest of the body is here and is one piece; otherwise -1.
func (c *Call) Whole() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended || c.reset != nil || c.data.first != nil && c.data.first.next != nil {
		return -1
	}
	return len(c.data.head())
}

// Fits says whether Send would take n bytes without waiting, as things stand.
func (c *Call) Fits(n int) bool { return c.s.Fits(n) }

// Trailers returns the fields that ended the body, once Next has returned its end: none where there were none.
func (c *Call) Trailers() *message.Head { return &c.trailers }

// Respond sends a response's head, interim or final (server), without flushing; end says that no body follows.
func (c *Call) Respond(r *message.Response, end bool) { c.s.Respond(r, end) }

// Send sends a piece of the body, end saying that it is the last, and waits for room where the window or the write buffer
// has none; it flushes only then. It returns a *ResetError where the stream has ended, and os.ErrDeadlineExceeded where
// its wait was interrupted: a part of p may have been sent.
func (c *Call) Send(p []byte, end bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		if c.reset != nil {
			c.stalled.Store(0)
			return c.reset
		}
		c.writable = false
		n := c.s.Send(p, end)
		if n == len(p) {
			if c.stalled.Load() != 0 {
				c.stalled.Store(0)
			}
			return nil
		}
		if n > 0 || c.stalled.Load() == 0 {
			c.stalled.Store(c.mux.now())
		}
		p = p[n:]
		flushed := false
		for !c.writable && c.reset == nil {
			if err := c.sleep(&c.out, &flushed); err != nil {
				c.stalled.Store(0)
				return err
			}
		}
	}
}

// Stalled is since when Send has been waiting for room without a byte taken, by the clock that New was given; 0 while it
// is not. Any goroutine may ask before Release.
func (c *Call) Stalled() int64 { return c.stalled.Load() }

// SendTrailers ends the body with fields. It returns a *ResetError where the stream has ended before.
func (c *Call) SendTrailers(t *message.Head) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reset != nil {
		return c.reset
	}
	c.s.SendTrailers(t)
	return nil
}

// Flush sends what waits on the Call's connection.
func (c *Call) Flush() { c.mux.Flush() }

// Interrupt ends every wait, now and until Resume, with os.ErrDeadlineExceeded. What needs no waiting goes on.
func (c *Call) Interrupt() {
	c.mu.Lock()
	c.interrupted = true
	c.in.Broadcast()
	c.out.Broadcast()
	c.mu.Unlock()
}

// Resume undoes Interrupt.
func (c *Call) Resume() {
	c.mu.Lock()
	c.interrupted = false
	c.mu.Unlock()
}

// Ended says whether the stream has ended before its time and not by Cancel: the peer reset it, or the connection is gone.
func (c *Call) Ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reset != nil && !c.canceled
}

// WasReset says whether the peer reset the stream alone: the connection is there.
func (c *Call) WasReset() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reset != nil && c.reset.Remote && !c.reset.Gone && !c.canceled
}

// Cancel ends the stream with code, and every wait with a *ResetError, and flushes. It may come from the goroutines that
// use c, or any other before Release.
func (c *Call) Cancel(code http2.Code) {
	c.mu.Lock()
	m := c.mux
	if c.reset == nil {
		c.reset, c.canceled = &ResetError{Code: code, Reason: "canceled"}, true
		if c.s != nil {
			c.s.Cancel(code)
		}
	}
	c.in.Broadcast()
	c.out.Broadcast()
	c.mu.Unlock()
	m.Flush()
}
