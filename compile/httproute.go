package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// gatewayGroup is the Gateway API's group, which references mean when they name none.
const gatewayGroup = gatewayv1.GroupName

// httpRoute is a Gateway API HTTPRoute whose parts that no client and no backend decide are translated.
type httpRoute struct {
	object    *config.Object
	hostnames []string
	parents   []parentRef
	rules     []*routeRule
}

// parentRef is what an HTTPRoute is attached to: a Service or a Gateway.
type parentRef struct {
	service         bool
	namespace, name string
	section         string // listener, or port name of a Service
	port            int    // 0 is any
	field           string
}

// routeRule is one rule of an HTTPRoute.
type routeRule struct {
	base     model.Rule // Matches and destinations are not in yet
	matches  []routeMatch
	backends []backendRef
	field    string
}

// routeMatch is a match and where it stands among others.
type routeMatch struct {
	model.Match
	rank rank
}

// rank orders matches by the Gateway API's precedence; greater first, field by field.
type rank struct {
	path    int // exact 3, regular expression 2, prefix 1: the API leaves expressions to implementations
	length  int // of the path's value
	method  int
	headers int
	query   int
}

func (a rank) compare(b rank) int {
	return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.length, b.length), cmp.Compare(a.method, b.method), cmp.Compare(a.headers, b.headers), cmp.Compare(a.query, b.query))
}

// backendRef is one target of a rule.
type backendRef struct {
	host      string
	namespace string
	name      string
	port      int
	weight    uint32
	request   model.HeaderEdits
	response  model.HeaderEdits
	invalid   *refusal // why it can never be used
	field     string
}

// readHTTPRoutes translates all HTTPRoutes in the order of precedence: oldest, then namespace and name.
func (m *Mesh) readHTTPRoutes(objects []*config.Object, r *report) {
	for _, o := range objects {
		spec, ok := o.Spec.(*gatewayv1.HTTPRoute)
		if !ok {
			continue
		}
		m.routes = append(m.routes, m.httpRoute(o, spec, r))
	}
	slices.SortStableFunc(m.routes, func(a, b *httpRoute) int {
		return cmp.Or(a.object.Created.Compare(b.object.Created), cmp.Compare(key(a.object.Namespace, a.object.Name), key(b.object.Namespace, b.object.Name)))
	})
	for _, h := range m.routes {
		for _, p := range h.parents {
			if p.service {
				host := fullName(p.name, p.namespace, m.domain)
				m.serviceRoutes[host] = append(m.serviceRoutes[host], attachedRoute{h, p})
			}
		}
	}
}

// attachedRoute is an HTTPRoute under one of its parents.
type attachedRoute struct {
	route  *httpRoute
	parent parentRef
}

func (m *Mesh) httpRoute(o *config.Object, spec *gatewayv1.HTTPRoute, r *report) *httpRoute {
	h := &httpRoute{object: o}
	for _, name := range spec.Spec.Hostnames {
		h.hostnames = append(h.hostnames, strings.ToLower(string(name)))
	}
	if spec.Spec.UseDefaultGateways != "" {
		r.without(o, "spec.useDefaultGateways")
	}
	for i, ref := range spec.Spec.ParentRefs {
		if p, ok := m.parent(o, ref, element("spec.parentRefs", i), r); ok {
			h.parents = append(h.parents, p)
		}
	}
	for i := range spec.Spec.Rules {
		h.rules = append(h.rules, m.routeRule(o, &spec.Spec.Rules[i], i, r))
	}
	return h
}

// parent reads a parentRef; false where this version knows no such parent.
func (m *Mesh) parent(o *config.Object, ref gatewayv1.ParentReference, field string, r *report) (parentRef, bool) {
	p := parentRef{namespace: o.Namespace, name: string(ref.Name), field: field}
	if ref.Namespace != nil {
		p.namespace = string(*ref.Namespace)
	}
	if ref.SectionName != nil {
		p.section = string(*ref.SectionName)
	}
	if ref.Port != nil {
		p.port = int(*ref.Port)
	}
	group, kind := gatewayGroup, "Gateway"
	if ref.Group != nil {
		group = string(*ref.Group)
	}
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	switch {
	case kind == "Service" && (group == "" || group == "core"):
		p.service = true
		svc := m.services.find(fullName(p.name, p.namespace, m.domain), o.Namespace)
		if svc == nil || svc.entry {
			r.error(o, unknownParent, field+".name", "check the name and namespace, or add the Service", "there is no Service %s/%s", p.namespace, p.name)
			return p, false
		}
		if !slices.ContainsFunc(svc.ports, p.takes) {
			r.error(o, unknownParent, field, "its ports: "+portList(svc), "Service %s/%s has no such port", p.namespace, p.name)
			return p, false
		}
		return p, true
	case kind == "Gateway" && group == gatewayGroup:
		return p, true
	case kind == "Service":
		r.error(o, unknownParent, field, `write group: "" for a Service`, "parent %s of group %q is unknown", kind, group)
	default:
		r.warn(o, noEffect, field, "attach it to a Service or a Gateway", "parent %s of group %q has no effect yet", kind, group)
	}
	return p, false
}

