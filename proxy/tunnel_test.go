package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

const (
	upgrade  = "Host: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
	switched = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
)

// shout reads all that comes after the request and its body, sends it back in capitals and ends.
func shout(c net.Conn, r *bufio.Reader) {
	head, err := readHead(r)
	if err != nil {
		return
	}
	var body string
	if strings.Contains(head, "hunked") {
		if body, _, err = readChunked(r); err != nil {
			return
		}
	} else {
		b := make([]byte, contentLength(head))
		if _, err := io.ReadFull(r, b); err != nil {
			return
		}
		body = string(b)
	}
	_, _ = io.WriteString(c, switched+"body "+body+"; ")
	rest, _ := io.ReadAll(r)
	_, _ = io.WriteString(c, strings.ToUpper(string(rest)))
}

// What is in a buffer on either side when the tunnel begins goes through it, once; the end of one direction is passed on.
func TestUpgradeWithBuffers(t *testing.T) {
	o := newOrigin(t, shout)
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	f := func(name, want string, parts ...string) {
		t.Helper()
		c := dial(t, p, "outbound")
		for i, part := range parts {
			if i > 0 {
				time.Sleep(5 * time.Millisecond) // another segment
			}
			c.send(part)
		}
		_ = c.Conn.(*net.TCPConn).CloseWrite()
		head, err := readHead(c.r)
		if err != nil || head != "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n" {
			t.Errorf("%s: got %q, %v", name, head, err)
		}
		if rest, err := io.ReadAll(c.r); string(rest) != want || err != nil {
			t.Errorf("%s: got %q, %v; want %q", name, rest, err, want)
		}
		_ = c.Close()
	}
	f("nothing more", "body ; ", "GET / HTTP/1.1\r\n"+upgrade+"\r\n")
	f("bytes at once", "body ; MORE", "GET / HTTP/1.1\r\n"+upgrade+"\r\nmore")
	f("bytes later", "body ; MORE", "GET / HTTP/1.1\r\n"+upgrade+"\r\n", "mo", "re")
	f("body at once", "body word; MORE", "POST / HTTP/1.1\r\n"+upgrade+"Content-Length: 4\r\n\r\nwordmore")
	f("body later", "body word; MORE", "POST / HTTP/1.1\r\n"+upgrade+"Content-Length: 4\r\n\r\nwo", "rdmore")
	f("chunked body", "body word; MORE", "POST / HTTP/1.1\r\n"+upgrade+"Transfer-Encoding: chunked\r\n\r\n2\r\nwo\r\n", "2\r\nrd\r\n0\r\n\r\nmo", "re")
	settled(t, p)
	counts(t, p, map[string]float64{"101|-": 6})
}

// An application may switch before the request's body has ended; the tunnel's bytes follow the body.
func TestUpgradeBeforeTheBody(t *testing.T) {
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := readHead(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, switched)
		body, _, err := readChunked(r)
		rest, _ := io.ReadAll(r)
		if err == nil {
			_, _ = io.WriteString(c, body+"|"+string(rest))
		}
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send("POST / HTTP/1.1\r\n" + upgrade + "Transfer-Encoding: chunked\r\n\r\n2\r\nwo\r\n")
	if head, err := readHead(c.r); err != nil || !strings.HasPrefix(head, "HTTP/1.1 101") {
		t.Fatalf("got %q, %v", head, err)
	}
	c.send("2\r\nrd\r\n0\r\n\r\ntunnelled")
	_ = c.Conn.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c.r); string(b) != "word|tunnelled" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	_ = c.Close()
	settled(t, p)
}

// An Upgrade that the application does not take up is an ordinary request.
func TestUpgradeRefused(t *testing.T) {
	o := newOrigin(t, answers(
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
		"HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.3\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nafter",
	))
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	for _, want := range []int{200, 400, 426} {
		c.send("GET / HTTP/1.1\r\n" + upgrade + "\r\n")
		if a := c.read("GET"); a.status != want {
			t.Fatalf("got %+v, want %d", a, want)
		}
	}
	c.send(get("/"))
	if a := c.read("GET"); a.body != "after" {
		t.Errorf("got %+v", a)
	}
	if n := o.connections(); n != 1 {
		t.Errorf("%d connections to the application, want 1", n)
	}
}

// HTTP/1.0 knows no Upgrade.
func TestUpgradeInHTTP10(t *testing.T) {
	got := make(chan string, 1)
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		head, _ := readHead(r)
		got <- head
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send("GET / HTTP/1.0\r\n" + upgrade + "\r\n")
	if a := c.read("GET"); a.status != 200 {
		t.Errorf("got %+v", a)
	}
	if head := <-got; strings.Contains(strings.ToLower(head), "upgrade") {
		t.Errorf("the application got %q", head)
	}
}

// tunnelTo opens a tunnel through p.
func tunnelTo(t *testing.T, p *Proxy, address string) *client {
	t.Helper()
	c := dial(t, p, "outbound")
	c.send("CONNECT " + address + " HTTP/1.1\r\nHost: " + address + "\r\n\r\n")
	if a := c.read("HEAD"); a.status != 200 {
		t.Fatalf("got %+v", a)
	}
	return c
}

