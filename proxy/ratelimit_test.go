package proxy

import (
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// hourly is a limit of n requests that hardly comes back while a test runs.
func hourly(n int, by ...model.RateKey) model.TokenLimit {
	return model.TokenLimit{Requests: n, Per: model.Duration(time.Hour), Burst: n, By: by}
}

// limiting puts rate limits before the service "app".
func limiting(limits ...model.RateLimit) func(s *model.Snapshot, r *model.Rule) {
	return func(s *model.Snapshot, _ *model.Rule) {
		for _, l := range limits {
			if l.Name == "" {
				l.Name = "default/limit"
			}
			if l.Keys == 0 {
				l.Keys = 100
			}
			if l.GRPC == 0 {
				l.GRPC = 14
			}
			s.RateLimits = append(s.RateLimits, l)
			s.Tables[0].Hosts[0].RateLimits = append(s.Tables[0].Hosts[0].RateLimits, l.Name)
		}
	}
}

func decided(t testing.TB, p *Proxy, decision string) float64 {
	t.Helper()
	return valueOf(t, p, "outrider_rate_limit_requests_total", "decision="+decision)
}

// refusedByLimit says whether an answer is the refusal of a rate limit, of whatever kind.
func refusedByLimit(res *http.Response) bool {
	return res.StatusCode == 429 && res.Header.Get("X-Outrider-Reason") == "rate_limited" && res.Header.Get("X-Envoy-Ratelimited") == "true"
}

// recorded waits for the records of so many requests that passed, and so many that a rate limit refused.
func recorded(t *testing.T, p *Proxy, passed, refused float64) {
	t.Helper()
	eventually(t, "the records", func() bool {
		got := requestsTotal(t, p.metrics.Gatherer(), "response_code", "response_flags")
		return got["200|-"] == passed && got["429|RL"] == refused
	})
}

// What is over the limit is answered with 429 in both versions; no endpoint hears of it, and the client is told all it needs.
func TestRateLimit(t *testing.T) {
	var seen atomic.Int64
	versions(t, limiting(model.RateLimit{Limits: []model.TokenLimit{hourly(3)}}), func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
	}, func(t *testing.T, c *http.Client, p *Proxy, client, server int) {
		seen.Store(0)
		for i := range 6 {
			res, b := fetch(t, c, request("POST", "http://app/", strings.NewReader("a body")))
			if i < 3 {
				if res.StatusCode != 200 || res.Header.Get("Ratelimit-Limit") != "" {
					t.Errorf("request %d: got %v", i, res)
				}
				continue
			}
			h := res.Header
			if !refusedByLimit(res) || b != "local_rate_limited" {
				t.Errorf("request %d: got %v %q", i, res, b)
			}
			for _, prefix := range []string{"", "X-"} {
				if h.Get(prefix+"Ratelimit-Limit") != "3" || h.Get(prefix+"Ratelimit-Remaining") != "0" || !nearlyTwentyMinutes(h.Get(prefix+"Ratelimit-Reset")) {
					t.Errorf("request %d: got %v", i, h)
				}
			}
			if !nearlyTwentyMinutes(h.Get("Retry-After")) {
				t.Errorf("request %d: got %v", i, h)
			}
		}
		if n := seen.Load(); n != 3 {
			t.Errorf("the application saw %d requests", n)
		}
		if a, l := decided(t, p, "allowed"), decided(t, p, "limited"); a != 3 || l != 3 {
			t.Errorf("counted %v and %v", a, l)
		}
		recorded(t, p, 3, 3)
	})
}

// nearlyTwentyMinutes says whether a field tells of the third part of an hour, less what the test itself may take.
func nearlyTwentyMinutes(seconds string) bool {
	n, err := strconv.Atoi(seconds)
	return err == nil && n <= 1200 && n > 1100
}

func TestRateLimitGRPC(t *testing.T) {
	f := func(code int, want string) {
		t.Helper()
		p := start(t, snapshotOf(limiting(model.RateLimit{Limits: []model.TokenLimit{hourly(1)}, GRPC: code}), "127.0.0.1:1"), Limits{})
		c := goClient(t, p, 2)
		var res *http.Response
		for range 2 {
			r := request("POST", "http://app/s/M", strings.NewReader("\x00\x00\x00\x00\x00"))
			r.Header.Set("Content-Type", "application/grpc")
			res, _ = fetch(t, c, r)
		}
		if res.StatusCode != 200 || res.Header.Get("Grpc-Status") != want || res.Header.Get("X-Outrider-Reason") != "rate_limited" || res.Header.Get("Retry-After") == "" {
			t.Errorf("got %v", res)
		}
	}
	f(14, "14")
	f(8, "8")
}

