package proxy

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// A budget with an interval is a share of what has begun lately, not of what is under way: with one request at a time, half of
// these allows no retry at first, and each of the later ones.
func TestBudgetInterval(t *testing.T) {
	f := func(name string, interval time.Duration, want float64) {
		t.Run(name, func(t *testing.T) {
			versions(t, func(s *model.Snapshot, r *model.Rule) {
				retrying(model.Retries{Attempts: 1, On: []string{"5xx"}})(s, r)
				s.Clusters[0].Limits = &model.Limits{Budget: &model.RetryBudget{Percent: 50, Interval: model.Duration(interval)}}
			}, func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusServiceUnavailable)
			}, func(t *testing.T, c *http.Client, p *Proxy, _, _ int) {
				for range 5 {
					if res, _ := fetch(t, c, request("GET", "http://app/", nil)); res.StatusCode != 503 {
						t.Fatal(res.Status)
					}
				}
				eventually(t, "all five counted", func() bool {
					return valueOf(t, p, "outrider_retries_total")+valueOf(t, p, "outrider_retries_abandoned_total", "reason=budget") >= 5
				})
				if n := valueOf(t, p, "outrider_retries_total"); n != want {
					t.Errorf("%v retries, want %v", n, want)
				}
			})
		})
	}
	f("none", 0, 0)
	f("an hour", time.Hour, 4)
}

// What a destination's constraint does not allow is answered 503, whatever the endpoint said; other destinations' requests and
// answers that nobody wants to be repeated stay as they are.
func TestRetryConstraint(t *testing.T) {
	versions(t, func(s *model.Snapshot, r *model.Rule) {
		retrying(model.Retries{Attempts: 5, On: []string{"retriable-status-codes"}, Statuses: []int{500}, Origin: &model.Origin{Kind: "HTTPRoute"}})(s, r)
		s.Clusters[0].Retries = &model.RetryAllowance{Name: "app", PerSecond: 0.05, TTL: model.Duration(time.Minute)}
	}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/bad" {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}, func(t *testing.T, c *http.Client, p *Proxy, _, _ int) {
		for i, path := range []string{"/good", "/bad", "/bad", "/good"} { // the first /bad spends the three that there are
			res, body := fetch(t, c, request("GET", "http://app"+path, nil))
			status, reason := 200, ""
			if path == "/bad" {
				status, reason = 503, "retry_budget"
			}
			if res.StatusCode != status || res.Header.Get("x-outrider-reason") != reason {
				t.Errorf("%d: %s: %d %q %s, want %d %q", i, path, res.StatusCode, res.Header.Get("x-outrider-reason"), body, status, reason)
			}
		}
		eventually(t, "three retries, and two refused", func() bool {
			return valueOf(t, p, "outrider_retries_total") == 3 && valueOf(t, p, "outrider_retries_abandoned_total", "reason=budget") == 2
		})
	})
}

// A fallback's answer stands, although the target's constraint did not allow the retry that would have come before it.
func TestFallbackBehindARetryConstraint(t *testing.T) {
	other := goServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("other")) })
	guarded := hystrix(func(b *model.Breaker) { b.FallbackCluster = "other" })
	versions(t, func(s *model.Snapshot, r *model.Rule) {
		guarded(s, r)
		retrying(model.Retries{Attempts: 5, On: []string{"5xx"}, Origin: &model.Origin{Kind: "HTTPRoute"}})(s, r)
		s.Clusters[0].Retries = &model.RetryAllowance{Name: "app", TTL: model.Duration(time.Minute)}
		s.Clusters = append(s.Clusters, model.Cluster{
			Name: "other", Kind: model.Listed, Port: 80, Protocol: model.HTTP, Service: model.Service{Host: "other"},
			Endpoints: []model.Endpoint{{Address: other, Weight: 1}},
		})
	}, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusInternalServerError)
	}, func(t *testing.T, c *http.Client, _ *Proxy, _, _ int) {
		if res, body := fetch(t, c, request("GET", "http://app/", nil)); res.StatusCode != 200 || body != "other" || res.Header.Get("x-outrider-reason") != "fallback" {
			t.Errorf("%d %q %s, want the fallback's answer", res.StatusCode, body, res.Header.Get("x-outrider-reason"))
		}
	})
}

// An attempt never begins sooner than the least wait after the failure of the one before.
func TestLeastWait(t *testing.T) {
	const least = 60 * time.Millisecond
	var mu sync.Mutex
	var failed time.Time
	var soonest time.Duration
	attempts := 0
	versions(t, func(_ *model.Snapshot, r *model.Rule) {
		r.Route.Retries = &model.Retries{Attempts: 3, On: []string{"5xx"}, LeastWait: model.Duration(least)}
	}, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if attempts > 0 {
			soonest = min(soonest, time.Since(failed))
		}
		attempts++
		if attempts <= 3 {
			failed = time.Now()
			w.WriteHeader(http.StatusBadGateway)
		}
	}, func(t *testing.T, c *http.Client, _ *Proxy, _, _ int) {
		mu.Lock()
		attempts, soonest = 0, time.Hour
		mu.Unlock()
		res, _ := fetch(t, c, request("GET", "http://app/", nil))
		mu.Lock()
		defer mu.Unlock()
		if res.StatusCode != 200 || attempts != 4 || soonest < least {
			t.Errorf("%d after %d attempts, the soonest %v after a failure; want 200 after 4, each at least %v later", res.StatusCode, attempts, soonest, least)
		}
	})
}

// Where the budget does not allow even the first retry, and there is no answer to pass on, the budget is the reason.
func TestBudgetOfTheFirstRetry(t *testing.T) {
	versions(t, func(s *model.Snapshot, r *model.Rule) {
		retrying(model.Retries{Attempts: 3, On: []string{"reset"}, Origin: &model.Origin{Kind: "VirtualService"}})(s, r)
		s.Clusters[0].Limits = &model.Limits{Budget: &model.RetryBudget{}}
	}, func(http.ResponseWriter, *http.Request) {
		panic(http.ErrAbortHandler)
	}, func(t *testing.T, c *http.Client, p *Proxy, _, server int) {
		flags := "UC,UO"
		if server == 2 { // the stream alone is reset
			flags = "UR,UO"
		}
		res, body := fetch(t, c, request("GET", "http://app/", nil))
		if reason := res.Header.Get("x-outrider-reason"); res.StatusCode != 503 || reason != "retry_budget" {
			t.Errorf("%d %q %s, want 503 retry_budget", res.StatusCode, reason, body)
		}
		counts(t, p, map[string]float64{"503|" + flags: 1})
		blamed(t, p, flags, "retry_budget")
	})
}
