package proxy

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// counts waits until the proxy has recorded exactly want: response code and flags, and how often.
func counts(t *testing.T, p *Proxy, want map[string]float64) {
	t.Helper()
	var got map[string]float64
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		got = requestsTotal(t, p.metrics.Gatherer(), "response_code", "response_flags")
		if fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
	}
	t.Errorf("recorded %v, want %v", got, want)
}

// settled waits until nothing is left of what the clients of p did, but for idle connections.
func settled(t testing.TB, p *Proxy) {
	t.Helper()
	var left string
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		if left = remains(p); left == "" {
			return
		}
		if time.Now().After(end) {
			t.Errorf("left over:%s", left)
			return
		}
	}
}

// remains tells what of the exchanges of p is still there.
func remains(p *Proxy) string {
	var b strings.Builder
	if n := p.conns.count(); n != 0 {
		fmt.Fprintf(&b, " %d connections;", n)
	}
	if n := p.conns.fine.Load(); n != 0 {
		fmt.Fprintf(&b, " %d exchanges that ask for the fine tick;", n)
	}
	for name, c := range p.upstream.Current() {
		for i := range c.Members {
			m := &c.Members[i]
			if n := m.Host.Active.Load(); n != 0 {
				fmt.Fprintf(&b, " %d exchanges active at %s of %s;", n, m.Address(), name)
			}
			if active, _ := m.Connections(); active != 0 {
				fmt.Fprintf(&b, " %d connections in use at %s of %s;", active, m.Address(), name)
			}
		}
	}
	return b.String()
}

// deaf returns an address where connecting neither succeeds nor fails: its backlog is full.
func deaf(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 16 {
		c, err := net.DialTimeout("tcp", address, 100*time.Millisecond)
		if err != nil {
			return address
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	t.Skip("the system's backlog has no end")
	return ""
}

// blamed checks what outrider_request_failures_total says of the one exchange that p has recorded, whose flags are known, and
// whose reason is where the client was told one.
func blamed(t *testing.T, p *Proxy, flags, reason string) {
	t.Helper()
	families, err := p.metrics.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		if f.GetName() != "outrider_request_failures_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			got = append(got, fmt.Sprint(labelOf(m, "reason"), " ", labelOf(m, "response_flags"), " ", m.GetCounter().GetValue()))
			if named := labelOf(m, "reason"); reason == "" && outcomeNamed(named) != configured {
				reason = named
			}
		}
	}
	if want := fmt.Sprint(reason, " ", flags, " 1"); len(got) != 1 || got[0] != want {
		t.Errorf("failures counted: %v, want %s", got, want)
	}
}

