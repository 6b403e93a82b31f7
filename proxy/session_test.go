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
	s, err := cluster.Members[0].Connect(context.Background(), time.Minute, nil, most)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "an idle connection", func() bool { return s.HTTP.Streams() == 0 })
	for i := range most + 1 {
		x := &exchange{watch: new(watch), target: &target{cluster: cluster}}
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
