package link

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// pair returns a link and the connection at its other end.
func pair(t testing.TB) (*Link, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	here, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	there, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = here.Close(), there.Close() })
	link := new(Link)
	if err := link.Init(here); err != nil {
		t.Fatal(err)
	}
	return link, there.(*net.TCPConn)
}

// arrived waits until the link has something to read, be it the end.
func arrived(t *testing.T, l *Link) {
	t.Helper()
	for end := time.Now().Add(time.Minute); l.Fresh(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("nothing arrives")
		}
	}
}

func TestReceive(t *testing.T) {
	l, peer := pair(t)
	_, _ = peer.Write([]byte("hello"))
	b, err := l.Receive()
	if err != nil || string(b.Bytes()) != "hello" {
		t.Fatalf("got %v, %v", b, err)
	}
	go func() { _, _ = peer.Write([]byte(" again")) }() // ends with the write
	if err := l.More(b); err != nil || string(b.Bytes()) != "hello again" {
		t.Fatalf("got %q, %v", b.Bytes(), err)
	}
	PutBuffer(b)
	_ = peer.Close()
	if _, err := l.Receive(); !errors.Is(err, io.EOF) {
		t.Fatalf("got %v, want the end", err)
	}
}

func TestInterruptAndResume(t *testing.T) {
	l, peer := pair(t)
	done := make(chan error)
	go func() { // ends when Receive is interrupted
		_, err := l.Receive()
		done <- err
	}()
	l.Interrupt()
	if err := <-done; !Interrupted(err) {
		t.Fatalf("got %v", err)
	}
	if _, err := l.Receive(); !Interrupted(err) {
		t.Fatalf("an interruption lasts until Resume; got %v", err)
	}
	l.Resume()
	_, _ = peer.Write([]byte("x"))
	if b, err := l.Receive(); err != nil || string(b.Bytes()) != "x" {
		t.Fatalf("got %v, %v", b, err)
	}
}

func TestAsk(t *testing.T) {
	l, peer := pair(t)
	go func() { // ends with the link
		b := make([]byte, 64)
		for {
			n, err := peer.Read(b)
			if err != nil {
				return
			}
			_, _ = peer.Write(bytes.ToUpper(b[:n]))
		}
	}()
	for range 3 {
		b, err := l.Ask([]byte("question"))
		if err != nil || string(b.Bytes()) != "QUESTION" {
			t.Fatalf("got %v, %v", b, err)
		}
		PutBuffer(b)
	}
}

// A request larger than the socket's buffers is written whole while the peer takes its time.
func TestAskLarge(t *testing.T) {
	l, peer := pair(t)
	const size = 16 << 20
	go func() { // ends with the answer
		n, _ := io.CopyN(io.Discard, peer, size)
		if n == size {
			_, _ = peer.Write([]byte("all"))
		}
	}()
	b, err := l.Ask([]byte(strings.Repeat("x", size)))
	if err != nil || string(b.Bytes()) != "all" {
		t.Fatalf("got %v, %v", b, err)
	}
}

// A kept connection is not used when its peer has ended it or spoken out of turn: nothing is written then.
func TestAskStale(t *testing.T) {
	f := func(name string, spoil func(peer *net.TCPConn)) {
		t.Run(name, func(t *testing.T) {
			l, peer := pair(t)
			spoil(peer)
			arrived(t, l)
			if _, err := l.Ask([]byte("question")); !errors.Is(err, ErrStale) {
				t.Fatalf("got %v", err)
			}
		})
	}
	f("closed", func(p *net.TCPConn) { _ = p.Close() })
	f("reset", func(p *net.TCPConn) { _ = p.SetLinger(0); _ = p.Close() })
	f("half closed", func(p *net.TCPConn) { _ = p.CloseWrite() })
	f("unasked answer", func(p *net.TCPConn) { _, _ = p.Write([]byte("HTTP/1.1 200 OK\r\n\r\n")) })
}

func TestEnded(t *testing.T) {
	l, peer := pair(t)
	if l.Ended() {
		t.Error("ended while open")
	}
	_, _ = peer.Write([]byte("x"))
	arrived(t, l)
	if l.Ended() {
		t.Error("ended with bytes to read")
	}
	b, _ := l.Receive()
	PutBuffer(b)
	_ = peer.CloseWrite()
	arrived(t, l)
	if !l.Ended() {
		t.Error("not ended after the peer's end")
	}
}

func TestBuffer(t *testing.T) {
	b := GetBuffer()
	defer PutBuffer(b)
	fill := func(s string) { b.end += copy(b.room(), s) }
	fill("HEADbody")
	b.Skip(4)
	whole, ok := b.Lead([]byte("a longer head "), 4)
	if !ok || string(whole) != "a longer head body" {
		t.Fatalf("got %q, %t", whole, ok)
	}
	if string(b.Bytes()) != "body" {
		t.Fatalf("Lead took %q", b.Bytes())
	}
	if _, ok := b.Lead(make([]byte, Headroom+5), 4); ok {
		t.Fatal("a head went where there is no room")
	}
	big := strings.Repeat("x", 3*bufferSize)
	for i := 0; i < len(big); {
		n := copy(b.room(), big[i:])
		b.end += n
		i += n
	}
	if got := string(b.Bytes()); got != "body"+big {
		t.Fatalf("growing lost bytes: %d", len(got))
	}
	b.Skip(b.Len())
	if b.Len() != 0 || b.start != Headroom {
		t.Fatalf("not empty: %d at %d", b.Len(), b.start)
	}
}

func TestReceiveAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector a pool drops what it is given now and then")
	}
	l, peer := pair(t)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = peer.Write([]byte("x"))
		b, err := l.Receive()
		if err != nil {
			t.Fatal(err)
		}
		PutBuffer(b)
	}); n > 0 {
		t.Errorf("%v allocations per wait", n)
	}
}

// The sweeper may interrupt a connection in the very moment that its handshake ends.
func TestInterruptBesideSecure(t *testing.T) {
	l, peer := pair(t)
	done := make(chan struct{})
	go func() { // ends when the link is cut
		defer close(done)
		for range 100 {
			l.Interrupt()
			l.InterruptRead()
		}
		l.Cut()
	}()
	l.Secure(&net.TCPConn{})
	<-done
	if !l.Secured() {
		t.Error("not secured")
	}
	if _, err := peer.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

func TestPair(t *testing.T) {
	a, b, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	l := new(Link)
	if err := l.Init(a); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(b, "there"); err != nil {
		t.Fatal(err)
	}
	in, err := l.Receive()
	if err != nil || string(in.Bytes()) != "there" {
		t.Fatal(err)
	}
	PutBuffer(in)
	if _, err := l.Write([]byte("back")); err != nil || l.CloseWrite() != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); err != nil || string(got) != "back" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, ok := l.Traffic(); ok {
		t.Error("there is no TCP to count")
	}
	done := make(chan error)
	go func() { _, err := l.Receive(); done <- err }() // ends by Interrupt
	l.Interrupt()
	if err := <-done; !Interrupted(err) {
		t.Error(err)
	}
	_ = l.Close()
}
