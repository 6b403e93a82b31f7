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

// apiRoute is a Gateway API HTTPRoute, GRPCRoute, TLSRoute or TCPRoute whose parts that no client and no backend decide are
// translated. The latter two have one rule, without matches.
type apiRoute struct {
	object    *config.Object
	hostnames []string
	parents   []parentRef
	rules     []*routeRule
	linkerd   *linkerdRoute // what its annotations say; nil without any
}

// kinds of route, by precedence on one port of a Service.
const (
	grpcRoute = "GRPCRoute"
	webRoute  = "HTTPRoute"
	tlsRoute  = "TLSRoute"
	tcpRoute  = "TCPRoute"
)

// requests says whether the route is for requests; any other is for connections.
func (h *apiRoute) requests() bool { return h.object.Kind == grpcRoute || h.object.Kind == webRoute }

// parentRef is what a route is attached to: a Service or a Gateway.
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
	mirrors  []mirrorRef
	implied  *model.Route // to the Service that the route is for, without destinations; nil for a rule that says where to
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

// readRoutes translates all routes of the Gateway API in the order of precedence: oldest, then namespace and name.
func (m *Mesh) readRoutes(objects []*config.Object, r *report) {
	for _, o := range objects {
		switch spec := o.Spec.(type) {
		case *gatewayv1.HTTPRoute:
			m.routes = append(m.routes, m.apiRoute(o, spec, r))
		case *gatewayv1.GRPCRoute:
			m.routes = append(m.routes, m.grpcRoute(o, spec, r))
		case *gatewayv1.TLSRoute:
			m.routes = append(m.routes, m.connectionRoute(o, &spec.Spec.CommonRouteSpec, spec.Spec.Hostnames, spec.Spec.Rules, r))
		case *gatewayv1.TCPRoute:
			var rules []gatewayv1.TLSRouteRule
			for _, rule := range spec.Spec.Rules {
				rules = append(rules, gatewayv1.TLSRouteRule(rule))
			}
			m.routes = append(m.routes, m.connectionRoute(o, &spec.Spec.CommonRouteSpec, nil, rules, r))
		}
	}
	slices.SortStableFunc(m.routes, func(a, b *apiRoute) int {
		return cmp.Or(a.object.Created.Compare(b.object.Created), cmp.Compare(key(a.object.Namespace, a.object.Name), key(b.object.Namespace, b.object.Name)))
	})
	kinds := map[string]bool{}
	for _, h := range m.routes {
		kinds[h.object.Kind] = true
	}
	m.mixed = kinds[webRoute] && kinds[grpcRoute]
	for _, h := range m.routes {
		for _, p := range h.parents {
			if p.service {
				host := fullName(p.name, p.namespace, m.domain)
				m.serviceRoutes[host] = append(m.serviceRoutes[host], attachedRoute{h, p})
			}
		}
	}
}

// attachedRoute is a route under one of its parents.
type attachedRoute struct {
	route  *apiRoute
	parent parentRef
}

func (m *Mesh) apiRoute(o *config.Object, spec *gatewayv1.HTTPRoute, r *report) *apiRoute {
	h := m.attached(o, &spec.Spec.CommonRouteSpec, spec.Spec.Hostnames, r)
	for i := range spec.Spec.Rules {
		h.rules = append(h.rules, m.routeRule(h, &spec.Spec.Rules[i], i, r))
	}
	return h
}

