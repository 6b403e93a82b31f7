package prom

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/meshtest/leaks"
)

func TestMain(m *testing.M) { leaks.Main(m) }

var silent = slog.New(slog.NewTextHandler(io.Discard, nil))

const interval = 50 * time.Millisecond

func open(t *testing.T, dir string) *Prometheus {
	t.Helper()
	p, err := Open(Options{Dir: dir, Interval: interval, Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// app is something to scrape.
type app struct {
	*httptest.Server
	requests atomic.Int64
}

func serve(t *testing.T) *app {
	t.Helper()
	a := &app{}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/stats/prometheus" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		fmt.Fprintf(w, "# HELP shop_requests_total Requests.\n# TYPE shop_requests_total counter\nshop_requests_total{code=\"200\"} %d\n", a.requests.Load())
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *app) target(job string) Target {
	return Target{Job: job, Address: a.Listener.Addr().String(), Path: "/stats/prometheus", Labels: map[string]string{"instance": job + "-0"}}
}

func scraped(t *testing.T, p *Prometheus) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := p.Sync(ctx); err != nil {
		t.Fatal(err)
	}
}

// one returns the value of a query that gives one sample.
func one(t *testing.T, p *Prometheus, query string) float64 {
	t.Helper()
	samples, err := p.Query(t.Context(), query, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if len(samples) != 1 {
		t.Fatalf("%s gives %v", query, samples)
	}
	return samples[0].Value
}

func TestSyncSeesExactCounters(t *testing.T) {
	p, a, b := open(t, ""), serve(t), serve(t)
	p.SetTargets([]Target{a.target("a"), b.target("b")})
	for range 10 {
		a.requests.Add(3)
		b.requests.Add(2)
		scraped(t, p)
		if got, want := one(t, p, `sum(shop_requests_total)`), a.requests.Load()+b.requests.Load(); got != float64(want) {
			t.Fatalf("sum is %v, not %d", got, want)
		}
	}
	samples, err := p.Query(t.Context(), `shop_requests_total{job="a"}`, time.Time{})
	if err != nil || len(samples) != 1 || time.Since(samples[0].Time) > time.Minute {
		t.Fatal(samples, err)
	}
	if got := fmt.Sprint(samples[0].Labels); got != "map[__name__:shop_requests_total code:200 instance:a-0 job:a]" {
		t.Error(got)
	}
}

func TestTargetsComeAndGo(t *testing.T) {
	p, a, b := open(t, ""), serve(t), serve(t)
	p.SetTargets([]Target{a.target("a")})
	scraped(t, p)
	// Sets that follow one another quickly end at the last.
	for range 5 {
		p.SetTargets(nil)
		p.SetTargets([]Target{a.target("a"), b.target("b")})
		p.SetTargets([]Target{b.target("b")})
	}
	b.requests.Store(7)
	scraped(t, p)
	if got := one(t, p, `shop_requests_total{job="b"}`); got != 7 {
		t.Errorf("the new target's counter is %v", got)
	}
	for { // a's series are marked stale soon
		samples, err := p.Query(t.Context(), `shop_requests_total{job="a"}`, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if len(samples) == 0 {
			break
		}
		scraped(t, p)
	}
	if got := one(t, p, `count_over_time(shop_requests_total{job="a"}[1m]) > bool 0`); got != 1 {
		t.Error("the history of the old target is gone")
	}
	p.SetTargets(nil)
	scraped(t, p)
}

func TestTargetsThatFail(t *testing.T) {
	hanging := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hanging:
		case <-r.Context().Done():
		}
	}))
	defer slow.Close()
	defer close(hanging)
	dead := httptest.NewServer(nil)
	dead.Close()
	a := serve(t)
	p := open(t, "")
	missing := a.target("missing")
	missing.Path = "/nowhere"
	p.SetTargets([]Target{
		a.target("fine"), missing,
		{Job: "slow", Address: slow.Listener.Addr().String()},
		{Job: "dead", Address: dead.Listener.Addr().String()},
		{Job: "wrong", Address: a.Listener.Addr().String(), Labels: map[string]string{"": "no name"}},
		{Job: "nowhere", Address: "no port"},
	})
	scraped(t, p)
	samples, err := p.Query(t.Context(), "up", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, s := range samples {
		got[s.Labels["job"]] = s.Value
	}
	if want := "map[dead:0 fine:1 missing:0 slow:0]"; fmt.Sprint(got) != want {
		t.Errorf("up is %v, not %s", got, want)
	}
}

func TestSyncEndsWithItsContext(t *testing.T) {
	p, err := Open(Options{Interval: time.Hour, Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	a := serve(t)
	p.SetTargets([]Target{a.target("a")})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_ = p.awaitTargets(context.Background()) // the scraper knows the target, but will not scrape it for long
		cancel()
	}()
	err = p.Sync(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Sync ends with %v", err)
	}
}

func TestRestartKeepsSamples(t *testing.T) {
	dir, a := t.TempDir(), serve(t)
	first := open(t, dir)
	first.SetTargets([]Target{a.target("a")})
	a.requests.Store(5)
	scraped(t, first)
	if _, err := Open(Options{Dir: dir, Log: silent}); err == nil {
		t.Error("two processes may use one directory")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second := open(t, dir)
	if got := one(t, second, "shop_requests_total"); got != 5 {
		t.Errorf("after the restart the counter is %v", got)
	}
	second.SetTargets([]Target{a.target("a")})
	a.requests.Store(9)
	scraped(t, second)
	if got := one(t, second, "shop_requests_total"); got != 9 {
		t.Errorf("the restarted store shows %v", got)
	}
	if got := one(t, second, `min_over_time(shop_requests_total[5m])`); got != 5 {
		t.Errorf("the least of both runs is %v", got)
	}
}

func TestClose(t *testing.T) {
	p, err := Open(Options{Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	a := serve(t)
	for i := range 20 { // targets that are on their way are not scraped after Close
		p.SetTargets([]Target{a.target(fmt.Sprint(i))})
	}
	if _, err := os.Stat(p.temporary); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(p.temporary); !os.IsNotExist(err) {
		t.Errorf("the temporary directory is still there: %v", err)
	}
	if _, err := p.Query(t.Context(), "up", time.Time{}); err == nil {
		t.Error("a closed Prometheus answers")
	}
	w := httptest.NewRecorder()
	p.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/api/v1/query?query=up", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("a closed Prometheus answers %d", w.Code)
	}
}

func TestOpenErrors(t *testing.T) {
	if _, err := Open(Options{Interval: time.Millisecond, Log: silent}); err == nil {
		t.Error("an interval of 1ms is accepted")
	}
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Dir: file, Log: silent}); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file as the directory gives %v", err)
	}
}

func TestQueryErrors(t *testing.T) {
	p := open(t, "")
	f := func(query, want string) {
		t.Helper()
		if _, err := p.Query(t.Context(), query, time.Time{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives %v", query, err)
		}
	}
	f("up[", "parse error")
	f("up[5m]", "matrix")
	f(`"text"`, "string")
	if got := one(t, p, "6 * 7"); got != 42 {
		t.Errorf("6 * 7 is %v", got)
	}
}

func TestSD(t *testing.T) {
	w := httptest.NewRecorder()
	SD([]Target{
		{Job: "outrider", Address: "127.1.0.1:15020", Path: "/stats/prometheus", Labels: map[string]string{"instance": "web-0"}},
		{Address: "127.1.0.2:9090"},
	}).ServeHTTP(w, httptest.NewRequest("GET", "/sd/prometheus", nil))
	const want = `[{"targets":["127.1.0.1:15020"],"labels":{"__metrics_path__":"/stats/prometheus","instance":"web-0","job":"outrider"}},{"targets":["127.1.0.2:9090"],"labels":{}}]`
	if w.Body.String() != want || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%s", w.Body)
	}
}
