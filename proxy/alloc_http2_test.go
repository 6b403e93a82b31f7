package proxy

import (
	"bufio"
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/http1"
	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
	"github.com/outrider-mesh/outrider/wire/mux"
)

// answering2 answers each request of HTTP/2 at its end, out of its connection's reader, and allocates nothing for it.
type answering2 struct {
	streamEvents
	head     message.Response
	body     []byte
	trailers *message.Head // nil where the body ends without
}

func (a *answering2) Request(s *http2.Stream, _ *message.Request, end bool) {
	s.Owner = a
	if end {
		a.answer(s)
	}
}

func (a *answering2) Data(s *http2.Stream, p []byte, end bool) {
	s.Consume(len(p))
	if end {
		a.answer(s)
	}
}

func (a *answering2) answer(s *http2.Stream) {
	s.Respond(&a.head, false)
	s.Send(a.body, a.trailers == nil)
	if a.trailers != nil {
		s.SendTrailers(a.trailers)
	}
	s.Release()
}

// fixed2 is an origin of HTTP/2 that gives every request the same answer.
func fixed2(t testing.TB, grpc bool) *origin {
	return newOrigin(t, func(c net.Conn, _ *bufio.Reader) {
		a := &answering2{body: bytes.Repeat([]byte("x"), 300)}
		a.head.Status = 200
		a.head.Set("server", "app")
		a.head.Set("content-type", "text/plain")
		a.head.BodyLength = int64(len(a.body))
		if grpc {
			a.head.Set("content-type", "application/grpc")
			a.head.BodyLength = message.UnknownLength
			a.body = append([]byte{0, 0, 0, 0, 100}, bytes.Repeat([]byte("x"), 100)...)
			a.trailers = new(message.Head)
			a.trailers.Set("grpc-status", "0")
		}
		l := new(link.Link)
		if err := l.Init(c); err != nil {
			t.Error(err)
			return
		}
		_ = mux.New(l, http2.Server, a, http2.Options{}, now).Serve(nil)
	})
}

// caller2 sends requests over HTTP/2, several at a time, and reads the answers away, allocating nothing.
type caller2 struct {
	t       testing.TB
	m       *mux.Mux
	request message.Request
	body    []byte
	calls   [8]*mux.Call
	res     message.Response
}

func newCaller2(t testing.TB, p *Proxy, request string, body []byte) *caller2 {
	t.Helper()
	nc, err := net.Dial("tcp", p.Address("outbound"))
	if err != nil {
		t.Fatal(err)
	}
	l := new(link.Link)
	if err := l.Init(nc); err != nil {
		t.Fatal(err)
	}
	c := &caller2{t: t, body: body}
	if err := http1.ReadRequest(&c.request, []byte(request), &http1.DefaultLimits); err != nil {
		t.Fatal(err)
	}
	if body != nil && !strings.Contains(request, "Content-Length") {
		c.request.BodyLength = message.UnknownLength
	}
	c.m = mux.New(l, http2.Client, streamEvents{}, http2.Options{}, now)
	served := make(chan struct{})
	go func() { // ends with the connection; the cleanup waits for it
		_ = c.m.Serve(nil)
		close(served)
	}()
	t.Cleanup(func() {
		l.Cut()
		<-served
	})
	return c
}

// run makes n rounds of as many calls at a time as c has.
func (c *caller2) run(n int) {
	for range n {
		for i := range c.calls {
			c.calls[i] = mux.GetCall(c.m)
			if err := c.calls[i].Open(&c.request, c.body == nil); err != nil {
				c.t.Fatal(err)
			}
			if c.body != nil {
				if err := c.calls[i].Send(c.body, true); err != nil {
					c.t.Fatal(err)
				}
			}
		}
		c.calls[0].Flush()
		for _, call := range c.calls {
			c.finish(call)
		}
	}
}

func (c *caller2) finish(call *mux.Call) {
	if err := call.Head(&c.res); err != nil || c.res.Status != 200 {
		c.t.Fatal(c.res.Status, err)
	}
	for {
		_, end, err := call.Next()
		if err == nil && !end {
			err = call.Wait()
		}
		if err != nil {
			c.t.Fatal(err)
		}
		if end {
			call.Release()
			return
		}
	}
}

const (
	get2  = "GET /a/b?c=d HTTP/1.1\r\n" + browser + "\r\n"
	post2 = "POST /a/b HTTP/1.1\r\n" + browser + "Content-Length: 1024\r\n\r\n"
	grpc2 = "POST /shop.Cart/Add HTTP/1.1\r\nHost: app\r\nContent-Type: application/grpc\r\nUser-Agent: grpc-go/1.0\r\nTE: trailers\r\n\r\n"
)

// In steady state an exchange with HTTP/2 on either side, or on both, allocates nothing either; a unary call of gRPC and
// another body that comes with its head need no goroutine of their own.
func TestExchangeOfHTTP2AllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	kilobyte := bytes.Repeat([]byte("y"), 1024)
	call := append([]byte{0, 0, 0, 0, 100}, kilobyte[:100]...)
	f := func(name string, protocol model.Protocol, o *origin, loop func(t testing.TB, p *Proxy) func(n int)) {
		t.Run(name, func(t *testing.T) {
			s := busySnapshot(o.address())
			for i := range s.Clusters {
				if s.Clusters[i].Kind == model.Listed {
					s.Clusters[i].Protocol = protocol
				}
			}
			run := loop(t, start(t, s, Limits{}))
			run(200)
			wantNoAllocations(t, 500, 8, run)
		})
	}
	over2 := func(request string, body []byte) func(t testing.TB, p *Proxy) func(n int) {
		return func(t testing.TB, p *Proxy) func(n int) { return newCaller2(t, p, request, body).run }
	}
	over1 := func(request string) func(t testing.TB, p *Proxy) func(n int) {
		return func(t testing.TB, p *Proxy) func(n int) {
			l := newLoop(t, p, request)
			return func(n int) { l.run(t, 8*n) }
		}
	}
	f("GET, 2 to 2", model.HTTP2, fixed2(t, false), over2(get2, nil))
	f("POST, 2 to 2", model.HTTP2, fixed2(t, false), over2(post2, kilobyte))
	f("gRPC", model.GRPC, fixed2(t, true), over2(grpc2, call))
	f("GET, 2 to 1", model.HTTP, newOrigin(t, fixed(300)), over2(get2, nil))
	f("POST, 2 to 1", model.HTTP, newOrigin(t, fixed(300)), over2(post2, kilobyte))
	f("GET, 1 to 2", model.HTTP2, fixed2(t, false), over1(get2))
	f("POST, 1 to 2", model.HTTP2, fixed2(t, false), over1(post2+string(kilobyte)))
}
