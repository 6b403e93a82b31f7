package link

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"
)

// securePair returns a link that speaks TLS and the TLS connection at its other end, with small socket buffers.
func securePair(t testing.TB) (*Link, *tls.Conn) {
	t.Helper()
	l, peer := pair(t)
	for _, c := range []*net.TCPConn{l.tcp.(*net.TCPConn), peer} {
		if err := errors.Join(c.SetReadBuffer(96<<10), c.SetWriteBuffer(16<<10)); err != nil {
			t.Fatal(err)
		}
	}
	return l, secure(t, l, peer)
}

// secure makes l speak TLS with peer, the other end.
func secure(t testing.TB, l *Link, peer net.Conn) *tls.Conn {
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
	there := tls.Server(peer, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	here := tls.Client(l.Replay(nil), &tls.Config{RootCAs: roots, ServerName: "peer"})
	done := make(chan error)
	go func() { done <- there.Handshake() }() // ends with the handshake
	if err := errors.Join(here.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	l.Secure(here)
	return there
}

// fill writes what the socket takes, and says how many bytes that was.
func fill(t *testing.T, l *Link, p []byte) (all int) {
	t.Helper()
	for {
		n, err := l.TryWrite(p[all:])
		if err != nil {
			t.Fatal(err)
		}
		all += n
		if n == 0 {
			return all
		}
		if all == len(p) {
			t.Fatal("the socket is never full")
		}
	}
}

// filling is far more than any socket holds.
func filling() []byte {
	b := make([]byte, 16<<20)
	for i := range b {
		b[i] = byte(i * i >> 8)
	}
	return b
}

// What a socket does not take at once is taken later, in order, whoever waits for it.
func TestTryWrite(t *testing.T) {
	f := func(name string, l *Link, peer net.Conn, secured bool) {
		t.Run(name, func(t *testing.T) {
			if l.Spilled() || l.Drain() != nil {
				t.Error("spilled before it was written")
			}
			want := filling()
			n := fill(t, l, want)
			if l.Spilled() != secured {
				t.Errorf("spilled: %t", l.Spilled())
			}
			if secured && len(l.carrier.kept.b) > maxKeptSpill {
				t.Errorf("%d bytes are kept", len(l.carrier.kept.b))
			}
			done := make(chan []byte)
			go func() { // ends with the bytes
				got := make([]byte, len(want))
				_, _ = io.ReadFull(peer, got)
				done <- got
			}()
			if err := l.Drain(); err != nil || l.Spilled() {
				t.Fatal(err, l.Spilled())
			}
			k, err := l.TryWrite(want[n : n+1000])
			if err != nil {
				t.Fatal(err)
			}
			n += k
			if k, err = l.Write(want[n:]); err != nil || n+k != len(want) || l.Spilled() {
				t.Fatal(n, k, err)
			}
			if !bytes.Equal(<-done, want) {
				t.Error("the bytes differ")
			}
			if k, err := l.TryWrite(nil); k != 0 || err != nil {
				t.Error(k, err)
			}
		})
	}
	l, peer := pair(t)
	f("plain", l, peer, false)
	secured, tpeer := securePair(t)
	f("secured", secured, tpeer, true)
}

// An interruption ends the waits for writing, a cut all writing.
func TestTryWriteEnds(t *testing.T) {
	f := func(name string, l *Link, wait func() error) {
		t.Run(name, func(t *testing.T) {
			p := filling()
			fill(t, l, p)
			l.InterruptRead()
			if n, err := l.TryWrite(p); n != 0 || err != nil {
				t.Errorf("an interruption of reading ends writing: %d, %v", n, err)
			}
			done := make(chan error)
			go func() { done <- wait() }() // ends by Interrupt
			l.Interrupt()
			if err := <-done; !Interrupted(err) {
				t.Errorf("got %v", err)
			}
			l.Cut()
			if _, err := l.TryWrite(p); err == nil {
				t.Error("cut, and no error")
			}
			if err := wait(); err == nil {
				t.Error("cut, and no error of the wait")
			}
		})
	}
	plain, _ := pair(t)
	f("plain", plain, func() error { _, err := plain.Write(filling()); return err })
	secured, _ := securePair(t)
	f("secured", secured, secured.Drain)
	l, _ := pair(t)
	fill(t, l, filling())
	l.LimitWrite(time.Millisecond)
	if _, err := l.Write(filling()); !Interrupted(err) {
		t.Errorf("got %v", err)
	}
}

// What TLS has to say of itself while the socket is full keeps its place, and has a bound.
func TestSpillOfTheReader(t *testing.T) {
	l, peer := securePair(t)
	want := filling()
	n := fill(t, l, want)
	kept := len(l.carrier.kept.b)
	alert := l.conn.(*tls.Conn).CloseWrite() // an alert, as the reader's goroutine may make TLS write
	if alert != nil || len(l.carrier.kept.b) <= kept {
		t.Fatal(alert, kept)
	}
	l.Resume() // behind its alert, TLS lets nobody wait for writing
	done := make(chan []byte)
	go func() { // ends with the alert
		got, err := io.ReadAll(peer)
		if err != nil {
			t.Error(err)
		}
		done <- got
	}()
	if err := l.Drain(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(<-done, want[:n]) {
		t.Error("the bytes differ")
	}

	l, _ = securePair(t)
	fill(t, l, want)
	junk := make([]byte, 10_000)
	var err error
	for i := 0; err == nil; i++ {
		if i > 1000 {
			t.Fatal("there is no bound")
		}
		_, err = l.carrier.Write(junk)
	}
	if _, got := l.TryWrite(want); !errors.Is(got, err) {
		t.Errorf("%v, want %v", got, err)
	}
}

// TLS that does not run over the link cannot be written without waiting, and this is said at once.
func TestTryWriteElsewhere(t *testing.T) {
	l, peer := pair(t)
	l.Secure(tls.Client(peer, &tls.Config{ServerName: "peer"}))
	if _, err := l.TryWrite([]byte("x")); !errors.Is(err, errNotCarried) {
		t.Errorf("got %v", err)
	}
}

// Until TryWrite is called, writing through TLS waits as it does without.
func TestWriteWaits(t *testing.T) {
	l, peer := securePair(t)
	done := make(chan int64)
	want := filling()
	go func() { // ends with the bytes
		n, _ := io.CopyN(io.Discard, peer, int64(len(want)))
		done <- n
	}()
	if n, err := l.Write(want); n != len(want) || err != nil || l.Spilled() || l.carrier.kept != nil {
		t.Fatal(n, err)
	}
	if n := <-done; n != int64(len(want)) {
		t.Error(n)
	}
}

func TestTryWriteAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("under the race detector a pool drops what it is given now and then")
	}
	f := func(name string, l *Link, peer net.Conn) {
		p, got := make([]byte, 20_000), make([]byte, 20_000)
		if n := testing.AllocsPerRun(100, func() {
			for n := 0; n < 100; { // a record and what is in front of it
				k, err := l.TryWrite(p[n:100])
				if err != nil {
					t.Fatal(err)
				}
				n += k
			}
			if l.Spilled() {
				t.Fatal("spilled")
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		_ = peer.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.ReadFull(peer, got[:100*101]); err != nil {
			t.Error(err)
		}
	}
	l, peer := pair(t)
	f("plain", l, peer)
	secured, tpeer := securePair(t)
	f("secured", secured, tpeer)
}
