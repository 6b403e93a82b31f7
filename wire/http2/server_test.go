package http2

import (
	"errors"
	"net"
	"strconv"
	"sync"
	"testing"

	"github.com/outrider-mesh/outrider/wire/message"
)

// socket drives a Conn over a real connection, as a proxy does, with one goroutine.
type socket struct {
	conn *Conn
	nc   net.Conn
	out  func([]byte) (int, error)
}

// run reads until the connection ends, and closes it.
func (k *socket) run() {
	defer k.nc.Close()
	buf := make([]byte, 64<<10)
	held := 0
	for k.conn.Flush(k.out) == nil {
		n, err := k.nc.Read(buf[held:])
		if err != nil {
			break
		}
		held += n
		used, err := k.conn.Receive(buf[:held])
		held = copy(buf, buf[used:held])
		if err != nil {
			_ = k.conn.Flush(k.out)
			if t, ok := k.nc.(*net.TCPConn); ok { // let the peer read why before a reset takes it away
				_ = t.CloseWrite()
				for {
					if _, err := t.Read(buf); err != nil {
						break
					}
				}
			}
			break
		}
	}
	k.conn.Close(Cancel)
}

func newSocket(nc net.Conn, role Role, h Handler, o Options) *socket {
	k := &socket{nc: nc, out: nc.Write, conn: New(role, h, o)}
	return k
}

// site is a Handler that serves: POST and CONNECT are echoed with their trailers, GET answers with size bytes.
type site struct{ size int }

// visit is one exchange of a site.
type visit struct {
	s       *Stream
	body    []byte // waits to be sent
	end     bool   // nothing follows the body
	trailer message.Head
	trails  bool
	get     bool // the body is not the request's
}

func (h *site) Request(s *Stream, r *message.Request, end bool) {
	v := &visit{s: s}
	s.Owner = v
	res := message.Response{Status: 200, BodyLength: message.UnknownLength}
	res.Add("X-Path", string(r.Path())+string(r.Query()))
	if len(r.UpgradeTo()) > 0 {
		res.Add("X-Protocol", string(r.UpgradeTo()))
	}
	if value, ok := r.Lookup("x-echo"); ok {
		res.Append(message.Other, []byte("x-echo"), value)
	}
	if r.ExpectContinue {
		s.Respond(&message.Response{Status: 100}, false)
	}
	switch method := string(r.Method()); {
	case method == "HEAD":
		res.BodyLength = int64(h.size)
		s.Respond(&res, true)
		s.Release()
		return
	case method != "POST" && method != "CONNECT":
		size := h.size
		if n, err := strconv.Atoi(string(r.Path()[1:])); err == nil {
			size = n
		}
		res.BodyLength = int64(size)
		v.get = true
		v.body = make([]byte, size)
		for i := range v.body {
			v.body[i] = byte('a' + i%26)
		}
	}
	s.Respond(&res, false)
	v.end = end
	v.send()
}

func (v *visit) send() {
	if v.get && !v.end {
		return // the request has a body: it is read first
	}
	if len(v.body) > 0 || v.end && !v.trails {
		n := v.s.Send(v.body, v.end && !v.trails)
		v.body = v.body[n:]
	}
	if len(v.body) == 0 && v.end {
		if v.trails {
			v.s.SendTrailers(&v.trailer)
		}
		v.s.Release()
	}
}

func (h *site) Refused(*message.Request, *Error)          {}
func (h *site) Response(*Stream, *message.Response, bool) {}
func (h *site) GoAway(uint32, Code)                       {}
func (h *site) Pong(uint64)                               {}
func (h *site) Settings()                                 {}
func (h *site) Reset(s *Stream, _ Code, _ bool)           { s.Release() }
func (h *site) Writable(s *Stream)                        { s.Owner.(*visit).send() }

func (h *site) Data(s *Stream, p []byte, end bool) {
	v := s.Owner.(*visit)
	s.Consume(len(p))
	if !v.get {
		v.body = append(v.body, p...)
	}
	v.end = end
	v.send()
}

func (h *site) Trailers(s *Stream, t *message.Head) {
	v := s.Owner.(*visit)
	for i := range t.Len() {
		id, name, value := t.Field(i)
		v.trailer.Append(id, name, value)
	}
	v.trails, v.end = true, true
	v.send()
}

// serve runs a site on a port of its own until the test ends.
func serve(t testing.TB, h Handler, o Options) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	var all sync.WaitGroup
	all.Go(func() { // ends with the listener
		for {
			nc, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			mu.Lock()
			open[nc] = true
			mu.Unlock()
			all.Go(func() { // ends with the connection
				newSocket(nc, Server, h, o).run()
				mu.Lock()
				delete(open, nc)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for nc := range open {
			_ = nc.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return l.Addr().String()
}
