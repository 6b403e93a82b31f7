package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func dialer(address string) func(ctx context.Context, network, _ string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
}

// script is an application that does what a request's field x-script says, one word for each attempt at a scenario, the
// last one for all that follow.
type script struct {
	mu   sync.Mutex
	seen map[string]int
}

func (s *script) attempts(scenario string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[scenario]
}

func (s *script) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = map[string]int{}
}

// next counts an attempt, and returns its word.
func (s *script) next(h http.Header) string {
	words := strings.Fields(h.Get("x-script"))
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.seen[h.Get("x-scenario")]
	s.seen[h.Get("x-scenario")]++
	return words[min(n, len(words)-1)]
}

// ServeHTTP plays the next word: a status, "reset", "close", "hang", "slow" (an answer after a second), "limited" (503 by a rate limit),
// "grpc" with a status in the head, "plain" and "refuse" with such a status in an answer of 200 and 503 that is no gRPC, or "early" (103
// before a 503).
func (s *script) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	word := s.next(r.Header)
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Connection", "close") // a kept connection that ends is another matter
	status, err := strconv.Atoi(word)
	switch {
	case err == nil:
		w.WriteHeader(status)
	case word == "reset", word == "close":
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		if word == "reset" {
			_ = c.(*net.TCPConn).SetLinger(0)
		}
		_ = c.Close()
	case word == "hang":
		<-r.Context().Done()
	case word == "slow":
		select {
		case <-time.After(time.Second):
		case <-r.Context().Done():
		}
	case word == "limited":
		w.Header().Set("x-envoy-ratelimited", "true")
		w.WriteHeader(503)
	case word == "early":
		w.WriteHeader(103)
		w.WriteHeader(503)
	case strings.HasPrefix(word, "plain"):
		w.Header().Set("grpc-status", word[5:])
		w.WriteHeader(200)
	case strings.HasPrefix(word, "refuse"):
		w.Header().Set("grpc-status", word[6:])
		w.WriteHeader(503)
	case strings.HasPrefix(word, "grpc"):
		w.Header().Set("content-type", "application/grpc")
		w.Header().Set("grpc-status", word[4:])
		w.WriteHeader(200)
	default:
		panic("no such word: " + word)
	}
}

// retryCase is a route's policy, in VirtualService's words and in those that Istio writes for Envoy.
type retryCase struct {
	name, istio, envoy string
}

// istioDefault is the policy of a route that names none (Istio 1.24 and later).
const istioDefault = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"

var retryCases = []retryCase{
	{name: "default", envoy: "num_retries: 2, retry_on: '" + istioDefault + "'"},
	{name: "none", istio: "retries: {attempts: 0}"},
	{name: "5xx", istio: "retries: {attempts: 2, retryOn: 5xx, backoff: 1ms}", envoy: "num_retries: 2, retry_on: 5xx"},
	{name: "one", istio: "retries: {attempts: 1, retryOn: '5xx,reset', backoff: 1ms}", envoy: "num_retries: 1, retry_on: '5xx,reset'"},
	{name: "gateway", istio: "retries: {attempts: 2, retryOn: gateway-error, backoff: 1ms}", envoy: "num_retries: 2, retry_on: gateway-error"},
	{name: "reset", istio: "retries: {attempts: 2, retryOn: reset, backoff: 1ms}", envoy: "num_retries: 2, retry_on: reset"},
	{name: "before", istio: "retries: {attempts: 2, retryOn: reset-before-request, backoff: 1ms}", envoy: "num_retries: 2, retry_on: reset-before-request"},
	{name: "connect", istio: "retries: {attempts: 2, retryOn: connect-failure, backoff: 1ms}", envoy: "num_retries: 2, retry_on: connect-failure"},
	{name: "4xx", istio: "retries: {attempts: 2, retryOn: retriable-4xx, backoff: 1ms}", envoy: "num_retries: 2, retry_on: retriable-4xx"},
	{name: "codes", istio: "retries: {attempts: 2, retryOn: '503,429', backoff: 1ms}", envoy: "num_retries: 2, retry_on: retriable-status-codes, retriable_status_codes: [503, 429]"},
	{name: "limited", istio: "retries: {attempts: 2, retryOn: 'envoy-ratelimited', backoff: 1ms}", envoy: "num_retries: 2, retry_on: envoy-ratelimited"},
	{name: "grpc", istio: "retries: {attempts: 2, retryOn: 'cancelled,deadline-exceeded,internal,resource-exhausted,unavailable', backoff: 1ms}", envoy: "num_retries: 2, retry_on: 'cancelled,deadline-exceeded,internal,resource-exhausted,unavailable'"},
	{name: "try", istio: "retries: {attempts: 2, retryOn: 5xx, perTryTimeout: 150ms, backoff: 1ms}", envoy: "num_retries: 2, retry_on: 5xx, per_try_timeout: 0.15s"},
	{name: "trygw", istio: "retries: {attempts: 1, retryOn: gateway-error, perTryTimeout: 150ms, backoff: 1ms}", envoy: "num_retries: 1, retry_on: gateway-error, per_try_timeout: 0.15s"},
	{name: "tryconnect", istio: "retries: {attempts: 1, retryOn: connect-failure, perTryTimeout: 150ms, backoff: 1ms}", envoy: "num_retries: 1, retry_on: connect-failure, per_try_timeout: 0.15s"},
}

