package compile

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// gatewayView is what a gateway's ports serve, and the clusters that it leads to.
type gatewayView struct {
	view
	ports []gatewayPort
}

// gatewayPort is one port: the tables of its servers, and, for TLS, how each is taken.
type gatewayPort struct {
	protocol model.Protocol
	tables   []model.Table
	tls      []model.ServerTLS
}

// gatewayScope is the scope of a gateway: its Secrets are those of its namespace.
func (m *Mesh) gatewayScope(namespace string, labels map[string]string) *scope {
	s := m.scope(namespace, labels)
	s.gateway = namespace
	return s
}

func (m *Mesh) gatewayView(g *gateway) *gatewayView {
	if v := m.gateViews[g]; v != nil {
		return v
	}
	s := m.gatewayScope(g.Namespace, g.Labels)
	v := &gatewayView{}
	for _, port := range g.Ports {
		v.ports = append(v.ports, m.gatewayPort(g, s, port))
	}
	v.clusters, v.breakers = v.settled(s)
	m.gateViews[g] = v
	return v
}

// settled returns the clusters that the scope uses, and the breakers before them, with what a gateway speaks to ports that do not say: HTTP/1.1 to undeclared ones, as its clients agree
// on HTTP/2 with the gateway whatever the application knows (Istio does the same; useClientProtocol asks for the other), and to
// those declared TCP, if requests alone are routed there. What a GRPCRoute leads to knows HTTP/2.
func (v *gatewayView) settled(s *scope) ([]*cluster, []model.Breaker) {
	requests, others := map[string]bool{}, map[string]bool{}
	see := func(t *model.Table, inside model.Protocol) {
		for i := range t.Hosts {
			for j := range t.Hosts[i].Rules {
				r := &t.Hosts[i].Rules[j]
				to := requests
				if inside != model.HTTP || r.Origin.Kind == grpcRoute {
					to = others
				}
				if r.Route != nil {
					for _, d := range r.Route.Destinations {
						to[d.Cluster] = true
					}
					for _, mirror := range r.Route.Mirrors {
						to[mirror.Cluster] = true
					}
				}
			}
		}
	}
	for _, p := range v.ports {
		for i := range p.tables {
			if len(p.tls) > 0 {
				see(&p.tables[i], p.tls[i].Protocol)
			} else {
				see(&p.tables[i], p.protocol)
			}
		}
	}
	var breakers []model.Breaker
	for n := -1; n != len(s.clusters); { // fallbacks add some
		n, breakers = len(s.clusters), s.guards()
		for i := range breakers {
			requests[breakers[i].FallbackCluster] = true
		}
		for name, c := range s.clusters {
			if (c.undeclared && c.Protocol == model.Auto || c.Protocol == model.TCP) && requests[name] && !others[name] {
				own := *c
				own.Protocol, own.Breakers = model.HTTP, c.set.before(c.Port, c.Subset)
				s.clusters[name] = &own
				n = -1
			}
		}
	}
	return s.used(), breakers
}

// gatewayPort builds what a port serves. Plain servers share a table. A server with TLS has one of its own: its clients have said
// by the server name which server they want, and get no other's routes by another Host.
func (m *Mesh) gatewayPort(g *gateway, s *scope, port int) gatewayPort {
	servers := g.at(port)
	if servers[0].class() != "TLS" {
		return gatewayPort{protocol: servers[0].inside, tables: []model.Table{m.serverTable(g, s, g.listener(port), servers, servers)}}
	}
	p := gatewayPort{protocol: servers[0].protocol}
	for _, sv := range servers {
		t := *sv.tls
		t.Table, t.Protocol = g.listener(port)+"|"+sv.gateway+"|"+sv.field, sv.inside
		for _, h := range sv.hosts {
			if !slices.Contains(t.Names, h.host) {
				t.Names = append(t.Names, h.host)
			}
		}
		o := sv.origin()
		t.Origin = &o
		p.tls = append(p.tls, t)
		table := m.serverTable(g, s, t.Table, []*server{sv}, servers)
		sv.misdirected(&table, servers)
		p.tables = append(p.tables, table)
	}
	return p
}

