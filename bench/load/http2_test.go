//go:build linux

package load

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

func unary() Request {
	return Request{
		Method: "POST", Authority: "reviews:9080", Path: "/reviews.v1.Reviews/Get", GRPC: true,
		Fields: []Field{{"Content-Type", "application/grpc"}, {"TE", "trailers"}}, Body: Message(MessageSize), Answer: 5 + MessageSize,
	}
}

func watch(inFlight int) Request {
	r := unary()
	r.Path, r.InFlight = "/reviews.v1.Reviews/Watch", inFlight
	return r
}

func TestHTTP2CountsExactly(t *testing.T) {
	for name, r := range map[string]Request{
		"get": request(300), "large": request(16384), "larger than a window": request(200_000), "post": post(300, 1024),
		"large post": post(300, 100_000), "gRPC": unary(),
	} {
		l, b := start(t, 2, 300, 16384, 200_000)
		for _, to := range []Target{{Conns: 4, Streams: 32}, {Conns: 1, Streams: 100}} {
			to.Addr = b.Addresses()[1]
			before := sum(b.Served())
			c := dialTo(t, l, to, r)
			must(t, c.Saturate(20*time.Millisecond))
			must(t, c.Saturate(20*time.Millisecond))
			must(t, c.Drain())
			if n, err := c.Failures(); n != 0 || c.Done() == 0 || c.Done() != sum(b.Served())-before || b.Refused() != 0 {
				t.Errorf("%s: %d done, %d failed (%v), %d served, %d refused", name, c.Done(), n, err, sum(b.Served())-before, b.Refused())
			}
			c.Close()
		}
	}
}

// Messages of streams are counted one by one, and every stream ends in order.
func TestHTTP2Streams(t *testing.T) {
	l, b := start(t, 1, 300)
	c := dialTo(t, l, Target{Addr: b.Addresses()[0], Conns: 2, Streams: 3}, watch(8))
	must(t, c.Saturate(20*time.Millisecond))
	must(t, c.Saturate(20*time.Millisecond))
	must(t, c.Drain())
	wantExact(t, c, b)
	done := c.Done()
	must(t, c.Each(6))
	wantExact(t, c, b)
	if c.Done() != done+6*8 {
		t.Errorf("%d messages on 6 streams, want 48", c.Done()-done)
	}
}

func TestHTTP2Each(t *testing.T) {
	l, b := start(t, 1, 300)
	c := dialTo(t, l, Target{Addr: b.Addresses()[0], Conns: 50, Streams: 2}, request(300))
	must(t, c.Each(7))
	wantExact(t, c, b)
	if c.Done() != 100 {
		t.Errorf("%d requests on 100 streams", c.Done())
	}
}

func TestHTTP2Pace(t *testing.T) {
	l, b := start(t, 1, 300)
	c := dialTo(t, l, Target{Addr: b.Addresses()[0], Conns: 2, Streams: 8}, request(300))
	must(t, c.Pace(5000, 20*time.Millisecond, 100*time.Millisecond, 3))
	wantExact(t, c, b)
	if n := c.Latency().Count(); n < 300 || n > c.Done() {
		t.Errorf("%d of %d recorded", n, c.Done())
	}
}

// Frames may arrive in any pieces, on either side.
func TestHTTP2Pieces(t *testing.T) {
	for _, piece := range []int{1, 7, 60, 1000} {
		l, b := start(t, 1, 300)
		addr := relay(t, b.Addresses()[0], piece, 0)
		for _, r := range []Request{post(300, 50), unary(), watch(2)} {
			before := sum(b.Served())
			c := dialTo(t, l, Target{Addr: addr, Conns: 1, Streams: 3}, r)
			must(t, c.Each(3))
			if n, err := c.Failures(); n != 0 || c.Done() != sum(b.Served())-before || c.Done() < 3 {
				t.Errorf("pieces of %d: %d done, %d failed: %v", piece, c.Done(), n, err)
			}
			c.Close()
		}
	}
}