// Buckets are told apart by keys, limits narrowed by paths and methods, and a refusal takes no token from anyone.
func TestRateLimitKeys(t *testing.T) {
	o := newOrigin(t, nil)
	f := func(l model.RateLimit, requests string, want ...int) {
		t.Helper()
		p := start(t, snapshotOf(limiting(l), o.address()), Limits{})
		c := dial(t, p, "outbound")
		for i, r := range strings.Split(requests, ", ") {
			method, rest, _ := strings.Cut(r, " ")
			path, user, known := strings.Cut(rest, " ")
			field := ""
			if known {
				field = "X-User: " + user + "\r\n"
			}
			c.send(method + " " + path + " HTTP/1.1\r\nHost: app\r\n" + field + "\r\n")
			if a := c.read(method); a.status != want[i] {
				t.Errorf("%+v: request %d (%s): got %d, want %d", l, i, r, a.status, want[i])
			}
		}
	}
	user := model.RateKey{Header: "x-user"}
	f(model.RateLimit{Limits: []model.TokenLimit{hourly(1, user)}},
		"GET / ann, GET / bob, GET / ann, GET /, GET /, GET / bob", 200, 200, 429, 200, 429, 429)
	f(model.RateLimit{Limits: []model.TokenLimit{hourly(1, model.RateKey{SourceIP: true})}}, "GET / ann, GET / bob", 200, 429)
	f(model.RateLimit{Limits: []model.TokenLimit{hourly(1, user, model.RateKey{SourceIP: true})}}, "GET / ann, GET / bob, GET / bob", 200, 200, 429)
	f(model.RateLimit{Limits: []model.TokenLimit{hourly(2), hourly(1, user)}}, // ann's refusals leave a token for bob
		"GET / ann, GET / ann, GET / ann, GET / bob, GET / cid", 200, 429, 429, 200, 429)
	f(model.RateLimit{Paths: []string{"/api/*", "/exact"}, Methods: []string{"GET"}, Limits: []model.TokenLimit{hourly(1)}},
		"GET /api/a, GET /, POST /api/a, GET /exact/, GET /exact, GET /api/", 200, 200, 200, 200, 429, 429)
	f(model.RateLimit{DryRun: true, Limits: []model.TokenLimit{hourly(1)}}, "GET /, GET /, GET /", 200, 200, 200)
	f(model.RateLimit{Keys: 1, Limits: []model.TokenLimit{hourly(1, user)}}, // no room for two: ann begins anew
		"GET / ann, GET / ann, GET / bob, GET / ann", 200, 429, 200, 200)
}

// Of several limits the first that is over answers, and those before it get their token back.
func TestRateLimitSeveral(t *testing.T) {
	o := newOrigin(t, nil)
	p := start(t, snapshotOf(limiting(
		model.RateLimit{Name: "default/wide", Limits: []model.TokenLimit{hourly(3)}},
		model.RateLimit{Name: "default/try", DryRun: true, Limits: []model.TokenLimit{hourly(1)}},
		model.RateLimit{Name: "default/posts", Methods: []string{"POST"}, Limits: []model.TokenLimit{hourly(1)}},
	), o.address()), Limits{})
	c := dial(t, p, "outbound")
	for i, want := range []int{200, 429, 429, 429} {
		c.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 0\r\n\r\n")
		if a := c.read("POST"); a.status != want {
			t.Errorf("POST %d: got %d, want %d", i, a.status, want)
		}
	}
	for i, want := range []int{200, 200, 429} {
		c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		if a := c.read("GET"); a.status != want {
			t.Errorf("GET %d: got %d, want %d", i, a.status, want)
		}
	}
	for labels, want := range map[string]float64{
		"limit=default/wide decision=limited": 1, "limit=default/posts decision=limited": 3, "limit=default/posts decision=allowed": 1,
		"limit=default/try decision=limited": 0, "limit=default/try decision=would_limit": 5,
	} {
		if n := valueOf(t, p, "outrider_rate_limit_requests_total", strings.Fields(labels)...); n != want {
			t.Errorf("%s: %v, want %v", labels, n, want)
		}
	}
}