// A tunnel passes an error on as an error: bytes that were cut off must not look whole.
func TestTunnelPassesResetsOn(t *testing.T) {
	accepted := make(chan net.Conn, 1)
	release := make(chan struct{})
	o := newOrigin(t, func(c net.Conn, _ *bufio.Reader) {
		accepted <- c
		<-release
	})
	defer close(release)
	p := start(t, snapshotOf(nil), Limits{})
	c := tunnelTo(t, p, o.address())
	far := <-accepted
	_ = far.(*net.TCPConn).SetLinger(0)
	_ = far.Close()
	if b, err := io.ReadAll(c.r); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client got %q, %v", b, err)
	}
	c = tunnelTo(t, p, o.address())
	far = <-accepted
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
	if b, err := io.ReadAll(far); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the application got %q, %v", b, err)
	}
	settled(t, p)
}

// Draining waits for tunnels as for exchanges, and cuts them off when its time is over.
func TestDrainAndTunnels(t *testing.T) {
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) { _, _ = io.Copy(c, r) })
	p := start(t, snapshotOf(nil), Limits{})
	echoes := func(c *client) bool {
		_, _ = io.WriteString(c, "word")
		b := make([]byte, 4)
		_, err := io.ReadFull(c.r, b)
		return err == nil && string(b) == "word"
	}
	first, second := tunnelTo(t, p, o.address()), tunnelTo(t, p, o.address())
	idle := dial(t, p, "outbound")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- p.Drain(ctx) }() // ends below
	idle.closed()
	if !echoes(first) || !echoes(second) {
		t.Error("draining ended a tunnel at once")
	}
	_ = first.Conn.(*net.TCPConn).CloseWrite()
	first.closed()
	_ = first.Close()
	select {
	case err := <-done:
		t.Fatalf("drained with a tunnel open: %v", err)
	default:
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if echoes(second) {
		t.Error("the tunnel lives on")
	}
	settled(t, p)
	counts(t, p, map[string]float64{}) // tunnels count as connections
	eventually(t, "the count of closed tunnels", func() bool {
		return tcpTotals(t, p.metrics.Gatherer())["connections_closed_total - PassthroughCluster"] == 2
	})
}

// CONNECT to a service's port of HTTP leads to the requests inside, whatever the service's rules say of paths.
func TestConnectToAService(t *testing.T) {
	o := newOrigin(t, nil)
	other := newOrigin(t, nil)
	_, otherPort, _ := net.SplitHostPort(other.address())
	exact := func(path string) []model.Match {
		return []model.Match{{Path: &model.StringMatch{Kind: model.Exact, Value: path}}}
	}
	s := snapshotOf(func(s *model.Snapshot, r *model.Rule) {
		h := &s.Tables[0].Hosts[0]
		h.Rules = append(h.Rules, model.Rule{Matches: exact("/away"), Redirect: &model.Redirect{Status: 302, Path: &model.PathRewrite{Full: "/there"}}})
		r.Matches = []model.Match{{Path: &model.StringMatch{Kind: model.Prefix, Value: "/in"}}}
		h.Port = 9080
		s.Tables[0].Hosts = append(s.Tables[0].Hosts, model.VirtualHost{
			Name: "absent", Domains: []string{"app"},
			Rules: []model.Rule{{Reply: &model.Reply{Status: 503, Outcome: "no_route", Body: "app has port 9080"}}},
		})
	}, o.address())
	p := start(t, s, Limits{})
	c := tunnelTo(t, p, "app:9080")
	f := func(request string, status int, body string) answer {
		t.Helper()
		c.send(request)
		a := c.read("GET")
		if a.status != status || !strings.Contains(a.body, body) {
			t.Errorf("%q: got %+v", request, a)
		}
		return a
	}
	f("GET /inside HTTP/1.1\r\nHost: app\r\n\r\n", 200, "GET /inside")
	f("POST /inside HTTP/1.1\r\nHost: app:9080\r\nContent-Length: 4\r\n\r\nbody", 200, "POST /inside")
	f("GET /elsewhere HTTP/1.1\r\nHost: app\r\n\r\n", 404, "")
	if a := f("GET /away HTTP/1.1\r\nHost: app\r\n\r\n", 302, ""); a.field("location") != "http://app:9080/there" && a.field("location") != "http://app/there" {
		t.Errorf("location %q", a.field("location"))
	}
	f("GET /other HTTP/1.1\r\nHost: "+other.address()+"\r\n\r\n", 200, "GET /other")
	f("GET /inside HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n", 200, "GET /inside")
	c.closed()
	counts(t, p, map[string]float64{"200|-": 4, "302|-": 1, "404|NR": 1})

	// A host that is not known counts as named with CONNECT's port.
	c = tunnelTo(t, p, "app:9080")
	c.send("CONNECT 127.0.0.1:" + otherPort + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
	if a := c.read("HEAD"); a.status != 200 {
		t.Errorf("CONNECT inside: got %+v", a)
	}
	c.send("GET /deeper HTTP/1.1\r\nHost: x\r\n\r\n")
	if a := c.read("GET"); a.status != 200 || !strings.HasPrefix(a.body, "GET /deeper") {
		t.Errorf("CONNECT inside: got %+v", a)
	}

	c = dial(t, p, "outbound")
	c.send("CONNECT app:81 HTTP/1.1\r\nHost: app:81\r\n\r\n")
	if a := c.read("GET"); a.status != 503 || a.field("x-outrider-reason") != "no_route" || a.body != "app has port 9080" {
		t.Errorf("a port that the service lacks: %+v", a)
	}
}
