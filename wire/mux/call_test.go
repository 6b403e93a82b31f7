package mux

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/message"
)

// echo answers with what it gets, as it comes, and the number of bytes in a trailer.
func echo(t testing.TB) func(c *Call, r *message.Request) {
	return func(c *Call, _ *message.Request) {
		c.Respond(response(200), false)
		all := 0
		for {
			p, end, err := c.Next()
			if err != nil {
				return
			}
			all += len(p)
			if err := c.Send(p, false); err != nil {
				return
			}
			if end {
				break
			}
			if len(p) == 0 {
				if c.Wait() != nil {
					return
				}
			}
		}
		var trailers message.Head
		trailers.Add("x-parity", "even")
		for i := range c.Trailers().Len() {
			_, name, value := c.Trailers().Field(i)
			trailers.Append(message.Other, name, value)
		}
		if err := c.SendTrailers(&trailers); err != nil {
			t.Error(err)
		}
		c.Flush()
	}
}

// Bodies far beyond all windows and buffers go both ways at once, on many streams, in the clear and through TLS.
func TestEcho(t *testing.T) {
	f := func(name string, o setup, streams, size int) {
		t.Run(name, func(t *testing.T) {
			o.serve = echo(t)
			client, _ := pair(t, o)
			var tasks sync.WaitGroup
			for range streams {
				c := open(t, client.Mux, request("POST", "/"), false)
				want := pattern(size)
				tasks.Add(2)
				go func() { // awaited below
					defer tasks.Done()
					for p := want; len(p) > 0; {
						n := min(len(p), 50_000)
						if err := c.Send(p[:n], false); err != nil {
							t.Error(err)
							return
						}
						p = p[n:]
					}
					var trailers message.Head
					trailers.Add("x-sum", "1")
					if err := c.SendTrailers(&trailers); err != nil {
						t.Error(err)
					}
					c.Flush()
				}()
				go func() { // awaited below
					defer tasks.Done()
					if got := status(t, c); got != 200 {
						t.Error(got)
					}
					got, err := body(c)
					if err != nil || !bytes.Equal(got, want) {
						t.Errorf("%d bytes, %v, want %d", len(got), err, len(want))
					}
					for _, name := range []string{"x-parity", "x-sum"} {
						if _, ok := c.Trailers().Lookup(name); !ok {
							t.Errorf("no trailer %s", name)
						}
					}
				}()
				t.Cleanup(func() { c.Release() })
			}
			tasks.Wait()
		})
	}
	tight := http2.Options{WriteBuffer: 20_000}
	f("one", setup{}, 1, 3<<20)
	f("many", setup{}, 40, 300_000)
	f("small sockets", setup{small: true, client: tight, server: tight}, 10, 300_000)
	f("secured", setup{secure: true}, 40, 300_000)
	f("secured over small sockets", setup{secure: true, small: true, client: tight, server: tight}, 10, 300_000)
}

// Heads come in the order in which they were sent, and none behind the final one.
func TestHeads(t *testing.T) {
	client, _ := pair(t, setup{serve: func(c *Call, _ *message.Request) {
		for _, n := range []int{103, 100, 103, 200} {
			r := response(n)
			r.Add("x-status", string(rune('a'+n%100)))
			c.Respond(r, n == 200)
		}
	}})
	for range 3 { // pooled
		c := open(t, client.Mux, request("GET", "/"), true)
		for _, want := range []int{103, 100, 103, 200} {
			var r message.Response
			if err := c.Head(&r); err != nil || r.Status != want {
				t.Fatal(r.Status, err)
			}
			if v, _ := r.Lookup("x-status"); string(v) != string(rune('a'+want%100)) {
				t.Errorf("%d came with the fields of another: %s", want, v)
			}
		}
		if err := c.Head(new(message.Response)); !errors.Is(err, ErrNoHead) {
			t.Error(err)
		}
		if p, end, err := c.Next(); len(p) > 0 || !end || err != nil {
			t.Error(p, end, err)
		}
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
		if c.Trailers().Len() != 0 || c.Ended() {
			t.Error("trailers, or an end, that nobody sent")
		}
		c.Release()
	}
}

// A request that has no body has its end from the beginning.
func TestNoBody(t *testing.T) {
	ends := make(chan bool, 1)
	client, _ := pair(t, setup{serve: func(c *Call, _ *message.Request) {
		_, end, err := c.Next()
		ends <- end && err == nil
		c.Respond(response(204), true)
	}})
	c := open(t, client.Mux, request("GET", "/"), true)
	defer c.Release()
	if status(t, c) != 204 || !<-ends {
		t.Error("no end")
	}
}

