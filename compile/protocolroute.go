package compile

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// grpcRoute translates a GRPCRoute: a gRPC method is the path /SERVICE/METHOD.
func (m *Mesh) grpcRoute(o *config.Object, spec *gatewayv1.GRPCRoute, r *report) *apiRoute {
	h := m.attached(o, &spec.Spec.CommonRouteSpec, spec.Spec.Hostnames, r)
	for i := range spec.Spec.Rules {
		h.rules = append(h.rules, m.grpcRule(h, &spec.Spec.Rules[i], i, r))
	}
	return h
}

func (m *Mesh) grpcRule(h *apiRoute, spec *gatewayv1.GRPCRouteRule, i int, r *report) *routeRule {
	o := h.object
	rule := newRouteRule(o, spec.Name, i)
	for j := range spec.Matches {
		if match, ok := grpcMatch(o, &spec.Matches[j], element(rule.field+".matches", j), r); ok {
			rule.matches = append(rule.matches, match)
		}
	}
	if len(spec.Matches) == 0 {
		rule.matches = []routeMatch{{}}
	}
	if spec.SessionPersistence != nil {
		r.without(o, rule.field+".sessionPersistence")
	}
	route := &model.Route{Retries: m.retry.outside}
	h.shape(route, rule.field, r)
	f := filters{mesh: m, object: o, rule: &rule.base, mirrors: &rule.mirrors, report: r}
	for j := range spec.Filters {
		f.add(sameFilter(&spec.Filters[j]), element(rule.field+".filters", j))
	}
	refs := make([]gatewayv1.HTTPBackendRef, len(spec.BackendRefs))
	for j := range spec.BackendRefs {
		refs[j].BackendRef = spec.BackendRefs[j].BackendRef
		for k := range spec.BackendRefs[j].Filters {
			refs[j].Filters = append(refs[j].Filters, *sameFilter(&spec.BackendRefs[j].Filters[k]))
		}
	}
	m.forwardTo(rule, h, rule.base.Origin.Rule, f.failed, refs, route, r)
	return rule
}

// sameFilter is f as HTTPRoutes have it.
func sameFilter(f *gatewayv1.GRPCRouteFilter) *gatewayv1.HTTPRouteFilter {
	return &gatewayv1.HTTPRouteFilter{
		Type: gatewayv1.HTTPRouteFilterType(f.Type), RequestHeaderModifier: f.RequestHeaderModifier, ResponseHeaderModifier: f.ResponseHeaderModifier,
		RequestMirror: f.RequestMirror, ExtensionRef: f.ExtensionRef,
	}
}

// newRouteRule begins rule number i of a route.
func newRouteRule(o *config.Object, name *gatewayv1.SectionName, i int) *routeRule {
	field, called := element("spec.rules", i), element("rules", i)
	if name != nil {
		called = string(*name)
	}
	return &routeRule{field: field, base: model.Rule{Origin: origin(o, field, called)}}
}

// grpcMatch translates a match; it is false where an expression cannot be compiled. Of two matches, the longer service, then the
// longer method, then more headers come first.
func grpcMatch(o *config.Object, spec *gatewayv1.GRPCRouteMatch, field string, r *report) (routeMatch, bool) {
	m := routeMatch{rank: rank{headers: len(spec.Headers)}}
	ok := true
	compiles := func(expression, field string) {
		if _, err := regexp.Compile(expression); err != nil {
			badRegex(o, field, err, r)
			ok = false
		}
	}
	if method := spec.Method; method != nil {
		var service, name string
		if method.Service != nil {
			service = *method.Service
		}
		if method.Method != nil {
			name = *method.Method
		}
		m.rank.length, m.rank.method = len(service), len(name)
		exact := method.Type == nil || *method.Type == gatewayv1.GRPCMethodMatchExact
		switch {
		case service == "" && name == "":
		case !exact:
			compiles(service, field+".method.service")
			compiles(name, field+".method.method")
			m.Path = &model.StringMatch{Kind: model.Regex, Value: "/" + part(service) + "/" + part(name)}
		case name == "":
			m.Path = &model.StringMatch{Kind: model.Prefix, Value: "/" + service + "/"}
		case service == "":
			m.Path = &model.StringMatch{Kind: model.Regex, Value: "/[^/]+/" + regexp.QuoteMeta(name)}
		default:
			m.Path = &model.StringMatch{Kind: model.Exact, Value: "/" + service + "/" + name}
		}
	}
	for i, h := range spec.Headers {
		name := strings.ToLower(string(h.Name))
		if slices.ContainsFunc(m.Headers, func(k model.KeyMatch) bool { return k.Name == name }) {
			continue // the API: the first of a name counts
		}
		k := model.KeyMatch{Name: name, StringMatch: model.StringMatch{Kind: model.Exact, Value: h.Value}}
		if h.Type != nil && *h.Type == gatewayv1.GRPCHeaderMatchRegularExpression {
			k.Kind = model.Regex
			compiles(h.Value, element(field+".headers", i)+".value")
		}
		m.Headers = append(m.Headers, k)
	}
	return m, ok
}

