package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

var virtualServiceCoverage = covers("hosts", "gateways", "exportTo", "http.").
	and(covers("name", "match.", "route.", "route.destination", "route.weight", "route.headers", "redirect", "directResponse", "delegate", "rewrite", "timeout",
		"corsPolicy", "headers", "retries", "fault", "mirror", "mirrors", "mirrorPercent", "mirrorPercentage").under("http.")).
	and(covers("name", "uri", "scheme", "method", "authority", "headers", "port", "sourceLabels", "gateways", "queryParams", "ignoreUriCase",
		"withoutHeaders", "sourceNamespace").under("http.match.")).
	and(covers("tcp.", "tcp.match", "tcp.route.", "tcp.route.destination", "tcp.route.weight", "tls.", "tls.match", "tls.route.", "tls.route.destination", "tls.route.weight"))

// inMesh is the gateway name that stands for all sidecars.
const inMesh = "mesh"

// virtualService is a VirtualService whose client-independent parts are translated.
type virtualService struct {
	object   *config.Object
	hosts    []string
	gateways []string // "namespace/name", or inMesh
	exported visibility
	rules    []*virtualRule
	tcp, tls []*connectionRule
}

// virtualRule is one http route.
type virtualRule struct {
	object       *config.Object // the VirtualService, or its delegate
	field        string
	base         model.Rule // Route has no destinations yet; Matches are of matches
	matches      []virtualMatch
	destinations []virtualDestination
	mirrors      []virtualMirror
	retries      retryRule
}

// virtualMatch is a match, and its conditions that are decided before any request.
type virtualMatch struct {
	model.Match
	port      int
	gateways  []string
	labels    map[string]string
	namespace string
}

// always says whether the match holds for every request that it is for.
func (v *virtualMatch) always() bool { return matchesAll(&v.Match) }

func matchesAll(m *model.Match) bool {
	if m.Method != nil || m.Authority != nil || m.Scheme != nil || len(m.Headers) > 0 || len(m.Query) > 0 {
		return false
	}
	p := m.Path
	return p == nil || (p.Kind == model.Prefix && p.Value == "/") || (p.Kind == model.CasePrefix && p.Value == "/") || (p.Kind == model.Regex && (p.Value == ".*" || p.Value == "/.*"))
}

// static says whether the match has a condition that does not hold for all proxies and ports.
func (v *virtualMatch) static() bool {
	return v.port != 0 || len(v.gateways) > 0 || len(v.labels) > 0 || v.namespace != ""
}

// holds says whether the match is for a client's proxy, seen at gateway (or inMesh), on port listen.
func (v *virtualMatch) holds(s *scope, gateway string, listen int) bool {
	if v.port != 0 && v.port != listen {
		return false
	}
	if len(v.gateways) > 0 { // they make the source's conditions ignored, as in Istio
		return slices.Contains(v.gateways, gateway)
	}
	return selects(v.labels, s.labels) && (v.namespace == "" || v.namespace == s.namespace)
}

type virtualDestination struct {
	object       *config.Object // that names it: the VirtualService, or its delegate
	host, subset string
	port         int
	weight       uint32
	request      model.HeaderEdits
	response     model.HeaderEdits
	field        string
}

// readVirtualServices translates all VirtualServices and sorts them by who routes which host.
func (m *Mesh) readVirtualServices(objects []*config.Object, r *report) {
	all := readDelegates(objects)
	for _, o := range objects {
		spec, ok := o.Spec.(*networking.VirtualService)
		if !ok {
			continue
		}
		virtualServiceCoverage.missing(spec.ProtoReflect(), func(field string) { r.without(o, "spec."+field) })
		if len(spec.Hosts) == 0 {
			continue
		}
		v := m.virtualService(o, spec, all, r)
		m.virtuals = append(m.virtuals, v)
		if slices.Contains(v.gateways, inMesh) && len(v.tcp)+len(v.tls) > 0 {
			m.carriers = append(m.carriers, v)
		}
		if slices.Contains(v.gateways, inMesh) && len(spec.Http) > 0 {
			for _, h := range v.hosts {
				if wildcard(h) {
					m.wildVirtuals = append(m.wildVirtuals, hostVirtual{h, v})
				} else {
					m.hostVirtuals[h] = append(m.hostVirtuals[h], v)
				}
			}
		}
	}
	all.check(objects, r)
	slices.SortStableFunc(m.wildVirtuals, func(a, b hostVirtual) int { return cmp.Compare(len(b.host), len(a.host)) })
}

// hostVirtual is a VirtualService under one of its hosts.
type hostVirtual struct {
	host    string
	virtual *virtualService
}

