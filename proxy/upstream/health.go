package upstream

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/accrual"
	"github.com/outrider-mesh/outrider/proxy/outlier"
)

// Health knows which endpoints of a cluster are ejected. It is kept across configurations, by the cluster's name.
type Health struct {
	set      *Set
	cluster  string
	detector *outlier.Detector
	// hosts are those in force by address, guarded by the set's mu.
	hosts map[string]*outlier.Host

	mu      sync.Mutex // one change after the other is put into effect
	ejected map[*outlier.Host]outlier.Reason
	spared  map[*outlier.Host]int64 // when that was last logged: who fails all the time is spared with each request
}

// sparedAgain is how often it is said again that an endpoint is spared.
const sparedAgain = int64(time.Minute)

func outlierSettings(o *model.Outlier) (outlier.Settings, error) {
	s := outlier.Settings{
		Consecutive5xx: o.Consecutive5xx, ConsecutiveGateway: o.ConsecutiveGateway, ConsecutiveLocalOrigin: o.ConsecutiveLocalOrigin,
		Split: o.Split, Interval: o.Interval.Std(), BaseEjection: o.BaseEjection.Std(), MaxEjection: o.MaxEjection.Std(),
		MaxEjectionPercent: o.MaxEjectionPercent, AlwaysOne: o.AlwaysOne,
	}
	for _, status := range o.Statuses {
		if err := s.Codes.Add(status); err != nil {
			return s, err
		}
	}
	return s, s.Check()
}

// health finds the cluster's Health or makes one; what it holds changes with Commit.
func (ch *Change) health(c *Cluster, old *Cluster) error {
	if a := c.Spec.Accrual; a != nil {
		c.accrual = accrual.Settings{MaxFailures: a.MaxFailures, MinPenalty: a.MinPenalty.Std(), MaxPenalty: a.MaxPenalty.Std(), Jitter: a.Jitter}
		if r := a.Rate; r != nil {
			c.accrual.Rate = &accrual.Rate{Threshold: r.Threshold, Window: r.Window.Std(), MinRequests: r.MinRequests}
		}
		if err := c.accrual.Check(); err != nil {
			return fmt.Errorf("failure accrual: %w", err)
		}
	}
	if c.Spec.Outlier == nil {
		return nil
	}
	settings, err := outlierSettings(c.Spec.Outlier)
	if err != nil {
		return fmt.Errorf("outlier: %w", err)
	}
	c.outlier = settings
	if c.Health = old.Health; c.Health == nil {
		c.Health = &Health{
			set: ch.set, cluster: c.Spec.Name, detector: outlier.New(settings, ch.set.clock()),
			hosts: map[string]*outlier.Host{}, ejected: map[*outlier.Host]outlier.Reason{}, spared: map[*outlier.Host]int64{},
		}
	}
	return nil
}

// watch makes c's members the hosts that are looked after. It is called with the set locked, before c is in force.
func (h *Health) watch(c *Cluster, now int64) {
	h.detector.Configure(c.outlier, now)
	hosts := make(map[string]*outlier.Host, len(c.Members))
	for i := range c.Members {
		m := &c.Members[i]
		host := hosts[m.address] // an address may be there twice
		if host == nil {
			host = h.hosts[m.address]
		}
		if host == nil {
			host = h.detector.Add(m.address)
		}
		hosts[m.address], m.Outlier = host, host
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for address, host := range h.hosts {
		if hosts[address] == nil {
			h.detector.Remove(host)
			delete(h.ejected, host)
			delete(h.spared, host)
		}
	}
	h.hosts = hosts
}

// Tell puts into effect what a report to a member's Outlier led to.
func (h *Health) Tell(c outlier.Change) {
	if c.Action == outlier.Nothing {
		return
	}
	s := h.set
	s.mu.Lock()
	defer s.mu.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch c.Action {
	case outlier.Ejected:
		h.ejected[c.Host] = c.Reason
		delete(h.spared, c.Host)
		s.log.Warn("endpoint ejected", "cluster", h.cluster, "endpoint", c.Host.Key, "reason", c.Reason.String(), "for", c.Time.String(), "ejections", c.Ejections)
	case outlier.Spared:
		if last, told := h.spared[c.Host]; told && c.At-last < sparedAgain {
			break
		}
		h.spared[c.Host] = c.At
		s.log.Warn("endpoint fails but is not ejected: maxEjectionPercent allows no more", "cluster", h.cluster, "endpoint", c.Host.Key, "reason", c.Reason.String(), "ejected", len(h.ejected), "of", len(h.hosts))
	case outlier.Returned:
		delete(h.ejected, c.Host)
		s.log.Info("endpoint returns", "cluster", h.cluster, "endpoint", c.Host.Key, "reason", c.Reason.String(), "after", c.Time.String())
	}
	if current := s.current[h.cluster]; current != nil && current.Health == h {
		current.ejections(c.At)
		current.Balancer.Changed()
	}
}

// sweep lets endpoints return whose time is over.
func (h *Health) sweep(now int64) {
	if now < h.detector.Due() {
		return
	}
	for _, c := range h.detector.Sweep(nil, now) {
		h.Tell(c)
	}
}

// Ejected calls f for each endpoint that is ejected.
func (h *Health) Ejected(f func(address string, reason outlier.Reason)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for host, reason := range h.ejected {
		f(host.Key, reason)
	}
}

// Stats returns Envoy's counters.
func (h *Health) Stats() outlier.Stats { return h.detector.Stats() }

// Judge lets ejected endpoints return and breakers say what changed, when it is time for it. Call it some times a second.
func (s *Set) Judge(now int64) {
	s.mu.Lock()
	watched, accruing, breakers := s.watched, s.accruing, s.breakers
	s.mu.Unlock()
	for _, h := range watched {
		h.sweep(now)
	}
	for _, c := range accruing {
		c.probation(now)
	}
	for _, b := range breakers {
		b.judge(s, now)
	}
}

// accrue makes c's members count failures in a row. It is called with the set locked, before c is in force.
func (c *Cluster) accrue() {
	for i := range c.Members {
		m := &c.Members[i]
		if m.accrual == nil {
			m.accrual = accrual.New(c.accrual)
		}
		m.accrual.Configure(c.accrual)
		m.Accrual = m.accrual
	}
}

// probation lets members whose penalty is over have their probe.
func (c *Cluster) probation(now int64) {
	for i := range c.Members {
		if m := &c.Members[i]; m.Accrual.Sweep(now) {
			c.Turned(m, now)
		}
	}
}

// Turned puts into effect that m.Accrual has changed.
func (c *Cluster) Turned(m *Member, now int64) {
	state := m.Accrual.State()
	level, args := slog.LevelInfo, []any{"cluster", c.Spec.Name, "endpoint", m.address, "state", state.String()}
	if state == accrual.Resting {
		level, args = slog.LevelWarn, append(args, "for", time.Duration(m.Accrual.Until()-now).String())
	}
	c.set.log.Log(context.Background(), level, "failure accrual", args...)
	s := c.set
	s.mu.Lock()
	defer s.mu.Unlock()
	if current := s.current[c.Spec.Name]; current != nil {
		current.ejections(now)
		current.Balancer.Changed()
	}
}
