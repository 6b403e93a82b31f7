package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/meshtest"
)

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// A request that would come back to where it came from is refused, however it spells the address.
func TestLoops(t *testing.T) {
	f := func(listen string, hosts ...string) {
		t.Helper()
		s := snapshotOf(func(s *model.Snapshot, _ *model.Rule) { s.Listeners[0].Address = listen })
		p := start(t, s, Limits{})
		port := portOf(p.Address("outbound"))
		for _, host := range hosts {
			nc, err := net.Dial("tcp", "127.0.0.1:"+port)
			if err != nil {
				t.Fatal(err)
			}
			c := &client{t: t, Conn: nc, r: bufio.NewReader(nc)}
			c.send("GET / HTTP/1.1\r\nHost: " + host + ":" + port + "\r\n\r\n")
			if a := c.read("GET"); a.status != 508 || a.field("x-outrider-reason") != "loop" {
				t.Errorf("%s at %s: got %+v", host, listen, a)
			}
			c.send("CONNECT " + host + ":" + port + " HTTP/1.1\r\nHost: " + host + ":" + port + "\r\n\r\n")
			if a := c.read("GET"); a.status != 508 {
				t.Errorf("CONNECT to %s at %s: got %+v", host, listen, a)
			}
			_ = nc.Close()
		}
		settled(t, p)
	}
	f("127.0.0.1:0", "127.0.0.1", "localhost", "LocalHost", "0.0.0.0", "[::ffff:127.0.0.1]")
	f("0.0.0.0:0", "127.0.0.1", "127.0.0.2", "localhost", "0.0.0.0")
}

// An endpoint that a configuration lists may be the listener itself; that goes round as well.
func TestLoopThroughACluster(t *testing.T) {
	address := meshtest.Address(t)
	p := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) { s.Listeners[0].Address = address }, address), Limits{})
	c := dial(t, p, "outbound")
	c.send(get("/"))
	if a := c.read("GET"); a.status != 508 || a.field("x-outrider-reason") != "loop" {
		t.Errorf("got %+v", a)
	}
	counts(t, p, map[string]float64{"508|NR": 1})
}

// A workload may call itself: that leads to its inbound listener, and ends at its application.
func TestCallingOneself(t *testing.T) {
	o := newOrigin(t, nil)
	inbound := inboundOf(o.address())
	s := snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		s.Listeners = append(s.Listeners, inbound.Listeners...)
		s.Clusters = append(s.Clusters, inbound.Clusters...)
		s.Tables = append(s.Tables, inbound.Tables...)
	})
	p := start(t, s, Limits{})
	c := dial(t, p, "outbound")
	c.send("GET /self HTTP/1.1\r\nHost: " + p.Address("inbound|8080") + "\r\n\r\n")
	if a := c.read("GET"); a.status != 200 || !strings.HasPrefix(a.body, "GET /self") {
		t.Errorf("got %+v", a)
	}
}

