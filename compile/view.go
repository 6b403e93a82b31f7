package compile

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// Names in a snapshot.
const (
	outbound    = "outbound"
	passthrough = "PassthroughCluster"
	blackHole   = "BlackHoleCluster"
)

// view is what the sidecars of one namespace see that no condition on the source tells apart: their outbound table, the tables
// of the listeners that their Sidecar asks for, and the clusters that these name. It knows no placement, so a moved instance
// leaves it as it is.
type view struct {
	table    model.Table
	bound    []boundTable
	clusters []*cluster
	breakers []model.Breaker
	extra    []model.Cluster // of no service
	headless []headlessPort
	encoded  []byte // table, once asked for
	sight    *sight // once asked for
}

// view returns the outbound view of a client.
func (m *Mesh) view(namespace string, labels map[string]string) *view {
	restricted := m.sidecarOf(namespace, labels)
	k := m.viewKey(namespace, labels, restricted)
	if v := m.views[k]; v != nil {
		return v
	}
	v := m.newView(m.clientScope(namespace, labels, restricted))
	m.views[k] = v
	return v
}

// viewKey tells apart the clients that see different routes: by namespace and Sidecar, and by which of the labels they have that
// the conditions on clients ask for.
func (m *Mesh) viewKey(namespace string, labels map[string]string, restricted *sidecar) string {
	b := []byte(namespace)
	if restricted != nil {
		b = strconv.AppendInt(append(b, '#'), int64(restricted.number), 10)
	}
	for _, l := range m.conditions {
		if selects(l, labels) {
			b = append(b, '/', '1')
		} else {
			b = append(b, '/', '0')
		}
	}
	return string(b)
}

// readConditions collects the distinct sets of labels that objects want of clients.
func (m *Mesh) readConditions() {
	add := func(labels map[string]string) {
		if len(labels) > 0 && !slices.ContainsFunc(m.conditions, func(l map[string]string) bool { return maps.Equal(l, labels) }) {
			m.conditions = append(m.conditions, labels)
		}
	}
	for _, v := range m.virtuals {
		for _, rule := range v.rules {
			for _, match := range rule.matches {
				add(match.labels)
			}
		}
		for _, rule := range append(slices.Clip(v.tcp), v.tls...) {
			for _, match := range rule.matches {
				add(match.labels)
			}
		}
	}
	for _, l := range m.rates {
		if l.host != "" {
			add(l.selector())
		}
	}
	for _, namespace := range sortedKeys(m.rules) {
		set := m.rules[namespace]
		for _, host := range sortedKeys(set.exact) {
			for _, d := range set.exact[host] {
				add(d.selector)
			}
		}
		for _, d := range set.wild {
			add(d.selector)
		}
	}
}

func (m *Mesh) newView(s *scope) *view {
	v := &view{table: model.Table{Name: outbound}}
	for _, host := range m.services.hosts {
		svc := s.visible(host)
		if svc == nil {
			continue
		}
		domains := m.domains(svc, s.namespace)
		for _, p := range svc.ports {
			if !s.imports(p) {
				continue
			}
			v.table.Hosts = append(v.table.Hosts, s.hosts(p, p.number)...)
			if svc.headless {
				if c := m.cluster(p, "", s.rule(svc), s); c.refused == "" {
					v.headless = append(v.headless, headlessPort{c, domains})
				}
			}
		}
		v.table.Hosts = append(v.table.Hosts, model.VirtualHost{Name: svc.Host, Domains: domains, Service: svc.Service, Rules: svc.absent})
	}
	m.addUnknownHosts(s, v)
	if s.registryOnly() {
		v.table.Service = model.Service{Name: blackHole}
		v.table.Unmatched = &model.Rule{Origin: s.policyOrigin("block_all"), Reply: &model.Reply{
			Status: 502, Outcome: "denied_by_policy", Body: "the host is no service of the mesh, and outboundTrafficPolicy is REGISTRY_ONLY\n",
		}}
	} else {
		v.extra = append(v.extra, model.Cluster{Name: passthrough, Kind: model.Passthrough, Service: model.Service{Name: passthrough}, Protocol: model.Auto, LoadBalancer: model.LoadBalancer{Policy: model.Original}})
		v.table.Unmatched = &model.Rule{Origin: s.policyOrigin("allow_any"), Route: &model.Route{Destinations: []model.Destination{{Cluster: passthrough, Weight: 1}}}}
	}
	v.bound = s.bound(v.table.Unmatched)
	v.breakers = s.guards()
	v.clusters = s.used()
	return v
}

// hostName names the virtual host of a service's port.
func hostName(host string, number int) string { return host + ":" + strconv.Itoa(number) }

