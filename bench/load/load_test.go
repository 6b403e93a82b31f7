//go:build linux

package load

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

func request(size int) Request {
	return Request{Method: "GET", Authority: "reviews:9080", Path: fmt.Sprintf("/api/reviews/%d", size), Answer: size}
}

func post(size, body int) Request {
	r := request(size)
	r.Method, r.Body = "POST", []byte(strings.Repeat("x", body))
	return r
}

func start(t *testing.T, addresses int, sizes ...int) (*Loop, *Backend) {
	t.Helper()
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Serve(addresses, sizes...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.Close()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l, b
}

func dial(t *testing.T, l *Loop, addr string, conns int, r Request) *Client {
	t.Helper()
	return dialTo(t, l, Target{Addr: addr, Conns: conns}, r)
}

func dialTo(t *testing.T, l *Loop, to Target, r Request) *Client {
	t.Helper()
	c, err := l.Dial(to, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sum(all []uint64) uint64 {
	s := uint64(0)
	for _, v := range all {
		s += v
	}
	return s
}

func wantExact(t *testing.T, c *Client, b *Backend) {
	t.Helper()
	if n, err := c.Failures(); n != 0 {
		t.Errorf("%d requests failed, the first: %v", n, err)
	}
	if c.Done() == 0 || c.Done() != sum(b.Served()) {
		t.Errorf("the client counts %d requests, the backend %v", c.Done(), b.Served())
	}
	if b.Refused() != 0 {
		t.Errorf("the backend refused %d requests", b.Refused())
	}
}

func TestSaturateCountsExactly(t *testing.T) {
	for _, r := range []Request{request(300), request(16384), post(300, 1024), post(300, 100_000)} {
		l, b := start(t, 2, 300, 16384)
		c := dial(t, l, b.Addresses()[1], 16, r)
		must(t, c.Saturate(30*time.Millisecond))
		must(t, c.Saturate(30*time.Millisecond))
		must(t, c.Drain())
		wantExact(t, c, b)
		if b.Served()[0] != 0 {
			t.Error("the other address served too")
		}
	}
}

func TestEachAsksEveryConnectionOnce(t *testing.T) {
	l, b := start(t, 1, 300)
	c := dial(t, l, b.Addresses()[0], 100, request(300))
	must(t, c.Each(7))
	wantExact(t, c, b)
	if c.Done() != 100 {
		t.Errorf("%d requests on 100 connections", c.Done())
	}
}

// Whatever the machine does meanwhile, the number of requests follows from seed, rate and time alone.
func TestPaceSendsWhatItIntends(t *testing.T) {
	const rate, seed = 5000, 3
	warm, d := 20*time.Millisecond, 100*time.Millisecond
	total, recorded := 0, 0
	draw := rand.New(rand.NewPCG(seed, 0))
	for at := time.Duration(0); at < warm+d; at += time.Duration(draw.ExpFloat64() * float64(time.Second) / rate) {
		total++
		if at >= warm {
			recorded++
		}
	}
	l, b := start(t, 1, 300)
	c := dial(t, l, b.Addresses()[0], 4, request(300))
	must(t, c.Pace(rate, warm, d, seed))
	wantExact(t, c, b)
	if c.Done() != uint64(total) || c.Latency().Count() != uint64(recorded) {
		t.Errorf("%d requests, %d recorded; want %d and %d", c.Done(), c.Latency().Count(), total, recorded)
	}
}

// A request that had to wait for a connection counts from when it was meant to start.
func TestPaceCountsWaiting(t *testing.T) {
	l, b := start(t, 1, 300)
	// One connection, and each answer takes at least 2 ms: of 40 requests meant for 10 ms, most wait for tens of ms.
	addr := relay(t, b.Addresses()[0], 1<<16, 2*time.Millisecond)
	c := dial(t, l, addr, 1, request(300))
	must(t, c.Pace(4000, 0, 10*time.Millisecond, 1))
	wantExact(t, c, b)
	floor := time.Duration(c.Done()/2) * 2 * time.Millisecond / 2
	if p50 := c.Latency().Quantile(0.5); c.Done() < 20 || p50 < floor {
		t.Errorf("the median of %d queued requests is %v, want at least %v", c.Done(), p50, floor)
	}
}

// Heads and bodies may arrive in any pieces, on either side.
func TestPieces(t *testing.T) {
	for _, piece := range []int{1, 7, 60, 1000} {
		l, b := start(t, 1, 300)
		c := dial(t, l, relay(t, b.Addresses()[0], piece, 0), 3, post(300, 50))
		for range 3 {
			must(t, c.Each(3))
		}
		wantExact(t, c, b)
		if c.Done() != 9 {
			t.Errorf("pieces of %d: %d requests answered, want 9", piece, c.Done())
		}
	}
}

func TestFailuresAreCounted(t *testing.T) {
	l, b := start(t, 1, 300)
	r := request(300)
	r.Path = request(301).Path // the backend has no such answer
	c := dial(t, l, b.Addresses()[0], 2, r)
	err := c.Saturate(time.Minute)
	n, first := c.Failures()
	if err == nil || n <= tolerated || first == nil || !strings.Contains(first.Error(), "400 Bad Request") {
		t.Errorf("saturating with bad requests: %v, %d failures, the first %v", err, n, first)
	}
	if c.Done() != 0 || sum(b.Served()) != 0 || uint64(b.Refused()) < n-2 {
		t.Errorf("done %d, served %v, refused %d", c.Done(), b.Served(), b.Refused())
	}

	r = request(300)
	r.Answer = 299
	c = dial(t, l, b.Addresses()[0], 1, r)
	must(t, c.Each(1))
	if n, err := c.Failures(); n != 1 || !strings.Contains(err.Error(), "Content-Length is 300, not 299") {
		t.Errorf("an answer of another length: %d failures, %v", n, err)
	}
}

func TestStop(t *testing.T) {
	l, b := start(t, 1, 300)
	c := dial(t, l, b.Addresses()[0], 2, request(300))
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(l.Stop)
	if err := c.Saturate(time.Minute); err != ErrStopped {
		t.Errorf("a stopped loop returned %v", err)
	}
}

// relay forwards connections to addr in pieces of at most the given size, each after a pause.
func relay(t *testing.T, addr string, piece int, pause time.Duration) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	var wg sync.WaitGroup
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
	})
	pump := func(dst, src net.Conn) {
		buf := make([]byte, piece)
		for {
			n, err := src.Read(buf)
			time.Sleep(pause)
			if _, werr := dst.Write(buf[:n]); err != nil || werr != nil {
				break
			}
		}
		_, _ = dst.Close(), src.Close()
	}
	wg.Go(func() {
		for {
			down, err := ln.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp4", addr)
			if err != nil {
				_ = down.Close()
				continue
			}
			wg.Go(func() { pump(up, down) })
			wg.Go(func() { pump(down, up) })
		}
	})
	return ln.Addr().String()
}

func TestForward(t *testing.T) {
	l, b := start(t, 2, 300, 16384)
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(t, err)
	ended := make(chan error, 1)
	go func() { ended <- Forward(ln, b.Addresses()) }()
	for _, r := range []Request{request(300), request(16384), post(300, 1024), post(300, 100_000)} {
		c := dial(t, l, ln.Addr().String(), 4, r)
		before := sum(b.Served())
		must(t, c.Saturate(20*time.Millisecond))
		must(t, c.Drain())
		if n, err := c.Failures(); n > 0 || c.Done() == 0 || c.Done() != sum(b.Served())-before {
			t.Errorf("%d requests done, %d failed (%v), %d served", c.Done(), n, err, sum(b.Served())-before)
		}
		c.Close()
	}
	if s := b.Served(); s[0] == 0 || s[1] == 0 {
		t.Errorf("the two backends served %v", s)
	}
	must(t, ln.Close())
	must(t, <-ended)
}