// A stream whose body nobody asks for holds up its sender at the window, and no other stream.
func TestStalledStream(t *testing.T) {
	const window = 100_000
	client, server := pair(t, setup{server: http2.Options{StreamWindow: window}, serve: func(c *Call, r *message.Request) {
		if string(r.Path()) == "/stall" {
			for !c.Ended() { // it never asks
				c.in.L.Lock()
				if c.reset == nil {
					c.in.Wait()
				}
				c.in.L.Unlock()
			}
			return
		}
		got, err := body(c)
		if err == nil {
			c.Respond(response(200), false)
			_ = c.Send(got, true)
		}
	}})
	stalled := open(t, client.Mux, request("POST", "/stall"), false)
	defer stalled.Release()
	sent := make(chan error, 1)
	go func() { sent <- stalled.Send(pattern(4*window), true) }() // ends when it is interrupted
	until(t, "the window is full", func() bool {
		stalled.mu.Lock()
		defer stalled.mu.Unlock()
		return stalled.s != nil && client.HTTP.Pending() == 0 && stalled.s.Send([]byte("x"), false) == 0
	})
	want := pattern(3 * window)
	for range 20 {
		c := open(t, client.Mux, request("POST", "/"), false)
		if err := c.Send(want, true); err != nil {
			t.Fatal(err)
		}
		if status(t, c) != 200 {
			t.Error("not 200")
		}
		if got, err := body(c); err != nil || !bytes.Equal(got, want) {
			t.Fatal(len(got), err)
		}
		c.Release()
	}
	select {
	case err := <-sent:
		t.Fatalf("the stalled stream went on: %v", err)
	default:
	}
	stalled.Interrupt()
	if err := <-sent; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if n := server.HTTP.Streams(); n != 1 {
		t.Errorf("%d streams", n)
	}
}

// What a stream keeps for a goroutine that does not ask is no more than its window, in memory too.
func TestKept(t *testing.T) {
	const window = 100_000
	f := func(step int) {
		bound := make(chan *Call, 1)
		release := make(chan struct{})
		client, _ := pair(t, setup{server: http2.Options{StreamWindow: window}, serve: func(c *Call, _ *message.Request) {
			bound <- c
			<-release
		}})
		defer close(release)
		c := open(t, client.Mux, request("POST", "/"), false)
		sent := make(chan struct{})
		go func() { // ends when it is interrupted
			defer close(sent)
			for b := pattern(step); c.Send(b, false) == nil; {
				c.Flush()
			}
		}()
		there := <-bound
		held, memory := 0, 0
		until(t, "the window is used up", func() bool {
			there.mu.Lock()
			defer there.mu.Unlock()
			held, memory = 0, 0
			for p := there.data.first; p != nil; p = p.next {
				held, memory = held+len(p.b)-p.at, memory+cap(p.b)
			}
			return held == window
		})
		if memory > window+largePiece {
			t.Errorf("pieces of %d: %d bytes take %d", step, held, memory)
		}
		c.Interrupt()
		<-sent
		c.Release()
	}
	f(1)
	f(100)
	f(5000)
	f(1 << 20)
}

// Every wait can be interrupted, stays so until Resume, and the stream goes on after it.
func TestInterrupt(t *testing.T) {
	gate := make(chan struct{})
	client, _ := pair(t, setup{serve: func(c *Call, _ *message.Request) {
		<-gate
		c.Respond(response(200), false)
		c.Flush()
		<-gate
		_, _ = body(c)
		_ = c.Send([]byte("late"), true)
	}})
	c := open(t, client.Mux, request("POST", "/"), false)
	defer c.Release()
	f := func(what string, wait func() error) {
		t.Helper()
		done := make(chan error)
		go func() { done <- wait() }() // ends by Interrupt
		c.Interrupt()
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", what, err)
		}
		if err := wait(); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s once more: %v", what, err)
		}
		c.Resume()
	}
	f("head", func() error { return c.Head(new(message.Response)) })
	gate <- struct{}{}
	if status(t, c) != 200 {
		t.Error("not 200")
	}
	f("wait", c.Wait)
	big := make([]byte, 1<<20)
	f("send", func() error { return c.Send(big, false) })
	gate <- struct{}{}
	if err := c.Send(nil, true); err != nil {
		t.Fatal(err)
	}
	if got, err := body(c); err != nil || string(got) != "late" {
		t.Errorf("%q, %v", got, err)
	}
}