// What a request may name, and what it may not.
func TestPassthroughSpellings(t *testing.T) {
	o := newOrigin(t, nil)
	port := portOf(o.address())
	p := start(t, snapshotOf(nil), Limits{})
	f := func(request string, status int, line string) {
		t.Helper()
		c := dial(t, p, "outbound")
		c.send(request)
		if a := c.read("GET"); a.status != status || status == 200 && !strings.HasPrefix(a.body, line) {
			t.Errorf("%q: got %+v", request, a)
		}
		_ = c.Close()
	}
	host := func(h string) string { return "GET /x HTTP/1.1\r\nHost: " + h + "\r\n\r\n" }
	f(host("127.0.0.1:"+port), 200, "GET /x HTTP/1.1\r\nHost: 127.0.0.1:"+port+"\r\n")
	f(host("localhost:"+port), 200, "GET /x HTTP/1.1\r\nHost: localhost:"+port+"\r\n")
	f("GET http://127.0.0.1:"+port+" HTTP/1.1\r\nHost: 127.0.0.1:"+port+"\r\n\r\n", 200, "GET / HTTP/1.1\r\n")
	f("GET HTTP://127.0.0.1:"+port+"/y?z HTTP/1.1\r\nHost: 127.0.0.1:"+port+"\r\n\r\n", 200, "GET /y?z HTTP/1.1\r\n")
	f("GET http://user:word@127.0.0.1:"+port+"/ HTTP/1.1\r\nHost: 127.0.0.1:"+port+"\r\n\r\n", 400, "")
	f("GET http://user@127.0.0.1:"+port+"/ HTTP/1.1\r\nHost: 127.0.0.1:"+port+"\r\n\r\n", 400, "")
	f("GET https://127.0.0.1:"+port+"/ HTTP/1.1\r\nHost: 127.0.0.1:"+port+"\r\n\r\n", 400, "")
	f("GET ftp://127.0.0.1:"+port+"/ HTTP/1.1\r\nHost: 127.0.0.1:"+port+"\r\n\r\n", 400, "")
	f(host("[127.0.0.1]:"+port), 400, "")
	f(host("::1:"+port), 400, "")
	f(host(""), 400, "")
	f("GET / HTTP/1.0\r\n\r\n", 400, "")
	six, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here")
	}
	_ = six.Close()
	f(host("[::1]:"+portOf(six.Addr().String())), 503, "")
}

func TestPassthroughIPv6(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here")
	}
	defer l.Close()
	done := make(chan struct{})
	go func() { // ends with the connection, which ends with the test
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		echo(c, bufio.NewReader(c))
		_ = c.Close()
	}()
	p := start(t, snapshotOf(nil), Limits{})
	c := dial(t, p, "outbound")
	c.send("GET / HTTP/1.1\r\nHost: " + l.Addr().String() + "\r\n\r\n")
	if a := c.read("GET"); a.status != 200 || !strings.Contains(a.body, "Host: "+l.Addr().String()) {
		t.Errorf("got %+v", a)
	}
	_ = p.Close()
	<-done
}

func TestHostWithoutPort(t *testing.T) {
	f := func(authority, want string) {
		t.Helper()
		if got := string(appendHostPort(nil, []byte(authority), 8080)); got != want {
			t.Errorf("%s becomes %s, want %s", authority, got, want)
		}
	}
	f("app", "app:8080")
	f("app:81", "app:81")
	f("10.0.0.1", "10.0.0.1:8080")
	f("[::1]", "[::1]:8080")
	f("[::1]:81", "[::1]:81")
	f("::1", "[::1]:8080")
}

// Addresses beyond those that are remembered are reached as well; no connection to them is kept.
func TestManyDialled(t *testing.T) {
	var live atomic.Int64
	every, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	port := portOf(every.Addr().String())
	served := make(chan struct{})
	go func() { // ends when the listener is closed below
		defer close(served)
		for {
			c, err := every.Accept()
			if err != nil {
				return
			}
			live.Add(1)
			go func() { // ends with the connection, which the proxy closes
				defer live.Add(-1)
				echo(c, bufio.NewReader(c))
				_ = c.Close()
			}()
		}
	}()
	defer func() { _ = every.Close(); <-served }()
	p := start(t, snapshotOf(nil), Limits{})
	c := dial(t, p, "outbound")
	const remembered = 1024 // upstream.maxDialled
	for i := range remembered + 20 {
		host := fmt.Sprintf("127.2.%d.%d:%s", i/250, 1+i%250, port)
		c.send("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n")
		if a := c.read("GET"); a.status != 200 || !strings.Contains(a.body, "Host: "+host) {
			t.Fatalf("%s: got %+v", host, a)
		}
	}
	eventually(t, "the end of what is not kept", func() bool { return live.Load() == remembered })
	apply(t, p, snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		s.Clusters, s.Tables[0].Unmatched = s.Clusters[:1], nil
	}))
	eventually(t, "the end of what was kept", func() bool { return live.Load() == 0 })
}