// Each way that an exchange can end has its status for the client, its code, flags and reason in the metrics, and leaves
// nothing behind.
func TestEndings(t *testing.T) {
	timeout := func(d time.Duration) func(*model.Snapshot, *model.Rule) {
		return func(_ *model.Snapshot, r *model.Rule) { r.Route.Timeout = model.Duration(d) }
	}
	hang := func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) }
	told := ""
	f := func(name string, edit func(*model.Snapshot, *model.Rule), serve func(net.Conn, *bufio.Reader), recorded string, client func(t *testing.T, c *client)) {
		t.Helper()
		t.Run(name, func(t *testing.T) {
			told = ""
			var limits Limits
			if name == "head too late" {
				limits.HeadTimeout = time.Second
			}
			o := newOrigin(t, serve)
			p := start(t, snapshotOf(edit, o.address()), limits)
			c := dial(t, p, "outbound")
			client(t, c)
			_ = c.Close()
			counts(t, p, map[string]float64{recorded: 1})
			if recorded != "200|-" {
				blamed(t, p, recorded[strings.IndexByte(recorded, '|')+1:], told)
			}
			settled(t, p)
		})
	}
	says := func(request string, status int, reason string) func(*testing.T, *client) {
		return func(t *testing.T, c *client) {
			t.Helper()
			c.send(request)
			if a := c.read(request[:strings.IndexByte(request, ' ')]); a.status != status || a.field("x-outrider-reason") != reason {
				t.Errorf("got %+v", a)
			}
			told = reason
		}
	}
	truncated := func(request string) func(*testing.T, *client) {
		return func(t *testing.T, c *client) {
			t.Helper()
			c.send(request)
			if a, err := c.tryRead("GET"); err == nil {
				t.Errorf("half an answer passed for a whole one: %+v", a)
			}
		}
	}
	vanishes := func(parts ...string) func(*testing.T, *client) {
		return func(_ *testing.T, c *client) {
			for _, s := range parts {
				c.send(s)
			}
			_ = c.Close()
		}
	}
	const post = "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\n"
	const chunked = "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n"

	f("passed", nil, nil, "200|-", says(get("/"), 200, ""))
	f("upstream closes", nil, answers(), "503|UC", says(get("/"), 503, "upstream_reset"))
	f("upstream closes after an interim answer", nil, answers("HTTP/1.1 103 Early Hints\r\n\r\n"), "503|UC", func(t *testing.T, c *client) {
		c.send(get("/"))
		if a, b := c.read("GET"), c.read("GET"); a.status != 103 || b.status != 503 {
			t.Errorf("got %+v, %+v", a, b)
		}
	})
	f("upstream closes at once", nil, func(net.Conn, *bufio.Reader) {}, "503|UC", says(get("/"), 503, "upstream_reset"))
	f("upstream resets instead of an answer", nil, func(c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r) // a reset before may still meet the proxy connecting
		_ = c.(*net.TCPConn).SetLinger(0)
	}, "503|UC", says(get("/"), 503, "upstream_reset"))
	f("upstream closes within a head", nil, answers("HTTP/1.1 200 OK\r\nContent-Le"), "502|UPE", says(get("/"), 502, "upstream_reset"))
	f("upstream resets within a head", nil, func(c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Le")
		_ = c.(*net.TCPConn).SetLinger(0)
	}, "502|UPE", says(get("/"), 502, "upstream_reset"))
	f("garbage", nil, answers("\x00\x01\x02"), "502|UPE", says(get("/"), 502, "upstream_protocol"))
	f("answer with a huge head", nil, answers("HTTP/1.1 200 OK\r\n"+strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 70)+"\r\n"), "502|UPE", says(get("/"), 502, "upstream_protocol"))
	f("101 that nobody asked for", nil, answers("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "502|UPE", says(get("/"), 502, "upstream_protocol"))
	f("malformed chunk at once", nil, answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"), "502|UPE", says(get("/"), 502, "upstream_protocol"))
	f("malformed chunk later", nil, answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40000\r\n"+strings.Repeat("x", 0x40000)+"\r\nxyz\r\n"), "200|UPE", truncated(get("/")))
	f("length cut short", nil, answers("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), "200|UPE", truncated(get("/")))
	f("chunks cut short", nil, answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), "200|UPE", truncated(get("/")))
	f("chunk cut short", nil, answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"), "200|UPE", truncated(get("/")))
	f("trailers cut short", nil, answers("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-A: b\r\n"), "200|UPE", truncated(get("/")))
	f("until close, reset", nil, func(c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhalf")
		_, _ = r.ReadByte() // the client's word that it has the half
		_ = c.(*net.TCPConn).SetLinger(0)
	}, "200|UC", func(t *testing.T, c *client) {
		c.send("POST / HTTP/1.0\r\nHost: app\r\nContent-Length: 1\r\n\r\n")
		if _, err := readHead(c.r); err != nil {
			t.Fatal(err)
		}
		c.send("x")
		if b, err := io.ReadAll(c.r); err == nil {
			t.Errorf("half an answer passed for a whole one: %q", b)
		}
	})
	f("timeout", timeout(30*time.Millisecond), hang, "504|UT", says(get("/"), 504, "route_timeout"))
	f("timeout after a body", timeout(30*time.Millisecond), hang, "504|UT", says(chunked+"4\r\nsome\r\n0\r\n\r\n", 504, "route_timeout"))
	f("timeout in the answer", timeout(time.Second), func(c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
		hang(c, r)
	}, "200|UT", truncated(get("/")))
	f("timeout of an attempt", func(_ *model.Snapshot, r *model.Rule) {
		r.Route.Timeout, r.Route.BackendTimeout = model.Duration(time.Minute), model.Duration(30*time.Millisecond)
	}, hang, "504|UT", says(get("/"), 504, "upstream_timeout"))
	f("timeout of an attempt in the answer, past a breaker", func(s *model.Snapshot, r *model.Rule) {
		r.Route.BackendTimeout = model.Duration(30 * time.Millisecond)
		hystrix(nil)(s, r)
	}, func(c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
		hang(c, r)
	}, "200|UT", truncated(get("/")))
	f("client gone before the answer", nil, hang, "0|DC", vanishes(get("/")))
	f("client gone in its body", nil, hang, "0|DC", vanishes(post, "some"))
	f("client gone in its chunked body", nil, hang, "0|DC", vanishes(chunked, "5\r\nhel"))
	f("client gone in a half chunk line", nil, hang, "0|DC", vanishes(chunked, "5"))
	f("malformed chunk of the client", nil, hang, "400|DPE", says(chunked+"xyz\r\n", 400, "bad_request"))
	f("malformed chunk of the client in the answer", nil, func(c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
		hang(c, r)
	}, "200|DPE", func(t *testing.T, c *client) {
		c.send(chunked)
		if _, err := readHead(c.r); err != nil {
			t.Fatal(err)
		}
		c.send("xyz\r\n")
		if b, err := io.ReadAll(c.r); err == nil {
			t.Errorf("half an answer passed for a whole one: %q", b)
		}
	})
	f("client gone in the answer", nil, func(c net.Conn, r *bufio.Reader) {
		_, _ = readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
		for b := make([]byte, 1<<16); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}, "200|DC", func(t *testing.T, c *client) {
		c.send(get("/"))
		if _, err := readHead(c.r); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	})
	f("no route", func(s *model.Snapshot, _ *model.Rule) { s.Tables[0].Unmatched = nil }, nil, "404|NR", says("GET / HTTP/1.1\r\nHost: nobody\r\n\r\n", 404, "no_route"))
	f("no endpoint", func(s *model.Snapshot, _ *model.Rule) { s.Clusters[0].Endpoints = nil }, nil, "503|UH", says(get("/"), 503, "no_healthy_endpoint"))
	f("nobody listens", func(s *model.Snapshot, _ *model.Rule) { s.Clusters[0].Endpoints[0].Address = "127.0.0.1:1" }, nil, "503|UF", says(get("/"), 503, "upstream_connect"))
	f("connecting takes too long", func(s *model.Snapshot, _ *model.Rule) {
		s.Clusters[0].Endpoints[0].Address, s.Clusters[0].ConnectTimeout = deaf(t), model.Duration(50*time.Millisecond)
	}, nil, "503|UF", says(get("/"), 503, "upstream_connect"))
	f("the route's time is over while connecting", func(s *model.Snapshot, r *model.Rule) {
		s.Clusters[0].Endpoints[0].Address, r.Route.Timeout = deaf(t), model.Duration(50*time.Millisecond)
	}, nil, "504|UT", says(get("/"), 504, "route_timeout"))
	f("client gone while connecting", func(s *model.Snapshot, _ *model.Rule) {
		s.Clusters[0].Endpoints[0].Address = deaf(t)
	}, nil, "0|DC", vanishes(get("/")))
	f("client gone while CONNECT connects", func(s *model.Snapshot, _ *model.Rule) {
		s.Clusters[1].Protocol = model.TCP
		s.Clusters[1].Kind = model.Listed
		s.Clusters[1].Endpoints = []model.Endpoint{{Address: deaf(t), Weight: 1}}
	}, nil, "0|DC", vanishes("CONNECT other:80 HTTP/1.1\r\nHost: other:80\r\n\r\n"))
	f("head too late", nil, nil, "408|-", says("GET / HTTP/1.1\r\n", 408, "request_timeout"))
	f("bad request", nil, nil, "400|DPE", says("GET  / HTTP/1.1\r\n\r\n", 400, "bad_request"))
	f("bad path", nil, nil, "400|DPE", says("GET /a\x80%00 HTTP/1.1\r\nHost: app\r\n\r\n", 400, "bad_request"))
	f("no host to dial", nil, nil, "400|DPE", says("GET / HTTP/1.0\r\n\r\n", 400, "bad_request"))
	f("https in the clear", nil, nil, "400|DPE", says("GET https://app/ HTTP/1.1\r\nHost: app\r\n\r\n", 400, "bad_request"))
}

// A server of another protocol, which speaks first, gets one connection and no second one.
func TestUpstreamSpeaksFirst(t *testing.T) {
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = io.WriteString(c, "220 mail.example ESMTP\r\n")
		_, _ = io.Copy(io.Discard, r)
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	for i := range 10 {
		c := dial(t, p, "outbound")
		c.send(get("/"))
		// What it is called depends on which comes first, its word or ours.
		if a := c.read("GET"); a.status != 502 && a.status != 503 {
			t.Errorf("got %+v", a)
		}
		_ = c.Close()
		if n := o.connections(); n != i+1 {
			t.Fatalf("%d connections for %d requests", n, i+1)
		}
	}
	settled(t, p)
}