// scripts are what the application does, attempt by attempt.
var scripts = []string{
	"200", "503 200", "503 503 200", "503", "500 200", "500", "502 200", "504 503 200", "409 200", "409", "429 200", "404", "403",
	"limited 200", "reset 200", "reset", "close 200", "503 reset 500", "early 200", "grpc14 grpc0", "grpc14", "grpc8 grpc0", "grpc5", "grpc13 grpc0", "grpc1 grpc0", "grpc4 200",
	"plain14 200", "plain14 plain8 plain5", "refuse14 200", "refuse5 200",
}

// retryConfigs returns a VirtualService and Envoy's routes, with a path for each case; hosts is what Envoy's policies say of them.
func retryConfigs(cases []retryCase, hosts string) (virtual, routes string) {
	virtual = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n"
	for _, c := range cases {
		virtual += fmt.Sprintf("  - match: [{uri: {prefix: /%s/}}]\n    route: [{destination: {host: web}}]\n", c.name)
		if c.istio != "" {
			virtual += "    " + c.istio + "\n"
		}
		policy := ""
		if c.envoy != "" {
			policy = fmt.Sprintf(", retry_policy: {%s, retry_back_off: {base_interval: 0.001s, max_interval: 0.01s}%s}", c.envoy, hosts)
		}
		routes += fmt.Sprintf("              - {match: {prefix: /%s/}, route: {cluster: app, timeout: 0s%s}}\n", c.name, policy)
	}
	return virtual, routes
}

// TestRetriesAsEnvoy plays the application's scripts under each policy, through Envoy with Istio's configuration and through
// us with the VirtualService: client's status, flags, and the attempts that the application sees must be the same.
func TestRetriesAsEnvoy(t *testing.T) {
	t.Parallel()
	alike(t, func() differences { return retryDifferences(t) })
}