// takes says whether a reference to a Service is for its port s.
func (p parentRef) takes(s *port) bool {
	return (p.port == 0 || p.port == s.number) && (p.section == "" || p.section == s.name)
}

func (m *Mesh) routeRule(o *config.Object, spec *gatewayv1.HTTPRouteRule, i int, r *report) *routeRule {
	field := element("spec.rules", i)
	name := element("rules", i)
	if spec.Name != nil {
		name = string(*spec.Name)
	}
	rule := &routeRule{field: field, base: model.Rule{Origin: origin(o, field, name)}}
	for j := range spec.Matches {
		if match, ok := routeMatchOf(o, &spec.Matches[j], element(field+".matches", j), r); ok {
			rule.matches = append(rule.matches, match)
		}
	}
	if len(spec.Matches) == 0 {
		rule.matches = []routeMatch{{rank: rank{path: 1, length: 1}, Match: model.Match{Path: &model.StringMatch{Kind: model.PathPrefix, Value: "/"}}}}
	}
	if spec.Retry != nil {
		r.without(o, field+".retry")
	}
	if spec.SessionPersistence != nil {
		r.without(o, field+".sessionPersistence")
	}
	route := &model.Route{}
	if t := spec.Timeouts; t != nil {
		route.Timeout = gatewayDuration(o, field+".timeouts.request", t.Request, r)
		route.BackendTimeout = gatewayDuration(o, field+".timeouts.backendRequest", t.BackendRequest, r)
	}
	f := filters{object: o, rule: &rule.base, route: route, report: r}
	for j := range spec.Filters {
		f.add(&spec.Filters[j], element(field+".filters", j))
	}
	switch {
	case f.failed != "":
		rule.base.Redirect, rule.base.Reply = nil, &model.Reply{Status: 500, Body: f.failed}
	case rule.base.Redirect != nil:
	case len(spec.BackendRefs) == 0:
		rule.base.Reply = &model.Reply{Status: 500, Body: fmt.Sprintf("rule %s of HTTPRoute %s/%s has no backendRefs\n", name, o.Namespace, o.Name)}
		r.warn(o, badBackend, field, "add backendRefs or a redirect", "the rule has no backendRefs; its requests are answered 500")
	default:
		rule.base.Route = route
		var sum uint32
		for j := range spec.BackendRefs {
			b := m.backend(o, &spec.BackendRefs[j], element(field+".backendRefs", j), r)
			sum += b.weight
			rule.backends = append(rule.backends, b)
		}
		if sum == 0 {
			rule.base.Route, rule.backends = nil, nil
			rule.base.Reply = &model.Reply{Status: 500, Body: fmt.Sprintf("all backendRefs of rule %s of HTTPRoute %s/%s have weight 0\n", name, o.Namespace, o.Name)}
			r.warn(o, noWeight, field+".backendRefs", "give one of them a weight", "all backendRefs have weight 0; the rule's requests are answered 500")
		}
	}
	return rule
}

func (m *Mesh) backend(o *config.Object, ref *gatewayv1.HTTPBackendRef, field string, r *report) backendRef {
	b := backendRef{namespace: o.Namespace, name: string(ref.Name), weight: 1, field: field}
	if ref.Namespace != nil {
		b.namespace = string(*ref.Namespace)
	}
	if ref.Weight != nil {
		b.weight = uint32(max(*ref.Weight, 0))
	}
	if ref.Port != nil {
		b.port = int(*ref.Port)
	}
	b.host = fullName(b.name, b.namespace, m.domain)
	group, kind := "", "Service"
	if ref.Group != nil {
		group = string(*ref.Group)
	}
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	switch {
	case kind != "Service" || (group != "" && group != "core"):
		b.invalid = &refusal{badBackend, "kind", fmt.Sprintf("backendRef of kind %s, group %q, is unknown", kind, group), "refer to a Service"}
	case b.port == 0:
		b.invalid = &refusal{badBackend, "port", fmt.Sprintf("backendRef %s names no port", b.name), "name the Service's port"}
	}
	edits := model.Rule{}
	f := filters{object: o, rule: &edits, report: r, backend: true}
	for j := range ref.Filters {
		f.add(&ref.Filters[j], element(field+".filters", j))
	}
	b.request, b.response = edits.Request, edits.Response
	if f.failed != "" && b.invalid == nil {
		b.invalid = &refusal{badFilter, "", f.failed, ""}
	}
	return b
}

