package link

import (
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

// slow is a connection that writes one byte at a time, the next once the link has read it; after is called behind each.
type slow struct {
	net.Conn
	t     testing.TB
	l     *Link
	after func(n int)
}

func (s *slow) Write(p []byte) (int, error) {
	if s.after == nil {
		return s.Conn.Write(p)
	}
	for i := range p {
		if _, err := s.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
		eventually(s.t, "the byte is read", func() bool { return !s.l.Pending() })
		s.after(i + 1)
	}
	return len(p), nil
}

func eventually(t testing.TB, what string, ok func() bool) {
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(50 * time.Microsecond) {
		if time.Now().After(end) {
			t.Errorf("does not come: %s", what)
			return
		}
	}
}

// receive returns what comes next.
func receive(t *testing.T, l *Link) string {
	t.Helper()
	b, err := l.Receive()
	if err != nil {
		t.Fatal(err)
	}
	defer PutBuffer(b)
	return string(b.Bytes())
}

// A record that comes in pieces is waited for, however often the wait is interrupted in its midst.
func TestReceiveRecordInPieces(t *testing.T) {
	l, nc := pair(t)
	s := &slow{Conn: nc, t: t, l: l}
	peer := secure(t, l, s)
	s.after = func(n int) {
		if n%7 == 0 {
			l.InterruptRead()
		}
	}
	done := make(chan error, 1)
	go func() { // ends with the message
		_, err := peer.Write([]byte("in pieces"))
		done <- err
	}()
	interrupted := 0
	for {
		b, err := l.Receive()
		if Interrupted(err) {
			interrupted++
			l.Resume()
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if string(b.Bytes()) != "in pieces" {
			t.Errorf("got %q", b.Bytes())
		}
		PutBuffer(b)
		break
	}
	if err := <-done; err != nil || interrupted == 0 {
		t.Error(err, interrupted)
	}
}

// What TLS has read already is received though nothing comes from the socket any more, and so is the end.
func TestReceiveRecordsAtOnce(t *testing.T) {
	l, peer := securePair(t)
	for _, p := range []string{"one", "two", "three"} {
		if _, err := io.WriteString(peer, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := peer.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return l.Pending() && halfClosedNow(l) })
	for _, want := range []string{"one", "two", "three"} {
		if got := receive(t, l); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for range 2 {
		if _, err := l.Receive(); err != io.EOF {
			t.Errorf("got %v", err)
		}
	}
}

func halfClosedNow(l *Link) (yes bool) {
	_ = l.raw.Control(func(fd uintptr) { yes = halfClosed(int(fd)) })
	return yes
}

// An end without a word is none that TLS vouches for.
func TestReceiveCutOff(t *testing.T) {
	l, nc := pair(t)
	peer := secure(t, l, nc)
	if _, err := io.WriteString(peer, "half of it"); err != nil {
		t.Fatal(err)
	}
	_ = nc.Close()
	if got := receive(t, l); got != "half of it" {
		t.Errorf("got %q", got)
	}
	if _, err := l.Receive(); err == nil || Interrupted(err) {
		t.Errorf("got %v", err)
	}
}

// A large record fits into one buffer.
func TestReceiveLargeRecord(t *testing.T) {
	l, peer := securePair(t)
	want := filling()[:16<<10]
	done := make(chan error, 1)
	go func() { // ends with the records
		_, err := peer.Write(want)
		done <- err
	}()
	var got []byte
	for len(got) < len(want) {
		got = append(got, receive(t, l)...)
	}
	if err := <-done; err != nil || string(got) != string(want) {
		t.Error("the bytes differ", err)
	}
}

// Who waits holds no buffer, with TLS as without.
func TestReceiveHoldsNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's own memory is counted")
	}
	const n = 40
	heap := func() int {
		var m runtime.MemStats
		for range 3 { // pools give back what was unused for two collections
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc)
	}
	f := func(name string, open func() *Link) {
		var all [n]*Link
		for i := range all {
			all[i] = open()
		}
		before := heap()
		ended := make(chan error, n)
		for _, l := range all {
			go func() { // ends with the interruption below
				_, err := l.Receive()
				ended <- err
			}()
		}
		stacks := make([]byte, 1<<20)
		eventually(t, "all wait", func() bool {
			return strings.Count(string(stacks[:runtime.Stack(stacks, true)]), "[IO wait") >= n
		})
		if each := (heap() - before) / n; each > bufferSize/4 {
			t.Errorf("%s: each of %d links holds %d bytes while it waits", name, n, each)
		}
		for _, l := range all {
			l.Interrupt()
		}
		for range all {
			if err := <-ended; !Interrupted(err) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	f("plain", func() *Link { l, _ := pair(t); return l })
	f("TLS", func() *Link { l, _ := securePair(t); return l })
}

// crypto/tls makes 24 bytes of garbage whenever it reads from the socket; the link adds none.
func TestReceiveAllocatesNothingWithTLS(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector a pool drops what it is given now and then")
	}
	l, peer := securePair(t)
	p := []byte("x")
	if n := testing.AllocsPerRun(100, func() {
		_, err := peer.Write(p)
		b, rerr := l.Receive()
		if errors.Join(err, rerr) != nil {
			t.Fatal(err, rerr)
		}
		PutBuffer(b)
	}); n > 1 {
		t.Errorf("%v allocations per record", n)
	}
}
