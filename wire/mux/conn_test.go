package mux

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/link"
	"github.com/outrider-mesh/outrider/wire/message"
)

// answer is a handler that answers every request on the reader's goroutine.
func answer(body []byte) func(s *http2.Stream, r *message.Request, end bool) {
	r := response(200)
	r.BodyLength = int64(len(body))
	return func(s *http2.Stream, _ *message.Request, _ bool) {
		s.Respond(r, len(body) == 0)
		if len(body) > 0 {
			s.Send(body, true)
		}
		s.Release()
	}
}

// raw returns a server's end, served, and the socket at the other end.
func raw(t *testing.T, o setup) (*end, *net.TCPConn) {
	t.Helper()
	a, b := sockets(t, o.small)
	e := &end{pongs: make(chan uint64, 1), serve: o.serve, inline: o.inline}
	e.Mux = New(linked(t, a), http2.Server, e, o.server, clock)
	e.run(t)
	return e, b
}

// frame is one frame in bytes.
func frame(kind, flags byte, id uint32, p ...byte) []byte {
	b := []byte{byte(len(p) >> 16), byte(len(p) >> 8), byte(len(p)), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, id), p...)
}

const (
	settingsFrame, pingFrame, goAwayFrame = 4, 6, 7
	ack                                   = 1
)

var hello = append([]byte(http2.Preface), frame(settingsFrame, 0, 0)...)

// awaitFrame reads frames until one is of that type, and returns its payload.
func awaitFrame(t *testing.T, c net.Conn, kind byte) []byte {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		var h [frameHead]byte
		if _, err := io.ReadFull(c, h[:]); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, int(h[0])<<16|int(h[1])<<8|int(h[2]))
		if _, err := io.ReadFull(c, p); err != nil {
			t.Fatal(err)
		}
		if h[3] == kind {
			return p
		}
	}
}

// An interruption of reading ends Serve and its streams; what waited was flushed.
func TestInterruptRead(t *testing.T) {
	client, server := pair(t, setup{serve: func(c *Call, _ *message.Request) {
		c.Respond(response(200), false)
		c.Flush()
		_ = c.Wait()
	}})
	c := open(t, client.Mux, request("POST", "/"), false)
	defer c.Release()
	if status(t, c) != 200 {
		t.Error("not 200")
	}
	if client.Err() != nil {
		t.Error(client.Err())
	}
	client.HTTP.Ping(7)
	client.Link().InterruptRead()
	if err := client.wait(t); !link.Interrupted(err) || !errors.Is(client.Err(), os.ErrDeadlineExceeded) {
		t.Error(err, client.Err())
	}
	var e *ResetError
	if err := c.Wait(); !errors.As(err, &e) || e.Code != http2.Cancel || !e.Remote || e.Reason == "" {
		t.Error(err)
	}
	if err := client.Serve(nil); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("served twice: %v", err)
	}
	if _, err := client.Link().Write(frame(goAwayFrame, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)); err != nil {
		t.Errorf("cannot write any more: %v", err)
	}
	if client.HTTP.Pending() > 0 || client.Partial() != 0 {
		t.Error("something is left")
	}
	_ = client.Link().CloseWrite()
	if err := server.wait(t); !errors.Is(err, io.EOF) {
		t.Errorf("the server got %v", err)
	}
	server.mu.Lock()
	defer server.mu.Unlock()
	if len(server.goaways) != 1 {
		t.Error(server.goaways)
	}
}

// The end of the connection ends the calls at both ends, with a reason.
func TestEnd(t *testing.T) {
	for _, secured := range []bool{false, true} {
		got := make(chan error, 1)
		client, server := pair(t, setup{secure: secured, serve: func(c *Call, _ *message.Request) {
			c.Respond(response(200), false)
			c.Flush()
			_, err := body(c)
			got <- err
			if !c.Ended() {
				t.Error("not ended")
			}
		}})
		c := open(t, client.Mux, request("POST", "/"), false)
		if status(t, c) != 200 {
			t.Error("not 200")
		}
		client.Link().Cut()
		if err := client.wait(t); err == nil {
			t.Error("no error")
		}
		if err := server.wait(t); !errors.Is(err, io.EOF) {
			t.Errorf("secured %t: %v", secured, err)
		}
		var e *ResetError
		if err := <-got; !errors.As(err, &e) || !e.Remote {
			t.Error(err)
		}
		if _, err := body(c); !errors.As(err, &e) || !c.Ended() {
			t.Error(err)
		}
		if err := c.Open(request("GET", "/"), true); !errors.Is(err, http2.ErrNoStreams) {
			t.Error(err)
		}
		c.Release()
	}
}

