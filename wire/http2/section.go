package http2

import (
	"encoding/binary"

	"github.com/outrider-mesh/outrider/wire/message"
)

// block is a header block under way: HEADERS without END_HEADERS came.
type block struct {
	id      uint32 // 0 where there is none
	end     bool   // END_STREAM
	depends bool   // the stream depends on itself
	frames  int
	b       []byte
}

// headers handles HEADERS (RFC 9113 §6.2).
func (c *Conn) headers(flags uint8, id uint32, p []byte) *Error {
	if id == 0 {
		return errStreamZero
	}
	p, e := unpad(p, flags)
	if e != nil {
		return e
	}
	if c.role == Server && !mine(id) {
		return errStreamID
	}
	depends := false
	if flags&flagPriority != 0 {
		if len(p) < bytesOfPriority {
			return errFrameSize
		}
		depends = binary.BigEndian.Uint32(p)&maxID == id
		p = p[bytesOfPriority:]
	}
	end := flags&flagEndStream != 0
	if flags&flagEndHeaders == 0 {
		c.block = block{id: id, end: end, depends: depends, b: append(c.block.b[:0], p...)}
		return nil
	}
	return c.section(id, end, depends, p)
}

// continuation handles CONTINUATION (RFC 9113 §6.10).
func (c *Conn) continuation(flags uint8, id uint32, p []byte) *Error {
	k := &c.block
	switch {
	case k.id == 0:
		return errNoBlock
	case id != k.id:
		return errInterleaved
	}
	// What is too large for the limits is still decoded, so that the connection can go on, but not what is far too large.
	if k.frames++; k.frames > maxContinuations || len(k.b)+len(p) > c.o.Limits.Head+frameMax {
		return errContinuations
	}
	k.b = append(k.b, p...)
	if flags&flagEndHeaders == 0 {
		if len(p) == 0 { // or each request could bring as many as a block may have
			return c.empty()
		}
		return nil
	}
	whole, end, depends := k.b, k.end, k.depends
	*k = block{}
	e := c.section(id, end, depends, whole)
	if cap(whole) <= frameMax {
		k.b = whole[:0]
	}
	return e
}

// section handles a whole field section: a head or trailers.
func (c *Conn) section(id uint32, end, depends bool, p []byte) *Error {
	if c.role == Server && id > c.lastID { // nobody else changes a server's lastID
		return c.request(id, end, depends, p)
	}
	c.wmu.Lock()
	s := c.streams.find(id)
	var stray *Error
	if s == nil {
		stray = c.stray(id)
	}
	c.wmu.Unlock()
	switch {
	case s == nil:
		if e := c.skip(p); e != nil {
			return e
		}
		if stray != nil {
			return stray
		}
		return c.empty()
	case c.role == Client && !s.gotHead:
		return c.response(s, end, depends, p)
	}
	c.trailers.Reset()
	bad, e := c.readTrailers(p)
	if e != nil {
		return e
	}
	c.wmu.Lock()
	switch {
	case s.ended:
		c.wmu.Unlock()
		return nil
	case s.remoteEnded:
		bad = errHalfClosed
	case bad == nil && !end:
		bad = errTrailersOpen
	case bad == nil && depends:
		bad = errDepends
	case bad == nil && s.left > 0:
		bad = errLengthDiffers
	}
	if bad != nil {
		return c.refuse(s, bad)
	}
	c.endRemote(s)
	c.wmu.Unlock()
	c.h.Trailers(s, &c.trailers)
	return nil
}

// request handles the head of a new stream (server).
func (c *Conn) request(id uint32, end, depends bool, p []byte) *Error {
	if c.req == nil {
		c.req = requests.Get().(*message.Request)
	}
	r := c.req
	r.Reset()
	bad, e := c.readRequest(r, p, end)
	if e != nil {
		return e
	}
	if bad == nil && depends {
		bad = errDepends
	}
	c.tallies.earn()
	c.wmu.Lock()
	c.lastID = id
	switch {
	case c.drain == drained || c.closed:
		c.wmu.Unlock()
		return nil // it was told so
	case c.flooded():
		c.wmu.Unlock()
		return errUnread
	case c.streams.n >= int(c.o.MaxStreams) || c.held >= 2*int(c.o.MaxStreams):
		return c.turnAway(id, nil, errRefused)
	case bad != nil:
		if (bad.Status > 400 || bad == errUnderscore) && !c.closed { // a request that is well formed is answered
			c.out.set(c.appendRefusal(c.out.begin(), id, bad.Status))
			if end {
				id = 0
			}
		}
		return c.turnAway(id, r, bad)
	}
	s := pool.Get().(*Stream)
	*s = Stream{
		conn: c, id: id, sendWindow: c.peer.window, recvWindow: c.o.StreamWindow, remoteEnded: end,
		head: string(r.Method()) == "HEAD", connect: string(r.Method()) == "CONNECT", left: r.BodyLength,
	}
	c.streams.add(s)
	c.held++
	c.wmu.Unlock()
	c.h.Request(s, r, end)
	return nil
}

// turnAway ends a stream that never came to be, called with the lock and returning without it. An id of 0 sends nothing.
func (c *Conn) turnAway(id uint32, r *message.Request, e *Error) *Error {
	c.count(e)
	if id != 0 {
		code := e.Code
		if e.Status > 400 {
			code = NoError // the answer stands
		}
		c.gone.add(id)
		c.out.set(appendReset(c.out.begin(), id, code))
	}
	calm := c.answered()
	c.wmu.Unlock()
	if r != nil {
		c.h.Refused(r, e)
	}
	switch {
	case calm != nil:
		return calm
	case e == errRefused: // it may not know the limit yet
		return c.empty()
	}
	return c.reset()
}

// response handles a response's head, interim or final (client).
func (c *Conn) response(s *Stream, end, depends bool, p []byte) *Error {
	if c.res == nil {
		c.res = responses.Get().(*message.Response)
	}
	r := c.res
	r.Reset()
	bad, e := c.readResponse(r, s, p, end)
	if e != nil {
		return e
	}
	if bad == nil && depends {
		bad = errDepends
	}
	if bad == nil && r.Status < 200 {
		if s.interims++; s.interims > maxInterims {
			bad = errInterims
		}
	}
	c.wmu.Lock()
	switch {
	case s.ended:
		c.wmu.Unlock()
		return nil
	case s.remoteEnded:
		bad = errHalfClosed
	}
	if bad != nil {
		return c.refuse(s, bad)
	}
	if r.Status >= 200 {
		s.gotHead = true
		s.bodiless = r.HeadOnly && !s.connect
		s.left = r.BodyLength
		if r.HeadOnly {
			s.left = message.UnknownLength
		}
	}
	if end {
		c.endRemote(s)
	}
	c.wmu.Unlock()
	c.tallies.earn()
	c.h.Response(s, r, end)
	return nil
}

// skip decodes a block that belongs to nothing: the tables need it.
func (c *Conn) skip(p []byte) *Error {
	c.dec.Begin()
	for len(p) > 0 {
		n, _, err := c.dec.Next(p)
		if err != nil {
			return errCompression
		}
		p = p[n:]
	}
	return nil
}
