package compile

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

var gatewayCoverage = covers("selector", "servers.", "servers.port.", "servers.port.number", "servers.port.protocol", "servers.port.name",
	"servers.hosts", "servers.name", "servers.tls")

// gateway is a gateway workload, and what it serves.
type gateway struct {
	GatewayWorkload
	servers []*server
	first   map[int]*server      // of each port, the server that decides whether it speaks HTTP, bytes or TLS
	names   map[string][]*server // by port and server name: who has it
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
	protocol model.Protocol      // as declared
	inside   model.Protocol      // HTTP or TCP: what is routed, once TLS is open
	tls      *model.ServerTLS    // how TLS is taken, without names; nil is none
}

// class is what a port speaks: servers of two classes cannot share one.
func (s *server) class() string {
	switch {
	case s.tls != nil:
		return "TLS"
	case s.inside == model.HTTP:
		return "HTTP"
	}
	return "TCP"
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

// routerBehind returns the gateway proxy that a port's selector finds where it finds no application, nil otherwise.
func (m *Mesh) routerBehind(p *port) *workload {
	if len(p.selector) == 0 || len(p.workloads) > 0 {
		return nil
	}
	for _, w := range m.routers {
		if w.Namespace == p.service.Namespace && selects(p.selector, w.Labels) {
			return w
		}
	}
	return nil
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
			servers := m.istioServers(o, spec, r)
			for _, g := range m.selectedBy(spec.Selector) {
				g.take(o, servers, r)
			}
		case *gatewayv1.Gateway:
			m.readGatewayAPI(o, spec, r)
		}
	}
	// A Gateway without a selector is every gateway's.
	for _, o := range everywhere {
		servers := m.istioServers(o, o.Spec.(*networking.Gateway), r)
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
			g.take(o, servers, r)
		}
	}
	slices.SortFunc(m.gateways, func(a, b *gateway) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
}

// take adds an object and those of its servers to g that fit to the ones that g has.
func (g *gateway) take(o *config.Object, servers []*server, r *report) {
	ref := GatewayRef{Namespace: o.Namespace, Name: o.Name, Origin: origin(o, "", "")}
	for _, s := range servers {
		if s = g.fit(s, r); s == nil {
			continue
		}
		served := GatewayServer{Port: s.port, Protocol: s.protocol, Name: s.name}
		for _, h := range s.hosts {
			served.Hosts = append(served.Hosts, h.host)
		}
		ref.Servers = append(ref.Servers, served)
		if !slices.Contains(g.Ports, s.port) {
			g.Ports = append(g.Ports, s.port)
		}
		g.servers = append(g.servers, s)
	}
	slices.Sort(g.Ports)
	g.Objects = append(g.Objects, ref)
}

// fit returns s as far as g can serve it beside the servers that it has, nil where it cannot. The first of a port decides what
// the port speaks; the first of a server name has it.
func (g *gateway) fit(s *server, r *report) *server {
	first := g.first[s.port]
	if first == nil {
		if g.first == nil {
			g.first = map[int]*server{}
		}
		g.first[s.port] = s
	} else if first.class() != s.class() {
		r.error(s.object, serverConflict, s.field+s.protocolField(), "use another port", "port %d speaks %s already (%s, %s): %s cannot share it; the server is left out",
			s.port, first.class(), describe(first.object), at(first.origin()), strings.ToUpper(string(s.protocol)))
		return nil
	}
	switch s.class() {
	case "TLS":
		return g.claim(s, r)
	case "TCP":
		if first != nil {
			r.error(s.object, serverConflict, s.field+s.protocolField(), "use another port", "port %d is served by %s (%s) already: nothing tells their connections apart; the server is left out",
				s.port, describe(first.object), at(first.origin()))
			return nil
		}
	}
	return s
}

// claim returns s with the server names that no other server of the port has; nil without any.
func (g *gateway) claim(s *server, r *report) *server {
	out := *s
	out.hosts = nil
	if g.names == nil {
		g.names = map[string][]*server{}
	}
	for i, h := range s.hosts {
		k := strconv.Itoa(s.port) + " " + h.host
		if had := g.names[k]; len(had) > 0 && had[0] != &out {
			r.error(s.object, serverConflict, s.hostField(i), "name each host once on a port", "host %s of port %d is served by %s (%s) already; this server does not get it",
				h.host, s.port, describe(had[0].object), at(had[0].origin()))
			continue
		}
		g.names[k] = append(g.names[k], &out)
		out.hosts = append(out.hosts, h)
	}
	if len(out.hosts) == 0 {
		return nil
	}
	return &out
}

// origin says where the server stands.
func (s *server) origin() model.Origin { return origin(s.object, s.field, s.name) }

func (s *server) protocolField() string {
	if s.listener != nil {
		return ".protocol"
	}
	return ".port.protocol"
}

