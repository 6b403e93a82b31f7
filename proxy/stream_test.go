package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// A body that breaks off is never given to the application as one that ended.
func TestBrokenBodyHasNoEnd(t *testing.T) {
	type seen struct {
		body string
		err  error
	}
	got := make(chan seen, 1)
	o := newOrigin(t, func(_ net.Conn, r *bufio.Reader) {
		head, err := readHead(r)
		if err != nil {
			return
		}
		var s seen
		if strings.Contains(head, "hunked") {
			s.body, _, s.err = readChunked(r)
		} else {
			b := make([]byte, contentLength(head))
			var n int
			n, s.err = io.ReadFull(r, b)
			s.body = string(b[:n])
		}
		got <- s
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	const length = "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 100\r\n\r\n"
	const chunked = "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n"
	f := func(name, request, want string, status int) {
		t.Helper()
		c := dial(t, p, "outbound")
		c.send(request)
		if status != 0 {
			if a := c.read("POST"); a.status != status {
				t.Errorf("%s: got %+v", name, a)
			}
			c.closed()
		}
		_ = c.Close()
		s := <-got
		if s.err == nil || !strings.HasPrefix(want, s.body) {
			t.Errorf("%s: the application got %q, %v", name, s.body, s.err)
		}
	}
	f("length, gone", length+"some", "some", 0)
	f("chunked, gone", chunked+"5\r\nhello\r\n", "hello", 0)
	f("chunked, gone in a chunk", chunked+"5\r\nhel", "hel", 0)
	f("chunked, gone in the end", chunked+"5\r\nhello\r\n0\r\n", "hello", 0)
	f("chunked, gone in the trailers", chunked+"5\r\nhello\r\n0\r\nX-A: b\r\n", "hello", 0)
	f("bad size", chunked+"5\r\nhello\r\nz\r\n", "hello", 400)
	f("bad end of a chunk", chunked+"5\r\nhelloX\r\n0\r\n\r\n", "hello", 400)
	f("bare LF", chunked+"5\nhello\n0\n\n", "", 400)
	f("bad trailer", chunked+"5\r\nhello\r\n0\r\nX A: b\r\n\r\n", "hello", 400)
	f("huge size", chunked+"fffffffffffffffff\r\n", "", 400)
	f("too many trailers", chunked+"0\r\n"+strings.Repeat("x: y\r\n", 101)+"\r\n", "", 431)
	settled(t, p)
}

func TestExpectations(t *testing.T) {
	// The application's word on an expectation, by path.
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		for {
			head, err := readHead(r)
			if err != nil {
				return
			}
			expects := strings.Contains(strings.ToLower(head), "expect: 100-continue")
			switch {
			case strings.Contains(head, "/refuse"):
				_, _ = io.WriteString(c, "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n")
				continue // the body, if it comes, would be taken for a request
			case strings.Contains(head, "/silent"):
			case expects:
				_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			}
			n, err := io.CopyN(io.Discard, r, contentLength(head))
			if err != nil {
				return
			}
			answer := fmt.Sprintf("%d bytes, expected: %t", n, expects)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
		}
	})
	p := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		h := &s.Tables[0].Hosts[0]
		h.Rules = append(h.Rules, model.Rule{
			Matches: []model.Match{{Path: &model.StringMatch{Kind: model.Exact, Value: "/direct"}}},
			Reply:   &model.Reply{Status: 403, Body: "no"},
		})
	}, o.address()), Limits{})
	head := func(path, version string) string {
		return "PUT " + path + " HTTP/" + version + "\r\nHost: app\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
	}
	f := func(name string, again bool, steps ...any) {
		t.Helper()
		c := dial(t, p, "outbound")
		for _, s := range steps {
			switch s := s.(type) {
			case string:
				c.send(s)
			case int:
				if a := c.read("PUT"); a.status != s {
					t.Errorf("%s: got %+v, want %d", name, a, s)
				}
			}
		}
		defer c.Close()
		if !again {
			c.closed()
			return
		}
		c.send(get("/after"))
		if a := c.read("GET"); a.status != 200 || a.body != "0 bytes, expected: false" {
			t.Errorf("%s: the request after got %+v", name, a)
		}
	}
	f("continued", true, head("/", "1.1"), 100, "body", 200)
	f("not waited for", true, head("/", "1.1")+"body", 100, 200)
	f("not answered", true, head("/silent", "1.1"), "body", 200)
	f("refused", false, head("/refuse", "1.1"), 417)
	f("refused, sent all the same", false, head("/refuse", "1.1"), 417, "body")
	f("answered by the proxy", false, head("/direct", "1.1"), 403)
	f("HTTP/1.0", false, head("/", "1.0"), "body", 200)
	f("no body", true, "GET / HTTP/1.1\r\nHost: app\r\nExpect: 100-continue\r\n\r\n", 200)
	f("other expectation", false, "PUT / HTTP/1.1\r\nHost: app\r\nContent-Length: 4\r\nExpect: miracles\r\n\r\nbody", 417)
	settled(t, p)
}

