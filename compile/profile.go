package compile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// profile is a ServiceProfile (Linkerd). One that has routes or overrides comes before the routes of the Gateway API and the
// annotations of its service, as in Linkerd.
type profile struct {
	object *config.Object
	spec   *config.ServiceProfile
	origin model.Origin
	routes []profileRoute
	leaves []profileLeaf
}

type profileRoute struct {
	origin  model.Origin
	matches []model.Match
	always  bool // it is for every request
	timeout model.Duration
	retries *model.Retries // nil where it is not retryable
}

// profileLeaf is one of the dstOverrides.
type profileLeaf struct {
	service *service
	port    int // 0 is the one that was asked for
	weight  uint32
}

// profileAttempts is how often one request is sent again at most: Linkerd has no limit but the budget, which a request that is
// alone never spends where its answers take long.
const profileAttempts = 100

// profileStatuses are gRPC's failures, where no class says otherwise (Linkerd).
var profileStatuses = []string{"unknown", "deadline-exceeded", "permission-denied", "internal", "unavailable", "data-loss"}

// readProfiles translates all ServiceProfiles.
func (m *Mesh) readProfiles(objects []*config.Object, r *report) {
	for _, o := range objects {
		spec, ok := o.Spec.(*config.ServiceProfile)
		if !ok {
			continue
		}
		if o.Has("spec.opaquePorts") {
			r.warn(o, noEffect, "spec.opaquePorts", "name the Service's ports after their protocol, such as tcp", "opaquePorts has no effect yet")
		}
		if m.services.find(o.Name, o.Namespace) == nil {
			r.warn(o, unknownHost, "metadata.name", "call it by the full host of a Service, such as web.shop.svc."+m.domain, "%s is no service that namespace %s sees; the ServiceProfile has no effect", o.Name, o.Namespace)
			continue
		}
		p := &profile{object: o, spec: spec, origin: origin(o, "spec", "")}
		for i := range spec.Routes {
			p.route(&spec.Routes[i], element("spec.routes", i), r)
		}
		p.override(m, r)
		if len(p.routes)+len(p.leaves) == 0 {
			continue
		}
		if o.Has("spec.retryBudget") && !slices.ContainsFunc(p.routes, func(t profileRoute) bool { return t.retries != nil }) {
			r.warn(o, ineffective, "spec.retryBudget", "add isRetryable: true to a route", "retryBudget has no effect: no route is retryable")
		}
		if m.profiles == nil {
			m.profiles = map[string]*profile{}
		}
		m.profiles[key(o.Namespace, o.Name)] = p
	}
}

// profileOf returns what shapes the requests of clients in namespace to s: their own namespace's ServiceProfile, else that of the
// service's; nil without one.
func (m *Mesh) profileOf(namespace string, s *service) *profile {
	if p := m.profiles[key(namespace, s.Host)]; p != nil {
		return p
	}
	return m.profiles[key(s.Namespace, s.Host)]
}

func (p *profile) route(spec *config.ProfileRoute, field string, r *report) {
	alternatives, ok := conditionsOf(&spec.Condition, false)
	if !ok {
		r.error(p.object, badValue, field+".condition", "write several routes", "the condition has more than %d alternatives; the route has no effect", mostAlternatives)
		return
	}
	if len(alternatives) == 0 {
		r.warn(p.object, ineffective, field+".condition", "list at least one condition in any", "no request meets the condition; the route has no effect")
		return
	}
	t := profileRoute{origin: origin(p.object, field, spec.Name), timeout: model.Duration(spec.Timeout)}
	for _, all := range alternatives {
		t.matches = append(t.matches, all.match())
		t.always = t.always || len(all) == 0
	}
	switch {
	case spec.Retryable:
		t.retries = p.retries(spec, field)
	case len(spec.Classes) > 0:
		r.warn(p.object, ineffective, field+".responseClasses", "add isRetryable: true, or remove them", "responseClasses has no effect: what is not retryable is not sent again, whatever the answer")
	}
	p.routes = append(p.routes, t)
}

