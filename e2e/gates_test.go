package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// A RateLimit holds for each caller by itself, says when to come again, survives changes of others, and goes with its object.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	const limit = `
apiVersion: outrider.dev/v1alpha1
kind: RateLimit
metadata: {name: callers}
spec:
  selector: {matchLabels: {app: web}}
  route: {paths: [/limited*]}
  limits: [{requests: 5, per: 1h, by: [clientIdentity, header: x-user]}]
`
	m := up(t, versions(1))
	m.write("limit.yaml", limit)
	ask := func(path string, headers ...string) *answer {
		t.Helper()
		return m.get("http://web"+path, headers...)
	}
	m.await("the limit", func() bool { return ask("/limited", "X-User", "probe").Status == 429 })
	for i := range 7 {
		a := ask("/limited/a", "X-User", "ann")
		switch {
		case i < 5 && a.Status != 200:
			t.Errorf("request %d: got %d", i, a.Status)
		case i >= 5 && (a.Status != 429 || a.Header.Get("X-Outrider-Reason") != "rate_limited" || a.Header.Get("Retry-After") == "" || a.Header.Get("Ratelimit-Limit") != "5"):
			t.Errorf("request %d: got %d %v", i, a.Status, a.Header)
		}
	}
	if a := ask("/limited/a", "X-User", "bob"); a.Status != 200 {
		t.Errorf("another user got %d", a.Status)
	}
	if a := ask("/free", "X-User", "ann"); a.Status != 200 {
		t.Errorf("another path got %d", a.Status)
	}
	m.write("other.yaml", service("other", "app: web"))
	m.await("the change", func() bool { a, err := m.try("GET", "http://other/"); return err == nil && a.Status == 200 })
	if a := ask("/limited/a", "X-User", "ann"); a.Status != 429 {
		t.Errorf("after another change: got %d", a.Status)
	}
	m.write("limit.yaml", strings.Replace(limit, "requests: 5", "requests: 6", 1))
	m.await("a fresh limit", func() bool { return ask("/limited/a", "X-User", "ann").Status == 200 })
}

// Faults of a VirtualService delay and abort shares of the requests, and a mirror gets its share of them.
func TestFaultAndMirror(t *testing.T) {
	t.Parallel()
	m := up(t, versions(2)+`---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - match: [{uri: {prefix: /slow}}]
    fault: {delay: {fixedDelay: 0.3s, percentage: {value: 100}}}
    timeout: 0.2s
    route: [{destination: {host: web, subset: v1}}]
  - match: [{uri: {prefix: /broken}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 25}}}
    route: [{destination: {host: web, subset: v1}}]
  - route: [{destination: {host: web, subset: v1}}]
    mirrors: [{destination: {host: web, subset: v2}, percentage: {value: 40}}]
`, prometheus)
	begin := time.Now()
	if a := m.get("http://web/slow"); a.Status != 200 || time.Since(begin) < 300*time.Millisecond {
		t.Errorf("got %d after %v", a.Status, time.Since(begin))
	}
	const n = 1500
	broken, mirrored := m.tally(n, "http://web/broken"), m.tally(n, "http://web/")
	shared(t, broken, map[string]float64{"418": 25, "200": 75})
	if mirrored["200"] != n {
		t.Errorf("got %v", mirrored)
	}
	m.counted(n+1, `sum(istio_requests_total{reporter="source", destination_version="v1", response_code="200"}) - `+fmt.Sprint(broken["200"]))
	m.counted(0, `sum(istio_requests_total{reporter="source", destination_version="v2"}) or vector(0)`)
	sent := 0
	m.await("the copies are counted", func() bool { // on a busy machine a scrape may miss its time: then there are no series for a moment
		sent = int(m.value(`sum(outrider_mirrored_requests_total)`))
		return sent > 0
	})
	shared(t, map[string]int{"sent": sent, "not": n - sent}, map[string]float64{"sent": 40, "not": 60})
	m.counted(float64(sent), `sum(istio_requests_total{reporter="destination", destination_version="v2"})`)
	m.counted(float64(broken["418"]), `sum(outrider_faults_injected_total{kind="abort", name="web"})`)
}

// tally counts the answers to n requests, a few at a time, by status.
func (m *mesh) tally(n int, target string) map[string]int {
	m.t.Helper()
	var mu sync.Mutex
	counts := map[string]int{}
	const workers = 5
	m.crowd(m.t, workers, func(int) error {
		for range n / workers {
			a, err := m.try("GET", target)
			if err != nil {
				return err
			}
			mu.Lock()
			counts[fmt.Sprint(a.Status)]++
			mu.Unlock()
		}
		return nil
	})
	return counts
}
