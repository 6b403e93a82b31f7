package proxy

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/outlier"
)

// TestOutlier ejects the endpoint that fails and lets it return.
func TestOutlier(t *testing.T) {
	t.Parallel()
	var ill atomic.Bool
	ill.Store(true)
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
	const base = 3 * time.Second
	p := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		s.Clusters[0].Outlier = &model.Outlier{
			Consecutive5xx: 3, Interval: model.Duration(50 * time.Millisecond), BaseEjection: model.Duration(base), MaxEjectionPercent: 50,
		}
	}, at[0], at[1]), Limits{})
	c := dial(t, p, "outbound")
	get := func() int {
		c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		return c.read("GET").status
	}
	for range 8 {
		get()
	}
	if n := asked[0].Load(); n != 3 {
		t.Errorf("the ill endpoint was asked %d times, want 3", n)
	}
	ejected := 0
	p.upstream.Current()["outbound|80||"+service].Health.Ejected(func(string, outlier.Reason) { ejected++ })
	if ejected != 1 {
		t.Errorf("%d endpoints are ejected", ejected)
	}
	ill.Store(false)
	if n := valueOf(t, p, "outrider_endpoint_ejected", "reason=consecutive_5xx"); n != 1 {
		t.Errorf("outrider_endpoint_ejected is %v", n)
	}
	eventually(t, "it returns", func() bool {
		if s := get(); s != 200 {
			t.Fatalf("an answer of %d", s)
		}
		return asked[0].Load() > 3
	})
}

// TestAccrual lets an endpoint rest after failures in a row, probes it with one request at a time, and takes it back.
func TestAccrual(t *testing.T) {
	t.Parallel()
	var ill atomic.Bool
	ill.Store(true)
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
		s.Clusters[0].Accrual = &model.Accrual{MaxFailures: 3, MinPenalty: model.Duration(2 * time.Second), MaxPenalty: model.Duration(3 * time.Second)}
	}, at[0], at[1]), Limits{})
	c := dial(t, p, "outbound")
	get := func() int {
		c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
		return c.read("GET").status
	}
	for range 8 {
		get()
	}
	if n := asked[0].Load(); n < 3 || n > 4 { // the first probe may have been due
		t.Errorf("the ill endpoint was asked %d times, want 3", n)
	}
	bad := 0
	eventually(t, "two probes", func() bool {
		if get() == 503 {
			bad++
		}
		return bad >= 2
	})
	ill.Store(false)
	before := asked[0].Load()
	eventually(t, "it is back", func() bool {
		if s := get(); s != 200 {
			t.Fatalf("an answer of %d", s)
		}
		return asked[0].Load() > before+5
	})
}
