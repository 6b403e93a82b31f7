package http2

import (
	"errors"
	"sync"

	"github.com/outrider-mesh/outrider/wire/message"
)

// Errors of Open.
var (
	// ErrNoStreams says that the connection takes no further stream now, or never again: see Room.
	ErrNoStreams = errors.New("cannot open a stream: the connection has no room")
	// ErrHead says that the head is larger than the server's settings allow.
	ErrHead = errors.New("cannot open a stream: the server takes no head of that size")
)

// Stream is one request and its response. All methods may be called from any goroutine, and do nothing once the stream
// has ended; none after Release.
type Stream struct {
	// Owner is for the stream's owner: set it in Handler.Request, or with Open.
	Owner any

	conn *Conn
	id   uint32

	// Behind wmu.
	next                     *Stream // in its bucket, or among the dead
	before, behind           *Stream // among the blocked
	sendWindow, recvWindow   int32
	unconsumed               int32 // bytes that the owner was given and did not consume
	credit                   int32 // bytes that it consumed and the peer was not told of
	localEnded, remoteEnded  bool
	ended                    bool // in no table: both sides have ended, or it was reset
	isBlocked, released      bool
	pins                     uint8 // calls under way that are not the reader's
	head, connect, responded bool  // the request's method is HEAD, CONNECT; a final head was sent (server)

	// The reader's own.
	gotHead  bool // the final response's head has come
	bodiless bool // its body must be empty
	left     int64
	interims int
	err      *Error
}

var pool = sync.Pool{New: func() any { return new(Stream) }}

// ID returns the stream's identifier.
func (s *Stream) ID() uint32 { return s.id }

// Conn returns the stream's connection.
func (s *Stream) Conn() *Conn { return s.conn }

// Err tells, during Handler.Reset, which error of the peer's we have ended the stream for, or that its GOAWAY has; nil where
// the peer reset this one stream, or the connection is gone.
func (s *Stream) Err() *Error { return s.err }

// Open opens a stream and sends the request's head (client); end says that no body follows. owner becomes s.Owner.
// It fails with ErrNoStreams or ErrHead, and then nothing was sent.
func (c *Conn) Open(r *message.Request, owner any, end bool) (*Stream, error) {
	return c.OpenWithin(0, r, owner, end)
}