// retries sends a failure again for as long as the budget allows it, at once.
func (p *profile) retries(spec *config.ProfileRoute, field string) *model.Retries {
	at, of := origin(p.object, field+".isRetryable", ""), origin(p.object, "spec.retryBudget", "")
	b := p.spec.RetryBudget
	out := &model.Retries{
		Attempts: profileAttempts, Unsafe: true, Backoff: model.Duration(1e6), Origin: &at,
		On:        []string{"connect-failure", "refused-stream", "retriable-status-codes"},
		Allowance: &model.RetryAllowance{Name: "budget of " + key(p.object.Namespace, p.object.Name), Ratio: b.Ratio, PerSecond: float64(b.PerSecond), TTL: model.Duration(b.TTL), Origin: &of},
	}
	said := false // something is said of 200, which answers of gRPC have
	for status := 100; status < 600; status++ {
		failure := status >= 500
		if i := slices.IndexFunc(spec.Classes, func(c config.ResponseClass) bool { return c.Condition.Has(status) }); i >= 0 {
			failure, said = spec.Classes[i].Failure, said || status == 200
		}
		if failure {
			out.Statuses = append(out.Statuses, status)
		}
	}
	if !said {
		out.On = append(out.On, profileStatuses...)
	}
	return out
}

// override reads dstOverrides. What is not there leaves its share to the others.
func (p *profile) override(m *Mesh, r *report) {
	whole := !slices.ContainsFunc(p.spec.Overrides, func(o config.ProfileOverride) bool { return o.Weight%1000 != 0 })
	for i, o := range p.spec.Overrides {
		field := element("spec.dstOverrides", i) + ".authority"
		host, l := strings.ToLower(strings.TrimSuffix(o.Authority, ".")), profileLeaf{weight: o.Weight}
		if name, text, has := strings.Cut(host, ":"); has {
			n, err := strconv.ParseUint(text, 10, 16)
			if err != nil || n == 0 {
				r.error(p.object, badValue, field, "write a port from 1 to 65535, or none", "%q is no port", text)
				continue
			}
			host, l.port = strings.TrimSuffix(name, "."), int(n)
		}
		if whole {
			l.weight /= 1000
		}
		if l.weight == 0 {
			continue // it may come later
		}
		if l.service = m.services.find(host, p.object.Namespace); l.service == nil {
			r.warn(p.object, leafMissing, field, "check the name, or add the Service; what has weight 0 may be absent", "service %s is not there; the others get its share", host)
			continue
		}
		p.leaves = append(p.leaves, l)
	}
}

// destinations are those of port pt: the overrides that have it, else the leaves of a TrafficSplit, else its own endpoints.
func (p *profile) destinations(s *scope, pt *port) []model.Destination {
	var to []model.Destination
	for _, l := range p.leaves {
		number := pt.number
		if l.port != 0 {
			number = l.port
		}
		if lp := l.service.port(number); lp != nil && alike(pt, lp) {
			c, f := s.cluster(lp, "")
			to = append(to, s.destination(c, f, l.weight, 503))
		}
	}
	if t := s.mesh.splits[pt.service]; len(to) == 0 && len(p.leaves) == 0 && t != nil && !t.conditional {
		if leaves, any := t.destinations(s, pt); any {
			to = leaves
		}
	}
	if len(to) == 0 {
		c, f := s.cluster(pt, "")
		to = append(to, s.destination(c, f, 1, 503))
	}
	return to
}

// rules are the routes of p for requests to port pt, and one for what is none of theirs.
func (p *profile) rules(s *scope, pt *port) []model.Rule {
	to := p.destinations(s, pt)
	var out []model.Rule
	for i := range p.routes {
		t := &p.routes[i]
		rule := model.Rule{Origin: t.origin, Route: &model.Route{Destinations: to, Timeout: t.timeout}}
		if t.retries != nil {
			rule.Route.Retries = s.settle(retryRule{retries: t.retries}, to)
		}
		if t.always {
			return append(out, rule)
		}
		rule.Matches = t.matches
		out = append(out, rule)
	}
	return append(out, model.Rule{Origin: p.origin, Route: &model.Route{Destinations: to}})
}