// hosts returns the virtual hosts of p for requests to port number (0: any): one, and for TLS, one more for each server name
// below a wildcard host that has routes of its own.
func (s *scope) hosts(p *port, number int) []model.VirtualHost {
	domains := s.mesh.domains(p.service, s.namespace)
	if secure(p.protocol) {
		return append([]model.VirtualHost{s.secureHost(p, p.service.Host, domains, number)}, s.narrowHosts(p, number)...)
	}
	h := model.VirtualHost{Name: hostName(p.service.Host, p.number), Domains: domains, Port: number, Service: p.service.Service}
	h.Rules, h.Opaque = s.mesh.portRules(s, p)
	if !opaque(p.protocol) {
		h.RateLimits = s.hostLimits(p.service.Host, p.service.Namespace, p.number)
	}
	return []model.VirtualHost{h}
}

// namedHosts returns the virtual hosts of p by server name alone, which has no short forms.
func (s *scope) namedHosts(p *port, number int) []model.VirtualHost {
	return append([]model.VirtualHost{s.secureHost(p, p.service.Host, []string{p.service.Host}, number)}, s.narrowHosts(p, number)...)
}

func (s *scope) narrowHosts(p *port, number int) []model.VirtualHost {
	if !wildcard(p.service.Host) {
		return nil
	}
	var out []model.VirtualHost
	done := map[string]bool{p.service.Host: true}
	for _, v := range s.mesh.connectionVirtuals(s, p.service.Host) {
		for _, name := range v.names(s, inMesh, p.number) {
			if !done[name] && within(name, p.service.Host) {
				done[name] = true
				out = append(out, s.secureHost(p, name, []string{name}, number))
			}
		}
	}
	return out
}

func (s *scope) secureHost(p *port, name string, domains []string, number int) model.VirtualHost {
	rules, _ := s.mesh.bytesRules(s, p, name)
	return model.VirtualHost{Name: hostName(name, p.number), Domains: domains, Port: number, Rules: rules}
}

// domains returns the names under which a client in namespace reaches svc: all spellings that Kubernetes' search path and
// Istio allow, and its addresses. A spelling that is another service's full name is that service's.
func (m *Mesh) domains(svc *service, namespace string) []string {
	k := domainsKey{svc, !svc.entry && svc.Namespace == namespace}
	if d, ok := m.domainCache[k]; ok {
		return d
	}
	d := []string{svc.Host}
	contested := false
	add := func(name string) {
		if len(m.services.byHost[name]) > 0 {
			contested = true // what holds depends on who sees that other service
			if m.services.find(name, namespace) != nil {
				return
			}
		}
		if !slices.Contains(d, name) {
			d = append(d, name)
		}
	}
	if !wildcard(svc.Host) {
		add(svc.Host + ".")
	}
	if !svc.entry {
		if k.near {
			add(svc.Name)
		}
		add(svc.Name + "." + svc.Namespace)
		add(svc.Name + "." + svc.Namespace + ".svc")
	}
	for _, a := range svc.addresses {
		if strings.Contains(a, ":") {
			a = "[" + a + "]"
		}
		add(a)
	}
	if !contested {
		m.domainCache[k] = d
	}
	return d
}

type domainsKey struct {
	service *service
	near    bool
}

// portRules returns the rules for what comes for p. Where its protocol is detected and requests are not routed as bytes are,
// opaque has the rules for bytes.
func (m *Mesh) portRules(s *scope, p *port) (rules, opaque []model.Rule) {
	switch p.protocol {
	case model.TCP, model.TLS, model.HTTPS:
		rules, _ = m.bytesRules(s, p, p.service.Host)
		return rules, nil
	case model.Auto:
		rules, shaped := m.requestRules(s, p)
		opaque, shapedBytes := m.bytesRules(s, p, p.service.Host)
		if !shaped && !shapedBytes {
			return rules, nil
		}
		return rules, opaque
	}
	rules, _ = m.requestRules(s, p)
	return rules, nil
}

// requestRules returns the rules for requests to p: those of the VirtualService that routes its host, else of its ServiceProfile, else of its GRPCRoutes or
// HTTPRoutes, else of its TrafficSplit, else, unshaped, one that forwards.
func (m *Mesh) requestRules(s *scope, p *port) (rules []model.Rule, shaped bool) {
	if v := m.virtual(s, p.service.Host); v != nil {
		if rules := v.routes(s, inMesh, p.number, nil); len(rules) > 0 {
			return rules, true
		}
	}
	if profile := m.profileOf(s.namespace, p.service); profile != nil {
		return profile.rules(s, p), true
	}
	if routes := m.routesOf(p, s.namespace); len(routes) > 0 {
		var all []entry
		for _, h := range routes {
			all = append(all, p.service.linkerd.inherited(h, p, h.implied(s, p, h.entries(s, 0, false, nil)))...)
		}
		return sortEntries(all), true
	}
	if t := m.splits[p.service]; t != nil {
		return t.rules(s, p, m.plain), true
	}
	return m.plain(s, p), false
}

