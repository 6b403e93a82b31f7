package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/wire/http2"
	"github.com/outrider-mesh/outrider/wire/message"
)

// No connection ever has more streams than the cluster allows, however many exchanges begin at once.
func TestMaxStreamsIsExact(t *testing.T) {
	const most = 2
	var mu sync.Mutex
	open := map[string]int{}
	address := goServer(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		open[r.RemoteAddr]++
		n := open[r.RemoteAddr]
		mu.Unlock()
		if n > most {
			t.Errorf("%d streams at a time", n)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Method == "PUT" {
			<-r.Context().Done()
		}
		mu.Lock()
		open[r.RemoteAddr]--
		mu.Unlock()
	})
	p := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		s.Clusters[0].Protocol, s.Clusters[0].MaxStreams = model.HTTP2, most
	}, address), Limits{})
	c := goClient(t, p, 1)
	var all sync.WaitGroup
	for range 24 {
		all.Go(func() {
			for range 20 {
				if res, b := tryFetch(c, request("POST", "http://app/", strings.NewReader("body"))); res != 200 {
					t.Errorf("got %d %s", res, b)
				}
			}
		})
	}
	all.Wait()

	// Who found room and comes too late to use it is told so.
	cluster := p.upstream.Current()[p.Snapshot().Clusters[0].Name]
	s, err := cluster.Members[0].Connect(context.Background(), time.Minute, nil, most, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "an idle connection", func() bool { return s.HTTP.Streams() == 0 })
	for i := range most + 1 {
		x := &exchange{conn: &conn{proxy: p}, watch: new(watch), target: &target{cluster: cluster}}
		x.req.SetMethod([]byte("PUT"))
		x.req.SetAuthority([]byte("app"))
		x.req.BodyLength = message.NoBody
		if err := x.open(s); (err != nil) != (i == most) || err != nil && !errors.Is(err, http2.ErrNoStreams) {
			t.Errorf("stream %d: %v", i, err)
		}
		defer x.drop()
	}
}

func tryFetch(c *http.Client, r *http.Request) (status int, body string) {
	res, err := c.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(b)
}

// A text that ends a line becomes a gRPC message that ends none.
func TestGRPCMessageEndsNoLine(t *testing.T) {
	p := start(t, snapshotOf(func(s *model.Snapshot, r *model.Rule) {
		r.Route, r.Reply = nil, &model.Reply{Status: 503, Body: "two\nlines\r\n"}
	}), Limits{})
	r := request("POST", "http://app/a.B/C", strings.NewReader(""))
	r.Header.Set("Content-Type", "application/grpc")
	res, _ := fetch(t, goClient(t, p, 2), r)
	if got := res.Header.Get("Grpc-Message"); got != "two%0Alines" || res.Header.Get("Grpc-Status") != "14" {
		t.Errorf("got %q, %v", got, res.Header)
	}
}

// While a tunnel lasts, all that its ends said counts and nothing else: not the head of CONNECT and its answer; but what
// the client sent along with the head, or before the tunnel was there, does. Neither does an end that was passed on.
func TestTunnelCountsWhileItLasts(t *testing.T) {
	release := make(chan struct{})
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = io.WriteString(c, "welcome\n")
		b := make([]byte, 15)
		_, _ = io.ReadFull(r, b)
		_, _ = c.Write(b)
		<-release
	})
	defer close(release)
	a := newAuthority(t)
	s := opaqueOf(o.address())
	s.Listeners = append(s.Listeners, model.Listener{
		Name: "secured", Direction: model.Gateway, Address: "127.0.0.1:0", Port: 5432, Protocol: model.TLS,
		TLS: []model.ServerTLS{{
			Names: []string{"*"}, Mode: model.SimpleTLS, Protocol: model.TCP, Table: "db",
			Certificates: []model.Certificate{{Name: "default/web", Material: a.issue("web.example")}},
		}},
	})
	f := func(name string, dial func(t *testing.T, p *Proxy) *client, begin string, half bool) {
		t.Run(name, func(t *testing.T) {
			p := start(t, model.Seal(s), Limits{})
			c := dial(t, p)
			c.send(begin + "half of it, ")
			if strings.HasPrefix(begin, "CONNECT") {
				if x := c.read("HEAD"); x.status != 200 {
					t.Fatalf("got %+v", x)
				}
			}
			c.send("all")
			if half {
				_ = c.Conn.(*net.TCPConn).CloseWrite()
			}
			b := make([]byte, 23)
			if _, err := io.ReadFull(c.r, b); err != nil || string(b) != "welcome\nhalf of it, all" {
				t.Fatalf("got %q, %v", b, err)
			}
			eventually(t, "the exact count while it lasts", func() bool {
				p.flows.look()
				got := tcpTotals(t, p.metrics.Gatherer())
				if got["sent_bytes_total - db"] > 23 || got["received_bytes_total - db"] > 15 {
					t.Fatalf("counted too much: %v", got)
				}
				return got["sent_bytes_total - db"] == 23 && got["received_bytes_total - db"] == 15
			})
			if got := tcpTotals(t, p.metrics.Gatherer()); got["connections_closed_total - db"] != 0 {
				t.Error("it lasts no more")
			}
		})
	}
	plain := func(listener string) func(t *testing.T, p *Proxy) *client {
		return func(t *testing.T, p *Proxy) *client { return dial(t, p, listener) }
	}
	connect := fmt.Sprintf("CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\nX-Long: %s\r\n\r\n", strings.Repeat("x", 500))
	f("TCP", plain("db"), "", false)
	f("TCP, half-closed", plain("db"), "", true)
	f("CONNECT", plain("outbound"), connect, false)
	f("TLS", func(t *testing.T, p *Proxy) *client {
		return dialTLS(t, p, "secured", webConfig(a))
	}, "", false)
}

