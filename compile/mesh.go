// Package compile turns objects into the mesh that they describe, and cuts one workload's snapshot from it; it is pure: no clock, no I/O, no goroutines.
//
// New indexes the objects and says what of them has no effect or leads nowhere. For and ForGateway build what one proxy runs:
// the route table that its namespace sees (view.go), the clusters that the table names (destination.go), and their endpoints
// where a Placement has put the instances (snapshot.go). Tables and clusters are built once and shared by all snapshots.
//
// Where several kinds of object route one service, a VirtualService comes before a ServiceProfile, this before the Gateway API's routes
// (GRPCRoutes, HTTPRoutes, TLSRoutes, TCPRoutes, the first kind of a port having it), and these before a TrafficSplit:
// the more a kind can say, the more would be lost by ignoring it. New reports each such case. Routes are not chained: what a
// route forwards to is a service's own endpoints, whatever other objects say of that service.
package compile

import (
	"cmp"
	"slices"

	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"

	meshv1alpha1 "istio.io/api/mesh/v1alpha1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// Options are the choices that objects do not make.
type Options struct {
	// MeshConfig replaces the ConfigMap istio in istio-system (key mesh); nil leaves it to that object, or to the defaults.
	MeshConfig *meshv1alpha1.MeshConfig
	// Domain is the cluster's DNS domain; "" is cluster.local.
	Domain string
	// Locality is where the built-in client workload default/local runs.
	Locality model.Locality
	// ExecProbes says that the sidecars may run probes that are commands. Without it they are left out, with a finding.
	ExecProbes bool
}

// Mesh is what a set of objects means, resolved together. It is safe for concurrent use.
type Mesh struct {
	options      Options
	domain       string
	config       *meshv1alpha1.MeshConfig
	configObject *config.Object // where config comes from; nil for the defaults and for Options
	root         string         // MeshConfig's root namespace
	settings     model.Settings
	retry        retryDefaults

	services  services
	workloads map[string]*workload              // by namespace/name
	routers   []*workload                       // gateway proxies
	rules     map[string]*ruleSet               // DestinationRules by namespace
	breakers  map[string]map[string]*breakerSet // by namespace and host

	rates []*rateLimit // in order

	virtuals     []*virtualService            // in order
	carriers     []*virtualService            // of the mesh, those with tcp or tls routes
	hostVirtuals map[string][]*virtualService // of the mesh, by exact host
	wildVirtuals []hostVirtual                // of the mesh, longest host first
	unknownHosts map[string]bool              // of hostVirtuals and wildVirtuals, those that no service has
	conditions   []map[string]string          // on clients' labels: sourceLabels, workloadSelector

	routes        []*apiRoute // in order of precedence
	serviceRoutes map[string][]attachedRoute
	mixed         bool // there are HTTPRoutes and GRPCRoutes
	splits        map[*service]*split
	profiles      map[string]*profile // by namespace/host; nil without any
	grants        map[reference]bool
	namespaces    map[string]map[string]string // labels

	gateways      []*gateway
	istioGateways map[string]*config.Object // by namespace/name
	apiGateways   map[string]*config.Object

	sidecars map[string][]*sidecar // by namespace, in order
	count    int                   // of sidecars

	secrets     map[string]*config.Object // by namespace/name
	authorities map[string]*config.Object // ConfigMaps with certificate authorities, by namespace/name

	cache
}

// New resolves objects into a mesh. The findings say what of them has no effect, is ambiguous, or leads nowhere, in the order of
// files. Objects that conflict are ranked by age, those from files by path, then position.
func New(objects []*config.Object, o Options) (*Mesh, []config.Finding) {
	m := &Mesh{
		options: o, domain: cmp.Or(o.Domain, "cluster.local"),
		hostVirtuals: map[string][]*virtualService{}, serviceRoutes: map[string][]attachedRoute{}, splits: map[*service]*split{},
		grants: map[reference]bool{}, namespaces: map[string]map[string]string{},
		istioGateways: map[string]*config.Object{}, apiGateways: map[string]*config.Object{},
		cache: newCache(),
	}
	r := &report{}
	objects = slices.Clone(objects)
	slices.SortStableFunc(objects, compareObjects)
	for _, o := range objects {
		if _, ok := o.Spec.(*corev1.Namespace); ok {
			m.namespaces[o.Name] = o.Labels
		}
	}
	m.readMeshConfig(objects, r)
	m.readRetries(r)
	m.readSecrets(objects)
	m.readGrants(objects)
	m.readServices(objects, r)
	m.readWorkloads(objects, r)
	m.readSidecars(objects, r)
	m.readGateways(objects, r)
	m.readDestinationRules(objects, r)
	m.readBreakers(objects, r)
	m.readRateLimits(objects)
	m.readRatePolicies(objects, r)
	m.readBackendTLS(objects, r)
	m.readTrafficPolicies(objects, r)
	m.readVirtualServices(objects, r)
	m.readRoutes(objects, r)
	m.readSplits(objects, r)
	m.readProfiles(objects, r)
	m.readUnknownHosts(r)
	m.readConditions()
	m.checkVirtuals(r)
	m.checkRoutes(r)
	m.checkShapers(r)
	m.checkProfiles(r)
	m.checkBreakers(r)
	m.checkRateLimits(r)
	m.checkPorts(r)
	m.checkSidecars(r)
	m.checkBalancers(objects, r)
	m.checkOutliers(r)
	m.checkLinkerd(r)
	return m, r.sorted()
}

// Templates returns all workloads, sorted by namespace and name: pod templates, Pods that nobody owns, WorkloadEntries,
// WorkloadGroups without any.
func (m *Mesh) Templates() []Template {
	out := make([]Template, 0, len(m.workloads))
	for _, w := range m.workloads {
		out = append(out, w.Template)
	}
	slices.SortFunc(out, func(a, b Template) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// Local returns the built-in client workload default/local, or the workload of that name that the objects define.
func (m *Mesh) Local() Template {
	if w := m.workloads["default/local"]; w != nil {
		return w.Template
	}
	return m.local().Template
}

// Gateways returns the gateway workloads, sorted by namespace and name: one for each Gateway API Gateway, and one for each set of
// labels that Istio's Gateways select.
func (m *Mesh) Gateways() []GatewayWorkload {
	out := make([]GatewayWorkload, 0, len(m.gateways))
	for _, g := range m.gateways {
		out = append(out, g.GatewayWorkload)
	}
	return out
}

// Services returns what the mesh serves, sorted by host, for people to look at.
func (m *Mesh) Services() []ServiceInfo {
	m.Lock()
	defer m.Unlock()
	var out []ServiceInfo
	m.services.all(func(s *service) bool {
		info := ServiceInfo{Service: s.Service, Origin: s.origin}
		sees := m.scope(s.Namespace, nil)
		for _, p := range s.ports {
			pi := ServicePortInfo{Port: p.number, Name: p.name, Protocol: p.protocol, Proxied: true, Requests: !opaque(p.protocol), Workloads: names(p.workloads)}
			rules, bytes := m.portRules(sees, p)
			for _, rule := range append(slices.Clip(rules), bytes...) {
				if split, ok := sees.splitInfo(rule); ok {
					pi.Splits = append(pi.Splits, split)
				}
			}
			info.Ports = append(info.Ports, pi)
		}
		out = append(out, info)
		return true
	})
	return out
}

// splitInfo describes a rule with more than one destination.
func (s *scope) splitInfo(rule model.Rule) (SplitInfo, bool) {
	if rule.Route == nil || len(rule.Route.Destinations) < 2 {
		return SplitInfo{}, false
	}
	info := SplitInfo{Origin: rule.Origin, Conditional: len(rule.Matches) > 0 && !slices.ContainsFunc(rule.Matches, func(m model.Match) bool { return matchesAll(&m) })}
	for _, d := range rule.Route.Destinations {
		sd := SplitDestination{Weight: d.Weight, Cluster: d.Cluster}
		if c := s.clusters[d.Cluster]; c != nil {
			sd.Host, sd.Port, sd.Subset = c.Service.Host, c.Port, c.Subset
			var serving []*workload
			for _, w := range c.port.workloads {
				if selects(c.labels, w.Labels) {
					serving = append(serving, w)
				}
			}
			sd.Workloads = names(serving)
		}
		info.Destinations = append(info.Destinations, sd)
	}
	return info, true
}

// checkVirtuals reports what VirtualServices refer to in vain, and which of them lose a host.
func (m *Mesh) checkVirtuals(r *report) {
	for _, v := range m.virtuals {
		s := m.scope(v.object.Namespace, nil)
		for i, destinations := range v.destinations() {
			for _, d := range destinations {
				if s.portless(&d, r) {
					continue
				}
				c, f := s.target(d.host, d.subset, d.port, d.port)
				if f == nil && i < len(v.rules) && (d.weight > 0 || len(destinations) == 1) {
					f = c.unfit(!slices.Contains(v.gateways, inMesh))
				}
				if f != nil {
					f.report(r, d.object, d.field)
				} else if w := m.routerBehind(c.port); w != nil {
					r.warn(d.object, noEffect, d.field+".host", "do not rely on it here; a request to the Gateway's own address gets there",
						"%s is the Service of gateway %s/%s, which takes no requests from workloads yet: they are answered 503", d.host, w.Namespace, w.Name)
				}
			}
		}
		v.checkMirrors(s, r)
		m.checkGatewayRefs(v, r)
	}
	for _, host := range sortedKeys(m.hostVirtuals) {
		reportConflicts(host, m.hostVirtuals[host], r)
	}
	for i, w := range m.wildVirtuals {
		var same []*virtualService
		for _, o := range m.wildVirtuals[:i+1] {
			if o.host == w.host {
				same = append(same, o.virtual)
			}
		}
		reportConflicts(w.host, same, r)
	}
}

// portless reports a destination that does not say which of several ports it means.
func (s *scope) portless(d *virtualDestination, r *report) bool {
	svc := s.service(d.host)
	if svc == nil || d.port != 0 || len(svc.ports) < 2 {
		return false
	}
	r.error(d.object, portNeeded, d.field, "name one of them in destination.port.number",
		"destination %s has %d ports (%s); without a port, the one that the request came for is taken", d.host, len(svc.ports), portList(svc))
	return true
}

// reportConflicts names the VirtualServices that lose host to an earlier one.
func reportConflicts(host string, all []*virtualService, r *report) {
	for i, v := range all {
		for _, first := range all[:i] {
			if !first.exported.equal(v.exported) || first == v {
				continue
			}
			r.error(v.object, hostConflict, "spec.hosts", "merge their rules into one VirtualService: sidecars do not",
				"host %s is routed by VirtualService %s/%s (%s) already, which comes first (order: %s); for sidecars, this one has no effect on it",
				host, first.object.Namespace, first.object.Name, position(first.object), orderText(v.object))
			break
		}
	}
}

func orderText(o *config.Object) string {
	if o.Created.IsZero() {
		return "path, then position in the file"
	}
	return "age, then name"
}

// checkGatewayRefs reports Gateways that are not there, and hosts that none of them has.
func (m *Mesh) checkGatewayRefs(v *virtualService, r *report) {
	found := slices.Contains(v.gateways, inMesh)
	met := map[string]bool{}
	for i, name := range v.gateways {
		if name == inMesh {
			continue
		}
		o := m.istioGateways[name]
		if o == nil {
			field := element("spec.gateways", i)
			remedy := "check the name and namespace, or add the Gateway"
			if m.apiGateways[name] != nil {
				remedy = "attach an HTTPRoute to it: a VirtualService needs an Istio Gateway"
			}
			r.error(v.object, unknownGateway, field, remedy, "there is no Istio Gateway %s", name)
			found = true
			continue
		}
		for _, s := range o.Spec.(*networking.Gateway).Servers {
			one := server{}
			for _, h := range s.Hosts {
				one.hosts = append(one.hosts, hostOfServer(h, o.Namespace))
			}
			for _, h := range v.hosts {
				if len(one.shared(&virtualService{object: v.object, hosts: []string{h}})) > 0 {
					met[h] = true
				}
			}
		}
	}
	if found {
		return
	}
	for i, h := range v.hosts {
		if !met[h] {
			r.warn(v.object, notAtGateway, element("spec.hosts", i), "add the host to a server of the Gateway, or correct it", "host %s is not among the hosts of the VirtualService's gateways", h)
		}
	}
}

// checkRoutes reports what the Gateway API's routes refer to in vain.
func (m *Mesh) checkRoutes(r *report) {
	for _, h := range m.routes {
		for _, p := range h.parents {
			if p.service {
				h.entries(m.scope(h.object.Namespace, nil), 0, false, r)
				continue
			}
			name := key(p.namespace, p.name)
			if m.apiGateways[name] == nil {
				r.error(h.object, unknownParent, p.field, "check the name and namespace, or add the Gateway", "there is no Gateway %s", name)
				continue
			}
			attached, left := false, false
			for _, g := range m.gateways {
				for _, s := range g.servers {
					if s.listener == nil || s.gateway != name || len(m.attachment(s, &apiRoute{object: h.object, hostnames: h.hostnames, parents: []parentRef{p}})) == 0 {
						continue
					}
					attached = true
					if o := m.rival(s, h); o != nil {
						r.warn(h.object, twoShapers, p.field, "use another hostname or listener, or merge the two", "%s (%s) has the hostnames of this route at listener %s already; this one has no effect there",
							describe(o.object), position(o.object), s.name)
					}
				}
				left = left || (len(g.servers) == 0 && slices.ContainsFunc(g.Objects, func(o GatewayRef) bool { return key(o.Namespace, o.Name) == name }))
			}
			if !attached && !left {
				r.warn(h.object, notAttached, p.field, "compare the listener's name, port, hostname and allowedRoutes", "no served listener of Gateway %s takes this route", name)
			}
			h.entries(m.gatewayScope(p.namespace, nil), 0, true, r)
		}
	}
}

// checkShapers reports the routing objects that another kind leaves without effect on a service.
func (m *Mesh) checkShapers(r *report) {
	m.services.all(func(s *service) bool {
		v := m.virtual(m.scope(s.Namespace, nil), s.Host)
		if v != nil && len(v.rules) == 0 {
			v = nil
		}
		if !slices.ContainsFunc(s.ports, func(p *port) bool { return !opaque(p.protocol) }) {
			m.checkBytesShapers(s, r)
			return true
		}
		routes := slices.DeleteFunc(slices.Clone(m.serviceRoutes[s.Host]), func(a attachedRoute) bool {
			return !a.route.requests() || !slices.ContainsFunc(s.ports, func(p *port) bool { return a.parent.takes(p) && !opaque(p.protocol) })
		})
		first := ""
		if v != nil {
			first = describe(v.object) + " (" + position(v.object) + ")"
			for _, a := range routes {
				r.warn(a.route.object, twoShapers, a.parent.field, "keep one of them", "%s routes %s already; VirtualServices come before %ss, so this one has no effect there", first, s.Host, a.route.object.Kind)
			}
		} else if len(routes) > 0 {
			first = describe(routes[0].route.object) + " (" + position(routes[0].route.object) + ")"
		}
		if t := m.splits[s]; t != nil && first != "" {
			r.warn(t.object, twoShapers, "spec.service", "keep one of them", "%s routes %s already; VirtualServices and HTTPRoutes come before TrafficSplits, so this one has no effect", first, s.Host)
		}
		return true
	})
}

// checkBytesShapers is checkShapers for a service without ports for requests.
func (m *Mesh) checkBytesShapers(s *service, r *report) {
	client := m.scope(s.Namespace, nil)
	for _, p := range s.ports {
		first, shaping := (*config.Object)(nil), ""
		for _, v := range m.connectionVirtuals(client, s.Host) {
			routes := v.tcp
			if secure(p.protocol) {
				routes = v.tls
			}
			if first == nil && slices.ContainsFunc(routes, func(c *connectionRule) bool { return c.covers(client, inMesh, p.number, s.Host) }) {
				first, shaping = v.object, "VirtualServices come before the Gateway API's routes and TrafficSplits"
			}
		}
		if h := m.connectionRouteOf(p, s.Namespace); h != nil {
			if first != nil {
				r.warn(h.object, twoShapers, "spec.parentRefs", "keep one of them", "%s (%s) routes port %s of %s already; %s, so this one has no effect there", describe(first), position(first), p.text(), s.Host, shaping)
			} else {
				first, shaping = h.object, "TLSRoutes and TCPRoutes come before TrafficSplits"
			}
		}
		if t := m.splits[s]; t != nil && first != nil {
			r.warn(t.object, twoShapers, "spec.service", "keep one of them", "%s (%s) routes port %s of %s already; %s, so this one has no effect there", describe(first), position(first), p.text(), s.Host, shaping)
		}
	}
}