func (m *Mesh) virtualService(o *config.Object, spec *networking.VirtualService, all delegates, r *report) *virtualService {
	v := &virtualService{object: o, exported: visible(spec.ExportTo, m.config.GetDefaultVirtualServiceExportTo(), o.Namespace)}
	for i, h := range spec.Hosts {
		h = fullName(h, o.Namespace, m.domain)
		if !routable(h) {
			r.error(o, badValue, fmt.Sprintf("spec.hosts[%d]", i), `use a full name, or "*." before a suffix`, "host %q cannot be routed", h)
			continue
		}
		v.hosts = append(v.hosts, h)
	}
	v.gateways = m.gatewayNames(spec.Gateways, o.Namespace)
	if len(v.gateways) == 0 {
		v.gateways = []string{inMesh}
	}
	for i, h := range spec.Http {
		if h.Delegate != nil {
			v.rules = append(v.rules, m.delegated(o, h, i, all, r)...)
		} else if rule := m.virtualRule(o, h, i, r); rule != nil {
			v.rules = append(v.rules, rule)
		}
	}
	v.reportUnreachable(r)
	v.tcp, v.tls = m.connectionRules(o, spec, r)
	return v
}

// destinations lists the destinations of all rules.
func (v *virtualService) destinations() [][]virtualDestination {
	var out [][]virtualDestination
	for _, rule := range v.rules {
		out = append(out, rule.destinations)
	}
	for _, rule := range append(slices.Clip(v.tls), v.tcp...) {
		out = append(out, rule.destinations)
	}
	return out
}

// gatewayName resolves the name of a Gateway as a VirtualService in namespace writes it.
func (m *Mesh) gatewayName(name, namespace string) string {
	if name == inMesh || strings.Contains(name, "/") {
		return name
	}
	if short, ok := strings.CutSuffix(name, ".svc."+m.domain); ok {
		name = short
	}
	if host, of, ok := strings.Cut(name, "."); ok {
		return of + "/" + host
	}
	return namespace + "/" + name
}

// reportUnreachable names the rules that follow one for every request.
func (v *virtualService) reportUnreachable(r *report) {
	for i, rule := range v.rules {
		all := len(rule.matches) == 0 || slices.ContainsFunc(rule.matches, func(m virtualMatch) bool { return m.always() && !m.static() })
		if !all {
			continue
		}
		for _, late := range v.rules[i+1:] {
			first := rule.field
			if late.object != rule.object {
				first += " of " + describe(rule.object)
			}
			r.warn(late.object, unreachable, late.field, "move it before that rule, or remove it", "%s is never reached: %s matches every request", late.field, first)
		}
		return
	}
}

// tier orders what a client sees: its namespace's private rules, then those exported to it by name, then everyone's.
func (v *virtualService) tier(namespace string) int {
	switch {
	case v.exported.all:
		return 2
	case v.exported.private(namespace) && v.object.Namespace == namespace:
		return 0
	}
	return 1
}

// virtual returns the VirtualService that routes requests to host for a client: the most specific host, then the nearest
// tier, then the oldest has it; sidecars do not merge them.
func (m *Mesh) virtual(s *scope, host string) *virtualService {
	namespace := s.namespace
	best := func(best, v *virtualService) *virtualService {
		if !v.exported.includes(namespace) || !s.importsVirtual(v) || (best != nil && best.tier(namespace) <= v.tier(namespace)) {
			return best
		}
		return v
	}
	var found *virtualService
	for _, v := range m.hostVirtuals[host] {
		found = best(found, v)
	}
	if found != nil {
		return found
	}
	specific := 0
	for _, w := range m.wildVirtuals {
		if found != nil && len(w.host) < specific {
			break
		}
		if within(host, w.host) {
			if found = best(found, w.virtual); found != nil {
				specific = len(w.host)
			}
		}
	}
	return found
}

// routes builds v's rules for a client's proxy seen at gateway, on port listen. Rules behind one that matches everything are
// left out. Findings go to r.
func (v *virtualService) routes(s *scope, gateway string, listen int, r *report) []model.Rule {
	var out []model.Rule
	for _, rule := range v.rules {
		matches, all, ok := rule.conditions(s, gateway, listen)
		if !ok {
			continue
		}
		built := rule.base
		built.Matches = matches
		if len(rule.destinations) > 0 {
			route := *rule.base.Route
			route.Destinations = s.destinations(rule.destinations, listen, r)
			route.Retries = s.settle(rule.retries, route.Destinations)
			route.Mirrors = s.mirrors(rule.mirrors, listen)
			built.Route = &route
		}
		out = append(out, built)
		if all {
			break
		}
	}
	return out
}

// conditions returns the matches that are left once the static ones are decided, whether they hold for every request, and
// whether the rule is there for this proxy at all.
func (v *virtualRule) conditions(s *scope, gateway string, listen int) (matches []model.Match, all, ok bool) {
	if len(v.matches) == 0 {
		return v.base.Matches, true, true
	}
	for i := range v.matches {
		m := &v.matches[i]
		if !m.holds(s, gateway, listen) {
			continue
		}
		matches = append(matches, m.Match)
		if m.always() {
			return matches, true, true
		}
	}
	return matches, false, len(matches) > 0
}
