package e2e

import (
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"
)

// busy is an application that keeps each request until it is told to answer.
type busy struct {
	mu    sync.Mutex
	let   chan struct{} // closed when all may be answered
	under int
	most  int
	from  map[string]int // requests by connection
	seen  map[string]int // and by scenario
}

func newBusy() *busy {
	return &busy{let: make(chan struct{}), from: map[string]int{}, seen: map[string]int{}}
}

// ServeHTTP answers when it is told to; a request for "/first" is refused with 503 until a proxy sends it again.
func (b *busy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	b.from[r.RemoteAddr]++
	b.seen[r.Header.Get("x-scenario")]++
	if r.URL.Path == "/first" && b.seen[r.Header.Get("x-scenario")] == 1 {
		b.mu.Unlock()
		w.WriteHeader(503)
		return
	}
	b.under++
	b.most = max(b.most, b.under)
	let := b.let
	b.mu.Unlock()
	<-let
	b.mu.Lock()
	b.under--
	b.mu.Unlock()
}

func (b *busy) now() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.under
}

// restart takes what is counted, and keeps requests again.
func (b *busy) restart() (most, connections int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	most, connections = b.most, len(b.from)
	b.let, b.most, b.from, b.seen = make(chan struct{}), 0, map[string]int{}, map[string]int{}
	return most, connections
}

func (b *busy) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.let)
}

// limitCase is a connectionPool and what Istio makes of it for Envoy, and how many requests meet it.
type limitCase struct {
	name, istio string
	thresholds  string // of Envoy's circuit breakers
	protocol    string // of Envoy's cluster, in place of HTTP/1.1
	two         bool   // the application is asked for HTTP/2
	path        string
	inside      int // requests that come to the application, one after the other; the rest come at the same time
	requests    int
	refused     int // of the rest, at once
}

const (
	hugeConnections = "max_connections: 4294967295"
	hugePending     = "max_pending_requests: 4294967295"
	hugeRequests    = "max_requests: 4294967295"
	hugeRetries     = "max_retries: 4294967295"
)

var limitCases = []limitCase{
	{name: "one connection, one waits", istio: "tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}", thresholds: "max_connections: 1, max_pending_requests: 1, " + hugeRequests, inside: 1, requests: 5, refused: 3},
	{name: "two connections, three wait", istio: "tcp: {maxConnections: 2}, http: {http1MaxPendingRequests: 3}", thresholds: "max_connections: 2, max_pending_requests: 3, " + hugeRequests, inside: 2, requests: 8, refused: 3},
	{name: "connections alone", istio: "tcp: {maxConnections: 1}", thresholds: "max_connections: 1, " + hugePending + ", " + hugeRequests, inside: 1, requests: 6},
	{name: "pending alone", istio: "http: {http1MaxPendingRequests: 1}", thresholds: hugeConnections + ", max_pending_requests: 1, " + hugeRequests, inside: 4, requests: 4},
	{name: "one request", istio: "http: {http2MaxRequests: 1}", thresholds: hugeConnections + ", " + hugePending + ", max_requests: 1", inside: 1, requests: 4, refused: 3},
	{name: "three requests", istio: "http: {http2MaxRequests: 3}", thresholds: hugeConnections + ", " + hugePending + ", max_requests: 3", inside: 3, requests: 8, refused: 5},
	{name: "all of them", istio: "tcp: {maxConnections: 2}, http: {http1MaxPendingRequests: 1, http2MaxRequests: 2}", thresholds: "max_connections: 2, max_pending_requests: 1, max_requests: 2", inside: 2, requests: 5, refused: 2},
	{name: "requests before connections", istio: "tcp: {maxConnections: 3}, http: {http1MaxPendingRequests: 100, http2MaxRequests: 2}", thresholds: "max_connections: 3, max_pending_requests: 100, max_requests: 2", inside: 2, requests: 3, refused: 1},
	{name: "one request a connection", istio: "tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 2, maxRequestsPerConnection: 1}", thresholds: "max_connections: 1, max_pending_requests: 2, " + hugeRequests, protocol: "common_http_protocol_options: {max_requests_per_connection: 1}, explicit_http_config: {http_protocol_options: {}}", inside: 1, requests: 6, refused: 3},
	{name: "two requests a connection", istio: "tcp: {maxConnections: 1}, http: {maxRequestsPerConnection: 2}", thresholds: "max_connections: 1, " + hugePending + ", " + hugeRequests, protocol: "common_http_protocol_options: {max_requests_per_connection: 2}, explicit_http_config: {http_protocol_options: {}}", inside: 1, requests: 7},
	{name: "HTTP/2, two requests", two: true, istio: "http: {http2MaxRequests: 2}", thresholds: hugeConnections + ", " + hugePending + ", max_requests: 2", protocol: "explicit_http_config: {http2_protocol_options: {}}", inside: 2, requests: 6, refused: 4},
	{name: "HTTP/2, one stream of one connection", two: true, istio: "tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 2, maxConcurrentStreams: 1}", thresholds: "max_connections: 1, max_pending_requests: 2, " + hugeRequests, protocol: "explicit_http_config: {http2_protocol_options: {max_concurrent_streams: 1}}", inside: 1, requests: 6, refused: 3},
	{name: "HTTP/2, streams of one connection", two: true, istio: "tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1}", thresholds: "max_connections: 1, max_pending_requests: 1, " + hugeRequests, protocol: "explicit_http_config: {http2_protocol_options: {}}", inside: 5, requests: 5},
	{name: "one retry", path: "first", istio: "http: {maxRetries: 1}", thresholds: hugeConnections + ", " + hugePending + ", " + hugeRequests + ", max_retries: 1", inside: 1, requests: 4, refused: 3},
}

