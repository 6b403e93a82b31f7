package proxy

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/balance"
)

// retrying gives the route a policy.
func retrying(r model.Retries) func(s *model.Snapshot, rule *model.Rule) {
	if r.Backoff == 0 {
		r.Backoff = model.Duration(time.Millisecond)
	}
	return func(_ *model.Snapshot, rule *model.Rule) { rule.Route.Retries = &r }
}

// TestRetries plays an application that fails at first, with every pair of versions, and counts what it sees.
func TestRetries(t *testing.T) {
	named := &model.Origin{Kind: "VirtualService", Namespace: "default", Name: "app"}
	f := func(name string, r model.Retries, method, body string, failures int, fail http.HandlerFunc, status, seen int, reason string) {
		t.Run(name, func(t *testing.T) {
			var attempts atomic.Int64
			versions(t, retrying(r), func(w http.ResponseWriter, r *http.Request) {
				n := attempts.Add(1)
				got, _ := io.ReadAll(r.Body)
				if n <= int64(failures) {
					fail(w, r)
					return
				}
				if string(got) != body {
					http.Error(w, fmt.Sprintf("a body of %d bytes, want %d", len(got), len(body)), http.StatusTeapot)
					return
				}
				w.Header().Set("x-attempt", r.Header.Get("x-envoy-attempt-count"))
			}, func(t *testing.T, c *http.Client, _ *Proxy, _, _ int) {
				attempts.Store(0)
				res, got := fetch(t, c, request(method, "http://app/", strings.NewReader(body)))
				if res.StatusCode != status || int(attempts.Load()) != seen || res.Header.Get("x-outrider-reason") != reason {
					t.Errorf("%d %q %s after %d attempts, want %d %q after %d", res.StatusCode, res.Header.Get("x-outrider-reason"), got, attempts.Load(), status, reason, seen)
				}
				if status == 200 && res.Header.Get("x-attempt") != fmt.Sprint(seen) {
					t.Errorf("the endpoint was told of attempt %s, want %d", res.Header.Get("x-attempt"), seen)
				}
			})
		})
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", code) }
	}
	reset := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	long := strings.Repeat("x", 50_000)
	f("5xx", model.Retries{Attempts: 3, On: []string{"5xx"}}, "GET", "", 2, status(500), 200, 3, "")
	f("what is left to the client", model.Retries{Attempts: 2, On: []string{"5xx"}, Origin: named}, "GET", "", 9, status(503), 503, 3, "")
	f("gateway-error", model.Retries{Attempts: 3, On: []string{"gateway-error"}}, "GET", "", 1, status(502), 200, 2, "")
	f("gateway-error is not 500", model.Retries{Attempts: 3, On: []string{"gateway-error"}}, "GET", "", 1, status(500), 500, 1, "")
	f("retriable-4xx", model.Retries{Attempts: 3, On: []string{"retriable-4xx"}}, "GET", "", 1, status(409), 200, 2, "")
	f("retriable-status-codes", model.Retries{Attempts: 3, On: []string{"retriable-status-codes"}, Statuses: []int{429}}, "GET", "", 1, status(429), 200, 2, "")
	f("codes without their condition", model.Retries{Attempts: 3, On: []string{"5xx"}, Statuses: []int{429}}, "GET", "", 1, status(429), 429, 1, "")
	f("reset", model.Retries{Attempts: 3, On: []string{"reset"}}, "PUT", "", 1, reset, 200, 2, "")
	f("resets until nobody asks any more", model.Retries{Attempts: 1, On: []string{"reset"}, Origin: named}, "PUT", "", 9, reset, 503, 2, "retry_exhausted")
	f("a body is sent again", model.Retries{Attempts: 3, On: []string{"5xx"}}, "PUT", long, 2, status(500), 200, 3, "")
	f("POST is not repeated", model.Retries{Attempts: 3, On: []string{"5xx", "reset"}}, "POST", "x", 1, status(503), 503, 1, "")
	f("POST is not repeated after a reset", model.Retries{Attempts: 3, On: []string{"5xx", "reset"}}, "POST", "x", 1, reset, 503, 1, "upstream_reset")
	f("POST that the configuration names", model.Retries{Attempts: 3, On: []string{"5xx"}, Unsafe: true}, "POST", long, 1, status(503), 200, 2, "")
	f("a body too long to be kept", model.Retries{Attempts: 3, On: []string{"5xx"}, MaxBody: 1000}, "PUT", strings.Repeat("x", 300_000), 1, status(503), 503, 1, "")
	f("none asked for", model.Retries{Attempts: 0, On: []string{"5xx"}}, "GET", "", 1, status(503), 503, 1, "")
	f("ratelimited", model.Retries{Attempts: 3, On: []string{"5xx"}}, "GET", "", 1, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("x-envoy-ratelimited", "true")
		w.WriteHeader(503)
	}, 503, 1, "")
	f("head only once it is told", model.Retries{Attempts: 3, On: []string{"5xx"}}, "GET", "", 1, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(103)
		w.WriteHeader(503)
	}, 503, 1, "")
}

// TestRetryAllowance holds retries to a share of the requests.
func TestRetryAllowance(t *testing.T) {
	o := newOrigin(t, answers(strings.Split(strings.Repeat("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n|", 1000), "|")...))
	p := start(t, snapshotOf(retrying(model.Retries{
		Attempts: 1, On: []string{"5xx"}, Origin: &model.Origin{Kind: "Service"},
		Allowance: &model.RetryAllowance{Ratio: 0.1, PerSecond: 1, TTL: model.Duration(10 * time.Second)},
	}), o.address()), Limits{})
	c := dial(t, p, "outbound")
	begin := time.Now()
	for range 200 {
		c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		if a := c.read("GET"); a.status != 503 {
			t.Fatal(a.status)
		}
	}
	retried, refused := valueOf(t, p, "outrider_retries_total"), valueOf(t, p, "outrider_retries_abandoned_total", "reason=budget")
	most := 20 + 10 + 10 + time.Since(begin).Seconds() // the last for each second that has passed meanwhile
	if retried < 20 || retried > most || retried+refused != 200 {
		t.Errorf("%v retries, %v refused, of 200 requests with a ratio of 0.1 and 10 besides", retried, refused)
	}
}

