package http2

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/wire/message"
)

// end is one end of a connection in a test: a Conn with a Handler that writes down what it is told.
type end struct {
	*Conn
	name string
	// log is a line for each call, unless quiet.
	log   []string
	quiet bool
	// What the handler does with what it is told; nil does nothing more.
	request  func(s *Stream, r *message.Request, end bool)
	response func(s *Stream, r *message.Response, end bool)
	data     func(s *Stream, p []byte, end bool)
	trailer  func(s *Stream, t *message.Head)
	reset    func(s *Stream, code Code, remote bool)
	writable func(s *Stream)
	goaway   func(last uint32, code Code)
	pongs    []uint64
	settings int
	in       []byte // arrived and not used
	err      error
}

func newEnd(role Role, o Options) *end {
	e := &end{name: "server"}
	if role == Client {
		e.name = "client"
	}
	e.Conn = New(role, e, o)
	return e
}

func (e *end) note(format string, args ...any) {
	if !e.quiet {
		e.log = append(e.log, fmt.Sprintf(format, args...))
	}
}

// took returns the log and empties it.
func (e *end) took() string {
	s := strings.Join(e.log, "\n")
	e.log = nil
	return s
}

func list(h *message.Head) string {
	var b strings.Builder
	for i := range h.Len() {
		if _, name, value := h.Field(i); len(name) > 0 {
			fmt.Fprintf(&b, " %s=%s", name, value)
		}
	}
	return b.String()
}

func (e *end) Request(s *Stream, r *message.Request, end bool) {
	if !e.quiet {
		e.note("request %d %s %s://%s %s%s%s length %d end %v", s.ID(), r.Method(), r.Scheme(), r.Authority(), r.Path(), r.Query(), list(&r.Head), r.BodyLength, end)
	}
	if e.request != nil {
		e.request(s, r, end)
	}
}

func (e *end) Refused(r *message.Request, err *Error) {
	e.note("refused %d %s", err.Status, err.Reason)
}

func (e *end) Response(s *Stream, r *message.Response, end bool) {
	if !e.quiet {
		e.note("response %d %d%s length %d end %v", s.ID(), r.Status, list(&r.Head), r.BodyLength, end)
	}
	if e.response != nil {
		e.response(s, r, end)
	}
}

func (e *end) Data(s *Stream, p []byte, end bool) {
	if !e.quiet {
		e.note("data %d %q end %v", s.ID(), p, end)
	}
	if e.data != nil {
		e.data(s, p, end)
	}
}

func (e *end) Trailers(s *Stream, t *message.Head) {
	if !e.quiet {
		e.note("trailers %d%s", s.ID(), list(t))
	}
	if e.trailer != nil {
		e.trailer(s, t)
	}
}

func (e *end) Reset(s *Stream, code Code, remote bool) {
	if s.Err() != nil {
		e.note("reset %d %s remote %v: %s", s.ID(), code, remote, s.Err().Reason)
	} else {
		e.note("reset %d %s remote %v", s.ID(), code, remote)
	}
	if e.reset != nil {
		e.reset(s, code, remote)
	}
}

func (e *end) Writable(s *Stream) {
	e.note("writable %d", s.ID())
	if e.writable != nil {
		e.writable(s)
	}
}

func (e *end) GoAway(last uint32, code Code) {
	e.note("goaway %d %s", last, code)
	if e.goaway != nil {
		e.goaway(last, code)
	}
}

func (e *end) Pong(data uint64) { e.pongs = append(e.pongs, data) }

func (e *end) Settings() { e.settings++ }

// receive gives an end what has arrived for it.
func (e *end) receive(p []byte) {
	if e.err != nil {
		return
	}
	e.in = append(e.in, p...)
	n, err := e.Receive(e.in)
	e.err = err
	e.in = e.in[:copy(e.in, e.in[n:])]
}

// take returns what an end has to say.
func (e *end) take() (out []byte) {
	_ = e.Flush(func(p []byte) (int, error) {
		out = append(out, p...)
		return len(p), nil
	})
	return out
}

// pair is a connection in memory.
type pair struct {
	client, server *end
	toServer       func(p []byte) (int, error)
	toClient       func(p []byte) (int, error)
}

func newPair(client, server Options) *pair {
	p := &pair{client: newEnd(Client, client), server: newEnd(Server, server)}
	p.toServer = func(b []byte) (int, error) { p.server.receive(b); return len(b), nil }
	p.toClient = func(b []byte) (int, error) { p.client.receive(b); return len(b), nil }
	return p
}

// run carries bytes until neither end has any left.
func (p *pair) run() {
	for p.client.Pending()+p.server.Pending() > 0 {
		_ = p.client.Flush(p.toServer)
		_ = p.server.Flush(p.toClient)
	}
}

