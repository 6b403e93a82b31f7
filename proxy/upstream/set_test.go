package upstream

import (
	"log/slog"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/balance"
)

// reloads runs configurations of one set in virtual time.
type reloads struct {
	t   *testing.T
	set *Set
	now int64
}

func newReloads(t *testing.T) *reloads {
	s := &reloads{t: t, now: int64(time.Hour)}
	s.set = NewSet(telemetry.New(model.Peer{}, telemetry.Options{}), slog.New(slog.DiscardHandler), nil, func() int64 { return s.now })
	t.Cleanup(s.set.Close)
	return s
}

func (s *reloads) prepare(specs ...model.Cluster) *Change {
	s.t.Helper()
	ch, err := s.set.Prepare(specs, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return ch
}

func spec(name string, lb model.LoadBalancer, endpoints ...model.Endpoint) model.Cluster {
	return model.Cluster{Name: name, Kind: model.Listed, Protocol: model.HTTP, LoadBalancer: lb, Endpoints: endpoints}
}

func at(address string) model.Endpoint { return model.Endpoint{Address: address, Weight: 1} }

// picks counts picks by address.
func picks(c *Cluster, n int) map[string]int {
	counts, r := map[string]int{}, balance.NewRand(1)
	for range n {
		if i := c.Balancer.Pick(balance.Key{}, &r); i >= 0 {
			counts[c.Members[i].Address()]++
		}
	}
	return counts
}

// TestSlowStartSurvivesReloads adds an endpoint, and reloads all the time while it warms up.
func TestSlowStartSurvivesReloads(t *testing.T) {
	s := newReloads(t)
	lb := model.LoadBalancer{Policy: model.RoundRobin, Warmup: &model.Warmup{Duration: model.Duration(time.Minute), MinimumPercent: 10, Aggression: 1}}
	few, all := spec("web", lb, at("a:1"), at("b:1")), spec("web", lb, at("a:1"), at("b:1"), at("c:1"))
	s.prepare(few).Commit()
	if n := picks(s.set.Current()["web"], 1000); n["a:1"] != 500 {
		t.Errorf("all began together: %v", n)
	}
	s.now += int64(time.Hour)
	s.prepare(all).Commit()
	f := func(percent int) {
		t.Helper()
		n := picks(s.set.Current()["web"], 200+percent*10)
		want := (200 + percent*10) * percent / (200 + percent)
		if n["c:1"] < want-3 || n["c:1"] > want+3 {
			t.Errorf("%d %% warm: %v, want %d for c", percent, n, want)
		}
	}
	f(10)
	for n := 1; n <= 60; n++ {
		s.now += int64(time.Second)
		s.set.Sweep(s.now)
		if n%2 == 0 {
			s.prepare(all, spec("other", model.LoadBalancer{}, at("d:1"))).Commit()
		} else {
			s.prepare(all).Commit()
		}
		if n%15 == 0 {
			f(n * 100 / 60)
		}
	}
	// An endpoint that goes and comes back is new.
	s.prepare(few).Commit()
	s.prepare(all).Commit()
	f(10)
}

// TestHealthSurvivesReloads says that what is known of an endpoint is kept, even where its weight changes.
func TestHealthSurvivesReloads(t *testing.T) {
	s := newReloads(t)
	s.prepare(spec("web", model.LoadBalancer{}, at("a:1"), at("b:1"))).Commit()
	old := s.set.Current()["web"]
	old.Members[0].Host.Active.Add(3)
	heavy := at("a:1")
	heavy.Weight = 5
	ch := s.prepare(spec("web", model.LoadBalancer{}, heavy, at("b:1")))
	// Between the preparation and the commit, the clusters in force are the ones that are told.
	old.Members[0].Host.Down.Store(true)
	old.Balancer.Changed()
	ch.Commit()
	c := s.set.Current()["web"]
	if n := c.Members[0].Host.Active.Load(); n != 3 {
		t.Errorf("%d exchanges are under way, want 3", n)
	}
	if n := picks(c, 100); n["a:1"] != 0 || n["b:1"] != 100 {
		t.Errorf("a is down: %v", n)
	}
}

// TestPrioritiesOfASnapshot says that the model's fields reach the balancer.
func TestPrioritiesOfASnapshot(t *testing.T) {
	s := newReloads(t)
	near, mid, far := at("a:1"), at("b:1"), at("c:1")
	mid.Share, mid.Locality = 1, model.Locality{Zone: "m"}
	near.Share, near.Locality = 3, model.Locality{Zone: "n"}
	far.Priority = 1
	web := spec("web", model.LoadBalancer{Policy: model.Random}, near, mid, far)
	web.Panic = 60
	s.prepare(web).Commit()
	c := s.set.Current()["web"]
	if n := picks(c, 10000); n["a:1"] < 7300 || n["a:1"] > 7700 || n["c:1"] != 0 { // 75 % ± 4.6 standard deviations
		t.Errorf("%v", n)
	}
	down := func(which ...int) {
		for i := range c.Members {
			c.Members[i].Host.Down.Store(false)
		}
		for _, i := range which {
			c.Members[i].Host.Down.Store(true)
		}
		c.Balancer.Changed()
	}
	down(0, 1)
	if n := picks(c, 100); n["c:1"] != 100 {
		t.Errorf("the first priority is down: %v", n)
	}
	down(0, 1, 2)
	if n := picks(c, 3000); n["a:1"] == 0 || n["b:1"] == 0 || n["c:1"] < 900 || !c.Balancer.Panicking() {
		t.Errorf("all are down: %v", n)
	}
}