// part is an expression for one part of a path.
func part(expression string) string {
	if expression == "" {
		return "[^/]+"
	}
	return "(?:" + expression + ")"
}

// connectionRoute translates a TLSRoute or TCPRoute.
func (m *Mesh) connectionRoute(o *config.Object, common *gatewayv1.CommonRouteSpec, hostnames []gatewayv1.Hostname, rules []gatewayv1.TLSRouteRule, r *report) *apiRoute {
	h := m.attached(o, common, hostnames, r)
	for i := range rules {
		if i > 0 {
			r.warn(o, noEffect, element("spec.rules", i), "remove it", "a connection meets the first rule; this one has no effect")
			continue
		}
		rule := newRouteRule(o, rules[i].Name, i)
		refs := make([]gatewayv1.HTTPBackendRef, len(rules[i].BackendRefs))
		for j := range refs {
			refs[j].BackendRef = rules[i].BackendRefs[j]
		}
		m.forwardTo(rule, h, rule.base.Origin.Rule, "", refs, &model.Route{}, r)
		h.rules = append(h.rules, rule)
	}
	return h
}

// checkPorts reports the routes that are for another kind of port than the service has, and those that another takes the port from.
func (m *Mesh) checkPorts(r *report) {
	m.services.all(func(svc *service) bool {
		for _, a := range m.serviceRoutes[svc.Host] {
			m.checkPort(svc, a, r)
		}
		return true
	})
	for _, v := range m.virtuals {
		if !slices.Contains(v.gateways, inMesh) {
			continue
		}
		v.checkPorts(m.scope(v.object.Namespace, nil), r)
	}
}

// checkPorts reports the kinds of route that none of v's services has a port for.
func (v *virtualService) checkPorts(s *scope, r *report) {
	var known []*service
	for _, host := range v.hosts {
		if svc := s.service(host); svc != nil && len(svc.ports) > 0 {
			known = append(known, svc)
		}
	}
	if len(known) == 0 {
		return
	}
	check := func(field string, n int, want string, fits func(model.Protocol) bool) {
		has := slices.ContainsFunc(known, func(svc *service) bool {
			return slices.ContainsFunc(svc.ports, func(p *port) bool { return fits(p.protocol) })
		})
		if n > 0 && !has {
			r.warn(v.object, wrongPort, field, "name the port after its protocol, or use routes of its kind",
				"%s has no effect: no port of %s is %s; its ports: %s", field, known[0].Host, want, portList(known[0]))
		}
	}
	check("spec.http", len(v.rules), "HTTP or undeclared", func(p model.Protocol) bool { return !opaque(p) })
	check("spec.tcp", len(v.tcp), "TCP or undeclared", func(p model.Protocol) bool { return p == model.TCP || p == model.Auto })
	check("spec.tls", len(v.tls), "TLS or HTTPS", secure)
}

func (m *Mesh) checkPort(svc *service, a attachedRoute, r *report) {
	o := a.route.object
	fits, taken := false, (*apiRoute)(nil)
	var ports []string
	for _, p := range svc.ports {
		if !a.parent.takes(p) {
			continue
		}
		ports = append(ports, p.text())
		switch o.Kind {
		case grpcRoute, webRoute:
			fits = fits || !opaque(p.protocol)
		case tlsRoute:
			fits = fits || secure(p.protocol) || p.protocol == model.Auto
		default:
			fits = fits || opaque(p.protocol) || p.protocol == model.Auto
		}
		client := cmp.Or(o.Namespace, svc.Namespace)
		requests, connection := m.routesOf(p, client), m.connectionRouteOf(p, client)
		switch {
		case o.Kind == webRoute && len(requests) > 0 && requests[0].object.Kind == grpcRoute:
			taken = requests[0]
		case !a.route.requests() && p.protocol == model.Auto && len(requests) > 0:
			taken = requests[0]
		case !a.route.requests() && connection != nil && connection != a.route:
			taken = connection
		}
	}
	if !fits {
		r.warn(o, wrongPort, a.parent.field, "name the port after its protocol, or use a route of its kind", "a %s has no effect on port %s of %s", o.Kind, strings.Join(ports, ", "), svc.Host)
	} else if taken != nil {
		r.warn(o, twoShapers, a.parent.field, "keep one of them", "%s (%s) routes %s already and comes first; this one has no effect there", describe(taken.object), position(taken.object), svc.Host)
	}
}