// dribble is run with the bytes cut into random pieces.
func (p *pair) dribble(r *rand.Rand) {
	cut := func(e *end, b []byte) {
		for len(b) > 0 {
			n := 1 + r.IntN(len(b))
			if r.IntN(2) == 0 {
				n = min(n, 1+r.IntN(40))
			}
			e.receive(b[:n])
			b = b[n:]
		}
	}
	for p.client.Pending()+p.server.Pending() > 0 {
		if r.IntN(2) == 0 {
			cut(p.server, p.client.take())
		} else {
			cut(p.client, p.server.take())
		}
	}
}

func get(path string, fields ...string) *message.Request {
	r := new(message.Request)
	r.SetMethod([]byte("GET"))
	r.SetScheme([]byte("http"))
	r.SetAuthority([]byte("reviews:9080"))
	r.SetPath([]byte(path))
	for i := 0; i < len(fields); i += 2 {
		r.Add(fields[i], fields[i+1])
	}
	return r
}

func reply(status int, length int64, fields ...string) *message.Response {
	r := &message.Response{Status: status, BodyLength: length}
	for i := 0; i < len(fields); i += 2 {
		r.Add(fields[i], fields[i+1])
	}
	return r
}

func open(t testing.TB, p *pair, r *message.Request, end bool) *Stream {
	t.Helper()
	s, err := p.client.Open(r, nil, end)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func expect(t *testing.T, e *end, lines ...string) {
	t.Helper()
	if got, want := e.took(), strings.Join(lines, "\n"); got != want {
		t.Errorf("%s was told\n%s\nwant\n%s", e.name, got, want)
	}
}

func TestExchange(t *testing.T) {
	p := newPair(Options{}, Options{})
	var at *Stream
	p.server.request = func(s *Stream, _ *message.Request, _ bool) { at = s }
	s := open(t, p, get("/a", "X-A", "1", "connection", "x", "cookie", "a=b"), true)
	p.run()
	expect(t, p.server, "request 1 GET http://reviews:9080 /a x-a=1 cookie=a=b length 0 end true")
	at.Respond(reply(200, 5, "Content-Type", "text/plain"), false)
	if n := at.Send([]byte("hello"), true); n != 5 {
		t.Fatal(n)
	}
	p.run()
	expect(t, p.client, "response 1 200 content-type=text/plain length 5 end false", `data 1 "hello" end true`)
	s.Consume(5)
	s.Release()
	at.Release()
	if p.client.Streams() != 0 || p.server.Streams() != 0 || p.client.err != nil || p.server.err != nil {
		t.Error(p.client.Streams(), p.server.Streams(), p.client.err, p.server.err)
	}
	if p.client.settings != 1 || p.server.settings != 1 {
		t.Error(p.client.settings, p.server.settings)
	}
}

// meshPair is a connection over which exchange sends a request like those in a mesh.
type meshPair struct {
	*pair
	req    *message.Request
	res    *message.Response
	lent   message.Request
	answer message.Response
	body   []byte
	n      int
	all    int
}

func newMeshPair() *meshPair {
	m := &meshPair{pair: newPair(Options{}, Options{}), body: bytes.Repeat([]byte("x"), 300)}
	m.req = get("/reviews/1", "user-agent", "grpc-go/1.83.2", "accept", "application/json", "content-type", "application/json",
		"x-request-id", "5f9fdb1e-5c2b-4ee5-8f3a-2a1a6f6d7b1c", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"x-forwarded-proto", "http", "x-custom", "something of the application", "accept-encoding", "gzip")
	m.res = reply(200, 300, "content-type", "application/json", "date", "Sat, 01 Aug 2026 10:00:00 GMT", "server", "app",
		"x-envoy-upstream-service-time", "3", "vary", "accept", "cache-control", "no-cache", "etag", `"1"`, "x-app", "1")
	m.client.quiet, m.server.quiet = true, true
	m.server.request = func(s *Stream, r *message.Request, _ bool) {
		*r, m.lent = m.lent, *r
		s.Respond(m.res, false)
		s.Send(m.body, true)
		s.Release()
	}
	m.client.response = func(s *Stream, r *message.Response, _ bool) { *r, m.answer = m.answer, *r }
	m.client.data = func(s *Stream, p []byte, end bool) {
		s.Consume(len(p))
		m.all += len(p)
		if end {
			m.n++
			s.Release()
		}
	}
	return m
}

// exchanges runs n of them at once.
func (m *meshPair) exchanges(tb testing.TB, n int) {
	want := m.n + n
	for range n {
		if _, err := m.client.Open(m.req, nil, true); err != nil {
			tb.Fatal(err)
		}
	}
	m.run()
	if m.n != want {
		tb.Fatalf("%d answers, want %d; %v %v", m.n, want, m.client.err, m.server.err)
	}
}

func BenchmarkExchange(b *testing.B) {
	for _, n := range []int{1, 32} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			m := newMeshPair()
			m.exchanges(b, n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				m.exchanges(b, n)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/exchange")
		})
	}
}
