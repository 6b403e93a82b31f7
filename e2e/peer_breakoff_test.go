package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
)

// pieces are what an application of HTTP/1 has sent of an answer when its connection ends.
var pieces = map[string]string{
	"nothing":  "",
	"word":     "HTTP",
	"line":     "HTTP/1.1 200 OK",
	"status":   "HTTP/1.1 200 OK\r\n",
	"field":    "HTTP/1.1 200 OK\r\nContent-Le",
	"fields":   "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n",
	"interim":  "HTTP/1.1 103 Early Hints\r\n\r\n",
	"second":   "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 O",
	"length":   "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
	"part":     "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
	"chunked":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
	"size":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1",
	"chunk":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhalf",
	"chunks":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
	"last":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
	"trailers": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX-A: b\r\n",
	"open":     "HTTP/1.1 200 OK\r\n\r\nhalf",
}

// began says that a piece has a final head, so that the client has an answer before the end comes.
func began(piece string) bool {
	_, rest, _ := strings.Cut(strings.TrimPrefix(pieces[piece], pieces["interim"]), " ")
	return strings.Contains(rest, "\r\n\r\n")
}

// breakoffs is an application of HTTP/1 whose connections end within answers, as a request's field x-script says, one word for each
// attempt, the last one for all that follow: a status, or one of pieces with ".fin" or ".rst", which is how the connection ends
// then. It ends once the client has an answer, where there is one to have.
type breakoffs struct {
	script
	arrived chan struct{} // at the client
	over    chan struct{} // the test is
}

func newBreakoffs(t *testing.T) (*breakoffs, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &breakoffs{script{seen: map[string]int{}}, make(chan struct{}), make(chan struct{})}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	all.Go(func() { // ends with the listener
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			all.Go(func() { // ends with the connection
				s.serve(c.(*net.TCPConn))
				mu.Lock()
				delete(open, c)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		close(s.over)
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return s, l.Addr().String()
}

// serve answers one request.
func (s *breakoffs) serve(c *net.TCPConn) {
	defer c.Close()
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return
	}
	words := strings.Fields(r.Header.Get("x-script"))
	s.mu.Lock()
	n := s.seen[r.Header.Get("x-scenario")]
	s.seen[r.Header.Get("x-scenario")]++
	s.mu.Unlock()
	piece, end, found := strings.Cut(words[min(n, len(words)-1)], ".")
	if !found {
		_, _ = fmt.Fprintf(c, "HTTP/1.1 %s Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", piece)
		return
	}
	_, _ = io.WriteString(c, pieces[piece])
	if began(piece) {
		select {
		case <-s.arrived:
		case <-s.over:
		}
	}
	if end == "rst" {
		_ = c.SetLinger(0)
	}
}

// TestBreakOffsAsEnvoy has an application's connection of HTTP/1 end within answers, in order and not, under policies that name
// that and that do not: statuses, flags and the attempts that it sees are those of Envoy.
func TestBreakOffsAsEnvoy(t *testing.T) {
	t.Parallel()
	alike(t, func() differences { return breakOffDifferences(t) })
}

func breakOffDifferences(t *testing.T) differences {
	t.Helper()
	app, at := newBreakoffs(t)
	var policies []retryCase
	for _, c := range retryCases {
		switch c.name {
		case "default", "none", "5xx", "gateway", "reset", "before", "connect", "codes", "grpc":
			policies = append(policies, c)
		}
	}
	policies = append(policies, retryCase{name: "502", istio: "retries: {attempts: 2, retryOn: '502', backoff: 1ms}", envoy: "num_retries: 2, retry_on: retriable-status-codes, retriable_status_codes: [502]"})
	virtual, routes := retryConfigs(policies, "")
	e := newEnvoy(t, routes, "", at)
	m := up(t, service("web", "app: web")+workload("web", "v1", 1, "sidecar.istio.io/inject", "false")+virtual, apps(at))
	var all []retryScenario
	for _, c := range policies {
		for piece := range pieces {
			for _, end := range []string{".fin", ".rst"} {
				if piece+end == "open.rst" {
					continue // Envoy passes it on as whole; proxy's TestEndings has what we do
				}
				all = append(all, retryScenario{c.name, piece + end, "GET"})
				if began(piece) {
					continue
				}
				all = append(all, retryScenario{c.name, piece + end + " 200", "GET"}, retryScenario{c.name, piece + end + " 200", "PUT"})
				if c.istio != "" {
					all = append(all, retryScenario{c.name, piece + end + " 200", "POST"})
				}
			}
		}
	}
	run := func(address string) []string {
		app.reset()
		c := plain(address)
		var got []string
		for i, s := range all {
			res, err := c.Do(s.request(t, i, "body"))
			if err != nil {
				t.Fatalf("%v: %v", s, err)
			}
			piece, _, _ := strings.Cut(s.script, ".")
			if began(piece) {
				app.arrived <- struct{}{}
			}
			_, err = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			got = append(got, fmt.Sprintf("%d, whole %t, after %d", res.StatusCode, err == nil, app.attempts(scenarioName(i))))
		}
		return got
	}
	differ, tally := compareRuns(m, e, all, run)
	t.Logf("%d scenarios with %v", len(all), tally)
	return differ
}