// A fault of the peer's is told by GOAWAY before Serve returns it.
func TestFaultOfConnection(t *testing.T) {
	e, peer := raw(t, setup{})
	_, _ = peer.Write(append(append([]byte(nil), hello...), frame(pingFrame, 0, 1, make([]byte, 8)...)...))
	var fault *http2.Error
	if err := e.wait(t); !errors.As(err, &fault) || fault.Code != http2.ProtocolError {
		t.Error(err)
	}
	if p := awaitFrame(t, peer, goAwayFrame); http2.Code(binary.BigEndian.Uint32(p[4:])) != http2.ProtocolError {
		t.Errorf("%q", p)
	}
}

// A peer at fault that does not read is not waited for without end, nor is one that has gone.
func TestFarewell(t *testing.T) {
	f := func(name string, end func(peer *net.TCPConn)) {
		t.Run(name, func(t *testing.T) {
			e, peer := raw(t, setup{small: true, inline: answer(make([]byte, 60_000))})
			flood(t, peer, 20)
			until(t, "the socket is full", func() bool { return e.Stalled() != 0 })
			end(peer)
			if err := e.wait(t); err == nil {
				t.Error("no error")
			}
			e.Flush() // starts nothing
			if e.Stalled() != 0 {
				t.Error("still stalled")
			}
		})
	}
	f("fault", func(p *net.TCPConn) { _, _ = p.Write(frame(pingFrame, 0, 1, make([]byte, 8)...)) })
	f("end", func(p *net.TCPConn) { _ = p.CloseWrite() })
}

// flood sends n requests, granting wide windows, and does not read the answers. It returns how to send more.
func flood(t *testing.T, peer net.Conn, n int) (more func(n int)) {
	t.Helper()
	scratch := http2.New(http2.Client, nil, http2.Options{StreamWindow: 1 << 30, ConnWindow: 1 << 30})
	more = func(n int) {
		t.Helper()
		for range n {
			if _, err := scratch.Open(request("GET", "/"), nil, true); err != nil {
				t.Fatal(err)
			}
		}
		if err := scratch.Flush(peer.Write); err != nil {
			t.Fatal(err)
		}
	}
	more(n)
	return more
}

// A peer that asks and does not read is not read either beyond a bound, and goes on when it reads at last.
func TestReaderWaits(t *testing.T) {
	o := http2.Options{WriteBuffer: 32 << 10}
	big := response(200)
	big.Add("x-big", strings.Repeat("x", 10_000)) // no window holds a head back
	var served atomic.Int32
	e, peer := raw(t, setup{small: true, server: o, inline: func(s *http2.Stream, _ *message.Request, _ bool) {
		s.Respond(big, true)
		s.Release()
		served.Add(1)
	}})
	more := flood(t, peer, 1)
	for i := 1; e.HTTP.Pending() <= 2*o.WriteBuffer; i++ {
		if i == 1000 {
			t.Fatal("it never waits")
		}
		until(t, "the answer", func() bool { return int(served.Load()) == i })
		more(1)
	}
	n, read := served.Load(), e.LastRead()
	// What comes now is not read.
	more(10)
	for range 3 {
		_, _ = peer.Write(frame(pingFrame, 0, 0, make([]byte, 8)...))
	}
	if e.Stalled() == 0 || e.HTTP.Pending() > 3*o.WriteBuffer {
		t.Errorf("%d bytes wait", e.HTTP.Pending())
	}
	for range 3 {
		awaitFrame(t, peer, pingFrame)
	}
	until(t, "all is written", func() bool { return e.Stalled() == 0 && e.HTTP.Pending() == 0 })
	if e.LastRead() == read || served.Load() < n+10 {
		t.Error("it did not go on")
	}
	e.Link().InterruptRead()
	if err := e.wait(t); !link.Interrupted(err) {
		t.Error(err)
	}
}

