package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// counted counts what passes on a connection.
type counted struct {
	net.Conn
	in, out *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.in.Add(int64(n))
	return n, err
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.out.Add(int64(n))
	return n, err
}

// dialCounted is dial for a client that counts its bytes.
func dialCounted(t *testing.T, p *Proxy, in, out *atomic.Int64) *client {
	c := dial(t, p, "outbound")
	c.Conn = &counted{c.Conn, in, out}
	c.r = bufio.NewReader(c.Conn)
	return c
}

// bytesTotal returns the sums and the count of istio_request_bytes and istio_response_bytes.
func bytesTotal(t *testing.T, g prometheus.Gatherer) (request, response float64, exchanges uint64) {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			switch f.GetName() {
			case "istio_request_bytes":
				request += m.GetHistogram().GetSampleSum()
			case "istio_response_bytes":
				response += m.GetHistogram().GetSampleSum()
				exchanges += m.GetHistogram().GetSampleCount()
			}
		}
	}
	return request, response, exchanges
}

// mirror answers each request with its body, framed as its path says, in pieces as its query says.
func mirror(c net.Conn, r *bufio.Reader) {
	for {
		head, err := readHead(r)
		if err != nil {
			return
		}
		if strings.Contains(strings.ToLower(head), "expect: 100-continue") {
			_, _ = io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		}
		var body, trailer string
		if strings.Contains(strings.ToLower(head), "transfer-encoding: chunked") {
			if body, trailer, err = readChunked(r); err != nil {
				return
			}
		} else {
			b := make([]byte, contentLength(head))
			if _, err := io.ReadFull(r, b); err != nil {
				return
			}
			body = string(b)
		}
		method, rest, _ := strings.Cut(head, " ")
		path, _, _ := strings.Cut(rest, " ")
		switch path {
		case "/chunked":
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			for rest := body; rest != ""; {
				n := min(len(rest), 10_000)
				fmt.Fprintf(c, "%x;ext=1\r\n%s\r\n", n, rest[:n])
				rest = rest[n:]
			}
			_, _ = io.WriteString(c, "0\r\n"+strings.TrimSuffix(trailer, "\r\n")+"\r\n")
		case "/close":
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"+body)
			return
		case "/interim":
			fmt.Fprintf(c, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		case "/none":
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		default:
			if method == "HEAD" {
				body = ""
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		}
	}
}

// sizes are the lengths of bodies at which buffers end, heads before them or not.
func sizes() []int {
	const buffer, headroom = 32 << 10, 1 << 10
	n := []int{0, 1, 2, 15, 16, 255, 256, 4095, 4096}
	for _, edge := range []int{headroom, buffer - headroom, buffer, 2*buffer - 2*headroom, 2 * buffer} {
		for _, head := range []int{0, 60, 61, 62, 64, 70, 77} {
			for d := -2; d <= 2; d++ {
				n = append(n, edge-head+d)
			}
		}
	}
	return append(n, 1<<20)
}

func body(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "0123456789abcdefghijklmnopqrstuvwxyz\r\n"[(i*7+i/38)%38]
	}
	return string(b)
}

// Bodies of every size that buffers care about come whole through every framing, all on one connection, at once or in pieces.
func TestBodySizes(t *testing.T) {
	o := newOrigin(t, mirror)
	p := start(t, snapshotOf(nil, o.address()), Limits{})
	c := dial(t, p, "outbound")
	all := sizes()
	if testing.Short() {
		all = all[:40]
	}
	for i, n := range all {
		b := body(n)
		for j, request := range []string{
			fmt.Sprintf("POST /length HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n%s", n, b),
			fmt.Sprintf("POST /chunked HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n%s", n, b),
			"POST /length HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(b, n/3+1) + "0\r\n\r\n",
			"POST /chunked HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(b, n+1) + "0\r\nX-T: v\r\n\r\n",
		} {
			go func() { // ends with the write, which the answer waits for
				for at := 0; at < len(request); {
					k := len(request) - at
					if (i+j)%2 == 0 { // the head first, then the rest
						k = min(k, 70+at)
					}
					_, _ = io.WriteString(c, request[at:at+k])
					at += k
				}
			}()
			a := c.read("POST")
			if a.status != 200 || a.body != b {
				t.Fatalf("body of %d bytes, request %d: status %d, %d bytes, head %s", n, j, a.status, len(a.body), a.head)
			}
			if j == 3 && !strings.Contains(a.trailer, "X-T: v\r\n") {
				t.Fatalf("body of %d bytes: the trailer is %q", n, a.trailer)
			}
		}
	}
	if n := o.connections(); n > len(all)/4 { // one, but for a pump that is long in ending while the machine is busy
		t.Errorf("%d connections to the application, want 1", n)
	}
}

// chunks frames b in chunks of n bytes, without the last chunk.
func chunks(b string, n int) string {
	var s strings.Builder
	for b != "" {
		k := min(n, len(b))
		fmt.Fprintf(&s, "%x\r\n%s\r\n", k, b[:k])
		b = b[k:]
	}
	return s.String()
}

// The bytes that are counted are those on the client's connection, in every framing, on either side of a pair of sidecars.
func TestBytesAreCounted(t *testing.T) {
	o := newOrigin(t, mirror)
	server := start(t, inboundOf(o.address()), Limits{})
	near := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		s.Clusters[0].Endpoints[0].Sidecar = true
	}, server.Address("inbound|8080")), Limits{})
	var in, out atomic.Int64
	n := uint64(0)
	f := func(name, method, request string, parts ...string) {
		t.Helper()
		c := dialCounted(t, near, &in, &out)
		c.send(request)
		for _, part := range parts {
			c.send(part)
		}
		for {
			a, err := c.tryRead(method)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if a.status >= 200 {
				break
			}
		}
		_ = c.Close()
		n++
		var request_, response float64
		eventually(t, name+" is counted", func() bool {
			var exchanges uint64
			request_, response, exchanges = bytesTotal(t, near.metrics.Gatherer())
			return exchanges == n
		})
		if int64(request_) != out.Load() || int64(response) != in.Load() {
			t.Errorf("%s: counted %.0f and %.0f bytes, on the wire are %d and %d", name, request_, response, out.Load(), in.Load())
			in.Store(int64(response))
			out.Store(int64(request_))
		}
	}
	big := body(200_000)
	head := func(line string) string { return line + " HTTP/1.1\r\nHost: app\r\n" }
	f("GET", "GET", head("GET /")+"\r\n")
	f("HEAD", "HEAD", head("HEAD /")+"\r\n")
	f("length", "POST", head("POST /")+"Content-Length: 5\r\n\r\nhello")
	f("length in two pieces", "POST", head("POST /")+"Content-Length: 5\r\n\r\n", "hello")
	f("big", "POST", head("POST /")+"Content-Length: 200000\r\n\r\n", big)
	f("chunked", "POST", head("POST /chunked")+"Transfer-Encoding: chunked\r\n\r\n"+chunks("hello", 2)+"0\r\nX-A: b\r\n\r\n")
	f("chunked and big", "POST", head("POST /chunked")+"Transfer-Encoding: chunked\r\n\r\n", chunks(big, 7777), "0\r\n\r\n")
	f("until close", "POST", head("POST /close")+"Content-Length: 5\r\n\r\nhello")
	f("interim", "POST", head("POST /interim")+"Content-Length: 5\r\n\r\nhello")
	f("no content", "GET", head("GET /none")+"\r\n")
	f("expectation", "POST", head("POST /")+"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n", "hello")
	f("HTTP/1.0", "GET", "GET /chunked HTTP/1.0\r\nHost: app\r\n\r\n")
	f("refused", "GET", head("GET  /")+"\r\n")

	// What the caller's sidecar sends is what the server's counts: one exchange for each, but for the one that was refused.
	eventually(t, "the server's count", func() bool {
		_, _, exchanges := bytesTotal(t, server.metrics.Gatherer())
		return exchanges == n-1
	})
	eventually(t, "caller and server count the same", func() bool {
		a := requestsTotal(t, near.metrics.Gatherer(), "response_code", "response_flags")
		delete(a, "400|DPE")
		return fmt.Sprint(a) == fmt.Sprint(requestsTotal(t, server.metrics.Gatherer(), "response_code", "response_flags"))
	})
}
