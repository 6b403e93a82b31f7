//go:build linux

package load

import "fmt"

// http2Client is one connection of a Client over HTTP/2.
type http2Client struct {
	*http2Conn
	client  *Client
	fields  []Field
	streams []clientStream
	ids     []uint32 // of streams, which a search goes through; 0 where none is open
	hint    int      // where the next answer is looked for first
	next    uint32   // the next stream's id
}

// clientStream is one place for a request under way, and the request that is.
type clientStream struct {
	slot
	http2Stream
	owner    *http2Client
	at       int // in the connection's streams
	got      int // bytes of the answer's body; of a stream those behind the last whole message
	answered bool
	inFlight int
	closing  bool // of a stream: no further message is sent
}

func (c *Client) openHTTP2() error {
	n := &http2Client{client: c, fields: c.request.http2()}
	n.streams = make([]clientStream, c.target.Streams)
	n.ids = make([]uint32, c.target.Streams)
	for i := range n.streams {
		s := &n.streams[i]
		s.slot = slot{client: c, conn: s}
		s.owner, s.at = n, i
		s.goesOn = c.request.InFlight > 0
		c.free.push(&s.slot)
	}
	c.conns = append(c.conns, n)
	return n.open()
}

func (n *http2Client) open() error {
	fd, err := connect(n.client.target.Addr)
	if err != nil {
		return err
	}
	n.http2Conn, n.next = newHTTP2(n.client.loop, fd, n, true), 1
	return n.loop.add(fd, n.http2Conn)
}

func (n *http2Client) close() {
	if n.http2Conn != nil {
		n.http2Conn.close()
	}
}

// send opens a stream with the client's request.
func (s *clientStream) send(*slot) {
	n, r := s.owner, &s.client.request
	s.id, s.window, s.uncredited, s.body = n.next, n.peerWindow, 0, nil
	s.got, s.answered, s.inFlight, s.closing = 0, false, 0, false
	n.next += 2
	n.ids[s.at] = s.id
	n.sendHead(s.id, 0, n.fields, len(r.Body) == 0)
	switch {
	case r.InFlight > 0:
		for range r.InFlight {
			s.inFlight++
			n.http2Conn.send(&s.http2Stream, r.Body)
		}
	case len(r.Body) > 0:
		n.http2Conn.send(&s.http2Stream, r.Body)
	}
}

// find returns the place of an open stream, or nil. Answers mostly come in the order of their requests.
func (n *http2Client) find(id uint32) *clientStream {
	for i := range n.ids {
		at := n.hint + i
		if at >= len(n.ids) {
			at -= len(n.ids)
		}
		if n.ids[at] == id {
			n.hint = at
			return &n.streams[at]
		}
	}
	return nil
}

func (n *http2Client) stream(id uint32) *http2Stream {
	if s := n.find(id); s != nil {
		return &s.http2Stream
	}
	return nil
}

func (n *http2Client) widen(by int) {
	for i := range n.streams {
		n.streams[i].window += by
	}
}

func (n *http2Client) settings() error {
	if n.maxStreams < len(n.streams) {
		return fmt.Errorf("the proxy allows %d streams on a connection, the case needs %d", n.maxStreams, len(n.streams))
	}
	return nil
}

func (n *http2Client) headers(id uint32, m meaning, end bool) error {
	s := n.find(id)
	if s == nil {
		return fmt.Errorf("a head for stream %d, which is not open", id)
	}
	r := &n.client.request
	switch {
	case s.answered: // trailers
	case m.status >= 100 && m.status < 200:
		return nil
	case m.status != 200:
		n.abandon(s, fmt.Errorf("the answer's status is %d", m.status), end)
		return nil
	case !r.GRPC && m.length != r.Answer:
		n.abandon(s, fmt.Errorf("the answer's Content-Length is %d, not %d", m.length, r.Answer), end)
		return nil
	}
	if r.GRPC && end && m.grpcStatus != 0 {
		n.abandon(s, fmt.Errorf("the answer's grpc-status is %d", m.grpcStatus), true)
		return nil
	}
	s.answered = true
	if end {
		n.finish(s)
	}
	return nil
}

func (n *http2Client) data(id uint32, size int, end bool) error {
	s := n.find(id)
	if s == nil {
		return fmt.Errorf("data for stream %d, which is not open", id)
	}
	s.got += size
	c := n.client
	if c.request.InFlight > 0 {
		for ; s.got >= c.request.Answer; s.got -= c.request.Answer {
			s.message()
		}
	}
	if end {
		if c.request.GRPC {
			n.abandon(s, fmt.Errorf("the answer ends without grpc-status"), true)
			return nil
		}
		n.finish(s)
	}
	return nil
}

// message counts an answered message of a stream and sends another, or ends the stream once all are answered.
func (s *clientStream) message() {
	c := s.client
	s.inFlight--
	switch {
	case s.inFlight < 0:
		return // counted when the stream ends: it has more messages than were sent
	case c.saturating && !s.closing:
		s.inFlight++
		s.owner.http2Conn.send(&s.http2Stream, c.request.Body)
	default:
		s.closing = true
		if s.inFlight == 0 {
			s.owner.endStream(s.id)
		}
	}
	c.done++
}

// finish ends a request whose answer is complete.
func (n *http2Client) finish(s *clientStream) {
	r := &n.client.request
	n.ids[s.at] = 0
	n.forget(&s.http2Stream)
	switch {
	case r.InFlight > 0 && (s.inFlight != 0 || s.got != 0 || !s.closing):
		n.client.fault(fmt.Errorf("a stream ended with %d messages under way", s.inFlight))
		s.idle()
	case r.InFlight > 0:
		s.ended() // its messages were counted
	case s.got != r.Answer:
		n.client.fault(fmt.Errorf("the answer's body has %d bytes, not %d", s.got, r.Answer))
		s.idle()
	default:
		s.complete()
	}
}

// abandon counts a failed request and frees its place; ended says that the stream has ended by itself.
func (n *http2Client) abandon(s *clientStream, err error, ended bool) {
	n.client.fault(err)
	if !ended {
		n.out = appendUint32(appendFrame(n.out, 4, frameReset, 0, s.id), 8) // CANCEL
		n.touch()
		s.answered = true
	}
	n.ids[s.at] = 0
	n.forget(&s.http2Stream)
	s.idle()
}

func (n *http2Client) reset(id, code uint32) error {
	if s := n.find(id); s != nil {
		n.abandon(s, fmt.Errorf("the stream was reset with code %d", code), true)
	}
	return nil
}

// lost fails every request that is under way and puts a new connection in this one's place.
func (n *http2Client) lost(err error) {
	c := n.client
	n.http2Conn.close()
	any := false
	for i := range n.streams {
		s := &n.streams[i]
		if s.busy {
			c.fault(err)
			n.ids[i] = 0
			s.waits = false
			s.idle()
			any = true
		}
	}
	if !any {
		c.fault(err)
	}
	if err := n.open(); err != nil {
		c.err = err
	}
}