// A connection whose peer does not read holds up no other: flushing it does not wait.
func TestSlowPeer(t *testing.T) {
	big := pattern(4 << 20)
	slow, peer := raw(t, setup{small: true, serve: func(c *Call, _ *message.Request) {
		c.Respond(response(200), false)
		_ = c.Send(big, true)
	}})
	flood(t, peer, 20)
	until(t, "the socket is full", func() bool { return slow.Stalled() != 0 })
	var touched *Mux = slow.Mux
	var server *end
	reply := answer([]byte("quick"))
	client, server := pair(t, setup{inline: func(s *http2.Stream, r *message.Request, end bool) {
		touched.HTTP.Ping(1) // something to flush on a connection that is stuck
		server.Touch(touched)
		server.Touch(touched)
		server.Touch(server.Mux)
		reply(s, r, end)
	}})
	for range 200 {
		c := open(t, client.Mux, request("GET", "/"), true)
		if status(t, c) != 200 {
			t.Error("not 200")
		}
		if got, err := body(c); err != nil || string(got) != "quick" {
			t.Fatalf("%q %v", got, err)
		}
		c.Release()
	}
	if slow.Stalled() == 0 {
		t.Error("it was not slow")
	}
	// Its memory is bounded meanwhile.
	if n := slow.HTTP.Pending(); n > 400<<10 {
		t.Errorf("%d bytes wait", n)
	}
	slow.Link().Interrupt() // ends the wait for the socket as well
	if err := slow.wait(t); err == nil {
		t.Error("no error")
	}
}

// Touched connections are flushed when all frames that are there were handled: requests that came together leave together.
func TestTouch(t *testing.T) {
	calls := make(chan int, 100)
	back, backServer := pair(t, setup{inline: answer(nil)})
	_ = backServer
	var front *end
	var opened []*Call
	client, front := pair(t, setup{inline: func(s *http2.Stream, _ *message.Request, _ bool) {
		c := GetCall(back.Mux)
		if err := c.Open(request("GET", "/"), true); err != nil {
			t.Error(err)
		}
		opened = append(opened, c)
		front.Touch(back.Mux)
		calls <- len(front.touched)
		s.Respond(response(204), true)
		s.Release()
	}})
	var mine []*Call
	for range 30 {
		mine = append(mine, open(t, client.Mux, request("GET", "/"), true))
	}
	client.Flush()
	for _, c := range mine {
		if status(t, c) != 204 {
			t.Error("not 204")
		}
		c.Release()
		if n := <-calls; n != 1 {
			t.Errorf("touched %d", n)
		}
	}
	client.Link().Cut()
	_ = front.wait(t)
	for _, c := range opened {
		if status(t, c) != 200 {
			t.Error("not 200")
		}
		c.Release()
	}
	if len(front.touched) != 0 {
		t.Error("still touched")
	}
}

// A graceful shutdown lets streams end, and then the connection is idle.
func TestShutdown(t *testing.T) {
	gate := make(chan struct{})
	client, server := pair(t, setup{serve: func(c *Call, _ *message.Request) {
		<-gate
		c.Respond(response(200), true)
	}})
	c := open(t, client.Mux, request("GET", "/"), true)
	c.Flush()
	until(t, "the request", func() bool { return server.HTTP.Streams() == 1 })
	server.Shutdown()
	until(t, "the announcement", func() bool { client.mu.Lock(); defer client.mu.Unlock(); return len(client.goaways) > 0 })
	until(t, "the last stream's name", server.HTTP.Drained)
	if server.Idle() {
		t.Error("idle while a stream is open")
	}
	if err := GetCall(client.Mux).Open(request("GET", "/"), true); !errors.Is(err, http2.ErrNoStreams) {
		t.Error(err)
	}
	close(gate)
	if status(t, c) != 200 {
		t.Error("not 200")
	}
	c.Release()
	until(t, "idleness", server.Idle)
}

// Calls above the last stream of a GOAWAY can be sent again.
func TestGoAway(t *testing.T) {
	a, peer := sockets(t, false)
	e := &end{pongs: make(chan uint64, 1)}
	e.Mux = New(linked(t, a), http2.Client, e, http2.Options{}, clock)
	e.run(t)
	first, second := open(t, e.Mux, request("GET", "/"), true), open(t, e.Mux, request("GET", "/"), true)
	defer first.Release()
	defer second.Release()
	e.Flush()
	_, _ = peer.Write(append(frame(settingsFrame, 0, 0), frame(goAwayFrame, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0)...))
	var r *ResetError
	if err := second.Head(new(message.Response)); !errors.As(err, &r) || r.Code != http2.RefusedStream || !r.Remote {
		t.Error(err)
	}
	if first.Ended() {
		t.Error("the first stream ended")
	}
	_ = peer.Close()
	if err := first.Head(new(message.Response)); !errors.As(err, &r) || r.Code == http2.RefusedStream {
		t.Error(err)
	}
}

