package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
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

// serveBreakoff answers one request of HTTP/1 by a word that is a status, or one of pieces with ".fin" or ".rst", which is how the
// connection ends then: once the client has an answer, where there is one to have.
func serveBreakoff(s *staged, c net.Conn) {
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return
	}
	piece, end, found := strings.Cut(s.next(r.Header), ".")
	if !found {
		_, _ = fmt.Fprintf(c, "HTTP/1.1 %s Said\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", piece)
		return
	}
	_, _ = io.WriteString(c, pieces[piece])
	if began(piece) {
		s.answered()
	}
	if end == "rst" {
		_ = c.(*net.TCPConn).SetLinger(0)
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
	app, at := newStaged(t, serveBreakoff)
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
	return app.compare(t, m, e, all, func(script string) bool {
		piece, _, _ := strings.Cut(script, ".")
		return began(piece)
	})
}