// Go's own HTTP/2 takes what the load client sends, and gets what it asks the backend for.
func TestHTTP2WithGo(t *testing.T) {
	l, b := start(t, 1, 300, 16384)
	p := new(http.Protocols)
	p.SetUnencryptedHTTP2(true)
	back := &http.Client{Transport: &http.Transport{Protocols: p}, Timeout: patience}
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	srv := &http.Server{Protocols: p, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := r.Clone(r.Context())
		out.RequestURI, out.URL.Scheme, out.URL.Host = "", "http", b.Addresses()[0]
		res, err := back.Do(out)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = res.Body.Close() }()
		for k, v := range res.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(res.StatusCode)
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Error(err)
		}
		_, _ = io.Copy(w, res.Body)
		for k, v := range res.Trailer {
			w.Header()[http.TrailerPrefix+k] = v
		}
	})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	t.Cleanup(func() {
		_ = srv.Close()
		back.CloseIdleConnections()
		wg.Wait()
	})
	for _, r := range []Request{request(300), request(16384), post(300, 1024), unary()} {
		c := dialTo(t, l, Target{Addr: ln.Addr().String(), Conns: 2, Streams: 4}, r)
		must(t, c.Saturate(30*time.Millisecond))
		must(t, c.Drain())
		if n, err := c.Failures(); n != 0 || c.Done() == 0 {
			t.Errorf("%s %s: %d done, %d failed: %v", r.Method, r.Path, c.Done(), n, err)
		}
		c.Close()
	}
}

func TestHTTP2FailuresAreCounted(t *testing.T) {
	l, b := start(t, 1, 300)
	f := func(what string, r Request, want string) {
		t.Helper()
		c := dialTo(t, l, Target{Addr: b.Addresses()[0], Conns: 1, Streams: 4}, r)
		must(t, c.Each(4))
		if n, err := c.Failures(); n != 4 || c.Done() != 0 || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %d done, %d failures, %v; want %q", what, c.Done(), n, err, want)
		}
		c.Close()
	}
	f("no such answer", request(301), "status is 400")
	r := request(300)
	r.Answer = 299
	f("an answer of another length", r, "Content-Length is 300, not 299")
	r = request(300)
	r.GRPC = true
	f("no gRPC", r, "without grpc-status")
	r = unary()
	r.Answer++
	f("a longer message", r, "body has 105 bytes, not 106")

	// A connection that is lost fails what is under way on it, and is replaced.
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = nc.Read(make([]byte, 100))
			_ = nc.Close()
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	c := dialTo(t, l, Target{Addr: ln.Addr().String(), Conns: 1, Streams: 4}, request(300))
	if err := c.Saturate(time.Minute); err == nil || !strings.Contains(err.Error(), "more than 100 requests failed") {
		t.Errorf("a server that closes: %v", err)
	}
}

func TestSettled(t *testing.T) {
	f := func(want bool, b ...byte) {
		t.Helper()
		if got := settled(b); got != want {
			t.Errorf("%x: %v, want %v", b, got, want)
		}
	}
	f(true)
	f(true, 0x82, 0xbe)
	f(true, 0xff, 0x00, 0x82)
	f(true, 0xff, 0x80, 0x01, 0x82)
	f(false, 0xff, 0x00, 0x02)
	f(false, 0x82, 0x40, 0x01, 'a', 0x01, 'b')
	f(false, 0x00, 0x01, 'a', 0x01, 'b')
	f(false, 0x20, 0x82)
}

// Blocks that were read before are known again, unless the table has changed since.
func TestBlocks(t *testing.T) {
	e, d := newEncoder(), newDecoder()
	heads := [][]Field{
		{{":status", "200"}, {"content-length", "300"}, {"server", "a"}},
		{{":status", "200"}, {"content-length", "16384"}, {"server", "b"}},
		{{"grpc-status", "0"}, {"grpc-message", ""}},
		{{":method", "GET"}, {":path", "/api/reviews/300"}},
		{{":method", "POST"}, {":path", "/reviews.v1.Reviews/Watch"}},
	}
	want := []meaning{
		{200, 300, -1, askNothing}, {200, 16384, -1, askNothing}, {0, -1, 0, askNothing}, {0, -1, -1, 300}, {0, -1, -1, askStream},
	}
	for round := range 4 {
		if round == 3 {
			e.limit(0) // nothing may be in the table any more
		}
		for i, h := range heads {
			block := e.block(i, h)
			m, err := d.read(block)
			if err != nil || m != want[i] {
				t.Errorf("round %d, block %d: %+v, %v; want %+v", round, i, m, err, want[i])
			}
			if settled(block) != (round == 1 || round == 2) {
				t.Errorf("round %d, block %d: %x", round, i, block)
			}
		}
	}
}