// TestLimitsAsEnvoy sends the same requests to Envoy with Istio's configuration and to us with the DestinationRule: statuses,
// fields and texts of the answers, flags, the requests that the application has at once, and the connections that it sees
// must be the same, and those that the case says.
func TestLimitsAsEnvoy(t *testing.T) {
	t.Parallel()
	for _, c := range limitCases {
		t.Run(c.name, func(t *testing.T) {
			app := newBusy()
			at := listenVersions(t, app.ServeHTTP)
			t.Cleanup(app.release) // before the application ends
			thresholds := c.thresholds
			if !strings.Contains(thresholds, "max_retries") {
				thresholds += ", " + hugeRetries
			}
			cluster := "    circuit_breakers: {thresholds: [{" + thresholds + "}]}\n"
			if c.protocol != "" {
				cluster += "    typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, " + c.protocol + "}}\n"
			}
			route := "              - {match: {prefix: /}, route: {cluster: app, timeout: 0s, retry_policy: {num_retries: 2, retry_on: 5xx, retry_back_off: {base_interval: 0.001s}}}}\n"
			e := newEnvoy(t, route, cluster, at)
			text := service("web", "app: web")
			if c.two {
				text = strings.Replace(text, "name: http,", "name: http2,", 1)
			}
			m := up(t, text+workload("web", "v1", 1, "sidecar.istio.io/inject", "false")+fmt.Sprintf(`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - route: [{destination: {host: web}}]
    retries: {attempts: 2, retryOn: 5xx, backoff: 1ms}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web, trafficPolicy: {connectionPool: {%s}}}
`, c.istio), apps(at))
			theirs := c.run(t, app, e.address)
			flags := map[string]int{}
			for _, f := range e.accesses(c.requests) {
				flags[f]++
			}
			ours := c.run(t, app, m.ready.Proxy)
			if ours != theirs {
				t.Errorf("we: %s\nEnvoy: %s", ours, theirs)
			}
			differ := differences{}
			compareFlags(m, flags, differ)
			for what, how := range differ {
				t.Errorf("%s: %s", what, how)
			}
		})
	}
}

// run sends the case's requests and tells what came of them.
func (c *limitCase) run(t *testing.T, app *busy, address string) string {
	t.Helper()
	client := plain(address)
	answers := make(chan string, c.requests)
	var all sync.WaitGroup
	ask := func(i int) {
		all.Go(func() {
			r, err := http.NewRequest("GET", "http://web/"+c.path, nil)
			if err != nil {
				panic(err)
			}
			r.Header.Set("x-scenario", fmt.Sprintf("s%d", i))
			res, err := client.Do(r)
			if err != nil {
				answers <- err.Error()
				return
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			answers <- fmt.Sprintf("%d %s overloaded=%s %v", res.StatusCode, body, res.Header.Get("x-envoy-overloaded"), err)
		})
	}
	await := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: does not come: %s; the application has %d", address, what, app.now())
			}
		}
	}
	for i := range c.inside {
		ask(i)
		await("a request at the application", func() bool { return app.now() == i+1 })
	}
	for i := c.inside; i < c.requests; i++ {
		ask(i)
	}
	var told []string
	for range c.refused {
		select {
		case a := <-answers:
			told = append(told, a)
		case <-time.After(time.Minute):
			t.Fatalf("%s: %d of %d were refused", address, len(told), c.refused)
		}
	}
	for _, a := range told {
		if !strings.HasPrefix(a, "503 ") {
			t.Errorf("%s: %s came before anything was to be answered", address, a)
		}
	}
	app.release()
	all.Wait()
	close(answers)
	for a := range answers {
		told = append(told, a)
	}
	sort.Strings(told)
	await("the end of all requests", func() bool { return app.now() == 0 })
	most, connections := app.restart()
	if c.path != "" {
		connections = 0 // of requests that are answered at once it is chance that decides which connections are free
	}
	return fmt.Sprintf("%s; at once %d, connections %d", strings.Join(told, "; "), most, connections)
}
