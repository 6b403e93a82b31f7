package upstream

import (
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// TestUnreadyIsNotAsked says that an endpoint whose application fails its probe is left out until it passes again, but for
// the panic threshold, and begins slowly again where new endpoints do.
func TestUnreadyIsNotAsked(t *testing.T) {
	s := newReloads(t)
	web := func(percent uint32, unready ...string) model.Cluster {
		c := spec("web", model.LoadBalancer{Policy: model.Random}, at("a:1"), at("b:1"), at("c:1"), at("d:1"))
		c.Panic = percent
		for i := range c.Endpoints {
			for _, address := range unready {
				c.Endpoints[i].Unready = c.Endpoints[i].Unready || c.Endpoints[i].Address == address
			}
		}
		return c
	}
	f := func(c model.Cluster, want string, panicking bool) {
		t.Helper()
		s.prepare(c).Commit()
		current := s.set.Current()["web"]
		n, got := picks(current, 400), ""
		for _, address := range []string{"a:1", "b:1", "c:1", "d:1"} {
			if n[address] > 0 {
				got += address[:1]
			}
		}
		if got != want || current.Balancer.Panicking() != panicking {
			t.Errorf("%s are asked, want %s; panicking is %v: %v", got, want, current.Balancer.Panicking(), n)
		}
	}
	f(web(0), "abcd", false)
	f(web(0, "a:1"), "bcd", false)
	f(web(0, "a:1", "b:1", "c:1"), "d", false)
	f(web(50, "a:1", "b:1", "c:1"), "abcd", true)
	f(web(50, "a:1", "b:1"), "cd", false)
	f(web(0, "a:1", "b:1", "c:1", "d:1"), "", false)
	f(web(0), "abcd", false)

	warm := func(unready ...string) model.Cluster {
		c := web(0, unready...)
		c.LoadBalancer = model.LoadBalancer{Policy: model.RoundRobin, Warmup: &model.Warmup{Duration: model.Duration(time.Minute), MinimumPercent: 10, Aggression: 1}}
		return c
	}
	s.now += int64(time.Hour)
	s.prepare(warm("a:1")).Commit()
	s.now += int64(time.Hour)
	s.prepare(warm()).Commit()
	if n := picks(s.set.Current()["web"], 3100); n["a:1"] < 90 || n["a:1"] > 110 {
		t.Errorf("a was just found ready: %v, want 100 for a", n)
	}
}

// TestNobodyRestsWithoutAReason says that who rests goes on once nothing lets endpoints rest any more.
func TestNobodyRestsWithoutAReason(t *testing.T) {
	s := newReloads(t)
	web := spec("web", model.LoadBalancer{}, at("a:1"), at("b:1"))
	watched := web
	watched.Outlier = &model.Outlier{Consecutive5xx: 1, Interval: model.Duration(time.Second), BaseEjection: model.Duration(time.Hour), MaxEjection: model.Duration(time.Hour), MaxEjectionPercent: 100}
	s.prepare(watched).Commit()
	c := s.set.Current()["web"]
	c.Health.Tell(c.Members[0].Outlier.Answered(500, s.now))
	if n := picks(c, 100); n["b:1"] != 100 {
		t.Fatalf("a is not ejected: %v", n)
	}
	s.prepare(web).Commit()
	if n := picks(s.set.Current()["web"], 100); n["a:1"] == 0 {
		t.Errorf("a rests for ever: %v", n)
	}
}
