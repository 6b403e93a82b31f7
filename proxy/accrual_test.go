package proxy

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/breaker"
)

// TestAccrualRate lets an endpoint rest that answers 429 too often, in the mode that counts it, and not in the other.
func TestAccrualRate(t *testing.T) {
	f := func(name string, rate *model.AccrualRate, want int64) {
		t.Run(name, func(t *testing.T) {
			var asked [2]atomic.Int64
			at := [2]string{}
			for i := range at {
				at[i] = goServer(t, func(w http.ResponseWriter, _ *http.Request) {
					asked[i].Add(1)
					if i == 0 {
						w.WriteHeader(http.StatusTooManyRequests)
					}
				})
			}
			p := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
				s.Clusters[0].Accrual = &model.Accrual{MaxFailures: 3, MinPenalty: model.Duration(time.Hour), MaxPenalty: model.Duration(time.Hour), Rate: rate}
			}, at[0], at[1]), Limits{})
			c := dial(t, p, "outbound")
			for range 40 {
				c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
				c.read("GET")
			}
			if n := asked[0].Load(); n != want {
				t.Errorf("the endpoint that is asked too much was asked %d times, want %d", n, want)
			}
		})
	}
	f("consecutive", nil, 20)
	f("unified", &model.AccrualRate{Threshold: 0.8, Window: model.Duration(time.Hour), MinRequests: 5}, 5)
}

// TestAccrualOfAnAnswerThatIsNotKept forgets an answer whose gRPC status was to come with its end where the answer is given up:
// the end is that of another endpoint, which counts for itself.
func TestAccrualOfAnAnswerThatIsNotKept(t *testing.T) {
	other := newOrigin(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\ngrpc-status: 2\r\n\r\n"))
	o := newOrigin(t, answers("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	guard := hystrix(func(b *model.Breaker) { b.Statuses, b.FallbackCluster = []string{"200"}, "other" })
	p := start(t, snapshotOf(func(s *model.Snapshot, r *model.Rule) {
		guard(s, r)
		s.Clusters[0].Accrual = &model.Accrual{MaxFailures: 1, MinPenalty: model.Duration(time.Hour), MaxPenalty: model.Duration(time.Hour)}
		s.Clusters = append(s.Clusters, model.Cluster{
			Name: "other", Kind: model.Listed, Port: 80, Protocol: model.HTTP, Service: model.Service{Host: "other"},
			Endpoints: []model.Endpoint{{Address: other.address(), Weight: 1}},
		})
	}, o.address()), Limits{})
	c := dial(t, p, "outbound")
	c.send("POST / HTTP/1.1\r\nHost: app\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n")
	if a := c.read("POST"); a.status != 200 || a.field("x-outrider-reason") != "fallback" {
		t.Errorf("%d %s, want the fallback's 200", a.status, a.field("x-outrider-reason"))
	}
	eventually(t, "the exchange is over", func() bool {
		var s breaker.Snapshot
		p.upstream.Breakers()["default/app"].Snapshot(&s, now())
		return s.Total[breaker.FallbackSuccess] == 1 && s.Active == 0
	})
	for _, cluster := range p.upstream.Current() {
		for i := range cluster.Members {
			if m := &cluster.Members[i]; m.Accrual != nil && m.Accrual.Down() {
				t.Errorf("%s rests for what the fallback answered", m.Address())
			}
		}
	}
}

// An endpoint that failure accrual leaves out is seen as such, with when its rest is over.
func TestAccrualIsSeen(t *testing.T) {
	at := goServer(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	p := start(t, snapshotOf(func(s *model.Snapshot, _ *model.Rule) {
		s.Clusters[0].Accrual = &model.Accrual{MaxFailures: 1, MinPenalty: model.Duration(time.Hour), MaxPenalty: model.Duration(time.Hour)}
	}, at), Limits{})
	if n := valueOf(t, p, "outrider_endpoints", "state=ejected"); n != 0 {
		t.Errorf("%v endpoints rest before any request", n)
	}
	began := time.Now()
	c := dial(t, p, "outbound")
	c.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n")
	c.read("GET")
	eventually(t, "the metrics say that it rests", func() bool {
		return valueOf(t, p, "outrider_endpoint_ejected", "reason=failure_accrual") == 1 && valueOf(t, p, "outrider_endpoints", "state=ejected") == 1
	})
	for _, cluster := range p.Clusters() {
		for _, e := range cluster.Endpoints {
			if e.Address != at {
				continue
			}
			if left := e.Until.Sub(began); !e.Ejected || e.Reason != "failure_accrual" || left < 50*time.Minute || left > 2*time.Hour {
				t.Errorf("it is shown as %+v", e)
			}
		}
	}
}
