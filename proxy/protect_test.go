package proxy

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/breaker"
)

// hystrix is a breaker with short windows.
func hystrix(edit func(b *model.Breaker)) func(s *model.Snapshot, r *model.Rule) {
	b := model.Breaker{
		Name: "default/app", Group: service, Enabled: true, RequestVolumeThreshold: 4, ErrorThresholdPercentage: 50,
		SleepWindow: model.Duration(100 * time.Millisecond), RollingWindow: model.Duration(10 * time.Second), RollingBuckets: 10,
		HealthInterval: model.Duration(20 * time.Millisecond), PercentileEnabled: true, PercentileWindow: model.Duration(time.Minute),
		PercentileBuckets: 6, PercentileBucketSize: 100, MaxConcurrent: 10, TimeoutEnabled: true, Timeout: model.Duration(5 * time.Second),
		FallbackEnabled: true, FallbackMaxConcurrent: 10,
	}
	if edit != nil {
		edit(&b)
	}
	return func(s *model.Snapshot, _ *model.Rule) {
		s.Breakers = []model.Breaker{b}
		s.Clusters[0].Breakers = []string{b.Name}
	}
}

func state(p *Proxy) breaker.State {
	var s breaker.Snapshot
	p.upstream.Breakers()["default/app"].Snapshot(&s, now())
	return s.State
}

// TestBreaker tells a breaker's story: it opens, refuses, probes once, and closes.
func TestBreaker(t *testing.T) {
	var ill atomic.Bool
	var seen atomic.Int64
	versions(t, hystrix(nil), func(w http.ResponseWriter, r *http.Request) {
		seen.Add(1)
		if ill.Load() {
			w.WriteHeader(500)
		}
	}, func(t *testing.T, c *http.Client, p *Proxy, _, _ int) {
		get := func() (int, string) {
			res, _ := fetch(t, c, request("GET", "http://app/", nil))
			return res.StatusCode, res.Header.Get("x-outrider-reason")
		}
		ill.Store(true)
		eventually(t, "the breaker opens", func() bool {
			_, reason := get()
			return reason == "breaker_open"
		})
		eventually(t, "a refusal", func() bool { // it may be time for a probe, which fails
			before := seen.Load()
			status, reason := get()
			if refused := reason == "breaker_open"; refused != (seen.Load() == before) || refused && status != 503 {
				t.Fatalf("%d %s, and the endpoint was asked %d times", status, reason, seen.Load()-before)
			}
			return reason == "breaker_open"
		})
		eventually(t, "a probe", func() bool {
			status, _ := get()
			return status == 500
		})
		ill.Store(false)
		eventually(t, "a probe that closes the breaker", func() bool {
			status, _ := get()
			return status == 200
		})
		eventually(t, "a closed breaker", func() bool { return state(p) == breaker.Closed }) // after the probe's answer
	})
}

// TestFallback answers with what is configured where the endpoint fails, times out, or is not asked.
func TestFallback(t *testing.T) {
	t.Parallel()
	reply := &model.Reply{Status: 200, Body: "[]", Headers: []model.NameValue{{Name: "content-type", Value: "application/json"}}}
	versionsAtOnce(t, hystrix(func(b *model.Breaker) {
		b.FallbackReply, b.Timeout = reply, model.Duration(2*time.Second)
	}), func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		if r.URL.Path == "/slow" {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(400 + len(r.URL.Path)) // "/" is 401, and a path of 100 bytes is 500
	}, func(t *testing.T, c *http.Client, p *Proxy, _, _ int) {
		for _, path := range []string{"/slow", "/" + strings.Repeat("x", 99)} {
			res, body := fetch(t, c, request("POST", "http://app"+path, strings.NewReader("body")))
			if res.StatusCode != 200 || body != "[]" || res.Header.Get("x-outrider-reason") != "fallback" || res.Header.Get("content-type") != "application/json" {
				t.Errorf("%.5s: %d %q %s", path, res.StatusCode, body, res.Header.Get("x-outrider-reason"))
			}
		}
		if res, _ := fetch(t, c, request("GET", "http://app/", nil)); res.StatusCode != 401 {
			t.Errorf("a client's own error became %d", res.StatusCode)
		}
		var s breaker.Snapshot
		eventually(t, "the events are counted", func() bool {
			p.upstream.Breakers()["default/app"].Snapshot(&s, now())
			return s.Total[breaker.FallbackSuccess] == 2 && s.Total[breaker.Timeout] == 1 && s.Total[breaker.Failure] == 1 && s.Total[breaker.BadRequest] == 1 && s.Active == 0
		})
	})
}

