package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

func webConfig(a *authority) *tls.Config {
	return &tls.Config{ServerName: "web.example", RootCAs: a.pool()}
}

const web = "GET / HTTP/1.1\r\nHost: web.example\r\n\r\n"

// A TLS client that goes away in order leaves its farewell unread; it takes its request along all the same, and one that only
// has more to say does not.
func TestTLSClientGone(t *testing.T) {
	a := newAuthority(t)
	gone, here := make(chan struct{}, 1), make(chan struct{}, 2)
	release := make(chan struct{})
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		for {
			if _, err := readHead(r); err != nil {
				gone <- struct{}{}
				return
			}
			here <- struct{}{}
			go func() { // ends with the answer, or with the test
				<-release
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}()
		}
	})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		p := start(t, tlsGateway(a, o.address()), Limits{})
		config := webConfig(a)
		config.MaxVersion = version
		c := dialTLS(t, p, "gateway", config)
		c.send(web)
		<-here
		_ = c.Close()
		select {
		case <-gone:
		case <-time.After(patience):
			t.Error("the application's connection stays")
		}
		counts(t, p, map[string]float64{"0|DC": 1})
	}
	p := start(t, tlsGateway(a, o.address()), Limits{})
	c := dialTLS(t, p, "gateway", webConfig(a))
	c.send(web)
	c.send(web) // waits in the proxy's socket
	select {
	case <-gone:
		t.Error("a client with another request was taken for gone")
	case <-time.After(3 * time.Duration(goneAfter)):
	}
	close(release)
	for range 2 {
		if x := c.read("GET"); x.status != 200 {
			t.Errorf("got %+v", x)
		}
	}
}

// A connection that was made in the clear is not used once the configuration wants TLS, nor one that TLS of another kind made.
func TestTLSChangeKeepsNoConnection(t *testing.T) {
	a := newAuthority(t)
	server := &tls.Config{Certificates: []tls.Certificate{a.pair(service, "second.example")}}
	var plain, secure atomic.Int64
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		if first, err := r.Peek(1); err != nil || first[0] != 0x16 {
			plain.Add(1)
			echo(c, r)
			return
		}
		secure.Add(1)
		s := tls.Server(&peeked{c, r}, server)
		echo(s, bufio.NewReader(s))
	})
	with := func(sni string) *model.Snapshot {
		return snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
			if sni != "" {
				s.Clusters[0].TLS = &model.ClientTLS{Mode: model.SimpleTLS, SNI: sni, Trust: &model.Certificate{Name: "default/roots", Material: &model.Material{CA: a.pem}}}
			}
		}, o.address())
	}
	p := start(t, with(""), Limits{})
	c := dial(t, p, "outbound")
	f := func(sni string, wantPlain, wantSecure int64) {
		t.Helper()
		apply(t, p, with(sni))
		for range 3 {
			c.send(get("/"))
			if x := c.read("GET"); x.status != 200 {
				t.Errorf("%q: got %+v", sni, x)
			}
		}
		if plain.Load() != wantPlain || secure.Load() != wantSecure {
			t.Errorf("%q: %d connections in the clear and %d through TLS, want %d and %d", sni, plain.Load(), secure.Load(), wantPlain, wantSecure)
		}
	}
	f("", 1, 0)
	f(service, 1, 1)
	f(service, 1, 1)
	f("second.example", 1, 2)
	f("", 2, 2)
}

// peeked is a connection of which a reader has taken the first bytes.
type peeked struct {
	net.Conn
	r io.Reader
}

func (p *peeked) Read(b []byte) (int, error) { return p.r.Read(b) }

// Draining ends TLS connections that have not asked for anything yet.
func TestTLSDrainIdle(t *testing.T) {
	a := newAuthority(t)
	p := start(t, tlsGateway(a, "127.0.0.1:1"), Limits{HeadTimeout: time.Hour})
	c := dialTLS(t, p, "gateway", webConfig(a))
	eventually(t, "the connection", func() bool { return p.conns.count() == 1 })
	if err := p.Drain(context.Background()); err != nil {
		t.Error(err)
	}
	c.closed()
}

// A handshake may end in the moment that its time does.
func TestTLSHandshakeAgainstTheClock(t *testing.T) {
	a := newAuthority(t)
	o := newOrigin(t, nil)
	p := start(t, tlsGateway(a, o.address()), Limits{HeadTimeout: 20 * time.Millisecond})
	var running sync.WaitGroup
	for i := range 4 {
		running.Go(func() {
			for j := range 15 {
				nc, err := net.Dial("tcp", p.Address("gateway"))
				if err != nil {
					t.Error(err)
					return
				}
				_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
				time.Sleep(time.Duration((i*15+j)%30) * time.Millisecond)
				s := tls.Client(nc, webConfig(a))
				if s.Handshake() == nil {
					_, _ = io.WriteString(s, web)
					_, _ = s.Read(make([]byte, 1))
				}
				_ = nc.Close()
			}
		})
	}
	running.Wait()
	settled(t, p)
}