// A connection to an endpoint that says nothing any more is found out by PING, and its exchanges end; one that is merely
// quiet goes on.
func TestKeepAliveOfEndpoints(t *testing.T) {
	t.Parallel()
	dead := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = io.WriteString(c, "\x00\x00\x00\x04\x00\x00\x00\x00\x00") // SETTINGS, and then nothing
		_, _ = io.Copy(io.Discard, r)
	})
	alive := goServer(t, func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(6 * time.Second) // many times what the dead one is given
	})
	f := func(name, address string, keep *model.KeepAlive, status int, reason string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
				s.Clusters[0].Protocol, s.Clusters[0].KeepAlive2 = model.HTTP2, keep
			}, address), Limits{})
			res, _ := fetch(t, goClient(t, p, 1), request("PUT", "http://app/", strings.NewReader("x")))
			if res.StatusCode != status || res.Header.Get("X-Outrider-Reason") != reason {
				t.Errorf("got %v", res)
			}
		})
	}
	keep := &model.KeepAlive{Interval: model.Duration(200 * time.Millisecond), Timeout: model.Duration(1500 * time.Millisecond)}
	f("dead", dead.address(), keep, 503, "upstream_reset")
	f("quiet", alive, keep, 200, "")
}

// Streams whose bodies the application does not read leave room for others: a few more connections are opened, and no
// more than that.
func TestNeighboursOfStalledBodies(t *testing.T) {
	release := make(chan struct{})
	var mu sync.Mutex
	seen := map[string]bool{}
	address := goServer(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen[r.RemoteAddr] = true
		mu.Unlock()
		if r.URL.Path == "/stall" {
			<-release
		}
		_, _ = io.Copy(io.Discard, r.Body)
	})
	p := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) { s.Clusters[0].Protocol = model.HTTP2 }, address), Limits{})
	c := goClient(t, p, 1)
	var all sync.WaitGroup
	cluster := p.upstream.Current()[p.Snapshot().Clusters[0].Name]
	for n := 1; n <= 8; n++ {
		all.Go(func() { // ends when the application reads
			if status, b := tryFetch(c, request("POST", "http://app/stall", strings.NewReader(strings.Repeat("x", 4<<20)))); status != 200 {
				t.Errorf("a stalled body: %d %s", status, b)
			}
		})
		want := min(n, 4)
		eventually(t, "a window that is used up", func() bool {
			busy, _ := cluster.Members[0].Connections()
			full := cluster.Members[0].Share(0, now()) == nil
			return busy == want && full == (n < 4)
		})
		if n < 4 {
			for range 3 {
				if status, b := tryFetch(c, request("POST", "http://app/", strings.NewReader("small"))); status != 200 {
					t.Errorf("a neighbour of %d stalled bodies: %d %s", n, status, b)
				}
			}
		}
		if status, b := tryFetch(c, request("GET", "http://app/", nil)); status != 200 {
			t.Errorf("without a body, beside %d: %d %s", n, status, b)
		}
	}
	close(release)
	all.Wait()
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 4 {
		t.Errorf("%d connections", len(seen))
	}
}

// Clients that are gone without a word are found out by the kernel.
func TestKeepAliveOfClients(t *testing.T) {
	p := start(t, snapshotOf(nil, newOrigin(t, nil).address()), Limits{})
	c := dial(t, p, "outbound")
	c.send(get("/"))
	c.read("GET")
	all := p.conns.list(nil)
	if len(all) != 1 {
		t.Fatalf("%d connections", len(all))
	}
	for _, c := range all {
		raw, err := c.link.Conn().(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		on := 0
		if cerr := raw.Control(func(fd uintptr) { on, err = syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_KEEPALIVE) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		if on == 0 {
			t.Error("SO_KEEPALIVE is off")
		}
	}
}
