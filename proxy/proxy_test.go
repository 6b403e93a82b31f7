package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/meshtest"
)

func get(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: app\r\n\r\n" }

func TestForward(t *testing.T) {
	o := newOrigin(t, nil)
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send("GET /a/./b//../c?x=%2F;y HTTP/1.1\r\nHost: APP:80\r\nX-One: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Envoy-Max-Retries: 9\r\nX-Outrider-Peer: ;liar\r\n\r\n")
	a := c.read("GET")
	if a.status != 200 {
		t.Fatalf("status %d", a.status)
	}
	lines := strings.Split(a.body, "\r\n")
	if lines[0] != "GET /a/b/c?x=%2F;y HTTP/1.1" || lines[1] != "Host: APP:80" {
		t.Errorf("the application got %q", lines[:2])
	}
	has := func(prefix string, want bool) {
		t.Helper()
		got := false
		for _, l := range lines[1:] {
			got = got || strings.HasPrefix(strings.ToLower(l), prefix)
		}
		if got != want {
			t.Errorf("%s there: %t; the application got\n%s", prefix, got, a.body)
		}
	}
	has("x-one: 1", true)
	has("x-hop", false)
	has("connection", false)
	has("x-envoy-max-retries", false)
	has("x-outrider-peer", false)
	has("x-request-id: ", true)
	has("x-forwarded-proto: http", true)
	has("x-envoy-attempt-count: 1", true)
	has("x-forwarded-for", false)
	if a.field("x-envoy-upstream-service-time") == "" {
		t.Errorf("no x-envoy-upstream-service-time in\n%s", a.head)
	}
}

func TestKeepAliveAndPipelining(t *testing.T) {
	o := newOrigin(t, nil)
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	const n = 50
	var b strings.Builder
	for i := range n {
		if i%3 == 0 {
			fmt.Fprintf(&b, "POST /%d HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nhello", i)
		} else {
			b.WriteString(get(fmt.Sprintf("/%d", i)))
		}
	}
	c.send(b.String())
	for i := range n {
		if a := c.read("GET"); a.status != 200 || !strings.Contains(a.body, fmt.Sprintf(" /%d HTTP/1.1", i)) {
			t.Fatalf("answer %d is %+v", i, a)
		}
	}
	if got := o.connections(); got != 1 {
		t.Errorf("%d connections to the application, want 1", got)
	}
}

func TestBodies(t *testing.T) {
	sink := func(c net.Conn, r *bufio.Reader) {
		for {
			head, err := readHead(r)
			if err != nil {
				return
			}
			var n int64
			trailer := ""
			if strings.Contains(strings.ToLower(head), "transfer-encoding: chunked") {
				body, tr, err := readChunked(r)
				if err != nil {
					return
				}
				n, trailer = int64(len(body)), strings.TrimSpace(tr)
			} else if n, err = io.CopyN(io.Discard, r, contentLength(head)); err != nil {
				return
			}
			body := fmt.Sprintf("%d %s", n, trailer)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	}
	o := newOrigin(t, sink)
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	f := func(name, request, want string) {
		t.Helper()
		c.send(request)
		if a := c.read("POST"); a.status != 200 || strings.TrimSpace(a.body) != want {
			t.Errorf("%s: %+v, want %s", name, a, want)
		}
	}
	big := strings.Repeat("x", 3<<20)
	f("with the head", "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 3\r\n\r\nabc", "3")
	f("larger than a buffer", "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 3145728\r\n\r\n"+big, "3145728")
	f("chunked", "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", "5")
	f("chunked with trailers", "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n", "1 X-Sum: 7")
	f("chunked and big", "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n300000\r\n"+big+"\r\n0\r\n\r\n", "3145728")
	f("none", "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n", "0")
	if got := o.connections(); got != 1 {
		t.Errorf("%d connections to the application, want 1", got)
	}
}

func TestResponses(t *testing.T) {
	f := func(name, response, method, wantHead, wantBody string) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			o := newOrigin(t, answers(response))
			p := start(t, snapshotOf(nil, o.address()), Limits{})
			c := dial(t, p, "outbound")
			c.send(method + " / HTTP/1.1\r\nHost: app\r\n\r\n")
			a := c.read(method)
			if !strings.HasPrefix(a.head, "HTTP/1.1 "+wantHead) || a.body+a.trailer != wantBody {
				t.Errorf("got %+v", a)
			}
		})
	}
	f("length", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", "GET", "200 OK", "ab")
	f("chunked with trailers", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\nX-T: 1\r\n\r\n", "GET", "200 OK", "abcX-T: 1\r\n\r\n")
	f("until close", "HTTP/1.1 200 OK\r\n\r\nabc", "GET", "200 OK", "abc\r\n")
	f("HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nabc", "GET", "200 OK", "abc\r\n")
	f("no content", "HTTP/1.1 204 No Content\r\n\r\n", "GET", "204 No Content", "")
	f("not modified", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: x\r\n\r\n", "GET", "304 Not Modified", "")
	f("head", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HEAD", "200 OK", "")
	f("length twice", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", "GET", "502", endings[upstreamProtocol].body)
	f("length and chunked", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "GET", "502", endings[upstreamProtocol].body)
	f("garbage", "nonsense\r\n\r\n", "GET", "502", endings[upstreamProtocol].body)
	f("nothing", "", "GET", "503", endings[upstreamReset].body)
	f("half a head", "HTTP/1.1 200 OK\r\nContent-", "GET", "502", endings[upstreamCut].body)
}

func TestInterimResponses(t *testing.T) {
	o := newOrigin(t, answers("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz"))
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send(get("/"))
	for _, want := range []int{103, 102, 200} {
		if a := c.read("GET"); a.status != want {
			t.Fatalf("got %d, want %d", a.status, want)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		head, err := readHead(r)
		if err != nil || !strings.Contains(strings.ToLower(head), "expect: 100-continue") {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		_, _ = io.CopyN(io.Discard, r, 4)
		_, _ = io.WriteString(c, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
		_, _ = readHead(r)
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send("PUT / HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	if a := c.read("PUT"); a.status != 100 {
		t.Fatalf("got %d, want 100", a.status)
	}
	c.send("body")
	if a := c.read("PUT"); a.status != 201 {
		t.Fatalf("got %d, want 201", a.status)
	}
}

// An application that answers without reading the body must be heard, and the connection must not be used again.
func TestAnswerBeforeBody(t *testing.T) {
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 100000000\r\n\r\nsome")
	a := c.read("POST")
	if a.status != 413 || a.body != "no" || !strings.EqualFold(a.field("connection"), "close") {
		t.Errorf("got %+v", a)
	}
	c.closed()
}

func TestHTTP10(t *testing.T) {
	o := newOrigin(t, answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send("GET / HTTP/1.0\r\nHost: app\r\n\r\n")
	if a := c.read("GET"); a.status != 200 || a.body != "abc" || a.field("transfer-encoding") != "" {
		t.Errorf("got %+v", a)
	}
}

func TestUpgrade(t *testing.T) {
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		head, _ := readHead(r)
		if !strings.Contains(strings.ToLower(head), "upgrade: websocket") {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi")
		line, _ := r.ReadString('\n')
		_, _ = io.WriteString(c, "echo "+line)
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, r)
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send("GET /ws HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nfirst\n")
	a := c.read("GET")
	if a.status != 101 || !strings.EqualFold(a.field("upgrade"), "websocket") {
		t.Fatalf("got %+v", a)
	}
	rest, err := io.ReadAll(c.r)
	if string(rest) != "hiecho first\n" || err != nil {
		t.Errorf("got %q, %v", rest, err)
	}
}

func TestConnect(t *testing.T) {
	o := newOrigin(t, nil)
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	t.Run("HTTP inside", func(t *testing.T) {
		c := dial(t, p, "outbound")
		c.send("CONNECT app:80 HTTP/1.1\r\nHost: app:80\r\n\r\n")
		if a := c.read("HEAD"); a.status != 200 {
			t.Fatalf("got %+v", a)
		}
		for range 3 {
			c.send(get("/inside"))
			if a := c.read("GET"); a.status != 200 || !strings.Contains(a.body, "GET /inside") {
				t.Fatalf("got %+v", a)
			}
		}
	})
	t.Run("tunnel", func(t *testing.T) {
		raw := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
			b, _ := io.ReadAll(r)
			_, _ = c.Write(append([]byte("got "), b...))
		})
		c := dial(t, p, "outbound")
		c.send("CONNECT " + raw.address() + " HTTP/1.1\r\nHost: " + raw.address() + "\r\n\r\n\x00\x01binary")
		if a := c.read("HEAD"); a.status != 200 {
			t.Fatalf("got %+v", a)
		}
		_ = c.Conn.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(c.r); string(b) != "got \x00\x01binary" || err != nil {
			t.Errorf("got %q, %v", b, err)
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		c := dial(t, p, "outbound")
		c.send("CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n")
		if a := c.read("GET"); a.status != 503 || a.field("x-outrider-reason") != "upstream_connect" {
			t.Errorf("got %+v", a)
		}
	})
}

func TestLocalAnswers(t *testing.T) {
	o := newOrigin(t, nil)
	s := snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		s.Tables[0].Unmatched = nil
		h := &s.Tables[0].Hosts[0]
		path := func(p string) []model.Match {
			return []model.Match{{Path: &model.StringMatch{Kind: model.Exact, Value: p}}}
		}
		h.Rules = append(h.Rules,
			model.Rule{Matches: path("/direct"), Reply: &model.Reply{Status: 418, Body: "teapot", Headers: []model.NameValue{{Name: "content-type", Value: "text/tea"}}}},
			model.Rule{Matches: path("/away"), Redirect: &model.Redirect{Status: 302, Host: "other.example", Path: &model.PathRewrite{Full: "/there"}}},
			model.Rule{Matches: path("/invalid"), Route: &model.Route{Destinations: []model.Destination{{Weight: 1, Reply: &model.Reply{Status: 500, Outcome: "no_route"}}}}},
		)
	}, o.address())
	p := start(t, s, Limits{})
	c := dial(t, p, "outbound")
	f := func(request string, status int, reason, body string) answer {
		t.Helper()
		c.send(request)
		a := c.read("GET")
		if a.status != status || a.field("x-outrider-reason") != reason || !strings.Contains(a.body, body) {
			t.Errorf("%q: got %+v", request, a)
		}
		return a
	}
	f(get("/direct"), 418, "", "teapot")
	if a := f(get("/away?q=1"), 302, "", ""); a.field("location") != "http://other.example/there?q=1" {
		t.Errorf("location %q", a.field("location"))
	}
	f(get("/invalid"), 500, "no_route", "")
	f("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n", 404, "no_route", "nobody")
	f("POST /direct HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\n\r\nbody", 418, "", "teapot")
	f(get("/after"), 200, "", "GET /after")
	f("GET / HTTP/1.1\r\nHost: app\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "bad_request", "")
	c.closed()
}

// Connections that the peer closed while they were kept are not used, whatever the method.
func TestStaleConnection(t *testing.T) {
	ended := make(chan struct{})
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) { // one answer, then the end, without a word
		_, _ = readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		_ = c.Close()
		ended <- struct{}{}
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	for i := range 20 {
		c.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n")
		if a := c.read("POST"); a.status != 200 {
			t.Fatalf("request %d: %+v", i, a)
		}
		<-ended
	}
	if got := o.connections(); got != 20 {
		t.Errorf("%d connections, want 20", got)
	}
}

// A kept connection that dies under a request is replaced where the request may be sent twice, and only there.
func TestResend(t *testing.T) {
	var seen atomic.Int64
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		for i := 0; ; i++ {
			if _, err := readHead(r); err != nil {
				return
			}
			seen.Add(1)
			if i == 1 {
				return // the second request of a connection gets no answer
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	f := func(method string, want int) {
		t.Helper()
		c.send(method + " / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n")
		if a := c.read(method); a.status != want {
			t.Errorf("%s: got %+v", method, a)
		}
	}
	f("GET", 200)
	f("GET", 200) // dies, sent again: three requests seen
	f("POST", 503)
	if got := seen.Load(); got != 4 {
		t.Errorf("the application saw %d requests, want 4", got)
	}
}

func TestConnectFailureTriesAnotherEndpoint(t *testing.T) {
	o := newOrigin(t, nil)
	p := start(t, snapshotOf(nil, meshtest.Address(t), o.address()), Limits{})
	c := dial(t, p, "outbound")
	for i := range 20 {
		c.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 2\r\n\r\nhi")
		if a := c.read("POST"); a.status != 200 {
			t.Fatalf("request %d: %+v", i, a)
		}
	}
}

func TestNoEndpoint(t *testing.T) {
	p := start(t, snapshotOf(nil), Limits{})
	c := dial(t, p, "outbound")
	c.send(get("/"))
	if a := c.read("GET"); a.status != 503 || a.field("x-outrider-reason") != "no_healthy_endpoint" || a.body != "no healthy upstream" {
		t.Errorf("got %+v", a)
	}
}

func TestRouteTimeout(t *testing.T) {
	release := make(chan struct{})
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		<-release
	})
	defer close(release)
	p := start(t, snapshotOf(func(_ *model.Snapshot, r *model.Rule) { r.Route.Timeout = model.Duration(60 * time.Millisecond) }, o.address()), Limits{})
	c := dial(t, p, "outbound")
	begin := time.Now()
	c.send(get("/"))
	a := c.read("GET")
	if a.status != 504 || a.field("x-outrider-reason") != "route_timeout" {
		t.Errorf("got %+v", a)
	}
	if d := time.Since(begin); d < 60*time.Millisecond {
		t.Errorf("answered after %s, before the timeout", d)
	}
}

func TestTimeoutInTheBodyResetsTheClient(t *testing.T) {
	release := make(chan struct{})
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
		<-release
	})
	defer close(release)
	p := start(t, snapshotOf(func(_ *model.Snapshot, r *model.Rule) { r.Route.Timeout = model.Duration(60 * time.Millisecond) }, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send(get("/"))
	if a, err := c.tryRead("GET"); err == nil {
		t.Errorf("half a body passed for a whole one: %+v", a)
	}
}

func TestHeadTimeout(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, nil)
	p := start(t, snapshotOf(nil, o.address()), Limits{HeadTimeout: time.Second})
	c := dial(t, p, "outbound")
	c.send("GET / HTTP/1.1\r\nHost:")
	if a := c.read("GET"); a.status != 408 {
		t.Errorf("got %+v", a)
	}
	c.closed()
	silent := dial(t, p, "outbound")
	silent.closed()
}

// A client that goes away takes its request along.
func TestClientGoneCancelsUpstream(t *testing.T) {
	gone := make(chan error, 1)
	o := newOrigin(t, func(_ net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		_, err := r.ReadByte()
		gone <- err
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send(get("/"))
	eventually(t, "the request", func() bool { return o.connections() == 1 })
	_ = c.Close()
	select {
	case err := <-gone:
		if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v", err)
		}
	case <-time.After(patience):
		t.Error("the application's connection stays")
	}
}

func TestPassthrough(t *testing.T) {
	o := newOrigin(t, nil)
	p := start(t, snapshotOf(nil), Limits{})
	c := dial(t, p, "outbound")
	for range 3 {
		c.send("GET http://" + o.address() + "/out HTTP/1.1\r\nHost: " + o.address() + "\r\n\r\n")
		if a := c.read("GET"); a.status != 200 || !strings.HasPrefix(a.body, "GET /out HTTP/1.1\r\nHost: "+o.address()) {
			t.Fatalf("got %+v", a)
		}
	}
	if got := o.connections(); got != 1 {
		t.Errorf("%d connections, want 1", got)
	}
}

func TestDrain(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{})
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		close(entered)
		<-release
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	idle, busy := dial(t, p, "outbound"), dial(t, p, "outbound")
	busy.send(get("/"))
	<-entered
	eventually(t, "two connections", func() bool { return p.conns.count() == 2 })
	done := make(chan error)
	go func() { done <- p.Drain(context.Background()) }()
	idle.closed()
	if _, err := net.DialTimeout("tcp", busy.RemoteAddr().String(), time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("still accepts: %v", err)
	}
	close(release)
	if a := busy.read("GET"); a.status != 200 || !strings.EqualFold(a.field("connection"), "close") {
		t.Errorf("got %+v", a)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := p.Apply(snapshotOf(nil)); !errors.Is(err, ErrClosed) {
		t.Errorf("Apply after Drain: %v", err)
	}
}

func TestDrainCutsOff(t *testing.T) {
	entered := make(chan struct{})
	o := newOrigin(t, func(_ net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		close(entered)
		_, _ = io.Copy(io.Discard, r)
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send(get("/"))
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := p.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if _, err := c.tryRead("GET"); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection was not cut off: %v", err)
	}
}

func TestApplyRefusesAndKeeps(t *testing.T) {
	o := newOrigin(t, nil)
	good := snapshotOf(nil, o.address())
	p := start(t, good, Limits{})
	f := func(name string, bad *model.Snapshot) {
		t.Helper()
		if err := p.Apply(bad); err == nil {
			t.Errorf("%s: applied", name)
		}
		if p.Snapshot() != good {
			t.Errorf("%s: the snapshot in force changed", name)
		}
	}
	bad := snapshotOf(nil, o.address())
	bad.Requires = []string{"time-travel"}
	f("requirement", bad)
	bad = snapshotOf(func(_ *model.Snapshot, r *model.Rule) { r.Route.Destinations[0].Cluster = "nobody" }, o.address())
	f("no such cluster", bad)
	bad = snapshotOf(func(_ *model.Snapshot, r *model.Rule) {
		r.Matches = []model.Match{{Path: &model.StringMatch{Kind: model.Regex, Value: "("}}}
	}, o.address())
	f("regex", bad)
	bad = snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		s.Listeners = append(s.Listeners, model.Listener{Name: "x", Direction: model.Gateway, Address: "203.0.113.1:1", Table: "outbound"})
	}, o.address())
	f("address that is not ours", bad)
	c := dial(t, p, "outbound")
	c.send(get("/"))
	if a := c.read("GET"); a.status != 200 {
		t.Errorf("got %+v", a)
	}
}

// A swap takes effect on the next request of a connection that stays, and keeps the connections behind it.
func TestApplyKeepsConnections(t *testing.T) {
	o := newOrigin(t, nil)
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	for i := range 10 {
		s := snapshotOf(func(_ *model.Snapshot, r *model.Rule) {
			r.Request.Set = []model.NameValue{{Name: "x-version", Value: fmt.Sprint(i)}}
		}, o.address())
		s.Listeners[0].Address = "127.0.0.1:0"
		if err := p.Apply(s); err != nil {
			t.Fatal(err)
		}
		c.send(get("/"))
		if a := c.read("GET"); !strings.Contains(a.body, fmt.Sprintf("x-version: %d\r\n", i)) {
			t.Fatalf("after swap %d the application got\n%s", i, a.body)
		}
	}
	if got := o.connections(); got != 1 {
		t.Errorf("%d connections to the application, want 1", got)
	}
}
