package proxy

import (
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-mesh/outrider/mesh/admin"
	"github.com/outrider-mesh/outrider/proxy/accrual"
)

// Ready returns nil once a snapshot is in force and its listeners accept.
func (p *Proxy) Ready() error {
	switch {
	case p.draining.Load():
		return ErrClosed
	case p.generation.Load() == nil:
		return errNoSnapshot
	}
	return nil
}

// Clusters tells the state of every endpoint of the snapshot in force, by cluster name.
func (p *Proxy) Clusters() []admin.ClusterStatus {
	current, at := p.upstream.Current(), Now()
	all := make([]admin.ClusterStatus, 0, len(current))
	for _, name := range slices.Sorted(maps.Keys(current)) {
		c := current[name]
		s := admin.ClusterStatus{Name: name, Policy: c.Spec.LoadBalancer.Policy, Panic: c.Balancer.Panicking(), Endpoints: make([]admin.EndpointStatus, len(c.Members))}
		for i := range c.Members {
			m := &c.Members[i]
			e := admin.EndpointStatus{Address: m.Address(), Instance: m.Spec.Instance, Weight: m.Spec.Weight, Locality: m.Spec.Locality, Active: m.Host.Active.Load()}
			e.Busy, e.Idle = m.Connections()
			e.Opened, e.Failed = m.Opened()
			if m.Outlier != nil {
				if why, until, ok := m.Outlier.Ejection(); ok {
					e.Ejected, e.Reason, e.Until = true, why.String(), instant(until, at)
				}
			}
			if m.Accrual != nil && !e.Ejected && m.Accrual.Down() {
				e.Ejected, e.Reason = true, accrued
				if m.Accrual.State() == accrual.Resting {
					e.Until = instant(m.Accrual.Until(), at)
				}
			}
			e.Unready = m.Spec.Unready
			s.Endpoints[i] = e
		}
		all = append(all, s)
	}
	return all
}

// instant is the time of day of an instant of this proxy's clock, which is at now.
func instant(of, now int64) time.Time { return time.Now().Add(time.Duration(of - now)).Round(0) }

var (
	descAccepted = prometheus.NewDesc("outrider_downstream_connections_total", "Connections that clients opened.", nil, nil)
	descRefused  = prometheus.NewDesc("outrider_downstream_connections_refused_total", "Connections closed at once because a listener had its limit.", nil, nil)
	descOpen     = prometheus.NewDesc("outrider_downstream_connections", "Connections of clients that are open.", nil, nil)
	descResent   = prometheus.NewDesc("outrider_upstream_requests_resent_total", "Requests sent again because a kept connection had ended.", nil, nil)

	upstreamLabels = []string{"destination_service", "port", "subset", "endpoint"}
	descActive     = prometheus.NewDesc("outrider_upstream_requests_active", "Requests that an endpoint is working on.", upstreamLabels, nil)
	descConns      = prometheus.NewDesc("outrider_upstream_connections", "Connections to an endpoint, by whether a request holds them.", append(upstreamLabels[:4:4], "state"), nil)
	descOpened     = prometheus.NewDesc("outrider_upstream_connections_opened_total", "Connections opened to an endpoint.", upstreamLabels, nil)
	descFailed     = prometheus.NewDesc("outrider_upstream_connect_failures_total", "Connections to an endpoint that could not be opened.", upstreamLabels, nil)
)

// Describe makes Proxy a collector of what its listeners and pools know anyway.
func (p *Proxy) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descAccepted, descRefused, descOpen, descResent, descActive, descConns, descOpened, descFailed} {
		ch <- d
	}
	for _, d := range append(gateDescs, resilienceDescs...) {
		ch <- d
	}
	describePools(ch)
	ch <- descLines
}

// Collect reads the counters when somebody asks: the exchanges pay nothing for it.
func (p *Proxy) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, l ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), l...)
	}
	gauge := func(d *prometheus.Desc, v int64, l ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), l...)
	}
	counter(descAccepted, p.stats.accepted.Load())
	counter(descRefused, p.stats.refused.Load())
	counter(descResent, p.stats.resent.Load())
	gauge(descOpen, p.conns.count())
	if g := p.generation.Load(); g != nil {
		g.gates.collect(g.change.Clusters, counter)
	}
	p.collectPools(ch)
	p.collectLines(counter)
	told := map[[4]string]bool{} // a configuration may name an endpoint twice; a scrape with a series twice fails as a whole
	clusters := map[[3]string]bool{}
	for _, c := range p.upstream.Current() {
		if l := [3]string{or(c.Spec.Service.Host, c.Spec.Name), port(c.Spec.Port), c.Spec.Subset}; !clusters[l] {
			clusters[l] = true
			collectResilience(ch, c, l[:])
		}
		for i := range c.Members {
			m := &c.Members[i]
			l := []string{or(c.Spec.Service.Host, c.Spec.Name), port(c.Spec.Port), c.Spec.Subset, m.Address()}
			if told[[4]string(l)] {
				continue
			}
			told[[4]string(l)] = true
			active, idle := m.Connections()
			opened, failed := m.Opened()
			gauge(descActive, m.Host.Active.Load(), l...)
			gauge(descConns, int64(active), append(l[:4:4], "active")...)
			gauge(descConns, int64(idle), append(l[:4:4], "idle")...)
			counter(descOpened, opened, l...)
			counter(descFailed, failed, l...)
		}
	}
}

func port(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
