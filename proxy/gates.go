package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/proxy/upstream"
)

// gates are what stands before the routes of one generation, with the state that outlives it: it is found in the
// generation before, by name.
type gates struct {
	faults  map[ruleName]*faultCounts
	mirrors map[string]*mirrorCounts // by cluster
	limits  map[string]*rateLimit    // by name
	before  *gates                   // nil once the generation is built, or they would all be kept
}

// ruleName is what a rule is called, wherever in its file it stands.
type ruleName struct{ namespace, name, rule string }

func nameOf(o *model.Origin) ruleName { return ruleName{o.Namespace, o.Name, o.Rule} }

// newGates returns the gates of a generation that is to follow on old, which may be nil.
func newGates(old *generation) *gates {
	g := &gates{faults: map[ruleName]*faultCounts{}, mirrors: map[string]*mirrorCounts{}, limits: map[string]*rateLimit{}, before: &gates{}}
	if old != nil {
		g.before = old.gates
	}
	return g
}

// limit makes the rate limits.
func (g *gates) limit(specs []model.RateLimit, clusters map[string]*upstream.Cluster) (err error) {
	for i := range specs {
		name := specs[i].Name
		if g.limits[name], err = newRateLimit(&specs[i], g.before.limits[name], clusters); err != nil {
			return err
		}
	}
	return nil
}

// guard gives r, made of s, what stands before and beside its route; h is nil for requests that no host is known of.
func (g *gates) guard(h *model.VirtualHost, s *model.Rule, r *rule, clusters map[string]*upstream.Cluster) {
	if h != nil {
		for _, name := range h.RateLimits {
			r.limits = append(r.limits, g.limits[name])
		}
	}
	if s.Route == nil {
		return
	}
	if s.Route.Fault != nil {
		r.fault = newFault(s.Route.Fault, kept(g.faults, g.before.faults, nameOf(&s.Origin)))
	}
	for _, m := range s.Route.Mirrors {
		if sh := shareOf(m.Percent); sh > 0 {
			counts := kept(g.mirrors, g.before.mirrors, m.Cluster)
			r.mirrors = append(r.mirrors, mirrorTarget{share: sh, target: target{cluster: clusters[m.Cluster]}, counts: counts})
		}
	}
}

// kept returns what is there under a key already, in this generation or the one before, or a new one.
func kept[K comparable, V any](all, before map[K]*V, key K) *V {
	v := all[key]
	if v == nil {
		if v = before[key]; v == nil {
			v = new(V)
		}
		all[key] = v
	}
	return v
}

var descFaults = prometheus.NewDesc("outrider_faults_injected_total", "Faults injected, by kind (delay, abort) and the rule that asks for them.",
	[]string{"kind", "namespace", "name", "rule"}, nil)

var descMirrored = prometheus.NewDesc("outrider_mirrored_requests_total",
	"Copies of requests, by what became of them: answered, failed, or not sent as too many were under way (overflow), or as the body was too long (too_long) or did not come to its end (incomplete).",
	[]string{"destination_service", "port", "subset", "result"}, nil)

var (
	descRateLimited = prometheus.NewDesc("outrider_rate_limit_requests_total", "Requests that a rate limit decided about: allowed, limited, or, as it only tries, would_limit; and what the service that shares it said: ok, over_limit, or nothing that is an answer, error.",
		[]string{"limit", "decision"}, nil)
	descRateKeys = prometheus.NewDesc("outrider_rate_limit_keys_evicted_total", "Keys of a rate limit that were forgotten to make room for others.", []string{"limit"}, nil)
)

var gateDescs = []*prometheus.Desc{descFaults, descMirrored, descRateLimited, descRateKeys}

// collect tells the gates' counters.
func (g *gates) collect(clusters map[string]*upstream.Cluster, counter func(d *prometheus.Desc, v uint64, l ...string)) {
	for n, c := range g.faults {
		counter(descFaults, c.delayed.Load(), "delay", n.namespace, n.name, n.rule)
		counter(descFaults, c.aborted.Load(), "abort", n.namespace, n.name, n.rule)
	}
	for name, l := range g.limits {
		counter(descRateLimited, l.counts.allowed.Load(), name, "allowed")
		counter(descRateLimited, l.counts.limited.Load(), name, "limited")
		counter(descRateLimited, l.counts.would.Load(), name, "would_limit")
		if l.shared != nil {
			counter(descRateLimited, l.counts.ok.Load(), name, "ok")
			counter(descRateLimited, l.counts.over.Load(), name, "over_limit")
			counter(descRateLimited, l.counts.failed.Load(), name, "error")
		}
		evicted := uint64(0)
		for _, t := range l.limits {
			if t.buckets != nil {
				_, n := t.buckets.Keys()
				evicted += n
			}
		}
		counter(descRateKeys, evicted, name)
	}
	for name, c := range g.mirrors {
		spec := clusters[name].Spec
		for r := range mirrorResults {
			counter(descMirrored, c.results[r].Load(), or(spec.Service.Host, name), port(spec.Port), spec.Subset, mirrorResultNames[r])
		}
	}
}
