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
)

// view is what the sidecars of one namespace see that no condition on the source tells apart: their outbound table, and the
// clusters that it names. It knows no placement, so a moved instance leaves it as it is.
type view struct {
	table    model.Table
	clusters []*cluster
	extra    []model.Cluster // of no service
	headless []headlessPort
	encoded  []byte // table, once asked for
}

// view returns the outbound view of a client.
func (m *Mesh) view(namespace string, labels map[string]string) *view {
	k := m.viewKey(namespace, labels)
	if v := m.views[k]; v != nil {
		return v
	}
	v := m.newView(namespace, labels)
	m.views[k] = v
	return v
}

// viewKey tells apart the clients that see different routes: by namespace, and by which of the labels they have that the
// conditions on clients ask for.
func (m *Mesh) viewKey(namespace string, labels map[string]string) string {
	b := []byte(namespace)
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

func (m *Mesh) newView(namespace string, labels map[string]string) *view {
	s := m.scope(namespace, labels)
	v := &view{table: model.Table{Name: outbound}}
	for _, host := range m.services.hosts {
		svc := m.services.find(host, namespace)
		if svc == nil {
			continue
		}
		domains := m.domains(svc, namespace)
		for _, p := range svc.ports {
			if !p.proxied() {
				continue
			}
			v.table.Hosts = append(v.table.Hosts, model.VirtualHost{
				Name: svc.Host + ":" + strconv.Itoa(p.number), Domains: domains, Port: p.number, Rules: m.portRules(s, p),
			})
			if svc.headless {
				if c := m.cluster(p, "", m.rule(namespace, labels, svc)); c.refused == "" {
					v.headless = append(v.headless, headlessPort{c, domains})
				}
			}
		}
		v.table.Hosts = append(v.table.Hosts, model.VirtualHost{Name: svc.Host, Domains: domains, Rules: svc.absent})
	}
	m.addUnknownHosts(s, v)
	if m.registryOnly() {
		v.table.Unmatched = &model.Rule{Origin: m.configOrigin("block_all"), Reply: &model.Reply{
			Status: 502, Outcome: "denied_by_policy", Body: "the host is no service of the mesh, and outboundTrafficPolicy is REGISTRY_ONLY\n",
		}}
	} else {
		v.extra = append(v.extra, model.Cluster{Name: passthrough, Kind: model.Passthrough, Protocol: model.Auto, LoadBalancer: model.LoadBalancer{Policy: model.Original}})
		v.table.Unmatched = &model.Rule{Origin: m.configOrigin("allow_any"), Route: &model.Route{Destinations: []model.Destination{{Cluster: passthrough, Weight: 1}}}}
	}
	v.clusters = s.used()
	return v
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

// portRules returns the rules for requests to p: those of the VirtualService that routes its host, else of its HTTPRoutes,
// else of its TrafficSplit, else one that forwards.
func (m *Mesh) portRules(s *scope, p *port) []model.Rule {
	if v := m.virtual(p.service.Host, s.namespace); v != nil {
		if rules := v.routes(s, inMesh, p.number, nil); len(rules) > 0 {
			return rules
		}
	}
	if routes := m.routesOf(p, s.namespace); len(routes) > 0 {
		var all []entry
		for _, h := range routes {
			all = append(all, h.entries(s, 0, nil, nil)...)
		}
		return sortEntries(all)
	}
	if t := m.splits[p.service]; t != nil {
		return t.rules(s, p, m.plain)
	}
	return m.plain(s, p)
}

// plain forwards everything to p's own endpoints.
func (m *Mesh) plain(s *scope, p *port) []model.Rule {
	c, f := s.cluster(p, "")
	if f == nil {
		if rules, ok := m.plainCache[c]; ok {
			return rules
		}
	}
	rules := []model.Rule{{Origin: p.service.origin, Route: &model.Route{Destinations: []model.Destination{s.destination(c, f, 1, 503)}}}}
	if f == nil {
		m.plainCache[c] = rules
	}
	return rules
}

// addUnknownHosts routes the hosts that VirtualServices name and no service has; Istio gives them port 80 only.
func (m *Mesh) addUnknownHosts(s *scope, v *view) {
	for _, host := range sortedKeys(m.unknownHosts) {
		found := m.virtual(host, s.namespace)
		if found == nil || !slices.Contains(found.hosts, host) || m.services.find(host, s.namespace) != nil {
			continue
		}
		if rules := found.routes(s, inMesh, 80, nil); len(rules) > 0 {
			v.table.Hosts = append(v.table.Hosts, model.VirtualHost{Name: host + ":80", Domains: []string{host}, Port: 80, Rules: rules})
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
			m.unknownHosts[h] = true
			if len(v.gateways) == 1 {
				r.inform(v.object, outsideMesh, element("spec.hosts", i), "check the name, or add a Service or ServiceEntry",
					"host %s is no service of the mesh; its rules hold for sidecars on port 80 only", h)
			}
		}
	}
}

func (m *Mesh) configOrigin(rule string) model.Origin {
	if m.configObject == nil {
		return model.Origin{Kind: "MeshConfig", Name: "default", Rule: rule}
	}
	o := origin(m.configObject, "data", rule)
	return o
}