// TestBreakerTimeout ends an execution that takes too long, all its attempts together.
func TestBreakerTimeout(t *testing.T) {
	t.Parallel()
	edit := hystrix(func(b *model.Breaker) { b.Timeout = model.Duration(1500 * time.Millisecond) })
	versionsAtOnce(t, edit, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/lasts" { // its head is in time
			w.WriteHeader(200)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(2 * time.Second)
			_, _ = io.WriteString(w, "done")
			return
		}
		<-r.Context().Done()
	}, func(t *testing.T, c *http.Client, _ *Proxy, _, _ int) {
		res, _ := fetch(t, c, request("GET", "http://app/", nil))
		if res.StatusCode != 504 || res.Header.Get("x-outrider-reason") != "breaker_timeout" {
			t.Errorf("%d %s, want 504 breaker_timeout", res.StatusCode, res.Header.Get("x-outrider-reason"))
		}
		if res, body := fetch(t, c, request("GET", "http://app/lasts", nil)); res.StatusCode != 200 || body != "done" {
			t.Errorf("%d %q", res.StatusCode, body)
		}
	})
}

// TestBulkhead admits so many executions at a time, and gives their permits back, also those of clients that leave.
func TestBulkhead(t *testing.T) {
	release := make(chan struct{})
	var in atomic.Int64
	versions(t, hystrix(func(b *model.Breaker) { b.MaxConcurrent, b.RequestVolumeThreshold = 2, 1000 }), func(_ http.ResponseWriter, r *http.Request) {
		in.Add(1)
		defer in.Add(-1)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}, func(t *testing.T, c *http.Client, p *Proxy, _, _ int) {
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() { fetch(t, c, request("GET", "http://app/", nil)) })
		}
		eventually(t, "two are in", func() bool { return in.Load() == 2 })
		res, _ := fetch(t, c, request("GET", "http://app/", nil))
		if res.StatusCode != 503 || res.Header.Get("x-outrider-reason") != "bulkhead_full" {
			t.Errorf("%d %s, want 503 bulkhead_full", res.StatusCode, res.Header.Get("x-outrider-reason"))
		}
		release <- struct{}{}
		release <- struct{}{}
		wg.Wait()
		eventually(t, "all permits are back", func() bool {
			var s breaker.Snapshot
			p.upstream.Breakers()["default/app"].Snapshot(&s, now())
			return s.Active == 0
		})
	})
}

// TestFallbackBackend asks another service.
func TestFallbackBackend(t *testing.T) {
	other := goServer(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(append([]byte("other got "), b...))
	})
	edit := hystrix(func(b *model.Breaker) { b.FallbackCluster = "other" })
	versions(t, func(s *model.Snapshot, r *model.Rule) {
		edit(s, r)
		s.Clusters = append(s.Clusters, model.Cluster{
			Name: "other", Kind: model.Listed, Port: 80, Protocol: model.HTTP, Service: model.Service{Host: "other"},
			Endpoints: []model.Endpoint{{Address: other, Weight: 1}},
		})
	}, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		w.WriteHeader(500)
	}, func(t *testing.T, c *http.Client, _ *Proxy, _, _ int) {
		res, body := fetch(t, c, request("POST", "http://app/", strings.NewReader("a body")))
		if res.StatusCode != 200 || body != "other got a body" || res.Header.Get("x-outrider-reason") != "fallback" {
			t.Errorf("%d %q %s", res.StatusCode, body, res.Header.Get("x-outrider-reason"))
		}
	})
}

// TestBreakerIsKept keeps an open breaker open across a change of something else, and applies a change of its own at once.
func TestBreakerIsKept(t *testing.T) {
	o := newOrigin(t, answers(strings.Split(strings.Repeat("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n|", 100), "|")...))
	edit := hystrix(func(b *model.Breaker) { b.SleepWindow = model.Duration(time.Hour) })
	p := start(t, snapshotOf(edit, o.address()), Limits{})
	c := dial(t, p, "outbound")
	get := func() answer {
		c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		return c.read("GET")
	}
	eventually(t, "the breaker opens", func() bool { return get().field("x-outrider-reason") == "breaker_open" })
	if err := p.Apply(snapshotOf(func(s *model.Snapshot, r *model.Rule) {
		edit(s, r)
		r.Response.Set = []model.NameValue{{Name: "x-new", Value: "1"}}
	}, o.address())); err != nil {
		t.Fatal(err)
	}
	if a := get(); a.field("x-outrider-reason") != "breaker_open" {
		t.Errorf("after a change of the route: %d %s", a.status, a.field("x-outrider-reason"))
	}
	if err := p.Apply(snapshotOf(hystrix(func(b *model.Breaker) { b.ForceClosed = true }), o.address())); err != nil {
		t.Fatal(err)
	}
	if a := get(); a.status != 500 || state(p) != breaker.ForcedClosed {
		t.Errorf("after forceClosed: %d, %v", a.status, state(p))
	}
}