// Bytes that came before Serve are handled first.
func TestFirst(t *testing.T) {
	a, peer := sockets(t, false)
	l := linked(t, a)
	ping := frame(pingFrame, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8)
	_, _ = peer.Write(append(append([]byte(nil), hello...), ping[:12]...))
	b, err := l.Receive()
	if err != nil {
		t.Fatal(err)
	}
	e := &end{}
	e.Mux = New(l, http2.Server, e, http2.Options{}, clock)
	var tasks sync.WaitGroup
	tasks.Add(1)
	go func() { // awaited below
		defer tasks.Done()
		e.err = e.Serve(b)
	}()
	if p := awaitFrame(t, peer, settingsFrame); len(p) == 0 {
		t.Error("no settings")
	}
	_, _ = peer.Write(ping[12:])
	if p := awaitFrame(t, peer, pingFrame); !bytes.Equal(p, ping[9:]) {
		t.Error(p)
	}
	_ = peer.CloseWrite()
	tasks.Wait()
	if !errors.Is(e.err, io.EOF) {
		t.Error(e.err)
	}
}

// Partial tells a head that does not come to its end from a connection that is idle or in the midst of a body.
func TestPartial(t *testing.T) {
	started := clock()
	e, peer := raw(t, setup{serve: func(c *Call, _ *message.Request) { _, _ = body(c) }})
	if p := e.Partial(); p < started {
		t.Errorf("no preface has come; %d", p)
	}
	pings := 0
	send := func(b []byte) {
		t.Helper()
		before := e.LastRead()
		if _, err := peer.Write(b); err != nil {
			t.Fatal(err)
		}
		until(t, "reading", func() bool { return e.LastRead() > before })
	}
	// sync makes sure that what was sent before was handled, where no frame is under way.
	sync := func() {
		t.Helper()
		pings++
		send(frame(pingFrame, 0, 0, make([]byte, 8)...))
		awaitFrame(t, peer, pingFrame)
	}
	is := func(what string, partial bool) {
		t.Helper()
		until(t, what, func() bool { return (e.Partial() != 0) == partial })
	}
	send([]byte(http2.Preface)[:10])
	is("half a preface", true)
	send([]byte(http2.Preface)[10:])
	is("a preface without settings", true)
	send(frame(settingsFrame, 0, 0))
	sync()
	is("idle", false)
	scratch := http2.New(http2.Client, nil, http2.Options{})
	if _, err := scratch.Open(request("POST", "/"), nil, false); err != nil {
		t.Fatal(err)
	}
	var whole []byte
	_ = scratch.Flush(func(p []byte) (int, error) { whole = append(whole, p...); return len(p), nil })
	var head []byte
	for b := whole[len(http2.Preface):]; len(b) > 0; {
		n := frameHead + int(b[1])<<8 + int(b[2])
		if b[3] == typeHeaders {
			head = b[:n]
		}
		b = b[n:]
	}
	send(head[:5])
	is("less than a frame's head", true)
	since := e.Partial()
	send(head[5:12])
	is("a part of HEADERS", true)
	if e.Partial() != since {
		t.Error("a slow head is as old as its first byte")
	}
	send(head[12:])
	sync()
	is("a whole head", false)
	data := frame(0, 0, 1, make([]byte, 100)...)
	send(data[:50])
	is("a part of a body", false)
	send(data[50:])
	// A section in two frames.
	first := frame(typeHeaders, 0, 3, head[9:14]...)
	second := frame(typeContinuation, flagEndHeaders, 3, head[14:]...)
	send(first)
	is("a section that goes on", true)
	since = e.Partial()
	send(frame(typeContinuation, 0, 3))
	send(second[:11])
	is("a part of CONTINUATION", true)
	if e.Partial() != since {
		t.Error("a slow section is as old as its first byte")
	}
	send(second[11:])
	sync()
	is("a whole section", false)
	if e.HTTP.Streams() != 2 {
		t.Error(e.HTTP.Streams())
	}
}
