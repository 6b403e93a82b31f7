package proxy

import (
	"bytes"
	"net"
	"testing"

	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
)

// linked returns a link and the connection at its other end.
func linked(t testing.TB) (*link.Link, *net.TCPConn) {
	t.Helper()
	s, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	there, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	here, err := s.Accept()
	if err != nil {
		t.Fatal(err)
	}
	l := new(link.Link)
	if err := l.Init(here); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = here.Close(), there.Close() })
	return l, there.(*net.TCPConn)
}

// Once a body counts as taken none of it is left in the connection's buffer, even where the upstream did not take it:
// the client's connection may go on, and what is left there is read as a request.
func TestPumpLeavesNothingOfATakenBody(t *testing.T) {
	f := func(name, body string, length int64) {
		t.Helper()
		const next = "GET /next HTTP/1.1\r\n"
		client, peer := linked(t)
		if _, err := peer.Write([]byte(body + next)); err != nil {
			t.Fatal(err)
		}
		up, _ := linked(t)
		_ = up.Close()
		c := &conn{proxy: &Proxy{}}
		if err := c.link.Init(client.Conn()); err != nil {
			t.Fatal(err)
		}
		p := &pump{server: up, finished: make(chan struct{})}
		p.in.begin(&c.link, &c.in, length, false, &p.trailers, nil)
		p.out = outflow{link: up, chunked: length < 0, started: &p.started, bytes: &p.written}
		p.body.from, p.to = &p.in, &p.out
		p.run()
		if !p.taken() || p.sent || p.bytes != int64(len(body)) {
			t.Errorf("%s: taken %t, sent %t, %d bytes of %d", name, p.taken(), p.sent, p.bytes, len(body))
		}
		if c.in == nil || !bytes.Equal(c.in.Bytes(), []byte(next)) {
			t.Errorf("%s: what follows the body is not the next request", name)
		}
	}
	f("length", "GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n", 37)
	f("chunked", "5\r\nhello\r\n0\r\n\r\n", message.UnknownLength)
}
