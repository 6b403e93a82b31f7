package compile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// gatewayView is a gateway's tables, one for each port, and the clusters that they name.
type gatewayView struct {
	view
	tables []model.Table
}

func (m *Mesh) gatewayView(g *gateway) *gatewayView {
	if v := m.gateViews[g]; v != nil {
		return v
	}
	s := m.scope(g.Namespace, g.Labels)
	v := &gatewayView{}
	for _, port := range g.Ports {
		t := model.Table{Name: g.listener(port)}
		hosts := hostTable{table: &t, index: map[string]int{}}
		m.istioHosts(g, s, port, hosts)
		m.apiHosts(g, s, port, hosts)
		v.tables = append(v.tables, t)
	}
	v.clusters = s.used()
	m.gateViews[g] = v
	return v
}

// listener names g's listener of a port, and its table.
func (g *gateway) listener(port int) string {
	return "gateway|" + key(g.Namespace, g.Name) + "|" + strconv.Itoa(port)
}

// hostTable collects the rules of one table by domain, in the order in which domains first come up.
type hostTable struct {
	table *model.Table
	index map[string]int
}

func (h hostTable) host(domain string) *model.VirtualHost {
	if i, ok := h.index[domain]; ok {
		return &h.table.Hosts[i]
	}
	h.index[domain] = len(h.table.Hosts)
	h.table.Hosts = append(h.table.Hosts, model.VirtualHost{Name: domain, Domains: []string{domain}})
	return &h.table.Hosts[len(h.table.Hosts)-1]
}

// istioHosts adds what VirtualServices say of the Istio Gateways' hosts on a port. Unlike sidecars, a gateway merges all
// VirtualServices of a host, in order, rules for every request last.
func (m *Mesh) istioHosts(g *gateway, s *scope, port int, hosts hostTable) {
	done := map[string]bool{}
	for _, sv := range g.servers {
		if sv.port != port || sv.listener != nil {
			continue
		}
		if sv.redirect {
			for _, h := range sv.hosts {
				hosts.host(h.host).Rules = []model.Rule{{Origin: origin(sv.object, sv.field+".tls", "httpsRedirect"), Redirect: &model.Redirect{Status: 301, Scheme: "https"}}}
			}
			continue
		}
		for _, v := range m.atGateway(sv.gateway, g.Namespace) {
			rules := v.routes(s, sv.gateway, port, nil)
			for _, domain := range sv.shared(v) {
				k := domain + " " + sv.gateway + " " + key(v.object.Namespace, v.object.Name)
				if done[k] || len(rules) == 0 {
					continue
				}
				done[k] = true
				h := hosts.host(domain)
				h.Rules = append(h.Rules, rules...)
			}
		}
	}
	for i := range hosts.table.Hosts {
		h := &hosts.table.Hosts[i]
		h.Rules = catchAllsLast(h.Rules)
	}
}

// catchAllsLast moves the rules for every request behind the others, and keeps the first of them.
func catchAllsLast(rules []model.Rule) []model.Rule {
	var some, all []model.Rule
	for _, r := range rules {
		if len(r.Matches) == 0 || slices.ContainsFunc(r.Matches, func(m model.Match) bool { return matchesAll(&m) }) {
			all = append(all, r)
		} else {
			some = append(some, r)
		}
	}
	if len(all) > 1 {
		all = all[:1]
	}
	return append(some, all...)
}

// atGateway returns the VirtualServices of a Gateway that a gateway in namespace sees, nearest first.
func (m *Mesh) atGateway(name, namespace string) []*virtualService {
	var out []*virtualService
	for _, v := range m.virtuals {
		if slices.Contains(v.gateways, name) && v.exported.includes(namespace) {
			out = append(out, v)
		}
	}
	slices.SortStableFunc(out, func(a, b *virtualService) int { return a.tier(namespace) - b.tier(namespace) })
	return out
}

