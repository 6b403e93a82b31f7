package e2e

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func port(address string) string {
	_, p, _ := net.SplitHostPort(address)
	return p
}

// split is a VirtualService that shares between v1 and v2.
func split(v1, v2 int) string {
	return fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - route:
    - {destination: {host: web, subset: v1}, weight: %d}
    - {destination: {host: web, subset: v2}, weight: %d}
`, v1, v2)
}

// scaled is a service web with subsets and as many instances of each version.
func scaled(n int) string {
	return service("web", "app: web") + workload("web", "v1", n) + workload("web", "v2", n) + `---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
`
}

// TestReloadUnderLoad changes weights, and now and then the number of instances, while requests run: none may fail.
func TestReloadUnderLoad(t *testing.T) {
	t.Parallel()
	reloads, requests := 12, int64(6000)
	if long {
		reloads, requests = 50, 100_000
	}
	l := newLoad(t)
	m := up(t, scaled(2))
	m.edit("split.yaml", split(50, 50))
	var sent, failed atomic.Int64
	var why sync.Map
	for range 16 {
		l.Go(func() {
			for {
				select {
				case <-l.over:
					return
				default:
				}
				a, err := m.try("GET", "http://web/")
				sent.Add(1)
				switch {
				case err != nil:
					failed.Add(1)
					why.Store(err.Error(), true)
				case a.Status != 200:
					failed.Add(1)
					why.Store(fmt.Sprintf("status %d, %s: %s", a.Status, a.Header.Get("x-outrider-reason"), a.Text), true)
				}
			}
		})
	}
	for i := range reloads {
		target := requests * int64(i+1) / int64(reloads)
		m.await("the load goes on", func() bool { return sent.Load() >= target })
		if i%5 == 4 {
			m.edit("mesh.yaml", scaled(2+(i/5+1)%2))
		} else {
			m.edit("split.yaml", split(10+i, 90-i))
		}
	}
	l.end()
	t.Logf("%d requests, %d reloads, %d failed", sent.Load(), reloads, failed.Load())
	if failed.Load() > 0 {
		why.Range(func(k, _ any) bool { t.Error(k); return true })
		t.Errorf("%d of %d requests failed over %d reloads", failed.Load(), sent.Load(), reloads)
	}
	if sent.Load() < requests {
		t.Errorf("only %d requests were sent, want %d", sent.Load(), requests)
	}
}

// TestBrokenEdit breaks a file in several ways: what was good serves on, and the message names the place.
func TestBrokenEdit(t *testing.T) {
	t.Parallel()
	m := up(t, versions(2))
	m.edit("split.yaml", split(100, 0))
	f := func(text, place string) {
		t.Helper()
		m.write("split.yaml", text)
		m.await("the mesh says "+place, func() bool { return strings.Contains(m.talk.String(), place) })
		if counts := m.count(50, 2, "http://web/", byVersion); counts["v1"] != 50 {
			t.Errorf("%s: requests went to %v, want all to v1", place, counts)
		}
	}
	f(split(0, 100)+"    bogus: [\n", "split.yaml:1") // no YAML any more
	f(strings.Replace(split(0, 100), "weight: 100", "weight: lots", 1), "split.yaml:10:")
	f(strings.Replace(split(0, 100), "hosts:", "hosst:", 1), "split.yaml:6:")
	m.edit("split.yaml", split(0, 100))
	m.await("the good edit takes effect", func() bool { return m.get("http://web/").Version == "v2" })
	if counts := m.count(50, 2, "http://web/", byVersion); counts["v2"] != 50 {
		t.Errorf("after the repair requests went to %v, want all to v2", counts)
	}
}