func (s *server) hostField(i int) string {
	if s.listener != nil {
		return s.field + ".hostname"
	}
	return element(s.field+".hosts", i)
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
func (m *Mesh) istioServers(o *config.Object, spec *networking.Gateway, r *report) []*server {
	var out []*server
	for i, sp := range spec.Servers {
		if s := m.istioServer(o, sp, element("spec.servers", i), r); s != nil {
			out = append(out, s)
		}
	}
	gatewayCoverage.missing(spec.ProtoReflect(), func(field string) { r.without(o, "spec."+field) })
	return out
}

func (m *Mesh) istioServer(o *config.Object, sp *networking.Server, field string, r *report) *server {
	s := &server{object: o, field: field, gateway: key(o.Namespace, o.Name), name: cmp.Or(sp.Name, sp.Port.GetName()), port: int(sp.Port.GetNumber()), inside: model.HTTP}
	s.protocol, _ = entryProtocol(strings.ReplaceAll(sp.Port.GetProtocol(), "_", "-"))
	switch {
	case s.protocol == model.Auto:
		r.warn(o, serverLeftOut, field+".port.protocol", "use HTTP, HTTP2, GRPC, HTTPS, TLS, TCP, MONGO, MYSQL or REDIS", "port %d (%s) is not served: its protocol is unknown", s.port, sp.Port.GetProtocol())
		return nil
	case s.port < 1 || s.port > 65535:
		r.error(o, badValue, field+".port.number", "use a port from 1 to 65535", "port %d cannot be listened on; the server is left out", s.port)
		return nil
	case secure(s.protocol):
		t, ok := m.serverTLS(credentials{object: o, field: field + ".tls", namespace: o.Namespace}, sp.Tls, r)
		if !ok {
			return nil
		}
		s.tls = t
		if s.protocol == model.TLS || t.Mode == model.PassthroughTLS {
			s.inside = model.TCP
		}
	default: // of tls, only httpsRedirect means something here
		if opaque(s.protocol) {
			s.inside = model.TCP
		}
		if s.redirect = sp.Tls.GetHttpsRedirect() && s.inside == model.HTTP; !s.redirect && sp.Tls != nil {
			r.warn(o, noEffect, field+".tls", "write protocol: HTTPS or TLS", "tls has no effect on a server of protocol %s", sp.Port.GetProtocol())
		}
	}
	for j, h := range sp.Hosts {
		sh := hostOfServer(h, o.Namespace)
		if !routable(sh.host) {
			r.error(o, badValue, element(field+".hosts", j), `use a full name, or "*." before a suffix`, "host %q cannot be served", h)
			continue
		}
		s.hosts = append(s.hosts, sh)
	}
	return s
}

// hostOfServer reads [namespace/]host as a Gateway in namespace writes it.
func hostOfServer(h, namespace string) serverHost {
	h = strings.TrimSuffix(strings.ToLower(h), ".")
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
		"spec.addresses": len(spec.Spec.Addresses) > 0, "spec.tls.backend": spec.Spec.TLS != nil && spec.Spec.TLS.Backend != nil, "spec.allowedListeners": spec.Spec.AllowedListeners != nil,
		"spec.defaultScope": spec.Spec.DefaultScope != "", "spec.infrastructure": spec.Spec.Infrastructure != nil,
	} {
		if set {
			r.without(o, field)
		}
	}
	var servers []*server
	for i := range spec.Spec.Listeners {
		if s := m.apiServer(o, spec, &spec.Spec.Listeners[i], element("spec.listeners", i), r); s != nil {
			servers = append(servers, s)
		}
	}
	labels := map[string]string{"gateway.networking.k8s.io/gateway-name": o.Name}
	name := o.Name
	if class := string(spec.Spec.GatewayClassName); class != "" {
		name += "-" + class
	}
	m.gatewayOf(m.peer(o.Namespace, name, name, labels), labels).take(o, servers, r)
}

// apiServer translates a Gateway API listener; nil where it is not served.
func (m *Mesh) apiServer(o *config.Object, spec *gatewayv1.Gateway, l *gatewayv1.Listener, field string, r *report) *server {
	s := &server{object: o, field: field, gateway: key(o.Namespace, o.Name), name: string(l.Name), port: int(l.Port), listener: l, inside: model.HTTP}
	s.hosts = []serverHost{{"*", s.hostname()}}
	if !routable(s.hostname()) {
		r.error(o, badValue, field+".hostname", `use a full name, or "*." before a suffix`, "hostname %q cannot be served", s.hostname())
		return nil
	}
	switch l.Protocol {
	case gatewayv1.HTTPProtocolType:
		s.protocol = model.HTTP
	case gatewayv1.TCPProtocolType:
		s.protocol, s.inside = model.TCP, model.TCP
	case gatewayv1.HTTPSProtocolType, gatewayv1.TLSProtocolType:
		s.protocol = model.HTTPS
		if l.Protocol == gatewayv1.TLSProtocolType {
			s.protocol, s.inside = model.TLS, model.TCP
		}
		var ok bool
		if s.tls, ok = m.listenerTLS(o, spec, l, field, r); !ok {
			return nil
		}
		return s
	default:
		r.warn(o, serverLeftOut, field+".protocol", "use HTTP, HTTPS, TLS or TCP", "listener %s of port %d (%s) is not served", l.Name, l.Port, l.Protocol)
		return nil
	}
	if l.TLS != nil {
		r.without(o, field+".tls")
	}
	return s
}
