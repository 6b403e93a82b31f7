//go:build linux

package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Frames of HTTP/2 and their flags (RFC 9113 §6).
const (
	frameData         = 0x0
	frameHeaders      = 0x1
	frameReset        = 0x3
	frameSettings     = 0x4
	framePing         = 0x6
	frameGoAway       = 0x7
	frameWindowUpdate = 0x8
	frameContinuation = 0x9

	flagAck        = 0x1
	flagEndStream  = 0x1
	flagEndHeaders = 0x4
	flagPadded     = 0x8
	flagPriority   = 0x20

	frameHead     = 9
	frameMax      = 16384 // nobody here asks for larger ones
	initialWindow = 65535

	settingTableSize  = 0x1
	settingPush       = 0x2
	settingMaxStreams = 0x3
	settingWindow     = 0x4
)

// What both ends of the load grant their peers, so that nobody waits for a window.
const (
	grantedStream  = 1 << 20
	grantedConn    = 16 << 20
	grantedStreams = 256 // open at once, at the backend
)

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

// http2Conn is one connection of HTTP/2, the client's end or the backend's. It understands what well-behaved proxies
// send, checks little, and gathers what it sends until it has handled all that has arrived.
type http2Conn struct {
	loop  *Loop
	fd    int
	end   http2End
	in    []byte // an incomplete frame
	out   []byte
	sent  int  // of out
	dirty bool // in the loop's list
	full  bool // the socket took less than it was given

	enc *encoder
	dec *decoder

	window     int // how much we may send on all streams together
	peerWindow int // what a new stream begins with
	maxStreams int // how many streams we may open
	uncredited int // received since the peer was last told
	waiting    []*http2Stream
}

// http2End is what a connection's end does with what arrives. A returned error ends the connection.
type http2End interface {
	// headers comes with a header block; end says that nothing follows.
	headers(id uint32, m meaning, end bool) error
	// data comes with the size of a piece of body.
	data(id uint32, n int, end bool) error
	reset(id uint32, code uint32) error
	// stream returns an open stream, or nil; widen adds to the window of each.
	stream(id uint32) *http2Stream
	widen(by int)
	// settings comes when the peer's settings have come.
	settings() error
	// lost ends the connection.
	lost(err error)
}

// http2Stream is a stream on which something may have to wait for its window.
type http2Stream struct {
	id         uint32
	window     int
	body       []byte  // not sent yet
	goesOn     bool    // what follows the body ends the stream, not its last frame
	then       drained // told when all is sent; may be nil
	waits      bool    // in the connection's list
	uncredited int
}

// drained is told that all of a stream's body is sent.
type drained interface{ drained() }

func newHTTP2(l *Loop, fd int, end http2End, client bool) *http2Conn {
	c := &http2Conn{
		loop: l, fd: fd, end: end, enc: newEncoder(), dec: newDecoder(),
		window: initialWindow, peerWindow: initialWindow, maxStreams: grantedStreams,
	}
	if client {
		c.out = append(c.out, preface...)
		c.out = appendFrame(c.out, 12, frameSettings, 0, 0)
		c.out = appendSetting(c.out, settingPush, 0)
	} else {
		c.out = appendFrame(c.out, 12, frameSettings, 0, 0)
		c.out = appendSetting(c.out, settingMaxStreams, grantedStreams)
	}
	c.out = appendSetting(c.out, settingWindow, grantedStream)
	c.out = appendUint32(appendFrame(c.out, 4, frameWindowUpdate, 0, 0), grantedConn-initialWindow)
	c.touch()
	return c
}

func appendFrame(b []byte, n int, kind, flags uint8, id uint32) []byte {
	return append(b, byte(n>>16), byte(n>>8), byte(n), kind, flags, byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
}

func appendUint32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }

func appendSetting(b []byte, id uint16, v uint32) []byte {
	return appendUint32(binary.BigEndian.AppendUint16(b, id), v)
}

// touch notes that there is something to send.
func (c *http2Conn) touch() {
	if !c.dirty {
		c.dirty = true
		c.loop.unsent = append(c.loop.unsent, c)
	}
}