// bytesRules returns the rule for connections to p that ask for name: that of a VirtualService's tls or tcp route, by p's
// protocol, else of its TLSRoutes or TCPRoutes, else of its TrafficSplit, else, unshaped, one that forwards.
func (m *Mesh) bytesRules(s *scope, p *port, name string) (rules []model.Rule, shaped bool) {
	for _, v := range m.connectionVirtuals(s, p.service.Host) {
		routes := v.tcp
		if secure(p.protocol) {
			routes = v.tls
		}
		for _, c := range routes {
			if c.covers(s, inMesh, p.number, name) {
				return []model.Rule{c.build(s, p.number, nil)}, true
			}
		}
	}
	if h := m.connectionRouteOf(p, s.namespace); h != nil {
		if all := h.entries(s, 0, false, nil); len(all) > 0 {
			return []model.Rule{all[0].rule}, true
		}
	}
	if t := m.splits[p.service]; t != nil && !t.conditional {
		return t.rules(s, p, m.plain), true
	}
	return m.plain(s, p), false
}

// plain forwards everything to p's own endpoints.
func (m *Mesh) plain(s *scope, p *port) []model.Rule {
	c, f := s.cluster(p, "")
	if f == nil {
		if rules, ok := m.plainCache[c]; ok {
			return rules
		}
	}
	to := []model.Destination{s.destination(c, f, 1, 503)}
	route := &model.Route{Destinations: to, Retries: s.defaults(p, to)}
	p.service.linkerd.shape(p, route)
	rules := []model.Rule{{Origin: p.service.origin, Route: route}}
	if f == nil {
		m.plainCache[c] = rules
	}
	return rules
}

// addUnknownHosts routes the hosts that VirtualServices name and no service has; Istio gives them port 80 only.
func (m *Mesh) addUnknownHosts(s *scope, v *view) {
	for _, host := range sortedKeys(m.unknownHosts) {
		found := m.virtual(s, host)
		if found == nil || !slices.Contains(found.hosts, host) || m.services.find(host, s.namespace) != nil {
			continue
		}
		if rules := found.routes(s, inMesh, 80, nil); len(rules) > 0 {
			v.table.Hosts = append(v.table.Hosts, model.VirtualHost{Name: host + ":80", Domains: []string{host}, Port: 80, Rules: rules, RateLimits: s.hostLimits(host, "", 80)})
		}
	}
}

// readUnknownHosts lists the hosts of mesh VirtualServices that no service has.
func (m *Mesh) readUnknownHosts(r *report) {
	m.unknownHosts = map[string]bool{}
	for _, v := range m.virtuals {
		if !slices.Contains(v.gateways, inMesh) {
			continue
		}
		for i, h := range v.hosts {
			known := len(m.services.byHost[h]) > 0
			if wildcard(h) {
				known = slices.ContainsFunc(m.services.hosts, func(s string) bool { return within(s, h) })
			}
			if known {
				continue
			}
			if len(v.rules) == 0 && len(v.gateways) > 1 {
				continue
			}
			if len(v.rules) == 0 {
				r.warn(v.object, outsideMesh, element("spec.hosts", i), "check the name, or add a Service or ServiceEntry",
					"host %s is no service of the mesh; tcp and tls routes to it have no effect for sidecars", h)
				continue
			}
			m.unknownHosts[h] = true
			if len(v.gateways) == 1 {
				r.inform(v.object, outsideMesh, element("spec.hosts", i), "check the name, or add a Service or ServiceEntry",
					"host %s is no service of the mesh; its rules hold for sidecars on port 80 only", h)
			}
		}
	}
}

// policyOrigin says what decides about hosts that are no services.
func (s *scope) policyOrigin(rule string) model.Origin {
	if s.sidecar != nil && s.sidecar.policy != nil {
		return origin(s.sidecar.object, "spec.outboundTrafficPolicy", rule)
	}
	return s.mesh.configOrigin(rule)
}

func (m *Mesh) configOrigin(rule string) model.Origin {
	if m.configObject == nil {
		return model.Origin{Kind: "MeshConfig", Name: "default", Rule: rule}
	}
	o := origin(m.configObject, "data", rule)
	return o
}