// entry is a rule for one match, ready to be put into order among others.
type entry struct {
	rule model.Rule
	host int // how specific the hostname is that brought it here
	rank rank
}

// sortEntries puts entries into the order of precedence. They come in the order of routes, rules and matches, which breaks ties.
func sortEntries(all []entry) []model.Rule {
	slices.SortStableFunc(all, func(a, b entry) int { return cmp.Or(cmp.Compare(b.host, a.host), b.rank.compare(a.rank)) })
	out := make([]model.Rule, 0, len(all))
	for _, e := range all {
		out = append(out, e.rule)
	}
	return out
}

// entries builds the rules of h, one for each match. With granted, backends in other namespaces need its leave.
func (h *httpRoute) entries(s *scope, host int, granted func(from, namespace, name string) bool, r *report) []entry {
	var out []entry
	for _, rule := range h.rules {
		built := rule.base
		if len(rule.backends) > 0 {
			route := *rule.base.Route
			route.Destinations = nil
			for i := range rule.backends {
				route.Destinations = append(route.Destinations, h.destination(s, &rule.backends[i], granted, r))
			}
			built.Route = &route
		}
		for _, match := range rule.matches {
			one := built
			one.Matches = []model.Match{match.Match}
			out = append(out, entry{rule: one, host: host, rank: match.rank})
		}
	}
	return out
}

func (h *httpRoute) destination(s *scope, b *backendRef, granted func(from, namespace, name string) bool, r *report) model.Destination {
	var c *cluster
	status, f := 500, b.invalid
	if f == nil && granted != nil && b.namespace != h.object.Namespace && !granted(h.object.Namespace, b.namespace, b.name) {
		f = &refusal{
			notGranted, "", fmt.Sprintf("backendRef %s/%s is in another namespace, and no ReferenceGrant there allows it", b.namespace, b.name),
			"add a ReferenceGrant from HTTPRoute of namespace " + h.object.Namespace + " to Service in namespace " + b.namespace,
		}
	}
	if f == nil {
		if svc := s.mesh.services.find(b.host, s.namespace); svc == nil || svc.entry {
			f = &refusal{badBackend, "name", fmt.Sprintf("backendRef %s/%s is no Service", b.namespace, b.name), "check the name and namespace, or add the Service"}
		} else if p := svc.port(b.port); p == nil {
			f = &refusal{badBackend, "port", fmt.Sprintf("backendRef %s/%s has no port %d; its ports: %s", b.namespace, b.name, b.port, portList(svc)), "name one of its ports"}
		} else if c, f = s.cluster(p, ""); f != nil {
			status = 503
		}
	}
	if f != nil && (b.weight > 0 || f.id == badFilter) {
		f.report(r, h.object, b.field)
	}
	d := s.destination(c, f, b.weight, status)
	if status == 500 && f != nil {
		d.Reply.Outcome = ""
	}
	d.Request, d.Response = b.request, b.response
	return d
}

// routesOf returns the HTTPRoutes that a client in namespace meets at port p: those of its own namespace for a Service
// of another (consumer routes), and only where there are none, those of the Service's namespace (producer routes).
func (m *Mesh) routesOf(p *port, namespace string) []*httpRoute {
	var consumer, producer []*httpRoute
	for _, a := range m.serviceRoutes[p.service.Host] {
		if !a.parent.takes(p) || p.service.entry {
			continue
		}
		switch from := a.route.object.Namespace; {
		case from == p.service.Namespace:
			if !slices.Contains(producer, a.route) {
				producer = append(producer, a.route)
			}
		case from == namespace && !slices.Contains(consumer, a.route):
			consumer = append(consumer, a.route)
		}
	}
	if len(consumer) > 0 {
		return consumer
	}
	return producer
}
