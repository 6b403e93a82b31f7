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
	before  *gates                   // nil once the generation is built, or they would all be kept
}

// ruleName is what a rule is called, wherever in its file it stands.
type ruleName struct{ namespace, name, rule string }

func nameOf(o *model.Origin) ruleName { return ruleName{o.Namespace, o.Name, o.Rule} }

// newGates returns the gates of a generation that is to follow on old, which may be nil.
func newGates(old *generation) *gates {
	g := &gates{faults: map[ruleName]*faultCounts{}, mirrors: map[string]*mirrorCounts{}, before: &gates{}}
	if old != nil {
		g.before = old.gates
	}
	return g
}

// guard gives r, made of s, what stands before and beside its route.
func (g *gates) guard(s *model.Rule, r *rule, clusters map[string]*upstream.Cluster) {
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

var gateDescs = []*prometheus.Desc{descFaults, descMirrored}

// collect tells the gates' counters.
func (g *gates) collect(clusters map[string]*upstream.Cluster, counter func(d *prometheus.Desc, v uint64, l ...string)) {
	for n, c := range g.faults {
		counter(descFaults, c.delayed.Load(), "delay", n.namespace, n.name, n.rule)
		counter(descFaults, c.aborted.Load(), "abort", n.namespace, n.name, n.rule)
	}
	for name, c := range g.mirrors {
		spec := clusters[name].Spec
		for r := range mirrorResults {
			counter(descMirrored, c.results[r].Load(), or(spec.Service.Host, name), port(spec.Port), spec.Subset, mirrorResultNames[r])
		}
	}
}