func retryDifferences(t *testing.T) differences {
	t.Helper()
	app := &script{seen: map[string]int{}}
	at := listenVersions(t, app.ServeHTTP)
	virtual, routes := retryConfigs(retryCases, ", host_selection_retry_max_attempts: 5, retry_host_predicate: [{name: envoy.retry_host_predicates.previous_hosts, typed_config: {'@type': type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate}}]")
	timed := "  - match: [{uri: {prefix: /timed/}}]\n    route: [{destination: {host: web}}]\n    timeout: 200ms\n    retries: {attempts: 5, retryOn: 5xx, perTryTimeout: 150ms, backoff: 1ms}\n"
	virtual += timed + "  - route: [{destination: {host: web}}]\n"
	routes += "              - {match: {prefix: /timed/}, route: {cluster: app, timeout: 0.2s, retry_policy: {num_retries: 5, retry_on: 5xx, per_try_timeout: 0.15s, retry_back_off: {base_interval: 0.001s, max_interval: 0.01s}}}}\n"
	e := newEnvoy(t, routes, "", at)
	m := up(t, service("web", "app: web")+workload("web", "v1", 1, "sidecar.istio.io/inject", "false")+virtual, apps(at))

	var all []retryScenario
	for _, c := range retryCases {
		for _, s := range scripts {
			for _, method := range []string{"GET", "PUT"} {
				all = append(all, retryScenario{c.name, s, method})
			}
		}
		if strings.HasPrefix(c.name, "try") {
			all = append(all, retryScenario{c.name, "hang 200", "GET"}, retryScenario{c.name, "hang", "PUT"})
		}
		if c.istio != "" { // what the configuration names itself, it gets for POST, too
			all = append(all, retryScenario{c.name, "503 200", "POST"}, retryScenario{c.name, "reset 200", "POST"})
		}
	}
	all = append(all, retryScenario{"timed", "hang 200", "GET"}, retryScenario{"timed", "hang", "GET"})
	run := func(address string) []string {
		app.reset()
		c := plain(address)
		var got []string
		for i, s := range all {
			r := s.request(t, i, strings.Repeat("x", 20_000))
			if strings.HasPrefix(s.script, "grpc") {
				r.Header.Set("content-type", "application/grpc")
			}
			res, err := c.Do(r)
			if err != nil {
				t.Fatalf("%v: %v", s, err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
			got = append(got, fmt.Sprintf("%d grpc %q after %d", res.StatusCode, res.Header.Get("grpc-status"), app.attempts(scenarioName(i))))
		}
		return got
	}
	differ, _ := compareRuns(m, e, all, run)
	t.Logf("%d scenarios", len(all))
	return differ
}

// retryScenario is a request under a policy, and what the application does with each attempt.
type retryScenario struct{ policy, script, method string }

func scenarioName(i int) string { return fmt.Sprintf("s%d", i) }

// request is that of the i-th scenario, with a body where it has one.
func (s retryScenario) request(t *testing.T, i int, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(s.method, "http://web/"+s.policy+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.method != "GET" {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	}
	r.Header.Set("x-scenario", scenarioName(i))
	r.Header.Set("x-script", s.script)
	return r
}

// compareRuns compares what run sees through Envoy and through us, scenario by scenario, and how often each status was recorded
// with each flags, which it returns.
func compareRuns(m *mesh, e *envoy, all []retryScenario, run func(address string) []string) (differ differences, tally map[string]int) {
	m.t.Helper()
	theirs := run(e.address)
	flags := e.accesses(len(all))
	ours := run(m.ready.Proxy)
	differ, tally = differences{}, map[string]int{}
	for i, s := range all {
		f := flags[scenarioName(i)]
		if ours[i] != theirs[i] {
			differ.note(fmt.Sprint(s), "we answer %s, Envoy %s (%s)", ours[i], theirs[i], f)
		}
		tally[f]++
	}
	compareFlags(m, tally, differ)
	return differ, tally
}

// compareFlags compares how often each status was recorded with each flags.
func compareFlags(m *mesh, theirs map[string]int, differ differences) {
	m.t.Helper()
	ours := map[string]int{}
	want := 0
	for _, n := range theirs {
		want += n
	}
	m.await("everything is recorded", func() bool {
		clear(ours)
		sum := 0
		for line := range strings.SplitSeq(m.exposition("local"), "\n") {
			if !strings.HasPrefix(line, "istio_requests_total{") {
				continue
			}
			value, _ := strconv.Atoi(line[strings.LastIndexByte(line, ' ')+1:])
			ours[label(line, "response_code")+" "+label(line, "response_flags")] += value
			sum += value
		}
		return sum >= want
	})
	for k := range ours {
		if _, ok := theirs[k]; !ok {
			theirs[k] = 0
		}
	}
	for k, n := range theirs {
		if ours[k] != n {
			differ.note("recorded status and flags "+k, "we %d times, Envoy %d", ours[k], n)
		}
	}
}

func label(line, name string) string {
	_, rest, _ := strings.Cut(line, name+`="`)
	value, _, _ := strings.Cut(rest, `"`)
	return value
}
