package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

var gatewayCoverage = covers("selector", "servers.", "servers.port.", "servers.port.number", "servers.port.protocol", "servers.port.name",
	"servers.hosts", "servers.name", "servers.tls.", "servers.tls.httpsRedirect")

// gateway is a gateway workload, and what it serves.
type gateway struct {
	GatewayWorkload
	servers []*server
}

// server is one server of a Gateway object, or one listener of a Gateway API Gateway.
type server struct {
	object   *config.Object
	field    string
	gateway  string // namespace/name of the object
	name     string
	port     int
	hosts    []serverHost
	redirect bool                // to https
	listener *gatewayv1.Listener // of a Gateway API Gateway
}

// serverHost is a host of a server, and the namespace whose VirtualServices may have it; "*" is any.
type serverHost struct{ namespace, host string }

// hostname returns a Gateway API listener's host; "*" is any.
func (s *server) hostname() string {
	if s.listener.Hostname == nil || *s.listener.Hostname == "" {
		return "*"
	}
	return strings.ToLower(string(*s.listener.Hostname))
}

// readRouters takes the workloads that are gateway proxies out of the workloads with an application.
func (m *Mesh) readRouters() {
	for _, k := range sortedKeys(m.workloads) {
		if w := m.workloads[k]; w.router {
			m.routers = append(m.routers, w)
			delete(m.workloads, k)
		}
	}
}