// mostMisdirected bounds the hosts of other servers that each server's table lists.
const mostMisdirected = 256

// misdirected answers 421 to requests for the hosts of other servers of the port: a client whose connection several hosts'
// certificates fit may send them all there (RFC 9110 §15.5.20, RFC 9113 §9.1.2), and tries again on another. On a port with more
// hosts they are answered 404, like any unknown one.
func (s *server) misdirected(t *model.Table, servers []*server) {
	if s.inside != model.HTTP {
		return
	}
	have := map[string]bool{}
	for i := range t.Hosts {
		have[t.Hosts[i].Domains[0]] = true
	}
	var others []string
	for _, o := range servers {
		if o == s || o.inside != model.HTTP {
			continue
		}
		for _, h := range o.hosts {
			if !have[h.host] {
				have[h.host] = true
				others = append(others, h.host)
			}
		}
	}
	if len(others) == 0 || len(others) > mostMisdirected {
		return
	}
	t.Hosts = append(t.Hosts, model.VirtualHost{Name: "misdirected", Domains: others, Rules: []model.Rule{{
		Origin: s.origin(), Reply: &model.Reply{Status: 421, Outcome: "no_route", Body: "the connection was made for another server of this port\n"},
	}}})
}

// at returns the servers of a port, in order.
func (g *gateway) at(port int) []*server {
	var out []*server
	for _, sv := range g.servers {
		if sv.port == port {
			out = append(out, sv)
		}
	}
	return out
}

// serverTable builds the table of servers that have one together; all are those of the port.
func (m *Mesh) serverTable(g *gateway, s *scope, name string, servers, all []*server) model.Table {
	t := model.Table{Name: name}
	hosts := hostTable{table: &t, index: map[string]int{}}
	if servers[0].inside == model.HTTP {
		m.istioHosts(g, s, servers, hosts)
		m.apiHosts(s, servers, all, hosts)
		m.gatewayLimits(&t, servers)
		return t
	}
	for _, sv := range servers {
		if sv.listener != nil {
			m.apiConnections(s, sv, hosts)
		} else {
			m.istioConnections(g, s, sv, hosts)
		}
	}
	return t
}

// istioConnections adds what VirtualServices say of a server's connections: by server name where TLS passes through, else the first
// tcp route that is for it.
func (m *Mesh) istioConnections(g *gateway, s *scope, sv *server, hosts hostTable) {
	for _, v := range m.atGateway(sv.gateway, g.Namespace) {
		shared := sv.shared(v)
		if len(shared) == 0 {
			continue
		}
		if sv.tls == nil || sv.tls.Mode != model.PassthroughTLS {
			for _, c := range v.tcp {
				if h := hosts.host("*"); len(h.Rules) == 0 && c.covers(s, sv.gateway, sv.port, "") {
					h.Rules = []model.Rule{c.build(s, sv.port, nil)}
				}
			}
			continue
		}
		for _, name := range v.names(s, sv.gateway, sv.port) {
			for _, host := range shared {
				n, ok := narrower(name, host)
				if !ok {
					continue
				}
				for _, c := range v.tls {
					if h := hosts.host(n); len(h.Rules) == 0 && c.covers(s, sv.gateway, sv.port, n) {
						h.Rules = []model.Rule{c.build(s, sv.port, nil)}
					}
				}
			}
		}
	}
	hosts.drop()
}

// drop removes the hosts without rules.
func (h hostTable) drop() {
	h.table.Hosts = slices.DeleteFunc(h.table.Hosts, func(v model.VirtualHost) bool { return len(v.Rules) == 0 })
}