// checkProfiles reports ServiceProfiles that something else leaves without effect, and what they leave without.
func (m *Mesh) checkProfiles(r *report) {
	for _, name := range sortedKeys(m.profiles) {
		p := m.profiles[name]
		client := m.scope(p.object.Namespace, nil)
		s := m.services.find(p.object.Name, p.object.Namespace)
		if !slices.ContainsFunc(s.ports, func(p *port) bool { return !opaque(p.protocol) }) {
			r.warn(p.object, ineffective, "metadata.name", "name a port after its protocol, http, http2 or grpc, if it carries requests", "the ServiceProfile has no effect: %s carries bytes, not requests", s.Host)
			continue
		}
		if v := m.virtual(client, s.Host); v != nil && len(v.rules) > 0 {
			r.warn(p.object, twoShapers, "metadata.name", "keep one of them", "%s (%s) routes %s already; VirtualServices come before ServiceProfiles, so this one has no effect", describe(v.object), position(v.object), s.Host)
			continue
		}
		first := fmt.Sprintf("%s (%s)", describe(p.object), position(p.object))
		for _, pt := range s.ports {
			for _, h := range m.routesOf(pt, p.object.Namespace) {
				r.warn(h.object, twoShapers, "spec.parentRefs", "keep one of them", "%s routes %s already; ServiceProfiles come before %ss, so this one has no effect there for clients of namespace %s", first, s.Host, h.object.Kind, p.object.Namespace)
			}
		}
		if t := m.splits[s]; t != nil && (t.conditional || len(p.leaves) > 0) {
			r.warn(t.object, twoShapers, "spec.service", "keep one of them, or write the weights as the ServiceProfile's dstOverrides", "%s routes %s already, so this TrafficSplit has no effect", first, s.Host)
		}
		if s.linkerd != nil && p.object.Namespace == s.Namespace {
			m.overruled(s, slices.Concat(retryAnnotations, timeoutAnnotations), p.object, "routes the service", r)
		}
	}
}

// mostAlternatives bounds what the conditions of one route come to.
const mostAlternatives = 128

// comparison compares a request's path or method.
type comparison struct {
	method, not bool
	value       string
}

// conjunction holds where all of its comparisons do.
type conjunction []comparison

// conditionsOf brings m, or its opposite, into alternatives; false where there are too many of them.
func conditionsOf(m *config.RequestMatch, not bool) ([]conjunction, bool) {
	var parts [][]conjunction
	if m.PathRegex != "" {
		parts = append(parts, []conjunction{{{value: m.PathRegex, not: not}}})
	}
	if m.Method != "" {
		parts = append(parts, []conjunction{{{value: m.Method, method: true, not: not}}})
	}
	nested := func(list []config.RequestMatch, all bool) bool {
		var inner [][]conjunction
		for i := range list {
			one, ok := conditionsOf(&list[i], not)
			if !ok {
				return false
			}
			inner = append(inner, one)
		}
		one, ok := combine(inner, all != not)
		parts = append(parts, one)
		return ok
	}
	if m.All != nil && !nested(m.All, true) || m.Any != nil && !nested(m.Any, false) {
		return nil, false
	}
	if m.Not != nil {
		one, ok := conditionsOf(m.Not, !not)
		if !ok {
			return nil, false
		}
		parts = append(parts, one)
	}
	return combine(parts, !not)
}

// combine joins parts that must all hold, or of which one must.
func combine(parts [][]conjunction, all bool) ([]conjunction, bool) {
	if !all {
		out := slices.Concat(parts...)
		return out, len(out) <= mostAlternatives
	}
	out := []conjunction{nil}
	for _, p := range parts {
		if len(out)*len(p) > mostAlternatives {
			return nil, false
		}
		var next []conjunction
		for _, a := range out {
			for _, b := range p {
				next = append(next, slices.Concat(a, b))
			}
		}
		out = next
	}
	return out, true
}

// match is c as proxies compare it. What a Match has no place for is compared as if it were a header field.
func (c conjunction) match() model.Match {
	var m model.Match
	for _, l := range c {
		test, place, name := model.StringMatch{Kind: model.Regex, Value: l.value}, &m.Path, ":path"
		if l.method {
			test, place, name = model.StringMatch{Kind: model.Exact, Value: l.value}, &m.Method, ":method"
		}
		if *place == nil && !l.not {
			*place = &test
			continue
		}
		m.Headers = append(m.Headers, model.KeyMatch{Name: name, StringMatch: test, Not: l.not})
	}
	return m
}