// Answers that pass tell of the tightest limit where that is asked for, and refusals say nothing where it is not.
func TestRateLimitHeaders(t *testing.T) {
	o := newOrigin(t, nil)
	p := start(t, snapshotOf(limiting(
		model.RateLimit{Name: "default/wide", Headers: "always", Limits: []model.TokenLimit{hourly(10)}},
		model.RateLimit{Name: "default/tight", Headers: "always", Limits: []model.TokenLimit{hourly(5), hourly(4)}},
		model.RateLimit{Name: "default/silent", Headers: "never", Limits: []model.TokenLimit{hourly(2)}},
	), o.address()), Limits{})
	c := dial(t, p, "outbound")
	for _, left := range []string{"3", "2"} {
		c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		if a := c.read("GET"); a.status != 200 || a.field("ratelimit-remaining") != left || a.field("x-ratelimit-limit") != "4" || a.field("retry-after") != "" {
			t.Errorf("got %+v", a)
		}
	}
	c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
	if a := c.read("GET"); a.status != 429 || a.field("ratelimit-limit") != "" || a.field("retry-after") != "" {
		t.Errorf("got %+v", a)
	}
}

// A workload tells its callers apart by who their sidecars say that they are.
func TestRateLimitIdentity(t *testing.T) {
	o := newOrigin(t, nil)
	s := inboundOf(o.address())
	s.RateLimits = []model.RateLimit{{Name: "default/callers", Keys: 10, GRPC: 14, Limits: []model.TokenLimit{hourly(1, model.RateKey{Identity: true})}}}
	s.Tables[0].Hosts[0].RateLimits = []string{"default/callers"}
	p := start(t, model.Seal(s), Limits{})
	c := dial(t, p, "inbound|8080")
	for i, step := range []struct {
		peer string
		want int
	}{{"default;ann", 200}, {"default;ann;other-account;app;v2", 429}, {"default;bob", 200}, {"other;ann", 200}, {"", 200}, {"", 429}} {
		field := ""
		if step.peer != "" {
			field = "X-Outrider-Peer: " + step.peer + "\r\n"
		}
		c.send("GET / HTTP/1.1\r\nHost: anything\r\n" + field + "\r\n")
		if a := c.read("GET"); a.status != step.want {
			t.Errorf("request %d of %q: got %d, want %d", i, step.peer, a.status, step.want)
		}
	}
}

// A reload keeps the tokens of limits that it leaves as they are, and the counts of all.
func TestRateLimitReload(t *testing.T) {
	o := newOrigin(t, nil)
	snapshot := func(first, second int) *model.Snapshot {
		return snapshotOf(limiting(
			model.RateLimit{Name: "default/first", Paths: []string{"/first"}, Limits: []model.TokenLimit{hourly(first, model.RateKey{SourceIP: true})}},
			model.RateLimit{Name: "default/second", Paths: []string{"/second"}, Limits: []model.TokenLimit{hourly(second)}},
		), o.address())
	}
	p := start(t, snapshot(1, 1), Limits{})
	c := dial(t, p, "outbound")
	ask := func(path string, want int) {
		t.Helper()
		c.send("GET " + path + " HTTP/1.1\r\nHost: app\r\n\r\n")
		if a := c.read("GET"); a.status != want {
			t.Errorf("%s: got %d, want %d", path, a.status, want)
		}
	}
	ask("/first", 200)
	ask("/second", 200)
	if err := p.Apply(snapshot(1, 2)); err != nil {
		t.Fatal(err)
	}
	ask("/first", 429)
	ask("/second", 200)
	ask("/second", 200)
	ask("/second", 429)
	if n := decided(t, p, "allowed"); n != 4 {
		t.Errorf("%v requests counted as allowed", n)
	}
	if err := p.Apply(snapshot(0, 2)); err == nil || !strings.Contains(err.Error(), `rate limit "default/first"`) {
		t.Errorf("got %v", err)
	}
	ask("/second", 429)
}

// Limits, with keys and told of, delays and unlikely mirrors cost no garbage.
func TestGatesAllocateNothing(t *testing.T) {
	o := newOrigin(t, fixed(300))
	many := model.TokenLimit{Requests: 1 << 30, Per: model.Duration(time.Second), Burst: 1 << 30}
	keyed := many
	keyed.By = []model.RateKey{{Header: "user-agent"}, {SourceIP: true}, {Identity: true}}
	limited := limiting(model.RateLimit{Headers: "always", Paths: []string{"/a*"}, Methods: []string{"GET"}, Limits: []model.TokenLimit{many, keyed}})
	p := start(t, snapshotOf(func(s *model.Snapshot, r *model.Rule) {
		limited(s, r)
		mirrorTo(s, r, "127.0.0.1:1", model.HTTP, 0.0001)
		r.Route.Fault = &model.Fault{DelayPercent: 100, Delay: 1}
	}, o.address()), Limits{})
	wantNoGarbage(t, p, "GET /a/b?c=d HTTP/1.1\r\nHost: app\r\nUser-Agent: test\r\n\r\n")
}
