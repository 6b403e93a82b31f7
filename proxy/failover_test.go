package proxy

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// TestFailover sends requests to the endpoint nearby until it fails, then to the one of the next priority, and back.
func TestFailover(t *testing.T) {
	t.Parallel()
	var ill atomic.Bool
	var asked [2]atomic.Int64
	at := [2]string{}
	for i := range at {
		at[i] = goServer(t, func(w http.ResponseWriter, _ *http.Request) {
			asked[i].Add(1)
			if i == 0 && ill.Load() {
				w.WriteHeader(503)
			}
		})
	}
	p := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		s.Clusters[0].Endpoints[1].Priority = 1
		s.Clusters[0].Outlier = &model.Outlier{
			Consecutive5xx: 2, Interval: model.Duration(50 * time.Millisecond), BaseEjection: model.Duration(3 * time.Second), MaxEjectionPercent: 100,
		}
	}, at[0], at[1]), Limits{})
	c := dial(t, p, "outbound")
	get := func() int {
		c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		return c.read("GET").status
	}
	for range 10 {
		get()
	}
	if near, far := asked[0].Load(), asked[1].Load(); near != 10 || far != 0 {
		t.Errorf("%d requests went nearby and %d further, want all nearby", near, far)
	}
	ill.Store(true)
	get()
	get()
	if s := get(); s != 200 || asked[1].Load() != 1 {
		t.Errorf("after two failures nearby: status %d, and %d requests went further", s, asked[1].Load())
	}
	ill.Store(false)
	near := asked[0].Load()
	eventually(t, "requests go nearby again", func() bool {
		if s := get(); s != 200 {
			t.Fatalf("an answer of %d", s)
		}
		return asked[0].Load() > near
	})
}