// attached reads what all routes have.
func (m *Mesh) attached(o *config.Object, spec *gatewayv1.CommonRouteSpec, hostnames []gatewayv1.Hostname, r *report) *apiRoute {
	h := &apiRoute{object: o}
	if h.requests() {
		h.linkerd = readLinkerdRoute(o, r)
	}
	for _, name := range hostnames {
		h.hostnames = append(h.hostnames, strings.ToLower(string(name)))
	}
	if spec.UseDefaultGateways != "" {
		r.without(o, "spec.useDefaultGateways")
	}
	for i, ref := range spec.ParentRefs {
		if p, ok := m.parent(o, ref, element("spec.parentRefs", i), r); ok {
			h.parents = append(h.parents, p)
		}
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

func (m *Mesh) routeRule(h *apiRoute, spec *gatewayv1.HTTPRouteRule, i int, r *report) *routeRule {
	o := h.object
	rule := newRouteRule(o, spec.Name, i)
	field, name := rule.field, rule.base.Origin.Rule
	for j := range spec.Matches {
		if match, ok := routeMatchOf(o, &spec.Matches[j], element(field+".matches", j), r); ok {
			rule.matches = append(rule.matches, match)
		}
	}
	if len(spec.Matches) == 0 {
		rule.matches = []routeMatch{{rank: rank{path: 1, length: 1}, Match: model.Match{Path: &model.StringMatch{Kind: model.PathPrefix, Value: "/"}}}}
	}
	if spec.SessionPersistence != nil {
		r.without(o, field+".sessionPersistence")
	}
	route := &model.Route{Retries: m.routeRetries(o, field+".retry", spec.Retry, r)}
	if t := spec.Timeouts; t != nil {
		route.Timeout = gatewayDuration(o, field+".timeouts.request", t.Request, r)
		route.BackendTimeout = gatewayDuration(o, field+".timeouts.backendRequest", t.BackendRequest, r)
	}
	h.shape(route, field, r)
	f := filters{mesh: m, object: o, rule: &rule.base, route: route, mirrors: &rule.mirrors, report: r}
	for j := range spec.Filters {
		f.add(&spec.Filters[j], element(field+".filters", j))
	}
	if f.failed == "" && rule.base.Redirect != nil {
		return rule
	}
	m.forwardTo(rule, h, name, f.failed, spec.BackendRefs, route, r)
	return rule
}

// unrouted is the status of requests whose rule leads nowhere: for gRPC, what means UNAVAILABLE (Gateway API).
func unrouted(o *config.Object) int {
	if o.Kind == webRoute {
		return 500
	}
	return 503
}

// unroutedText says what becomes of them, for people.
func unroutedText(o *config.Object) string {
	if o.Kind == grpcRoute {
		return "answered UNAVAILABLE"
	}
	return fmt.Sprintf("answered %d", unrouted(o))
}

// forwardTo gives a rule its backends. Where it cannot have any, it answers; failed says why it must, if a filter does.
func (m *Mesh) forwardTo(rule *routeRule, h *apiRoute, name, failed string, refs []gatewayv1.HTTPBackendRef, route *model.Route, r *report) {
	o := h.object
	status, what := unrouted(o), "requests"
	fate := unroutedText(o)
	if o.Kind == tlsRoute || o.Kind == tcpRoute {
		what, fate = "connections", "refused"
	}
	if failed != "" {
		rule.base.Redirect, rule.base.Reply = nil, &model.Reply{Status: status, Body: failed}
		return
	}
	if len(refs) == 0 {
		rule.base.Reply = &model.Reply{Status: status, Body: fmt.Sprintf("rule %s of %s has no backendRefs\n", name, describe(o))}
		if h.linkerd != nil && h.meshed() {
			rule.implied, what = route, what+" at gateways"
			if !slices.ContainsFunc(h.parents, func(p parentRef) bool { return !p.service }) {
				return
			}
		}
		remedy := "add backendRefs"
		if o.Kind == webRoute {
			remedy = "add backendRefs or a redirect"
		}
		if h.requests() && h.meshed() && rule.implied == nil {
			remedy += "; without an annotation of Linkerd's, nothing goes to the parent Service by itself"
		}
		r.warn(o, badBackend, rule.field, remedy, "the rule has no backendRefs; its %s are %s", what, fate)
		return
	}
	var sum uint32
	for j := range refs {
		b := m.backend(o, &refs[j], element(rule.field+".backendRefs", j), r)
		sum += b.weight
		rule.backends = append(rule.backends, b)
	}
	if rule.base.Route = route; sum == 0 {
		rule.base.Route, rule.backends = nil, nil
		rule.base.Reply = &model.Reply{Status: status, Body: fmt.Sprintf("all backendRefs of rule %s of %s have weight 0\n", name, describe(o))}
		r.warn(o, noWeight, rule.field+".backendRefs", "give one of them a weight", "all backendRefs have weight 0; the rule's %s are %s", what, fate)
	}
}

func (m *Mesh) backend(o *config.Object, ref *gatewayv1.HTTPBackendRef, field string, r *report) backendRef {
	b := m.service(o, &ref.BackendObjectReference, field)
	if ref.Weight != nil {
		b.weight = uint32(max(*ref.Weight, 0))
	}
	edits := model.Rule{}
	f := filters{mesh: m, object: o, rule: &edits, report: r, backend: true}
	for j := range ref.Filters {
		f.add(&ref.Filters[j], element(field+".filters", j))
	}
	b.request, b.response = edits.Request, edits.Response
	if f.failed != "" && b.invalid == nil {
		b.invalid = &refusal{badFilter, "", f.failed, ""}
	}
	return b
}

// service reads a reference to a Service's port.
func (m *Mesh) service(o *config.Object, ref *gatewayv1.BackendObjectReference, field string) backendRef {
	b := backendRef{namespace: o.Namespace, name: string(ref.Name), weight: 1, field: field}
	if ref.Namespace != nil {
		b.namespace = string(*ref.Namespace)
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
	return b
}

// entry is a rule for one match, ready to be put into order among others.
type entry struct {
	rule model.Rule
	from *routeRule
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

// entries builds the rules of h, one for each match. Where it is guarded, backends in other namespaces need a ReferenceGrant.
func (h *apiRoute) entries(s *scope, host int, guarded bool, r *report) []entry {
	var out []entry
	for _, rule := range h.rules {
		built := rule.base
		if len(rule.backends) > 0 {
			route := *rule.base.Route
			route.Destinations = nil
			for i := range rule.backends {
				route.Destinations = append(route.Destinations, h.destination(s, &rule.backends[i], guarded, r))
			}
			if h.requests() {
				route.Retries = s.settle(retryRule{retries: route.Retries}, route.Destinations)
				route.Mirrors = h.mirrors(s, rule.mirrors, guarded, r)
			}
			built.Route = &route
		}
		if len(rule.matches) == 0 && !h.requests() {
			out = append(out, entry{rule: built, from: rule, host: host})
		}
		for _, match := range rule.matches {
			one := built
			one.Matches = []model.Match{match.Match}
			out = append(out, entry{rule: one, from: rule, host: host, rank: match.rank})
		}
	}
	return out
}

func (h *apiRoute) destination(s *scope, b *backendRef, guarded bool, r *report) model.Destination {
	c, f, reachable := h.target(s, b, guarded, r)
	if f != nil && (b.weight > 0 || f.id == badFilter) {
		f.report(r, h.object, b.field)
	}
	status := unrouted(h.object)
	if reachable {
		status = 503
	}
	d := s.destination(c, f, b.weight, status)
	if !reachable && f != nil {
		d.Reply.Outcome = ""
	}
	d.Request, d.Response = b.request, b.response
	return d
}

// target returns the cluster that b means, or why there is none; reachable says that there is one that cannot be used.
func (h *apiRoute) target(s *scope, b *backendRef, guarded bool, r *report) (c *cluster, f *refusal, reachable bool) {
	f = b.invalid
	if f == nil && guarded && !s.mesh.granted(reference{h.object.Kind, h.object.Namespace, "Service", b.namespace, b.name}) {
		f = &refusal{
			notGranted, "", fmt.Sprintf("backendRef %s/%s is in another namespace, and no ReferenceGrant there allows it", b.namespace, b.name),
			"add a ReferenceGrant from " + h.object.Kind + " of namespace " + h.object.Namespace + " to Service in namespace " + b.namespace,
		}
	}
	if f == nil {
		if svc := s.mesh.services.find(b.host, s.namespace); svc == nil || svc.entry {
			f = &refusal{badBackend, "name", fmt.Sprintf("backendRef %s/%s is no Service", b.namespace, b.name), "check the name and namespace, or add the Service"}
		} else if p := svc.port(b.port); p == nil {
			f = &refusal{badBackend, "port", fmt.Sprintf("backendRef %s/%s has no port %d; its ports: %s", b.namespace, b.name, b.port, portList(svc)), "name one of its ports"}
		} else if f = h.unfit(s, p); f == nil {
			if c, f = s.cluster(p, ""); f != nil {
				reachable = true
			} else if h.object.Kind == grpcRoute && c.Protocol == model.HTTP && b.weight > 0 {
				r.warn(h.object, unfit, b.field+".port", "name the port grpc or http2, or write appProtocol: kubernetes.io/h2c",
					"port %s of %s is spoken to with HTTP/1.1, which carries no gRPC", p.text(), p.service.Host)
			}
		}
	}
	return c, f, reachable
}

// unfit says why requests that h routes to p cannot be sent there; nil where they can, or where h is for connections.
func (h *apiRoute) unfit(s *scope, p *port) *refusal {
	if !h.requests() {
		return nil
	}
	return s.mesh.cluster(p, "", s.rule(p.service), s).unfit(s.gateway != "" && h.object.Kind != grpcRoute)
}

// routesOf returns the HTTPRoutes that a client in namespace meets at port p, or its GRPCRoutes, which come before them.
func (m *Mesh) routesOf(p *port, namespace string) []*apiRoute {
	all := m.meets(p, namespace, (*apiRoute).requests)
	grpc := slices.DeleteFunc(slices.Clone(all), func(h *apiRoute) bool { return h.object.Kind != grpcRoute })
	if len(grpc) > 0 {
		return grpc
	}
	return all
}

// connectionRouteOf returns the TLSRoute or TCPRoute, in this order, that a client in namespace meets at port p; nil without one, and
// where routes for requests have the port.
func (m *Mesh) connectionRouteOf(p *port, namespace string) *apiRoute {
	all := m.meets(p, namespace, func(h *apiRoute) bool { return !h.requests() })
	if len(all) == 0 || (p.protocol == model.Auto && len(m.routesOf(p, namespace)) > 0) {
		return nil
	}
	for _, h := range all {
		if h.object.Kind == tlsRoute && p.protocol != model.TCP {
			return h
		}
	}
	for _, h := range all {
		if h.object.Kind == tcpRoute {
			return h
		}
	}
	return nil
}

// meets returns the routes of some kinds that a client in namespace meets at port p: those of its own namespace for a Service
// of another (consumer routes), and only where there are none, those of the Service's namespace (producer routes).
func (m *Mesh) meets(p *port, namespace string, kind func(*apiRoute) bool) []*apiRoute {
	var consumer, producer []*apiRoute
	for _, a := range m.serviceRoutes[p.service.Host] {
		if !a.parent.takes(p) || p.service.entry || !kind(a.route) {
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