// TestPerTryTimeout ends attempts that take too long, and asks again within the route's timeout.
func TestPerTryTimeout(t *testing.T) {
	t.Parallel()
	var counters sync.Map
	attempts := func(key string) *atomic.Int64 {
		n, _ := counters.LoadOrStore(key, new(atomic.Int64))
		return n.(*atomic.Int64)
	}
	edit := func(_ *model.Snapshot, r *model.Rule) {
		r.Route.Timeout = model.Duration(time.Minute)
		r.Route.Retries = &model.Retries{Attempts: 2, On: []string{"5xx"}, PerTry: model.Duration(2 * time.Second), Backoff: model.Duration(time.Millisecond)}
	}
	versionsAtOnce(t, edit, func(_ http.ResponseWriter, r *http.Request) {
		if n := attempts(r.URL.Path).Add(1); n <= 2 || r.Method == "GET" {
			_, _ = io.Copy(io.Discard, r.Body) // or Go's server does not notice that the proxy gives up
			<-r.Context().Done()
		}
	}, func(t *testing.T, c *http.Client, _ *Proxy, client, server int) {
		put, get := fmt.Sprintf("/put/%d/%d", client, server), fmt.Sprintf("/get/%d/%d", client, server)
		res, _ := fetch(t, c, request("PUT", "http://app"+put, strings.NewReader("body")))
		if n := attempts(put).Load(); res.StatusCode != 200 || n != 3 {
			t.Errorf("%d after %d attempts", res.StatusCode, n)
		}
		res, _ = fetch(t, c, request("GET", "http://app"+get, nil))
		if n := attempts(get).Load(); res.StatusCode != 504 || res.Header.Get("x-outrider-reason") != "upstream_timeout" || n != 3 {
			t.Errorf("%d %s after %d attempts, want 504 upstream_timeout after 3", res.StatusCode, res.Header.Get("x-outrider-reason"), n)
		}
	})
}

// TestRouteTimeoutEndsRetries holds the back-off's waits to the route's timeout.
func TestRouteTimeoutEndsRetries(t *testing.T) {
	versions(t, func(_ *model.Snapshot, r *model.Rule) {
		r.Route.Timeout = model.Duration(100 * time.Millisecond)
		r.Route.Retries = &model.Retries{Attempts: 1000, On: []string{"5xx"}, Backoff: model.Duration(30 * time.Millisecond)}
	}, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(500)
	}, func(t *testing.T, c *http.Client, _ *Proxy, _, _ int) {
		res, _ := fetch(t, c, request("GET", "http://app/", nil))
		if res.StatusCode != 504 || res.Header.Get("x-outrider-reason") != "route_timeout" {
			t.Errorf("%d %s, want 504 route_timeout", res.StatusCode, res.Header.Get("x-outrider-reason"))
		}
	})
}

// TestRetriesAskOthers sends what one endpoint fails with to another, until all were asked.
func TestRetriesAskOthers(t *testing.T) {
	bad, good := newOrigin(t, answers(strings.Repeat("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", 1))), newOrigin(t, nil)
	bad2 := newOrigin(t, answers("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"))
	p := start(t, snapshotOf(retrying(model.Retries{Attempts: 2, On: []string{"5xx"}}), bad.address(), good.address(), bad2.address()), Limits{})
	c := dial(t, p, "outbound")
	for i := range 60 {
		c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		if a := c.read("GET"); a.status != 200 {
			t.Fatalf("request %d: %d", i, a.status)
		}
	}
}

// What an endpoint asks to be spared for reaches the balancer.
func TestAskedToWait(t *testing.T) {
	f := func(v verdict, text string, want time.Duration) {
		t.Helper()
		x := &exchange{}
		x.res.Status = 429
		if text != "" {
			x.res.Add("Retry-After", text)
		}
		if got := x.askedToWait(v); got != want {
			t.Errorf("%q asks for %v, want %v", text, got, want)
		}
	}
	f(answered, "", 0)
	f(answered, "20", 20*time.Second)
	f(answered, "1234567", 0)
	f(answered, "-3", 0)
	f(answered, "Fri, 31 Dec 1999 23:59:59 GMT", 0)
	f(failed, "20", 0)
}

// TestLongBackoff says that the longest back-off that can be asked for is a wait all the same.
func TestLongBackoff(t *testing.T) {
	r, err := newRetries(&model.Retries{Attempts: 20, Backoff: model.Duration(100 * 365 * 24 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	random := balance.NewRand(1)
	for n := range 20 {
		if d := r.wait(n+1, &random); d <= 0 || d > 10*mostBackoff {
			t.Errorf("the wait before retry %d is %v", n+1, d)
		}
	}
}

// TestLongGRPCTimeout says that what is written of a timeout can be read.
func TestLongGRPCTimeout(t *testing.T) {
	for ns, want := range map[int64]string{1: "1m", 5e9: "5000m", 1e14: "100000S", 100 * 365 * 24 * 3600e9: "99999999S"} {
		text := string(appendGRPCTimeout(nil, ns))
		if _, ok := parseGRPCTimeout([]byte(text)); text != want || !ok {
			t.Errorf("%d ns: %s, want %s", ns, text, want)
		}
	}
}
