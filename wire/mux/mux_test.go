package mux

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/meshtest/leaks"
	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var begun = time.Now()

// clock never says 0, which Partial has for nothing.
func clock() int64 { return int64(time.Since(begun)) + 1 }

// end is one end of a connection: its handler leaves the streams to Calls, and serves requests with serve on goroutines
// of their own, or with inline on the reader's.
type end struct {
	*Mux
	serve  func(c *Call, r *message.Request)
	inline func(s *http2.Stream, r *message.Request, end bool)
	pooled func(c *Call) // serves with goroutines that are there
	tasks  sync.WaitGroup
	done   chan struct{} // Serve has returned err
	err    error

	mu      sync.Mutex
	goaways []http2.Code
	pongs   chan uint64
	// settings counts how often they came.
	settings atomic.Int32
	reset    int // streams without a Call that were
	drained  func(s *http2.Stream)
}

func (e *end) Request(s *http2.Stream, r *message.Request, end bool) {
	if e.inline != nil {
		e.inline(s, r, end)
		return
	}
	c := GetCall(e.Mux)
	c.Accept(s, end)
	if e.pooled != nil {
		e.pooled(c)
		return
	}
	mine := new(message.Request)
	*r, *mine = *mine, *r
	e.tasks.Add(1)
	go func() { // run waits for it
		defer e.tasks.Done()
		e.serve(c, mine)
		c.Release()
	}()
}

func (e *end) Refused(*message.Request, *http2.Error) {}

func (e *end) Response(s *http2.Stream, r *message.Response, end bool) {
	s.Owner.(*Call).OnResponse(s, r, end)
}

func (e *end) Data(s *http2.Stream, p []byte, end bool) {
	if c, ok := s.Owner.(*Call); ok {
		c.OnData(s, p, end)
	}
}

func (e *end) Trailers(s *http2.Stream, t *message.Head) { s.Owner.(*Call).OnTrailers(s, t) }

func (e *end) Reset(s *http2.Stream, code http2.Code, remote bool) {
	if c, ok := s.Owner.(*Call); ok {
		c.OnReset(s, code, remote)
		return
	}
	e.mu.Lock()
	e.reset++
	e.mu.Unlock()
}

func (e *end) Writable(s *http2.Stream) {
	if c, ok := s.Owner.(*Call); ok {
		c.OnWritable(s)
	} else if e.drained != nil {
		e.drained(s)
	}
}

func (e *end) GoAway(_ uint32, code http2.Code) {
	e.mu.Lock()
	e.goaways = append(e.goaways, code)
	e.mu.Unlock()
}

func (e *end) Pong(data uint64) { e.pongs <- data }

func (e *end) Settings() { e.settings.Add(1) }

// run serves the connection until the test ends.
func (e *end) run(t testing.TB) {
	e.done = make(chan struct{})
	go func() { // the cleanup waits for it
		e.err = e.Serve(nil)
		close(e.done)
	}()
	t.Cleanup(func() {
		e.Link().Cut()
		e.wait(t)
		e.tasks.Wait()
	})
}

// wait returns why the connection has ended.
func (e *end) wait(t testing.TB) error {
	t.Helper()
	select {
	case <-e.done:
		return e.err
	case <-time.After(time.Minute):
		panic("the connection does not end")
	}
}

// until waits for a condition that others bring about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// sockets returns the two ends of a TCP connection; small makes their buffers so.
func sockets(t testing.TB, small bool) (here, there *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	here, there = a.(*net.TCPConn), b.(*net.TCPConn)
	t.Cleanup(func() { _, _ = here.Close(), there.Close() })
	if small {
		for _, c := range []*net.TCPConn{here, there} {
			if err := errors.Join(c.SetReadBuffer(96<<10), c.SetWriteBuffer(16<<10)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return here, there
}

func linked(t testing.TB, c net.Conn) *link.Link {
	t.Helper()
	l := new(link.Link)
	if err := l.Init(c); err != nil {
		t.Fatal(err)
	}
	return l
}

// setup is what a pair is made of.
type setup struct {
	client, server http2.Options
	secure, small  bool
	serve          func(c *Call, r *message.Request)
	inline         func(s *http2.Stream, r *message.Request, end bool)
}

// pair returns the two ends of a connection, both served.
func pair(t testing.TB, o setup) (client, server *end) {
	t.Helper()
	a, b := sockets(t, o.small)
	here, there := linked(t, a), linked(t, b)
	if o.secure {
		secure(t, here, there)
	}
	client, server = &end{pongs: make(chan uint64, 1)}, &end{pongs: make(chan uint64, 1), serve: o.serve, inline: o.inline}
	client.Mux = New(here, http2.Client, client, o.client, clock)
	server.Mux = New(there, http2.Server, server, o.server, clock)
	server.run(t)
	client.run(t)
	return client, server
}

// secure speaks TLS between two links.
func secure(t testing.TB, client, server *link.Link) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"peer"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	s := tls.Server(server.Replay(nil), &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	c := tls.Client(client.Replay(nil), &tls.Config{RootCAs: roots, ServerName: "peer"})
	done := make(chan error)
	go func() { done <- s.Handshake() }() // ends with the handshake
	if err := errors.Join(c.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	client.Secure(c)
	server.Secure(s)
}

func request(method, path string) *message.Request {
	r := new(message.Request)
	r.SetMethod([]byte(method))
	r.SetScheme([]byte("http"))
	r.SetAuthority([]byte("reviews:9080"))
	r.SetPath([]byte(path))
	r.BodyLength = message.UnknownLength
	if method == "GET" {
		r.BodyLength = message.NoBody
	}
	return r
}

func response(status int) *message.Response {
	return &message.Response{Status: status, BodyLength: message.UnknownLength}
}

// body receives to the end.
func body(c *Call) (b []byte, err error) {
	for {
		p, end, err := c.Next()
		b = append(b, p...)
		switch {
		case err != nil || end:
			return b, err
		case len(p) == 0:
			if err := c.Wait(); err != nil {
				return b, err
			}
		}
	}
}

func open(t testing.TB, m *Mux, r *message.Request, end bool) *Call {
	t.Helper()
	c := GetCall(m)
	if err := c.Open(r, end); err != nil {
		t.Fatal(err)
	}
	return c
}

// status receives the final head.
func status(t testing.TB, c *Call) int {
	t.Helper()
	var r message.Response
	for r.Status < 200 {
		if err := c.Head(&r); err != nil {
			t.Fatal(err)
		}
	}
	return r.Status
}

// pattern is a body whose every byte has its place.
func pattern(n int) []byte {
	b := make([]byte, 0, n+8)
	for i := 0; len(b) < n; i++ {
		b = strconv.AppendInt(b, int64(i), 36)
		b = append(b, '.')
	}
	return b[:n]
}
