package compile

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// apiHosts adds what HTTPRoutes and GRPCRoutes say of a Gateway API Gateway's listeners; all are the servers of the port.
func (m *Mesh) apiHosts(s *scope, servers, all []*server, hosts hostTable) {
	listeners := slices.DeleteFunc(slices.Clone(all), func(sv *server) bool { return sv.listener == nil || sv.inside != model.HTTP })
	for _, sv := range servers {
		if sv.listener == nil {
			continue
		}
		var attached []hostedRoute
		domains := []string{sv.hostname()}
		for _, h := range m.routes {
			for _, name := range m.accepted(sv, h, attached) {
				attached = append(attached, hostedRoute{h, name})
				if !slices.Contains(domains, name) {
					domains = append(domains, name)
				}
			}
		}
		for _, domain := range domains {
			if _, taken := hosts.index[domain]; taken || sv.yields(domain, listeners) {
				continue
			}
			var all []entry
			for _, a := range attached {
				closer := func(b hostedRoute) bool { // a route with several hostnames for it is there once
					return b.route == a.route && within(domain, b.hostname) && specificity(b.hostname) > specificity(a.hostname)
				}
				if within(domain, a.hostname) && (len(a.route.hostnames) < 2 || !slices.ContainsFunc(attached, closer)) {
					all = append(all, a.route.entries(s, specificity(a.hostname), true, nil)...)
				}
			}
			hosts.host(domain).Rules = sortEntries(all)
		}
	}
}

// accepted returns the hostnames under which a listener takes h for requests: none where a route of the other kind, which came
// first, has one of them (Gateway API: HTTPRoutes and GRPCRoutes share no hostname of a listener).
func (m *Mesh) accepted(sv *server, h *apiRoute, before []hostedRoute) []string {
	if !h.requests() {
		return nil
	}
	names := m.attachment(sv, h)
	for _, b := range before {
		if b.route.object.Kind != h.object.Kind && slices.ContainsFunc(names, func(n string) bool { return within(n, b.hostname) || within(b.hostname, n) }) {
			return nil
		}
	}
	return names
}

// rival returns the route that has all hostnames of h at a listener, so that h gets nothing there; nil where it gets any.
func (m *Mesh) rival(sv *server, h *apiRoute) *apiRoute {
	names := m.attachment(sv, h)
	if h.requests() {
		if !m.mixed {
			return nil
		}
		var before []hostedRoute
		for _, o := range m.routes[:slices.Index(m.routes, h)] {
			for _, n := range m.accepted(sv, o, before) {
				before = append(before, hostedRoute{o, n})
			}
		}
		for _, b := range before {
			if len(m.accepted(sv, h, []hostedRoute{b})) == 0 {
				return b.route
			}
		}
		return nil
	}
	has := map[string]*apiRoute{}
	for _, kind := range []string{tlsRoute, tcpRoute} {
		for _, o := range m.routes {
			if o.object.Kind != kind {
				continue
			}
			for _, n := range m.attachment(sv, o) {
				if n = connectionName(kind, n); has[n] == nil {
					has[n] = o
				}
			}
		}
	}
	var first *apiRoute
	for _, n := range names {
		switch o := has[connectionName(h.object.Kind, n)]; {
		case o == h:
			return nil
		case first == nil:
			first = o
		}
	}
	return first
}

// connectionName is what a route is found by at a listener: a TCPRoute knows no names.
func connectionName(kind, name string) string {
	if kind == tcpRoute {
		return "*"
	}
	return name
}

// hostedRoute is a route under one of the hostnames that it has at a listener.
type hostedRoute struct {
	route    *apiRoute
	hostname string
}

// specificity orders hostnames: any exact one before any wildcard, then the longer.
func specificity(host string) int {
	if wildcard(host) {
		return len(host)
	}
	return 1000 + len(host)
}

// yields says whether another listener of the port has a hostname that is closer to domain: its requests are that one's alone.
func (s *server) yields(domain string, listeners []*server) bool {
	mine := s.hostname()
	for _, o := range listeners {
		if theirs := o.hostname(); theirs != mine && within(domain, theirs) && within(theirs, mine) {
			return true
		}
	}
	return false
}

// attachment returns the hostnames under which route is attached to a listener; none where it is not.
func (m *Mesh) attachment(s *server, h *apiRoute) []string {
	attached := false
	for _, p := range h.parents {
		if !p.service && key(p.namespace, p.name) == s.gateway && (p.section == "" || p.section == s.name) && (p.port == 0 || p.port == s.port) {
			attached = true
		}
	}
	if !attached || !m.admits(s, h.object.Kind, h.object.Namespace) {
		return nil
	}
	if len(h.hostnames) == 0 {
		return []string{s.hostname()}
	}
	var out []string
	for _, name := range h.hostnames {
		if n, ok := narrower(name, s.hostname()); ok && routable(n) && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// listenerKinds are the kinds of route that a listener takes, by its protocol.
var listenerKinds = map[gatewayv1.ProtocolType][]string{
	gatewayv1.HTTPProtocolType:  {webRoute, grpcRoute},
	gatewayv1.HTTPSProtocolType: {webRoute, grpcRoute},
	gatewayv1.TLSProtocolType:   {tlsRoute, tcpRoute},
	gatewayv1.TCPProtocolType:   {tcpRoute},
}

// admits says whether a listener takes a route's kind, from its namespace.
func (m *Mesh) admits(s *server, route, namespace string) bool {
	if !slices.Contains(listenerKinds[s.listener.Protocol], route) {
		return false
	}
	allowed := s.listener.AllowedRoutes
	if allowed == nil {
		return namespace == s.object.Namespace
	}
	kinds := len(allowed.Kinds) == 0
	for _, k := range allowed.Kinds {
		kinds = kinds || (string(k.Kind) == route && (k.Group == nil || *k.Group == gatewayv1.GroupName))
	}
	if !kinds {
		return false
	}
	from := gatewayv1.NamespacesFromSame
	if allowed.Namespaces != nil && allowed.Namespaces.From != nil {
		from = *allowed.Namespaces.From
	}
	switch from {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSelector:
		selector, err := metav1.LabelSelectorAsSelector(allowed.Namespaces.Selector)
		return err == nil && selector.Matches(labels.Set(m.namespaceLabels(namespace)))
	case gatewayv1.NamespacesFromSame:
		return namespace == s.object.Namespace
	}
	return false
}

// namespaceLabels returns a namespace's labels, with the one that every namespace has.
func (m *Mesh) namespaceLabels(namespace string) map[string]string {
	out := map[string]string{"kubernetes.io/metadata.name": namespace}
	for k, v := range m.namespaces[namespace] {
		out[k] = v
	}
	return out
}