// What follows a streamed body on the wire is the next request, wherever the pieces are cut.
func TestRequestAfterStreamedBody(t *testing.T) {
	o := newOrigin(t, mirror)
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	const first = "POST /length HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n6;x=y\r\nstream\r\n0\r\nX-T: 1\r\n\r\n"
	const second = "POST /length HTTP/1.1\r\nHost: app\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\nsecond"
	const third = "POST /chunked HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nthird"
	all := first + second + third
	for cut := 1; cut < len(all); cut += 3 {
		c := dial(t, p, "outbound")
		_ = c.Conn.(*net.TCPConn).SetNoDelay(true)
		c.send(all[:cut])
		if cut%2 == 0 { // let the proxy see the first piece by itself
			eventually(t, "the first piece is read", func() bool { return p.conns.count() > 0 })
			time.Sleep(time.Millisecond)
		}
		c.send(all[cut:])
		for _, want := range []string{"stream", "second", "third"} {
			a := c.read("POST")
			if a.status == 100 {
				a = c.read("POST")
			}
			if a.status != 200 || a.body != want {
				t.Fatalf("cut at %d: got %+v, want %s", cut, a, want)
			}
		}
		_ = c.Close()
	}
	settled(t, p)
}

// A body that trickles in is passed on as it comes, and its answer with it.
func TestSlowUpload(t *testing.T) {
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := readHead(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
		for {
			line, err := r.ReadString('\n')
			if err != nil || line == "0\r\n" {
				break
			}
			b, _ := r.ReadString('\n')
			fmt.Fprintf(c, "%s%s", line, strings.ToUpper(b))
		}
		_, _ = io.WriteString(c, "0\r\n\r\n")
		_, _ = r.ReadByte()
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send("POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n")
	head, err := readHead(c.r)
	if err != nil || !strings.HasPrefix(head, "HTTP/1.1 200") {
		t.Fatalf("got %q, %v", head, err)
	}
	for range 20 { // each piece comes back before the next is sent
		c.send("1\r\na\r\n")
		b := make([]byte, len("1\r\nA\r\n"))
		if _, err := io.ReadFull(c.r, b); err != nil || string(b) != "1\r\nA\r\n" {
			t.Fatalf("got %q, %v", b, err)
		}
	}
	c.send("0\r\n\r\n")
	if rest, err := readHead(c.r); err != nil || rest != "0\r\n\r\n" {
		if rest != "0\r\n" { // readHead ends at the empty line
			t.Errorf("got %q, %v", rest, err)
		}
	}
}

// An application that does not read holds the client back, and gets everything once it does.
func TestUpstreamReadsLate(t *testing.T) {
	const size = 64 << 20
	read := make(chan struct{})
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		head, err := readHead(r)
		if err != nil {
			return
		}
		<-read
		n, _ := io.CopyN(io.Discard, r, contentLength(head))
		answer := fmt.Sprint(n)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(answer), answer)
	})
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n", size))
	piece := make([]byte, 1<<20)
	sent := 0
	_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	for sent < size {
		n, err := c.Write(piece[:min(len(piece), size-sent)])
		sent += n
		if err != nil {
			break
		}
	}
	if sent == size {
		t.Errorf("the proxy took %d bytes that nobody read", sent)
	}
	close(read)
	_ = c.SetWriteDeadline(time.Now().Add(patience))
	for sent < size {
		n, err := c.Write(piece[:min(len(piece), size-sent)])
		if sent += n; err != nil {
			t.Fatal(err)
		}
	}
	if a := c.read("POST"); a.body != fmt.Sprint(size) {
		t.Errorf("got %+v", a)
	}
}

// The last answer of a connection arrives whole although the client goes on sending what nobody reads.
func TestLastAnswerArrives(t *testing.T) {
	const size = 8 << 20
	o := newOrigin(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := readHead(r); err == nil {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", size, strings.Repeat("x", size))
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, r)
		}
	})
	s := snapshotOf(func(s *model.Snapshot, _ *model.Rule) { s.Tables[0].Unmatched = nil }, o.address())
	p := start(t, s, Limits{})
	f := func(name, request, rest string, status int) {
		t.Helper()
		c := dial(t, p, "outbound")
		c.send(request)
		sent := make(chan struct{})
		go func() { // ends with the write, which ends with the connection
			_, _ = io.WriteString(c, rest)
			close(sent)
		}()
		if len(rest) <= 1<<20 {
			<-sent
		}
		a := c.read("POST")
		if a.status != status || status == 200 && len(a.body) != size {
			t.Errorf("%s: status %d, %d bytes", name, a.status, len(a.body))
		}
		_ = c.Close()
		<-sent
	}
	garbage := strings.Repeat("garbage ", 16<<10)
	upload := strings.Repeat("garbage ", 2<<20)
	f("requests behind the last", "GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n", garbage, 200)
	f("answer before the body", "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 100000000\r\n\r\n", garbage, 200)
	f("bad request", "GET  / HTTP/1.1\r\n\r\n", garbage, 400)
	f("no route, large upload", "POST / HTTP/1.1\r\nHost: nobody\r\nContent-Length: 100000000\r\n\r\n", upload, 404)
	f("line too long", "GET /"+strings.Repeat("x", 9<<10), garbage, 414)
	f("field too large", "GET / HTTP/1.1\r\nX: "+strings.Repeat("x", 9<<10), garbage, 431)
	f("malformed chunk", "POST / HTTP/1.1\r\nHost: nobody\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", garbage, 404)
	settled(t, p)
}

// Lingering ends: with the client, or after a while.
func TestLingerEnds(t *testing.T) {
	p := start(t, snapshotOf(nil), Limits{})
	c := dial(t, p, "outbound")
	c.send("GET  / HTTP/1.1\r\n\r\n")
	if a := c.read("GET"); a.status != 400 {
		t.Fatalf("got %+v", a)
	}
	c.closed()
	eventually(t, "the end of the connection, on which the client goes on", func() bool {
		_, _ = io.WriteString(c, "x")
		return p.conns.count() == 0
	})
}