func (c *http2Conn) flush() {
	c.dirty = false
	if c.fd < 0 || c.full || c.sent == len(c.out) {
		return
	}
	n, err := unix.Write(c.fd, c.out[c.sent:])
	if err != nil && err != unix.EAGAIN {
		c.end.lost(fmt.Errorf("cannot send: %w", err))
		return
	}
	if c.sent += max(n, 0); c.sent < len(c.out) {
		c.full = true
		c.loop.watch(c.fd, unix.EPOLLIN|unix.EPOLLOUT)
		return
	}
	c.out, c.sent = c.out[:0], 0
}

func (c *http2Conn) ready(events uint32) {
	if c.full && events&(unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		c.full = false
		c.loop.watch(c.fd, unix.EPOLLIN)
		c.flush()
	}
	if c.fd < 0 {
		return
	}
	b, err := c.loop.read(c.fd)
	if err == nil && len(b) > 0 {
		err = c.take(b)
	}
	if err != nil {
		c.end.lost(err)
		return
	}
	if c.dirty {
		c.flush()
		c.dirty = true // still in the loop's list
	}
}

// take handles all whole frames.
func (c *http2Conn) take(b []byte) error {
	if len(c.in) > 0 {
		c.in = append(c.in, b...)
		b = c.in
	}
	for len(b) >= frameHead {
		n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		if n > frameMax {
			return errors.New("a frame is larger than was allowed")
		}
		if len(b) < frameHead+n {
			break
		}
		if err := c.frame(b[3], b[4], binary.BigEndian.Uint32(b[5:])&(1<<31-1), b[frameHead:frameHead+n]); err != nil {
			return err
		}
		if c.fd < 0 {
			return nil // ended by what the frame led to
		}
		b = b[frameHead+n:]
	}
	c.in = append(c.in[:0], b...)
	return nil
}

var errTruncated = errors.New("a frame is shorter than its kind must be")

func (c *http2Conn) frame(kind, flags uint8, id uint32, p []byte) error {
	switch kind {
	case frameData:
		whole := len(p)
		p, err := unpad(p, flags)
		if err != nil {
			return err
		}
		c.credit(id, whole, flags&flagEndStream != 0)
		return c.end.data(id, len(p), flags&flagEndStream != 0)
	case frameHeaders:
		return c.head(id, flags, p)
	case frameContinuation:
		return errors.New("a header block in several frames: the load tool's are never so large")
	case frameSettings:
		return c.setting(flags, p)
	case frameWindowUpdate:
		return c.windowUpdate(id, p)
	case framePing:
		if flags&flagAck == 0 {
			c.out = append(appendFrame(c.out, len(p), framePing, flagAck, 0), p...)
			c.touch()
		}
	case frameReset:
		if len(p) < 4 {
			return errTruncated
		}
		return c.end.reset(id, binary.BigEndian.Uint32(p))
	case frameGoAway:
		if len(p) < 8 {
			return errTruncated
		}
		return fmt.Errorf("GOAWAY with code %d: %q", binary.BigEndian.Uint32(p[4:]), p[8:])
	}
	return nil
}

func unpad(p []byte, flags uint8) ([]byte, error) {
	if flags&flagPadded == 0 {
		return p, nil
	}
	if len(p) == 0 || int(p[0]) > len(p)-1 {
		return nil, errTruncated
	}
	return p[1 : len(p)-int(p[0])], nil
}

func (c *http2Conn) head(id uint32, flags uint8, p []byte) error {
	p, err := unpad(p, flags)
	if err != nil {
		return err
	}
	if flags&flagPriority != 0 {
		if len(p) < 5 {
			return errTruncated
		}
		p = p[5:]
	}
	if flags&flagEndHeaders == 0 {
		return errors.New("a header block in several frames: the load tool's are never so large")
	}
	m, err := c.dec.read(p)
	if err != nil {
		return err
	}
	return c.end.headers(id, m, flags&flagEndStream != 0)
}