// shared returns the hosts that a server and a VirtualService have in common: of each pair the narrower.
func (s *server) shared(v *virtualService) []string {
	var out []string
	for _, sh := range s.hosts {
		if sh.namespace != "*" && sh.namespace != v.object.Namespace {
			continue
		}
		for _, h := range v.hosts {
			if n, ok := narrower(sh.host, h); ok && !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	return out
}

// apiHosts adds what HTTPRoutes say of a Gateway API Gateway's listeners on a port.
func (m *Mesh) apiHosts(g *gateway, s *scope, port int, hosts hostTable) {
	var listeners []*server
	for _, sv := range g.servers {
		if sv.port == port && sv.listener != nil {
			listeners = append(listeners, sv)
		}
	}
	for _, sv := range listeners {
		var attached []hostedRoute
		domains := []string{sv.hostname()}
		for _, h := range m.routes {
			for _, name := range m.attachment(sv, h) {
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
				if within(domain, a.hostname) {
					all = append(all, a.route.entries(s, specificity(a.hostname), m.granted, nil)...)
				}
			}
			hosts.host(domain).Rules = sortEntries(all)
		}
	}
}

// hostedRoute is an HTTPRoute under one of the hostnames that it has at a listener.
type hostedRoute struct {
	route    *httpRoute
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
func (m *Mesh) attachment(s *server, h *httpRoute) []string {
	attached := false
	for _, p := range h.parents {
		if !p.service && key(p.namespace, p.name) == s.gateway && (p.section == "" || p.section == s.name) && (p.port == 0 || p.port == s.port) {
			attached = true
		}
	}
	if !attached || !m.admits(s, h.object.Namespace) {
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

// admits says whether a listener takes HTTPRoutes of a namespace.
func (m *Mesh) admits(s *server, namespace string) bool {
	allowed := s.listener.AllowedRoutes
	if allowed == nil {
		return namespace == s.object.Namespace
	}
	kinds := len(allowed.Kinds) == 0
	for _, k := range allowed.Kinds {
		kinds = kinds || (k.Kind == "HTTPRoute" && (k.Group == nil || *k.Group == gatewayv1.GroupName))
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

// grant is what a ReferenceGrant allows: HTTPRoutes of a namespace to refer to a Service, or all ("").
type grant struct{ from, namespace, name string }

func (m *Mesh) readGrants(objects []*config.Object) {
	for _, o := range objects {
		spec, ok := o.Spec.(*gatewayv1beta1.ReferenceGrant)
		if !ok {
			continue
		}
		for _, f := range spec.Spec.From {
			if f.Group != gatewayv1.GroupName || f.Kind != "HTTPRoute" {
				continue
			}
			for _, t := range spec.Spec.To {
				if (t.Group != "" && t.Group != "core") || t.Kind != "Service" {
					continue
				}
				g := grant{from: string(f.Namespace), namespace: o.Namespace}
				if t.Name != nil {
					g.name = string(*t.Name)
				}
				m.grants[g] = true
			}
		}
	}
}

// granted says whether HTTPRoutes of a namespace may refer to a Service of another.
func (m *Mesh) granted(from, namespace, name string) bool {
	return m.grants[grant{from, namespace, ""}] || m.grants[grant{from, namespace, name}]
}

// ForGateway returns the sealed snapshot of a gateway workload.
func (m *Mesh) ForGateway(p *Placement, namespace, workload string) (*model.Snapshot, error) {
	s, err := m.cutGateway(p, namespace, workload)
	if err != nil {
		return nil, fmt.Errorf("cannot compile gateway %s/%s: %w", namespace, workload, err)
	}
	return model.Seal(s), nil
}

func (m *Mesh) cutGateway(p *Placement, namespace, workload string) (*model.Snapshot, error) {
	i := slices.IndexFunc(m.gateways, func(g *gateway) bool { return g.Namespace == namespace && g.Name == workload })
	if i < 0 {
		return nil, fmt.Errorf("there is no such gateway")
	}
	g := m.gateways[i]
	m.cache.Lock()
	defer m.cache.Unlock()
	v := m.gatewayView(g)
	s := &model.Snapshot{
		Workload: model.Workload{Peer: g.Peer, Instance: g.Name + "-0", Labels: g.Labels},
		Settings: m.settings,
		Clusters: m.at(p).view(&v.view).clusters,
	}
	for i, port := range g.Ports {
		for _, l := range p.Gateways {
			if l.Namespace != namespace || l.Workload != workload || l.Port != port || l.Listen == "" {
				continue
			}
			name := g.listener(port)
			if s.Workload.Address == "" {
				s.Workload.Address, _ = splitAddress(l.Listen)
			}
			s.Listeners = append(s.Listeners, model.Listener{Name: name, Direction: model.Gateway, Address: l.Listen, Port: port, Protocol: model.HTTP, Table: name, Origin: g.origin(port)})
			s.Tables = append(s.Tables, v.tables[i])
			break
		}
	}
	return s, nil
}

// origin returns the first server of a port.
func (g *gateway) origin(port int) *model.Origin {
	for _, s := range g.servers {
		if s.port == port {
			o := origin(s.object, s.field, s.name)
			return &o
		}
	}
	return nil
}

// splitAddress cuts the port off an address.
func splitAddress(s string) (host, port string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, ""
	}
	return strings.Trim(s[:i], "[]"), s[i+1:]
}