// An answer that was complete before the reset is one; a part of one is delivered and then fails.
func TestResets(t *testing.T) {
	served := make(chan error, 1)
	f := func(name string, serve func(c *Call), check func(t *testing.T, c *Call)) {
		t.Run(name, func(t *testing.T) {
			client, _ := pair(t, setup{serve: func(c *Call, _ *message.Request) { serve(c) }})
			c := open(t, client.Mux, request("POST", "/"), false)
			defer c.Release()
			c.Flush()
			check(t, c)
		})
	}
	isReset := func(err error, code http2.Code, remote bool) bool {
		var e *ResetError
		return errors.As(err, &e) && e.Code == code && e.Remote == remote && e.Error() != ""
	}
	f("complete", func(c *Call) {
		c.Respond(response(200), false)
		_ = c.Send([]byte("all of it"), true) // Release resets with NO_ERROR: the request is not needed to its end
	}, func(t *testing.T, c *Call) {
		until(t, "the reset", c.Ended)
		if status(t, c) != 200 {
			t.Error("not 200")
		}
		if got, err := body(c); err != nil || string(got) != "all of it" {
			t.Errorf("%q, %v", got, err)
		}
		if err := c.Send([]byte("x"), true); !isReset(err, http2.NoError, true) {
			t.Errorf("sending: %v", err)
		}
		if err := c.SendTrailers(new(message.Head)); !isReset(err, http2.NoError, true) {
			t.Errorf("sending trailers: %v", err)
		}
	})
	f("partial", func(c *Call) {
		c.Respond(response(200), false)
		_ = c.Send([]byte("a part"), false)
		c.Cancel(http2.InternalError)
	}, func(t *testing.T, c *Call) {
		until(t, "the reset", c.Ended)
		if status(t, c) != 200 {
			t.Error("not 200")
		}
		got, err := body(c)
		if string(got) != "a part" || !isReset(err, http2.InternalError, true) {
			t.Errorf("%q, %v", got, err)
		}
		if err := c.Wait(); !isReset(err, http2.InternalError, true) {
			t.Error(err)
		}
	})
	f("no answer", func(c *Call) { c.Cancel(http2.RefusedStream) }, func(t *testing.T, c *Call) {
		if err := c.Head(new(message.Response)); !isReset(err, http2.RefusedStream, true) {
			t.Error(err)
		}
	})
	f("client turns away", func(c *Call) {
		for c.Wait() == nil {
			_, _, _ = c.Next()
		}
		_, _, err := c.Next() // what has come is of no use any more
		served <- err
	}, func(t *testing.T, c *Call) {
		if err := c.Send([]byte("some"), false); err != nil {
			t.Fatal(err)
		}
		c.Flush()
		c.Cancel(http2.Cancel)
		if err := <-served; !isReset(err, http2.Cancel, true) {
			t.Errorf("the server got %v", err)
		}
		for what, err := range map[string]error{"wait": c.Wait(), "head": c.Head(new(message.Response)), "send": c.Send(nil, true)} {
			if !isReset(err, http2.Cancel, false) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if c.Ended() {
			t.Error("the peer ended nothing")
		}
	})
}

// An error of the peer's ends the stream with the reason.
func TestFault(t *testing.T) {
	client, _ := pair(t, setup{inline: func(s *http2.Stream, _ *message.Request, _ bool) {
		r := response(200)
		r.BodyLength = 3
		s.Respond(r, false)
		s.Send([]byte("longer"), true)
		s.Release()
	}})
	c := open(t, client.Mux, request("GET", "/"), true)
	defer c.Release()
	if status(t, c) != 200 {
		t.Error("not 200")
	}
	_, err := body(c)
	var e *ResetError
	if !errors.As(err, &e) || e.Remote || e.Code != http2.ProtocolError || !strings.Contains(e.Reason, "Content-Length") {
		t.Errorf("got %v", err)
	}
}

// A Call whose stream is another's by now takes nothing of the old one's.
func TestLateCalls(t *testing.T) {
	client, _ := pair(t, setup{serve: func(c *Call, _ *message.Request) { _ = c.Wait() }})
	old := open(t, client.Mux, request("POST", "/"), false)
	s := old.Stream()
	c := open(t, client.Mux, request("POST", "/"), false)
	defer c.Release()
	defer old.Release()
	c.OnData(s, []byte("x"), true)
	c.OnResponse(s, response(200), true)
	c.OnTrailers(s, new(message.Head))
	c.OnReset(s, http2.Cancel, true)
	c.OnWritable(s)
	if c.data.first != nil || c.ended || c.reset != nil || c.writable || len(c.heads) > 0 {
		t.Error("it took something")
	}
}

// A connection without room says so, and the Call can be used again.
func TestNoRoom(t *testing.T) {
	client, _ := pair(t, setup{server: http2.Options{MaxStreams: 1}, serve: func(c *Call, _ *message.Request) {
		_, _ = body(c)
		c.Respond(response(200), true)
	}})
	until(t, "the settings", func() bool { return client.settings.Load() == 1 })
	first := open(t, client.Mux, request("POST", "/"), false)
	c := GetCall(client.Mux)
	if err := c.Open(request("GET", "/"), true); !errors.Is(err, http2.ErrNoStreams) {
		t.Fatal(err)
	}
	if err := first.Send(nil, true); err != nil || status(t, first) != 200 {
		t.Error(err)
	}
	first.Release()
	if err := c.Open(request("GET", "/"), true); err != nil || status(t, c) != 200 {
		t.Error(err)
	}
	c.Release()
	GetCall(client.Mux).Release() // one that was never bound
}