func (c *http2Conn) setting(flags uint8, p []byte) error {
	if flags&flagAck != 0 {
		return nil
	}
	for ; len(p) >= 6; p = p[6:] {
		v := binary.BigEndian.Uint32(p[2:])
		switch binary.BigEndian.Uint16(p) {
		case settingTableSize:
			c.enc.limit(v)
		case settingMaxStreams:
			c.maxStreams = int(min(v, 1<<30))
		case settingWindow:
			c.end.widen(int(v) - c.peerWindow)
			c.peerWindow = int(v)
		}
	}
	c.out = appendFrame(c.out, 0, frameSettings, flagAck, 0)
	c.touch()
	c.resume()
	return c.end.settings()
}

func (c *http2Conn) windowUpdate(id uint32, p []byte) error {
	if len(p) < 4 {
		return errTruncated
	}
	n := int(binary.BigEndian.Uint32(p) & (1<<31 - 1))
	if id == 0 {
		c.window += n
	} else if s := c.end.stream(id); s != nil {
		s.window += n
	}
	c.resume()
	return nil
}

// credit lets the peer send on as it did; half of what was granted is told at a time.
func (c *http2Conn) credit(id uint32, n int, end bool) {
	if c.uncredited += n; c.uncredited >= grantedConn/2 {
		c.out = appendUint32(appendFrame(c.out, 4, frameWindowUpdate, 0, 0), uint32(c.uncredited))
		c.uncredited = 0
		c.touch()
	}
	if end {
		return
	}
	if s := c.end.stream(id); s != nil {
		if s.uncredited += n; s.uncredited >= grantedStream/2 {
			c.out = appendUint32(appendFrame(c.out, 4, frameWindowUpdate, 0, id), uint32(s.uncredited))
			s.uncredited = 0
			c.touch()
		}
	}
}

// sendHead sends a header block.
func (c *http2Conn) sendHead(id uint32, kind int, fields []Field, end bool) {
	block := c.enc.block(kind, fields)
	flags := uint8(flagEndHeaders)
	if end {
		flags |= flagEndStream
	}
	c.out = append(appendFrame(c.out, len(block), frameHeaders, flags, id), block...)
	c.touch()
}

// endStream sends an empty DATA frame that ends the stream.
func (c *http2Conn) endStream(id uint32) {
	c.out = appendFrame(c.out, 0, frameData, flagEndStream, id)
	c.touch()
}

// send sends body on s as far as the windows allow, and the rest as they open.
func (c *http2Conn) send(s *http2Stream, body []byte) {
	if len(s.body) > 0 {
		s.body = append(slices.Clip(s.body), body...) // body is shared
	} else {
		s.body = body
	}
	if !s.waits {
		c.push(s)
	}
}

// push sends what s has, and lets it wait where the windows do not allow all.
func (c *http2Conn) push(s *http2Stream) {
	for len(s.body) > 0 {
		n := min(len(s.body), frameMax, s.window, c.window)
		if n <= 0 {
			if !s.waits {
				s.waits = true
				c.waiting = append(c.waiting, s)
			}
			return
		}
		flags := uint8(0)
		if n == len(s.body) && !s.goesOn {
			flags = flagEndStream
		}
		c.out = append(appendFrame(c.out, n, frameData, flags, s.id), s.body[:n]...)
		c.touch()
		s.window -= n
		c.window -= n
		s.body = s.body[n:]
	}
	s.body = nil
	if s.then != nil {
		s.then.drained()
	}
}

// resume goes on with the streams that wait.
func (c *http2Conn) resume() {
	if len(c.waiting) == 0 || c.window <= 0 {
		return
	}
	all := c.waiting
	c.waiting = nil
	for _, s := range all {
		s.waits = false
		c.push(s)
	}
}

// forget takes a stream that has ended from those that wait.
func (c *http2Conn) forget(s *http2Stream) {
	if !s.waits {
		return
	}
	s.waits = false
	for i, w := range c.waiting {
		if w == s {
			c.waiting = append(c.waiting[:i], c.waiting[i+1:]...)
			return
		}
	}
}

func (c *http2Conn) close() {
	if c.fd >= 0 {
		c.loop.drop(c.fd)
		c.fd = -1
	}
}