// Heads that come byte by byte, and heads up to each limit and over it.
func TestHeads(t *testing.T) {
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		for {
			head, err := readHead(r)
			if err != nil {
				return
			}
			answer := fmt.Sprint(strings.Count(head, "\r\nX-"))
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
		}
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	fields := func(n, size int) string {
		var b strings.Builder
		for i := range n {
			name := fmt.Sprintf("X-%03d: ", i)
			b.WriteString(name + strings.Repeat("v", size-len(name)-2) + "\r\n")
		}
		return b.String()
	}
	f := func(name, request string, status int, body string) {
		t.Helper()
		for _, piecewise := range []bool{false, true} {
			if piecewise && len(request) > 4<<10 {
				continue
			}
			c := dial(t, p, "outbound")
			_ = c.Conn.(*net.TCPConn).SetNoDelay(true)
			if piecewise {
				for i := range len(request) {
					if _, err := io.WriteString(c, request[i:i+1]); err != nil {
						break // answered already
					}
				}
			} else {
				c.send(request)
			}
			a := c.read("GET")
			if a.status != status || body != "" && a.body != body {
				t.Errorf("%s, byte by byte %t: got %+v", name, piecewise, a)
			}
			if status == 200 {
				c.send(get("/"))
				if a := c.read("GET"); a.status != 200 {
					t.Errorf("%s: the request after got %+v", name, a)
				}
			} else {
				c.closed()
			}
			_ = c.Close()
		}
	}
	const line = "GET / HTTP/1.1\r\nHost: app\r\n"
	f("small", line+"\r\n", 200, "")
	f("an empty line before", "\r\n"+line+"\r\n", 200, "")
	f("99 fields and Host", line+fields(99, 20)+"\r\n", 200, "")
	f("100 fields and Host", line+fields(100, 20)+"\r\n", 431, "")
	f("a field of 8 KiB", line+fields(1, 8<<10)+"\r\n", 200, "")
	f("a field over 8 KiB", line+fields(1, 8<<10+1)+"\r\n", 431, "")
	f("a head of 60 KiB", line+fields(7, 8<<10)+fields(1, 60<<10-7*8<<10-len(line)-2)+"\r\n", 200, "")
	f("a head over 60 KiB", line+fields(7, 8<<10)+fields(1, 60<<10-7*8<<10-len(line)-1)+"\r\n", 431, "")
	f("a line of 8 KiB", "GET /"+strings.Repeat("p", 8<<10-len("GET / HTTP/1.1\r\n"))+" HTTP/1.1\r\nHost: app\r\n\r\n", 200, "")
	f("a line over 8 KiB", "GET /"+strings.Repeat("p", 8<<10-len("GET / HTTP/1.1\r\n")+1)+" HTTP/1.1\r\nHost: app\r\n\r\n", 414, "")
	f("TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "")
	f("a garbled HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nMS\r\n\r\n", 400, "")
	f("an HTTP/2 preface with a host", "PRI * HTTP/2.0\r\nHost: app\r\n\r\n", 400, "")
	f("HTTP/3", "GET / HTTP/3.0\r\nHost: app\r\n\r\n", 505, "")
	f("no HTTP", "HELO there\r\n\r\n", 400, "")
	f("nothing but line ends", "\r\n\r\n\r\n", 400, "")
	settled(t, p)
}

// Garbage behind a good request is refused after that has been answered.
func TestGarbageBehindARequest(t *testing.T) {
	o := newOrigin(t, nil)
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send("POST /good HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\n\r\nbody\x00\x01garbage")
	if a := c.read("POST"); a.status != 200 || !strings.HasPrefix(a.body, "POST /good") {
		t.Errorf("got %+v", a)
	}
	if a := c.read("GET"); a.status != 400 {
		t.Errorf("got %+v", a)
	}
	c.closed()
}

// Who misspells a service asks for a host that is not part of the mesh: the answer says that there is none.
func TestUnknownHosts(t *testing.T) {
	p := start(t, snapshotOf(nil), Limits{})
	c := dial(t, p, "outbound")
	c.send("GET / HTTP/1.1\r\nHost: apq.invalid\r\n\r\n")
	if a := c.read("GET"); a.status != 503 || a.field("x-outrider-reason") != "upstream_connect" || !strings.HasSuffix(a.body, ": the name apq.invalid cannot be resolved") {
		t.Errorf("got %+v", a)
	}
}
