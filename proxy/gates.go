package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// gates are what stands before the routes of one generation, with the state that outlives it: it is found in the
// generation before, by name.
type gates struct {
	faults map[ruleName]*faultCounts
	before *gates // nil once the generation is built, or they would all be kept
}

// ruleName is what a rule is called, wherever in its file it stands.
type ruleName struct{ namespace, name, rule string }

func nameOf(o *model.Origin) ruleName { return ruleName{o.Namespace, o.Name, o.Rule} }

// newGates returns the gates of a generation that is to follow on old, which may be nil.
func newGates(old *generation) *gates {
	g := &gates{faults: map[ruleName]*faultCounts{}, before: &gates{}}
	if old != nil {
		g.before = old.gates
	}
	return g
}

// guard gives r, made of s, what stands before its route.
func (g *gates) guard(s *model.Rule, r *rule) {
	if s.Route != nil && s.Route.Fault != nil {
		r.fault = newFault(s.Route.Fault, kept(g.faults, g.before.faults, nameOf(&s.Origin)))
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

var gateDescs = []*prometheus.Desc{descFaults}

// collect tells the gates' counters.
func (g *gates) collect(counter func(d *prometheus.Desc, v uint64, l ...string)) {
	for n, c := range g.faults {
		counter(descFaults, c.delayed.Load(), "delay", n.namespace, n.name, n.rule)
		counter(descFaults, c.aborted.Load(), "abort", n.namespace, n.name, n.rule)
	}
}
