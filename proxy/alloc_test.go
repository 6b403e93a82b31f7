package proxy

import (
	"bufio"
	"bytes"
	"fmt"
	"math"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// fixed is an origin that answers every request head with the same bytes and allocates nothing for it.
func fixed(body int) func(c net.Conn, r *bufio.Reader) {
	framing := fmt.Sprintf("Content-Length: %d\r\n\r\n%s", body, strings.Repeat("x", max(body, 0)))
	if body < 0 {
		framing = fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", -body, strings.Repeat("x", -body))
	}
	response := []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nServer: app\r\n" + framing)
	return func(c net.Conn, r *bufio.Reader) {
		for {
			n := 0
			for {
				line, err := r.ReadSlice('\n')
				if err != nil {
					return
				}
				if len(line) > 20 && bytes.EqualFold(line[:20], []byte("Content-Length: 1024")) {
					n = 1024
				}
				if len(line) == 2 {
					break
				}
			}
			if n > 0 {
				if _, err := r.Discard(n); err != nil {
					return
				}
			}
			if _, err := c.Write(response); err != nil {
				return
			}
		}
	}
}

// busySnapshot has what a sidecar has in production: several rules, a header match, a split, endpoints with peers.
func busySnapshot(addresses ...string) *model.Snapshot {
	return snapshotOf(func(s *model.Snapshot, r *model.Rule) {
		c := s.Clusters[0]
		c.Name, c.Subset = "outbound|80|v2|"+service, "v2"
		c.LoadBalancer = model.LoadBalancer{Policy: model.LeastRequest}
		s.Clusters = append(s.Clusters, c)
		h := &s.Tables[0].Hosts[0]
		h.Rules = append(h.Rules, model.Rule{
			Matches: []model.Match{{Headers: []model.KeyMatch{{Name: "end-user", StringMatch: model.StringMatch{Kind: model.Exact, Value: "jason"}}}}},
			Route:   &model.Route{Destinations: []model.Destination{{Cluster: c.Name, Weight: 1}}},
		})
		r.Route.Destinations = []model.Destination{{Cluster: s.Clusters[0].Name, Weight: 90}, {Cluster: c.Name, Weight: 10}}
		r.Route.Timeout = model.Duration(30e9)
		r.Request.Set = []model.NameValue{{Name: "x-mesh", Value: "outrider"}}
	}, addresses...)
}

const browser = "Host: app\r\nUser-Agent: curl/8.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nAccept-Language: en\r\nCookie: session=1234567890\r\nX-Trace: abcdef\r\n"

// caller sends one request again and again and reads the answers away, allocating nothing.
type caller struct {
	c       *client
	request []byte
	body    int // -1 where it comes in chunks
}

func newLoop(t testing.TB, p *Proxy, request string) *caller {
	c := dial(t, p, "outbound")
	l := &caller{c: c, request: []byte(request)}
	c.send(request)
	a := c.read("GET")
	if a.status != 200 {
		t.Fatalf("got %+v", a)
	}
	l.body = len(a.body)
	if a.field("transfer-encoding") != "" {
		l.body = -1
	}
	return l
}

func (l *caller) run(t testing.TB, n int) {
	for range n {
		if _, err := l.c.Write(l.request); err != nil {
			t.Fatal(err)
		}
		for {
			line, err := l.c.r.ReadSlice('\n')
			if err != nil {
				t.Fatal(err)
			}
			if len(line) == 2 {
				break
			}
		}
		for n := l.body; n != 0; {
			k := n
			if n = 0; k < 0 {
				line, err := l.c.r.ReadSlice('\n')
				if err != nil {
					t.Fatal(err)
				}
				for k = 0; line[0] != '\r'; line = line[1:] {
					k = k<<4 + strings.IndexByte("0123456789abcdef", line[0])
				}
				if k > 0 {
					n = -1
				}
				k += len("\r\n")
			}
			if _, err := l.c.r.Discard(k); err != nil {
				t.Fatal(err)
			}
		}
	}
}

var requests = []struct {
	name, request string
	body          int // negative in chunks
}{
	{"GET 100 KiB in chunks", "GET /a/b?c=d HTTP/1.1\r\n" + browser + "\r\n", -100 << 10},
	{"GET 300 B", "GET /a/b?c=d HTTP/1.1\r\n" + browser + "\r\n", 300},
	{"GET 16 KiB", "GET /a/b?c=d HTTP/1.1\r\n" + browser + "\r\n", 16 << 10},
	{"POST 1 KiB", "POST /a/b HTTP/1.1\r\n" + browser + "Content-Length: 1024\r\n\r\n" + strings.Repeat("y", 1024), 300},
}

// wantNoAllocations has run do n rounds of so many exchanges, and wants as good as no garbage of them. What others in the
// process allocate counts along, more of it the busier the machine is: of a few attempts the best one tells.
func wantNoAllocations(t *testing.T, n, each int, run func(n int)) {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // a collection empties the pools
	least := math.Inf(1)
	for range 10 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		run(n)
		runtime.ReadMemStats(&after)
		if least = min(least, float64(after.Mallocs-before.Mallocs)/float64(n*each)); least <= 0.05 {
			return
		}
	}
	t.Errorf("%.2f allocations per exchange", least)
}

// In steady state an exchange allocates nothing: not for routing, splitting, balancing, headers or metrics.
func TestExchangeAllocatesNothing(t *testing.T) {
	exchangesAllocateNothing(t, busySnapshot)
}

// exchangesAllocateNothing asks a proxy of a snapshot, made for the address of its one endpoint, for each of requests.
func exchangesAllocateNothing(t *testing.T, of func(addresses ...string) *model.Snapshot) {
	t.Helper()
	for _, r := range requests {
		t.Run(r.name, func(t *testing.T) {
			o := newOrigin(t, fixed(r.body))
			wantNoGarbage(t, start(t, of(o.address()), Limits{}), r.request)
		})
	}
}

// wantNoGarbage wants exchanges of a proxy to allocate nothing once they are in their stride.
func wantNoGarbage(t *testing.T, p *Proxy, request string) {
	t.Helper()
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	l := newLoop(t, p, request)
	l.run(t, 200)
	wantNoAllocations(t, 2000, 1, func(n int) { l.run(t, n) })
}

// BenchmarkExchange measures a whole exchange over loopback, client and origin included.
func BenchmarkExchange(b *testing.B) {
	for _, r := range requests {
		b.Run(r.name, func(b *testing.B) {
			o := newOrigin(b, fixed(r.body))
			p := start(b, busySnapshot(o.address()), Limits{})
			l := newLoop(b, p, r.request)
			b.ReportAllocs()
			for b.Loop() {
				l.run(b, 1)
			}
		})
	}
}

// BenchmarkClock compares the two ways of reading the time.
func BenchmarkClock(b *testing.B) {
	for b.Loop() {
		_ = now()
	}
}
