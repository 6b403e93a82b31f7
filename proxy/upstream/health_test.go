package upstream

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Who fails with every request and may not be ejected is logged once a minute, not once a request.
func TestSparedIsLoggedNowAndThen(t *testing.T) {
	s := newReloads(t)
	var log bytes.Buffer
	s.set.log = slog.New(slog.NewTextHandler(&log, nil))
	web := spec("web", model.LoadBalancer{}, at("a:1"), at("b:1"), at("c:1"))
	web.Outlier = &model.Outlier{Consecutive5xx: 1, Interval: model.Duration(time.Second), BaseEjection: model.Duration(time.Hour), MaxEjection: model.Duration(time.Hour), MaxEjectionPercent: 10}
	s.prepare(web).Commit()
	c := s.set.Current()["web"]
	fail := func(member, times, want int) {
		t.Helper()
		log.Reset()
		for range times {
			c.Health.Tell(c.Members[member].Outlier.Answered(500, s.now))
		}
		if got := strings.Count(log.String(), "is not ejected: maxEjectionPercent allows no more"); got != want {
			t.Errorf("said %d times, want %d:\n%s", got, want, log.String())
		}
	}
	fail(0, 100, 1)
	if !strings.Contains(log.String(), "ejected=0 of=3") {
		t.Errorf("said %s", log.String())
	}
	fail(1, 100, 1)
	s.now += int64(59 * time.Second)
	fail(0, 100, 0)
	s.now += int64(time.Second)
	fail(0, 100, 1)
	if n := c.Health.Stats().Overflow; n != 400 {
		t.Errorf("%d times spared, want each counted", n)
	}
}

// TestAddressThatIsThereTwice says that an address is one host for the outlier detection, however often a cluster lists it and
// whatever reloads: each counts in maxEjectionPercent.
func TestAddressThatIsThereTwice(t *testing.T) {
	s := newReloads(t)
	f := func(want int, endpoints ...model.Endpoint) {
		t.Helper()
		web := spec("web", model.LoadBalancer{}, endpoints...)
		web.Outlier = &model.Outlier{Consecutive5xx: 1, Interval: model.Duration(time.Second), BaseEjection: model.Duration(time.Hour), MaxEjection: model.Duration(time.Hour), MaxEjectionPercent: 50}
		s.prepare(web).Commit()
		c := s.set.Current()["web"]
		if n := c.Health.Stats().Hosts; n != want {
			t.Errorf("%d hosts, want %d", n, want)
		}
		if a, b := c.Members[0], c.Members[1]; (a.Address() == b.Address()) != (a.Outlier == b.Outlier) {
			t.Errorf("%s and %s", a.Address(), b.Address())
		}
	}
	f(2, at("a:1"), at("a:1"), at("b:1"))
	f(2, at("a:1"), at("a:1"), at("b:1"))
	f(2, at("b:1"), at("c:1"))
	f(3, at("b:1"), at("c:1"), at("a:1"), at("a:1"), at("a:1"))
	f(2, at("b:1"), at("c:1"))
}