// OpenWithin is Open that fails with ErrNoStreams, too, where most streams are open already; 0 sets no bound but the peer's.
func (c *Conn) OpenWithin(most uint32, r *message.Request, owner any, end bool) (*Stream, error) {
	s := pool.Get().(*Stream)
	method := r.Method()
	*s = Stream{
		Owner: owner, conn: c, recvWindow: c.o.StreamWindow, localEnded: end,
		head: string(method) == "HEAD", connect: string(method) == "CONNECT",
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.roomWithin(most) == 0 {
		pool.Put(s)
		return nil, ErrNoStreams
	}
	if c.peer.headerList > 0 && !c.fits(r) {
		pool.Put(s)
		return nil, ErrHead
	}
	c.lastID += 2
	if c.lastID == 2 {
		c.lastID = 1
	}
	s.id, s.sendWindow = c.lastID, c.peer.window
	c.streams.add(s)
	c.held++
	c.sendRequest(s, r, end)
	return s, nil
}

// Respond sends a response's head (server): any number of interim ones and then one other, of which end says that no
// body follows.
func (s *Stream) Respond(r *message.Response, end bool) {
	c := s.conn
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if s.ended || s.localEnded || s.responded || c.closed {
		return
	}
	interim := r.Status < 200
	s.responded = !interim
	c.sendResponse(s, r, end && !interim)
	if end && !interim {
		c.endLocal(s)
	}
}

// Send sends a piece of the body, end saying that it is the last one. It returns how many bytes it took; where that is
// not all of p, Handler.Writable follows, and the end was not sent. On a stream that has ended it takes everything.
func (s *Stream) Send(p []byte, end bool) (n int) {
	c := s.conn
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if s.ended || s.localEnded || c.closed {
		return len(p)
	}
	if len(p) > 0 {
		n = c.allowed(s, len(p))
		if n < len(p) {
			end = false
			c.blocked.push(s)
		}
	}
	if n == 0 && !end {
		return 0
	}
	s.sendWindow -= int32(n)
	if c.sendWindow -= int32(n); c.sendWindow <= 0 && n > 0 && c.choked == 0 {
		c.choked, c.opened = max(c.o.Now(), 1), 0
	}
	c.sendData(s, p[:n], end)
	if end {
		c.endLocal(s)
	}
	return n
}

// Fits says whether Send would take n bytes, as things stand: others use up what their connection may send, too.
func (s *Stream) Fits(n int) bool {
	c := s.conn
	c.wmu.Lock()
	defer c.wmu.Unlock()
	return n <= min(int(s.sendWindow), int(c.sendWindow), c.o.WriteBuffer-c.out.pending())
}

// allowed returns how many of n bytes may be sent now.
func (c *Conn) allowed(s *Stream, n int) int {
	room := c.o.WriteBuffer - c.out.pending()
	if room <= 0 {
		c.out.starved = true
		return 0
	}
	if room = max(room, frameMax); room < n {
		c.out.starved = true
		n = room
	}
	return max(0, min(n, int(s.sendWindow), int(c.sendWindow)))
}

// sendData appends DATA frames.
func (c *Conn) sendData(s *Stream, p []byte, end bool) {
	b := c.out.begin()
	for {
		n := min(len(p), c.peer.maxFrame)
		flags := uint8(0)
		if end && n == len(p) {
			flags = flagEndStream
		}
		b = append(appendFrame(b, n, frameData, flags, s.id), p[:n]...)
		c.dataSent++
		if p = p[n:]; len(p) == 0 {
			break
		}
	}
	c.out.set(b)
}

// SendTrailers ends the body with fields. All of the body must have been taken by Send before.
func (s *Stream) SendTrailers(t *message.Head) {
	c := s.conn
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if s.ended || s.localEnded || c.closed {
		return
	}
	c.sendTrailers(s, t)
	c.endLocal(s)
}

// endLocal notes that our side has ended.
func (c *Conn) endLocal(s *Stream) {
	s.localEnded = true
	c.blocked.remove(s)
	if s.remoteEnded {
		c.unlink(s)
	}
}

// endRemote notes that the peer's side has ended.
func (c *Conn) endRemote(s *Stream) {
	s.remoteEnded = true
	if s.localEnded {
		c.unlink(s)
	}
}

// unlink takes a stream that has ended out of the table.
func (c *Conn) unlink(s *Stream) {
	if s.ended {
		return
	}
	s.ended = true
	c.streams.remove(s)
	c.blocked.remove(s)
}

// Cancel ends a stream that has not ended, with RST_STREAM. No call of Reset follows.
func (s *Stream) Cancel(code Code) {
	c := s.conn
	c.wmu.Lock()
	c.cancel(s, code)
	c.wmu.Unlock()
}

func (c *Conn) cancel(s *Stream, code Code) {
	if s.ended {
		return
	}
	if !s.remoteEnded {
		c.gone.add(s.id)
	}
	c.unlink(s)
	if !c.closed {
		c.out.set(appendReset(c.out.begin(), s.id, code))
	}
}

// Consume gives n bytes that came with Handler.Data back to the peer: it may send so many more.
func (s *Stream) Consume(n int) {
	c := s.conn
	c.wmu.Lock()
	defer c.wmu.Unlock()
	k := min(int32(n), s.unconsumed)
	s.unconsumed -= k
	c.refund(k)
	c.refundStream(s, k)
}

// refund lets the peer send n more bytes on all streams together. It is told when there is something to tell.
func (c *Conn) refund(n int32) {
	if c.credit += n; c.credit >= c.o.ConnWindow/2 && !c.closed {
		c.out.set(appendWindowUpdate(c.out.begin(), 0, uint32(c.credit)))
		c.recvWindow += c.credit
		c.credit = 0
	}
}

// refundStream lets the peer send n more bytes on the stream.
func (c *Conn) refundStream(s *Stream, n int32) {
	if s.credit += n; s.credit >= c.o.StreamWindow/2 && !s.remoteEnded && !s.ended && !c.closed {
		c.out.set(appendWindowUpdate(c.out.begin(), s.id, uint32(s.credit)))
		s.recvWindow += s.credit
		s.credit = 0
	}
}

// Release says that its owner is done with the stream, which is used for another then. One that has not ended is reset:
// with NO_ERROR where our side has ended (the request is not needed to its end, RFC 9113 §8.1), else with CANCEL. It returns
// how many streams the connection still has, and what Conn.Leaving says.
func (s *Stream) Release() (streams int, leaving bool) {
	c := s.conn
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if s.released {
		return c.streams.n, c.leaving()
	}
	s.released = true
	if code := Cancel; !s.ended {
		if s.localEnded && c.role == Server {
			code = NoError
		}
		c.cancel(s, code)
	}
	c.refund(s.unconsumed)
	s.unconsumed = 0
	c.held--
	s.next, c.dead = c.dead, s
	return c.streams.n, c.leaving()
}

// reap gives released streams back. Only the reader does, and not during a frame, so that it never holds one that is
// used again; streams of which Flush is making a call stay.
func (c *Conn) reap() {
	c.wmu.Lock()
	s := c.dead
	c.dead = nil
	for s != nil {
		next := s.next
		if s.pins > 0 {
			s.next, c.dead = c.dead, s
		} else {
			s.Owner, s.next = nil, nil
			pool.Put(s)
		}
		s = next
	}
	c.wmu.Unlock()
}

// wake calls Writable for the streams that can go on, without the lock that it is called with.
func (c *Conn) wake() {
	for n := c.blocked.n; n > 0 && c.sendWindow > 0 && !c.closed; n-- {
		s := c.blocked.first
		if s == nil {
			return
		}
		if c.out.pending() >= c.o.WriteBuffer {
			c.out.starved = true
			return
		}
		c.blocked.remove(s)
		if s.sendWindow <= 0 {
			c.blocked.push(s)
			continue
		}
		c.writable(s)
	}
}

func (c *Conn) writable(s *Stream) {
	s.pins++
	c.wmu.Unlock()
	c.h.Writable(s)
	c.wmu.Lock()
	s.pins--
}