// apiConnections adds what TLSRoutes and TCPRoutes say of a listener's connections; of two routes for one name, the first has it,
// TLSRoutes before TCPRoutes.
func (m *Mesh) apiConnections(s *scope, sv *server, hosts hostTable) {
	for _, kind := range []string{tlsRoute, tcpRoute} {
		for _, h := range m.routes {
			if h.object.Kind != kind {
				continue
			}
			for _, name := range m.attachment(sv, h) {
				if to := hosts.host(connectionName(kind, name)); len(to.Rules) == 0 {
					if all := h.entries(s, 0, true, nil); len(all) > 0 {
						to.Rules = []model.Rule{all[0].rule}
					}
				}
			}
		}
	}
	hosts.drop()
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
func (m *Mesh) istioHosts(g *gateway, s *scope, servers []*server, hosts hostTable) {
	done := map[string]bool{}
	for _, sv := range servers {
		if sv.listener != nil {
			continue
		}
		if sv.redirect {
			for _, h := range sv.hosts {
				hosts.host(h.host).Rules = []model.Rule{{Origin: origin(sv.object, sv.field+".tls", "httpsRedirect"), Redirect: &model.Redirect{Status: 301, Scheme: "https"}}}
			}
			continue
		}
		for _, v := range m.atGateway(sv.gateway, g.Namespace) {
			rules := v.routes(s, sv.gateway, sv.port, nil)
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

// reference is one from an object to another, as ReferenceGrants allow them; name "" is any.
type reference struct{ kind, from, toKind, toNamespace, name string }

func (m *Mesh) readGrants(objects []*config.Object) {
	for _, o := range objects {
		spec, ok := o.Spec.(*gatewayv1beta1.ReferenceGrant)
		if !ok {
			continue
		}
		for _, f := range spec.Spec.From {
			if f.Group != gatewayv1.GroupName {
				continue
			}
			for _, t := range spec.Spec.To {
				if t.Group != "" && t.Group != "core" {
					continue
				}
				g := reference{kind: string(f.Kind), from: string(f.Namespace), toKind: string(t.Kind), toNamespace: o.Namespace}
				if t.Name != nil {
					g.name = string(*t.Name)
				}
				m.grants[g] = true
			}
		}
	}
}

// granted says whether an object may refer to another: one of its own namespace, or as a ReferenceGrant there allows.
func (m *Mesh) granted(r reference) bool {
	all := r
	all.name = ""
	return r.from == r.toNamespace || m.grants[r] || m.grants[all]
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
		Clusters: slices.Clip(m.at(p).view(&v.view, m.siteOf(g)).clusters),
		Breakers: v.breakers,
	}
	for i, port := range g.Ports {
		at := slices.IndexFunc(p.Gateways, func(l GatewayListen) bool {
			return l.Namespace == namespace && l.Workload == workload && l.Port == port && l.Listen != ""
		})
		if at < 0 {
			continue
		}
		listen, built := p.Gateways[at].Listen, &v.ports[i]
		if s.Workload.Address == "" {
			s.Workload.Address, _ = splitAddress(listen)
		}
		o := g.at(port)[0].origin()
		l := model.Listener{Name: g.listener(port), Direction: model.Gateway, Address: listen, Port: port, Protocol: built.protocol, TLS: built.tls, Reason: reasonOf(g.at(port)[0].object.Annotations), Origin: &o}
		if len(l.TLS) == 0 {
			l.Table = built.tables[0].Name
		}
		s.Listeners = append(s.Listeners, l)
		s.Tables = append(s.Tables, built.tables...)
	}
	s.RateLimits = m.limitsOf(s.Tables...)
	m.share(s, m.gatewayScope(g.Namespace, g.Labels), m.at(p), m.siteOf(g))
	return s, nil
}

// splitAddress cuts the port off an address.
func splitAddress(s string) (host, port string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return s, ""
	}
	return strings.Trim(s[:i], "[]"), s[i+1:]
}
