//go:build linux

package load

import "strings"

// The backend's header blocks, as kinds of an encoder; answers of a size have the kinds from kindSized on.
const (
	kindRPC = iota
	kindStatus
	kindRefusal
	kindSized
)

var (
	rpcHead   = []Field{{":status", "200"}, {"content-type", "application/grpc"}}
	rpcStatus = []Field{{"grpc-status", "0"}, {"grpc-message", ""}}
	refused   = []Field{{":status", "400"}, {"content-length", "0"}}
)

// sized is an answer of one size over HTTP/2.
type sized struct {
	kind int
	head []Field
	body []byte
}

func sizedOf(kind, size int, body []byte) *sized {
	a := &sized{kind: kind, head: []Field{{":status", "200"}}, body: body}
	for _, f := range answerFields(size) {
		a.head = append(a.head, Field{strings.ToLower(f.Name), f.Value})
	}
	return a
}

// http2Server is one connection of a proxy to the backend over HTTP/2.
type http2Server struct {
	*http2Conn
	listener *listener
	open     map[uint32]*serverStream // those whose request goes on, or whose answer waits
	spare    []*serverStream
}

// serverStream is a request and its answer.
type serverStream struct {
	http2Stream
	server *http2Server
	ask    ask
	got    int  // bytes of a message that is not whole
	ended  bool // the request has
}

// serveHTTP2 goes on with a connection that began with the preface; b is what came behind that.
func (n *listener) serveHTTP2(fd int, b []byte) {
	s := &http2Server{listener: n, open: map[uint32]*serverStream{}}
	s.http2Conn = newHTTP2(n.backend.loop, fd, s, false)
	n.conns[fd] = s
	n.backend.loop.handlers[fd] = s.http2Conn
	if err := s.take(b); err != nil {
		s.lost(err)
	}
}

func (s *http2Server) headers(id uint32, m meaning, end bool) error {
	if t := s.open[id]; t != nil { // trailers
		return s.data(id, 0, end)
	}
	b := s.listener.backend
	if m.ask != askUnary && m.ask != askStream && b.sized[int(m.ask)] == nil {
		b.refused++
		s.sendHead(id, kindRefusal, refused, true)
		return nil
	}
	t := s.unused()
	t.id, t.window, t.ask = id, s.peerWindow, m.ask
	s.open[id] = t
	switch {
	case m.ask == askStream:
		t.goesOn = true
		s.sendHead(id, kindRPC, rpcHead, false)
		t.ended = end
		t.drained()
	case end:
		t.answer()
	}
	return nil
}

// unused returns an unused stream.
func (s *http2Server) unused() *serverStream {
	if n := len(s.spare); n > 0 {
		t := s.spare[n-1]
		s.spare = s.spare[:n-1]
		*t = serverStream{server: s}
		t.then = t
		return t
	}
	t := &serverStream{server: s}
	t.then = t
	return t
}

func (s *http2Server) data(id uint32, size int, end bool) error {
	t := s.open[id]
	if t == nil {
		return nil // of a request that was refused, or reset
	}
	if t.ask != askStream {
		if end {
			t.answer()
		}
		return nil
	}
	// Each whole message is answered with one.
	message := s.listener.backend.message
	for t.got += size; t.got >= len(message); t.got -= len(message) {
		s.listener.served++
		s.send(&t.http2Stream, message)
	}
	if t.ended = end; end {
		t.drained()
	}
	return nil
}

// answer answers a request that has ended.
func (t *serverStream) answer() {
	s, b := t.server, t.server.listener.backend
	s.listener.served++
	t.ended = true
	if t.ask == askUnary {
		t.goesOn = true
		s.sendHead(t.id, kindRPC, rpcHead, false)
		s.send(&t.http2Stream, b.message)
		return
	}
	a := b.sized[int(t.ask)]
	s.sendHead(t.id, a.kind, a.head, false)
	s.send(&t.http2Stream, a.body)
}

// drained ends the answer once its request has ended and all is sent.
func (t *serverStream) drained() {
	s := t.server
	if !t.ended || len(t.body) > 0 {
		return
	}
	if t.goesOn {
		s.sendHead(t.id, kindStatus, rpcStatus, true)
	}
	delete(s.open, t.id)
	s.spare = append(s.spare, t)
}

func (s *http2Server) stream(id uint32) *http2Stream {
	if t := s.open[id]; t != nil {
		return &t.http2Stream
	}
	return nil
}

func (s *http2Server) widen(by int) {
	for _, t := range s.open {
		t.window += by
	}
}

func (s *http2Server) reset(id, _ uint32) error {
	if t := s.open[id]; t != nil {
		s.forget(&t.http2Stream)
		delete(s.open, id)
	}
	return nil
}

func (s *http2Server) settings() error { return nil }

// lost ends the connection: proxies close theirs when they like.
func (s *http2Server) lost(error) {
	delete(s.listener.conns, s.fd)
	s.http2Conn.close()
}
