package link

import (
	"strings"
	"testing"
	"time"
)

// Used knows what was read and written, Traffic what has passed; neither takes an end for a byte.
func TestTraffic(t *testing.T) {
	l, peer := pair(t)
	base, ok := l.Used()
	if !ok {
		t.Fatal("the kernel does not say")
	}
	f := func(what string, get func() (Traffic, bool), sent, received int64) {
		t.Helper()
		var got Traffic
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			got, _ = get()
			got.Sent, got.Received = got.Sent-base.Sent, got.Received-base.Received
			if got.Sent == sent && got.Received == received {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %+v, want %d and %d", what, got, sent, received)
			}
		}
	}
	if _, err := peer.Write([]byte("unread")); err != nil {
		t.Fatal(err)
	}
	f("what has come", l.Traffic, 0, 6)
	f("what was read", l.Used, 0, 0)
	b, err := l.Receive()
	if err != nil {
		t.Fatal(err)
	}
	PutBuffer(b)
	f("what was read", l.Used, 0, 6)
	if err := peer.SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	p := []byte(strings.Repeat("x", 1<<20))
	n := 0
	for n < 16<<20 { // until the kernels have as much as they take
		k, err := l.TryWrite(p)
		if err != nil {
			t.Fatal(err)
		}
		if n += k; k == 0 {
			break
		}
	}
	f("what was written", l.Used, int64(n), 6)
	if got, _ := l.Traffic(); got.Sent-base.Sent >= int64(n) {
		t.Errorf("all of %d was acknowledged by a peer that does not read", n)
	}
	if err := peer.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Receive(); err == nil {
		t.Fatal("no end")
	}
	f("an end", l.Used, int64(n), 6)
	if got, _ := l.Traffic(); got.Received-base.Received != 6 {
		t.Errorf("an end is counted: %+v", got)
	}
}