// readGateways groups the Gateway objects into gateway workloads.
func (m *Mesh) readGateways(objects []*config.Object, r *report) {
	var everywhere []*config.Object
	for _, o := range objects {
		switch spec := o.Spec.(type) {
		case *networking.Gateway:
			m.istioGateways[key(o.Namespace, o.Name)] = o
			if len(spec.Selector) == 0 {
				everywhere = append(everywhere, o)
				continue
			}
			servers := istioServers(o, spec, r)
			for _, g := range m.selectedBy(spec.Selector) {
				g.take(o, servers)
			}
		case *gatewayv1.Gateway:
			m.readGatewayAPI(o, spec, r)
		}
	}
	// A Gateway without a selector is every gateway's.
	for _, o := range everywhere {
		servers := istioServers(o, o.Spec.(*networking.Gateway), r)
		var all []*gateway
		for _, g := range m.gateways {
			if len(g.servers) == 0 || g.servers[0].listener == nil {
				all = append(all, g)
			}
		}
		if len(all) == 0 {
			all = m.selectedBy(map[string]string{"istio": "ingressgateway"})
		}
		for _, g := range all {
			g.take(o, servers)
		}
	}
	slices.SortFunc(m.gateways, func(a, b *gateway) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// take adds an object and its servers to g.
func (g *gateway) take(o *config.Object, servers []*server) {
	ref := GatewayRef{Namespace: o.Namespace, Name: o.Name, Origin: origin(o, "", "")}
	for _, s := range servers {
		ref.Servers = append(ref.Servers, GatewayServer{Port: s.port, Protocol: model.HTTP, Name: s.name})
		if !slices.Contains(g.Ports, s.port) {
			g.Ports = append(g.Ports, s.port)
		}
	}
	slices.Sort(g.Ports)
	g.servers = append(g.servers, servers...)
	g.Objects = append(g.Objects, ref)
}

// selectedBy returns the gateway workloads that a Gateway's selector means: gateway pods of any namespace that have its
// labels, or without such, one named after the labels in the root namespace, as Istio installs it.
func (m *Mesh) selectedBy(selector map[string]string) []*gateway {
	var out []*gateway
	for _, w := range m.routers {
		if selects(selector, w.Labels) {
			out = append(out, m.gatewayOf(w.Peer, w.Labels))
		}
	}
	if len(out) > 0 {
		return out
	}
	name := gatewayWorkloadName(selector)
	labels := maps.Clone(selector)
	if labels["app"] == "" {
		labels["app"] = name
	}
	return []*gateway{m.gatewayOf(m.peer(m.root, name, name+"-service-account", labels), labels)}
}

// gatewayOf returns the gateway of that name, made where it is new.
func (m *Mesh) gatewayOf(p model.Peer, labels map[string]string) *gateway {
	for _, g := range m.gateways {
		if g.Namespace == p.Namespace && g.Name == p.Name {
			for k, v := range labels {
				if _, ok := g.Labels[k]; !ok {
					g.Labels[k] = v
				}
			}
			return g
		}
	}
	g := &gateway{GatewayWorkload: GatewayWorkload{Peer: p, Labels: maps.Clone(labels)}}
	m.gateways = append(m.gateways, g)
	return g
}

// gatewayWorkloadName names a gateway after its labels: {istio: ingressgateway} and {app: istio-ingressgateway} are both
// Istio's own istio-ingressgateway; a label that says more is appended.
func gatewayWorkloadName(selector map[string]string) string {
	var parts []string
	if v := selector["istio"]; v != "" {
		parts = append(parts, "istio-"+v)
	}
	for _, k := range append([]string{"app"}, sortedKeys(selector)...) {
		if v := selector[k]; v != "" && k != "istio" && !slices.Contains(parts, v) {
			parts = append(parts, v)
		}
	}
	name := strings.Trim(strings.Map(func(c rune) rune {
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' {
			return c
		}
		return '-'
	}, strings.ToLower(strings.Join(parts, "-"))), "-.")
	return cmp.Or(name, "gateway")
}

// istioServers returns the servers of an Istio Gateway that are served, and reports the others.
func istioServers(o *config.Object, spec *networking.Gateway, r *report) []*server {
	var out []*server
	left := map[string]bool{}
	for i, sp := range spec.Servers {
		field := element("spec.servers", i)
		s := &server{object: o, field: field, gateway: key(o.Namespace, o.Name), name: cmp.Or(sp.Name, sp.Port.GetName()), port: int(sp.Port.GetNumber())}
		switch protocol := strings.ToUpper(sp.Port.GetProtocol()); {
		case protocol == "HTTP": // of tls, only httpsRedirect means something here
			s.redirect = sp.Tls.GetHttpsRedirect()
		case protocol == "HTTP2" && (sp.Tls == nil || sp.Tls.HttpsRedirect):
			s.redirect = sp.Tls.GetHttpsRedirect()
			r.warn(o, notProxied, field+".port.protocol", "this version carries HTTP/1.1", "port %d (HTTP2) is served as HTTP/1.1: HTTP/2 is not proxied yet", s.port)
		default:
			left["servers["+fmt.Sprint(i)+"]"] = true
			r.warn(o, serverLeftOut, field+".port", "this version serves plain HTTP", "server %d of port %d (%s) is not served yet", i, s.port, sp.Port.GetProtocol())
			continue
		}
		if s.port < 1 || s.port > 65535 {
			r.error(o, badValue, field+".port.number", "use a port from 1 to 65535", "port %d cannot be listened on; the server is left out", s.port)
			continue
		}
		for j, h := range sp.Hosts {
			sh := hostOfServer(h, o.Namespace)
			if !routable(sh.host) {
				r.error(o, badValue, element(field+".hosts", j), `use a full name, or "*." before a suffix`, "host %q cannot be served", h)
				continue
			}
			s.hosts = append(s.hosts, sh)
		}
		out = append(out, s)
	}
	gatewayCoverage.missing(spec.ProtoReflect(), func(field string) {
		if server, _, ok := strings.Cut(field, "."); !ok || !left[server] {
			r.without(o, "spec."+field)
		}
	})
	return out
}

// hostOfServer reads [namespace/]host as a Gateway in namespace writes it.
func hostOfServer(h, namespace string) serverHost {
	h = strings.ToLower(h)
	from, host, ok := strings.Cut(h, "/")
	switch {
	case !ok:
		return serverHost{"*", h}
	case from == ".":
		return serverHost{namespace, host}
	}
	return serverHost{from, host}
}

// readGatewayAPI makes a workload of a Gateway API Gateway, named as Istio's controller names its Deployment.
func (m *Mesh) readGatewayAPI(o *config.Object, spec *gatewayv1.Gateway, r *report) {
	m.apiGateways[key(o.Namespace, o.Name)] = o
	for field, set := range map[string]bool{
		"spec.addresses": len(spec.Spec.Addresses) > 0, "spec.tls": spec.Spec.TLS != nil, "spec.allowedListeners": spec.Spec.AllowedListeners != nil,
		"spec.defaultScope": spec.Spec.DefaultScope != "", "spec.infrastructure": spec.Spec.Infrastructure != nil,
	} {
		if set {
			r.without(o, field)
		}
	}
	var servers []*server
	for i := range spec.Spec.Listeners {
		l := &spec.Spec.Listeners[i]
		field := element("spec.listeners", i)
		if l.Protocol != gatewayv1.HTTPProtocolType {
			r.warn(o, serverLeftOut, field+".protocol", "this version serves plain HTTP", "listener %s of port %d (%s) is not served yet", l.Name, l.Port, l.Protocol)
			continue
		}
		if l.TLS != nil {
			r.without(o, field+".tls")
		}
		s := &server{object: o, field: field, gateway: key(o.Namespace, o.Name), name: string(l.Name), port: int(l.Port), listener: l}
		if !routable(s.hostname()) {
			r.error(o, badValue, field+".hostname", `use a full name, or "*." before a suffix`, "hostname %q cannot be served", s.hostname())
			continue
		}
		servers = append(servers, s)
	}
	labels := map[string]string{"gateway.networking.k8s.io/gateway-name": o.Name}
	name := o.Name
	if class := string(spec.Spec.GatewayClassName); class != "" {
		name += "-" + class
	}
	m.gatewayOf(m.peer(o.Namespace, name, name, labels), labels).take(o, servers)
}
