package telemetry

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// failed returns what outrider_request_failures_total says, by its labels.
func failed(t *testing.T, m *Metrics) map[string]float64 {
	t.Helper()
	got := map[string]float64{}
	for _, s := range gather(t, m, "outrider_request_failures_total").GetMetric() {
		l := labelsOf(s)
		got[fmt.Sprintf("%s %s %s %s", l["reporter"], l["destination_service"], l["reason"], l["response_flags"])] = s.Counter.GetValue()
	}
	return got
}

func TestFailures(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	m := New(productpage, Options{Clock: c.read, Retain: time.Minute})
	want := func(want map[string]float64) {
		t.Helper()
		if got := failed(t, m); !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	// Edges to one service share what they count: peers that come from headers add no series.
	v1 := m.HTTP(Edge{Reporter: Source, Peer: model.Peer{Name: "reviews-v1"}, Service: reviewsService})
	v2 := m.HTTP(Edge{Reporter: Source, Peer: model.Peer{Name: "reviews-v2"}, Service: reviewsService})
	tcp := m.TCP(Edge{Reporter: Source, Peer: model.Peer{Name: "reviews-v2"}, Service: reviewsService})
	in := m.HTTP(Edge{Reporter: Destination, Service: model.Service{Host: "productpage.default.svc.cluster.local"}})
	want(map[string]float64{})
	v1.Failed("upstream_connect", UF)
	v2.Failed("upstream_connect", UF)
	v2.Failed("upstream_connect", UF|URX)
	tcp.Failed("no_healthy_endpoint", UH)
	in.Failed("client_gone", DC)
	all := map[string]float64{
		"source reviews.prod.svc.cluster.local upstream_connect UF":        2,
		"source reviews.prod.svc.cluster.local upstream_connect URX,UF":    1,
		"source reviews.prod.svc.cluster.local no_healthy_endpoint UH":     1,
		"destination productpage.default.svc.cluster.local client_gone DC": 1,
	}
	want(all)

	// The count goes on as long as any edge of the service does, and then is gone.
	m.Release(v1)
	c.move(time.Hour)
	want(all)
	m.Release(v2)
	m.ReleaseTCP(tcp)
	m.Release(in)
	c.move(time.Hour)
	want(map[string]float64{})
	back := m.HTTP(Edge{Reporter: Source, Service: reviewsService})
	back.Failed("route_timeout", UT)
	want(map[string]float64{"source reviews.prod.svc.cluster.local route_timeout UT": 1})
}

func TestFailuresAreBounded(t *testing.T) {
	m := New(productpage, Options{})
	h := m.HTTP(Edge{Reporter: Source, Service: reviewsService})
	for i := range Flags(10 * maxFailures) {
		h.Failed("upstream_reset", i)
	}
	total := 0.0
	got := failed(t, m)
	for _, n := range got {
		total += n
	}
	if len(got) > maxFailures+1 || total != 10*maxFailures {
		t.Errorf("%d series with %v failures", len(got), total)
	}
}