func TestFlow(t *testing.T) {
	l, _ := start(t, 1)
	d, err := l.ServeBytes(2)
	must(t, err)
	t.Cleanup(d.Close)
	f, err := l.DialBytes(d.Addresses()[0], 3, d)
	must(t, err)
	t.Cleanup(f.Close)
	for end := time.Now().Add(patience); (f.arrived < 8*verified || d.Arrived() < 8*verified) && time.Now().Before(end); {
		must(t, f.Saturate(10*time.Millisecond))
	}
	if f.arrived < 8*verified || d.Arrived() < 8*verified || f.Done() != f.arrived+d.arrived {
		t.Errorf("%d bytes arrived at one end and %d at the other", f.arrived, d.arrived)
	}
	if n, err := f.Failures(); n != 0 {
		t.Error(err)
	}
	g, err := l.DialBytes(relayWrong(t, d.Addresses()[1]), 1, d)
	must(t, err)
	t.Cleanup(g.Close)
	if err := g.Saturate(patience); err != errPattern {
		t.Errorf("bytes that were changed: %v", err)
	}
}

// relayWrong forwards connections to addr and changes a byte of what comes back.
func relayWrong(t *testing.T, addr string) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		down, err := ln.Accept()
		if err != nil {
			return
		}
		defer func() { _ = down.Close() }()
		up, err := net.Dial("tcp4", addr)
		if err != nil {
			return
		}
		defer func() { _ = up.Close() }()
		wg.Go(func() { _, _ = io.CopyN(up, down, chunk) })
		b := make([]byte, 1000)
		if _, err := io.ReadFull(up, b); err == nil {
			b[999]++
			_, _ = down.Write(b)
		}
		_, _ = io.Copy(io.Discard, down)
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

// tlsServer answers every request on TLS connections with the backend's answer.
func tlsServer(t *testing.T, versions uint16) (string, *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"reviews"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	must(t, err)
	parsed, err := x509.ParseCertificate(der)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AddCert(parsed)
	ln, err := tls.Listen("tcp4", "127.0.0.1:0", &tls.Config{MaxVersion: versions, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	must(t, err)
	srv := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", 300))
	})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	t.Cleanup(func() { _ = srv.Close(); wg.Wait() })
	return ln.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "reviews", NextProtos: []string{"http/1.1"}}
}

func TestTLS(t *testing.T) {
	l, _ := start(t, 1)
	addr, config := tlsServer(t, tls.VersionTLS13)
	c := dialTo(t, l, Target{Addr: addr, Conns: 3, TLS: config}, request(300))
	must(t, c.Saturate(30*time.Millisecond))
	must(t, c.Drain())
	if n, err := c.Failures(); n != 0 || c.Done() == 0 {
		t.Errorf("%d done, %d failed: %v", c.Done(), n, err)
	}
	if _, err := l.Dial(Target{Addr: addr, Conns: 1, TLS: &tls.Config{ServerName: "reviews"}}, request(300)); err == nil {
		t.Error("a certificate that nobody trusts was taken")
	}
	if _, err := l.Dial(Target{Addr: addr, Conns: 1, Streams: 1, TLS: config}, request(300)); err == nil {
		t.Error("HTTP/2 over TLS was not refused")
	}
}

func TestHandshakes(t *testing.T) {
	l, _ := start(t, 1)
	addr, config := tlsServer(t, tls.VersionTLS13)
	h := l.NewHandshakes(addr, 4, config)
	for end := time.Now().Add(patience); h.Done() < 8 && time.Now().Before(end); {
		must(t, h.Saturate(20*time.Millisecond))
	}
	h.Close()
	if n, err := h.Failures(); n != 0 || h.Done() < 8 || h.Group() != tls.X25519MLKEM768.String() {
		t.Errorf("%d done with %s, %d failed: %v", h.Done(), h.Group(), n, err)
	}
	addr, config = tlsServer(t, tls.VersionTLS12)
	h = l.NewHandshakes(addr, 4, config)
	if err := h.Saturate(patience); err == nil || !strings.Contains(err.Error(), "want a full one of TLS 1.3") {
		t.Errorf("TLS 1.2: %v", err)
	}
	h.Close()
	if h.Done() != 0 {
		t.Errorf("%d of TLS 1.2 were counted", h.Done())
	}
	l.Stop()
	h = l.NewHandshakes(addr, 1, config)
	if err := h.Saturate(time.Minute); !errors.Is(err, ErrStopped) {
		t.Errorf("stopped: %v", err)
	}
	h.Close()
}
