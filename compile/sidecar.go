package compile

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

var sidecarCoverage = covers("workloadSelector", "egress", "ingress.", "ingress.port", "ingress.bind", "ingress.captureMode", "ingress.defaultEndpoint",
	"ingress.tls", "ingress.connectionPool.", "inboundConnectionPool.", "outboundTrafficPolicy.", "outboundTrafficPolicy.mode").
	and(inboundPoolCoverage.under("ingress.connectionPool."), inboundPoolCoverage.under("inboundConnectionPool."))

// sidecar is a Sidecar: what its workloads see of the mesh, and where their proxies listen besides. One alone holds for a
// workload, however many there are.
type sidecar struct {
	object   *config.Object
	number   int               // among all
	selector map[string]string // nil is the whole namespace
	egress   []*egress         // none is everything
	ingress  []*ingress
	policy   *networking.OutboundTrafficPolicy  // nil is the mesh's
	pool     *networking.ConnectionPoolSettings // of all inbound ports, and of each that says so
	pools    map[int]*networking.ConnectionPoolSettings
}

// egress is one egress listener: which services its port reaches.
type egress struct {
	field    string
	hosts    []egressHost
	port     int // 0 is all that no other listener names
	protocol model.Protocol
	proxy    bool   // an HTTP proxy, for services of any port
	bound    bool   // it has a socket of its own (captureMode NONE)
	bind     string // its address; "" is the workload's own
	origin   model.Origin
}

// egressHost is NAMESPACE/HOST; not leaves out what it matches.
type egressHost struct {
	namespace, host string
	not             bool
}

// ingress is one ingress listener: a port of the workload that replaces the one made from Services.
type ingress struct {
	port     int
	protocol model.Protocol
	bind     string
	app      string // defaultEndpoint: host:port
	tls      *model.ServerTLS
	origin   model.Origin
}

// readSidecars translates all Sidecars.
func (m *Mesh) readSidecars(objects []*config.Object, r *report) {
	m.sidecars = map[string][]*sidecar{}
	for _, o := range objects {
		spec, ok := o.Spec.(*networking.Sidecar)
		if !ok {
			continue
		}
		sidecarCoverage.missing(spec.ProtoReflect(), func(field string) { r.without(o, "spec."+field) })
		m.count++
		s := &sidecar{object: o, number: m.count, selector: spec.WorkloadSelector.GetLabels(), policy: spec.OutboundTrafficPolicy, pool: spec.InboundConnectionPool}
		for i, l := range spec.Egress {
			if e := readEgress(o, l, element("spec.egress", i), r); e != nil {
				s.egress = append(s.egress, e)
			}
		}
		for i, l := range spec.Ingress {
			if l.ConnectionPool != nil {
				if s.pools == nil {
					s.pools = map[int]*networking.ConnectionPoolSettings{}
				}
				s.pools[int(l.Port.GetNumber())] = l.ConnectionPool
			}
			if in := m.readIngress(o, l, element("spec.ingress", i), r); in != nil {
				s.ingress = append(s.ingress, in)
			}
		}
		if len(s.selector) == 0 {
			for _, other := range m.sidecars[o.Namespace] {
				if len(other.selector) == 0 {
					r.error(o, sidecarTwice, "", "merge the two, or give one of them a workloadSelector",
						"Sidecar %s (%s) is for all workloads of namespace %s too and comes first (order: %s); this one has no effect", other.object.Name, position(other.object), o.Namespace, orderText(o))
					break
				}
			}
		}
		m.sidecars[o.Namespace] = append(m.sidecars[o.Namespace], s)
	}
}

// inboundPool is what s says of connections to the application at a port; nil is nothing.
func (s *sidecar) inboundPool(number int) *networking.ConnectionPoolSettings {
	if p := s.pools[number]; p != nil {
		return p
	}
	return s.pool
}

func readEgress(o *config.Object, l *networking.IstioEgressListener, field string, r *report) *egress {
	e := &egress{field: field, port: int(l.Port.GetNumber()), bind: l.Bind, bound: l.CaptureMode == networking.CaptureMode_NONE, origin: origin(o, field, l.Port.GetName())}
	if e.proxy = strings.EqualFold(l.Port.GetProtocol(), "HTTP_PROXY"); e.proxy {
		e.protocol = model.HTTP
	} else {
		e.protocol, _ = entryProtocol(l.Port.GetProtocol())
	}
	if e.protocol == model.Auto { // what the schema does not know
		e.protocol = model.TCP
	}
	for _, h := range l.Hosts {
		namespace, host, _ := strings.Cut(strings.ToLower(h), "/")
		out := egressHost{namespace: namespace, host: host}
		if rest, ok := strings.CutPrefix(namespace, "~"); ok && rest != "" {
			out.namespace, out.not = rest, true
		}
		e.hosts = append(e.hosts, out)
	}
	if strings.HasPrefix(l.Bind, "unix://") {
		r.warn(o, noEffect, field+".bind", "bind an IP address", "a listener at a Unix socket has no effect yet")
		e.bound = false
	}
	if l.Port == nil && e.bound {
		r.warn(o, noEffect, field+".captureMode", "give the listener a port", "captureMode NONE without a port has no effect yet: nothing is listened at")
		e.bound = false
	}
	return e
}

func (m *Mesh) readIngress(o *config.Object, l *networking.IstioIngressListener, field string, r *report) *ingress {
	in := &ingress{port: int(l.Port.GetNumber()), bind: l.Bind, app: l.DefaultEndpoint, origin: origin(o, field, l.Port.GetName())}
	in.protocol, _ = entryProtocol(l.Port.GetProtocol())
	switch {
	case strings.HasPrefix(in.app, "unix://"), strings.HasPrefix(in.bind, "unix://"):
		r.warn(o, noEffect, field, "use IP addresses", "an ingress listener with a Unix socket has no effect yet; it is left out")
		return nil
	case in.port < 1 || in.port > 65535:
		r.error(o, badValue, field+".port.number", "use a port from 1 to 65535", "port %d cannot be listened on; the listener is left out", in.port)
		return nil
	}
	if secure(in.protocol) && l.Tls != nil {
		t, ok := m.serverTLS(credentials{object: o, field: field + ".tls", files: true}, l.Tls, r)
		if !ok {
			return nil
		}
		inside := model.TCP
		if in.protocol == model.HTTPS && t.Mode != model.PassthroughTLS {
			inside = model.HTTP
		}
		t.Names, t.Protocol, t.Origin = []string{"*"}, inside, &in.origin
		in.tls = t
	}
	return in
}

// sidecarOf returns the Sidecar of a workload: one that selects it, else its namespace's, else the root namespace's; nil
// without one.
func (m *Mesh) sidecarOf(namespace string, labels map[string]string) *sidecar {
	if len(m.sidecars) == 0 {
		return nil
	}
	for _, s := range m.sidecars[namespace] {
		if len(s.selector) > 0 && selects(s.selector, labels) {
			return s
		}
	}
	for _, from := range []string{namespace, m.root} {
		for _, s := range m.sidecars[from] {
			if len(s.selector) == 0 {
				return s
			}
		}
	}
	return nil
}

// clientScope is the scope of a workload's sidecar.
func (m *Mesh) clientScope(namespace string, labels map[string]string, restricted *sidecar) *scope {
	s := m.scope(namespace, labels)
	s.sidecar = restricted
	return s
}

// takes says whether what namespace has under host is among the listener's hosts, as a workload in own sees it.
func (e *egress) takes(own, namespace string, fits func(host string) bool) bool {
	taken := false
	for i := range e.hosts {
		h := &e.hosts[i]
		from := h.namespace
		if from == "." {
			from = own
		}
		if (from != "*" && from != namespace) || !fits(h.host) {
			continue
		}
		if h.not {
			return false
		}
		taken = true
	}
	return taken
}

// serves says whether the listener leads to p for a workload in namespace own.
func (e *egress) serves(own string, p *port) bool {
	return (e.port == 0 || e.proxy || e.port == p.number) && e.takes(own, p.service.Namespace, func(h string) bool { return within(p.service.Host, h) })
}

// imports says whether the client may reach p.
func (s *scope) imports(p *port) bool {
	return s.sidecar == nil || len(s.sidecar.egress) == 0 || slices.ContainsFunc(s.sidecar.egress, func(e *egress) bool { return e.serves(s.namespace, p) })
}

// importsVirtual says whether the client follows v.
func (s *scope) importsVirtual(v *virtualService) bool {
	if s.sidecar == nil || len(s.sidecar.egress) == 0 {
		return true
	}
	fits := func(h string) bool {
		return slices.ContainsFunc(v.hosts, func(host string) bool { return within(host, h) || within(h, host) })
	}
	return slices.ContainsFunc(s.sidecar.egress, func(e *egress) bool { return e.takes(s.namespace, v.object.Namespace, fits) })
}

// visible returns the service that host means to the client, of those that it may reach; nil without one.
func (s *scope) visible(host string) *service {
	all := &s.mesh.services
	if s.sidecar == nil || len(s.sidecar.egress) == 0 {
		return all.find(host, s.namespace)
	}
	var found *service
	for _, c := range all.byHost[host] {
		if !c.exported.includes(s.namespace) || !slices.ContainsFunc(c.ports, s.imports) {
			continue
		}
		if c.Namespace == s.namespace {
			return c
		}
		if found == nil {
			found = c
		}
	}
	return found
}

// registryOnly says whether hosts that are no services may not be reached by the client.
func (s *scope) registryOnly() bool {
	if s.sidecar == nil || s.sidecar.policy == nil {
		return s.mesh.registryOnly()
	}
	return s.sidecar.policy.Mode == networking.OutboundTrafficPolicy_REGISTRY_ONLY
}

// boundTable is the table of an egress listener with a socket of its own.
type boundTable struct {
	egress *egress
	table  model.Table
}

// name names the listener in the snapshot, and its table.
func (e *egress) name() string { return outbound + "|" + e.bind + "|" + strconv.Itoa(e.port) }

// bound builds the tables of the client's egress listeners that have a socket.
func (s *scope) bound(unmatched *model.Rule) []boundTable {
	if s.sidecar == nil {
		return nil
	}
	var out []boundTable
	for _, e := range s.sidecar.egress {
		if !e.bound || slices.ContainsFunc(out, func(b boundTable) bool { return b.egress.name() == e.name() }) {
			continue
		}
		t := model.Table{Name: e.name()}
		ports := s.reached(e)
		switch {
		case e.protocol == model.TCP:
			if len(ports) > 0 {
				rules, _ := s.mesh.bytesRules(s, ports[0], ports[0].service.Host)
				t.Hosts = []model.VirtualHost{{Name: hostName(ports[0].service.Host, e.port), Domains: []string{"*"}, Rules: rules}}
			}
		case secure(e.protocol):
			for _, p := range ports {
				t.Hosts = append(t.Hosts, s.namedHosts(p, 0)...)
			}
			if len(ports) == 1 {
				rules, _ := s.mesh.bytesRules(s, ports[0], ports[0].service.Host)
				t.Hosts = append(t.Hosts, model.VirtualHost{Name: "*", Domains: []string{"*"}, Rules: rules})
			}
		default:
			t.Unmatched = unmatched
			for _, p := range ports {
				number := 0
				if e.proxy {
					number = p.number
				}
				t.Hosts = append(t.Hosts, s.hosts(p, number)...)
			}
		}
		out = append(out, boundTable{e, t})
	}
	return out
}

// reached lists the ports that an egress listener leads to, in the order of hosts.
func (s *scope) reached(e *egress) []*port {
	var out []*port
	for _, host := range s.mesh.services.hosts {
		svc := s.visible(host)
		if svc == nil {
			continue
		}
		for _, p := range svc.ports {
			if e.serves(s.namespace, p) && (e.proxy || p.protocol == model.Auto || opaque(p.protocol) == opaque(e.protocol) || opaque(e.protocol)) {
				out = append(out, p)
			}
		}
	}
	return out
}

// checkSidecars reports listeners that lead nowhere, and workloads that two Sidecars select.
func (m *Mesh) checkSidecars(r *report) {
	for _, namespace := range sortedKeys(m.sidecars) {
		for _, sc := range m.sidecars[namespace] {
			s := m.clientScope(namespace, sc.selector, sc)
			for _, e := range sc.egress {
				if !e.bound {
					continue
				}
				ports := s.reached(e)
				switch {
				case len(ports) == 0:
					r.error(sc.object, emptyListener, e.field+".hosts", "name a service with that port", "no service among the listener's hosts has port %d; it leads nowhere", e.port)
				case len(ports) > 1 && e.protocol == model.TCP:
					r.warn(sc.object, emptyListener, e.field+".hosts", "name one service, or give each a listener of its own",
						"%d services among the listener's hosts have port %d; connections go to %s", len(ports), e.port, ports[0].service.Host)
				}
			}
			if len(sc.selector) == 0 {
				continue
			}
			for _, k := range sortedKeys(m.workloads) {
				w := m.workloads[k]
				if w.Namespace != namespace || !selects(sc.selector, w.Labels) {
					continue
				}
				if first := m.sidecarOf(namespace, w.Labels); first != sc {
					r.error(sc.object, sidecarOverlap, "spec.workloadSelector", "let one Sidecar select a workload",
						"workload %s is selected by Sidecar %s (%s) too, which comes first (order: %s)", k, first.object.Name, position(first.object), orderText(sc.object))
					break
				}
			}
		}
	}
}

// claims says who has an address that Sidecars bind on one machine. 127.0.0.1 is everyone's there: the first instance that
// asks for it has it as written, and any other takes its own address, as if each had a loopback of its own.
func (m *Mesh) claims(p *Placement) map[string]*Instance {
	out := map[string]*Instance{}
	if len(m.sidecars) == 0 {
		return out
	}
	claim := func(at string, x *Instance) {
		if out[at] == nil {
			out[at] = x
		}
	}
	for _, g := range p.Gateways {
		claim(g.Listen, &Instance{})
	}
	for i := range p.Instances {
		x := &p.Instances[i]
		claim(x.Outbound, x)
		for _, port := range x.Ports {
			claim(port.Listen, x)
		}
	}
	for _, written := range []bool{false, true} { // who asks for its own address has it before who writes another
		for i := range p.Instances {
			x := &p.Instances[i]
			w := m.workloadOf(x)
			if w == nil || !x.Sidecar {
				continue
			}
			if s := m.sidecarOf(w.Namespace, w.Labels); s != nil {
				for _, e := range s.egress {
					if e.bound && loopback(e.bind) == written {
						claim(authority(cmp.Or(e.bind, x.Address), e.port), x)
					}
				}
			}
		}
	}
	return out
}

// workloadOf returns the workload that x is an instance of, nil without one.
func (m *Mesh) workloadOf(x *Instance) *workload {
	w := m.workloads[key(x.Namespace, x.Workload)]
	if w == nil && x.Namespace == "default" && x.Workload == "local" {
		return m.local()
	}
	return w
}

// address returns where an egress listener of x is bound: as written, or at 127.0.0.1, in a pod; where all instances share a
// machine, x's own address stands for its loopback and for all its addresses. It is "" where x serves that port itself.
func (e *egress) address(x *Instance, claims map[string]*Instance) string {
	at := authority(cmp.Or(e.bind, "127.0.0.1"), e.port)
	if loopback(x.Address) && (e.bind == "" || unspecified(e.bind) || loopback(e.bind) && claims[at] != x) {
		at = authority(x.Address, e.port)
	}
	free := func(at string) bool { return claims[at] == nil || claims[at] == x }
	if !free(at) {
		at = authority(x.Address, e.port)
	}
	switch {
	case at == x.Outbound || slices.ContainsFunc(x.Ports, func(p InstancePort) bool { return p.Listen == at }):
		return ""
	case !free(at): // where instances have no addresses of their own
		return authority(x.Address, 0)
	}
	return at
}

func loopback(address string) bool {
	a, err := netip.ParseAddr(address)
	return err == nil && a.IsLoopback()
}

func unspecified(address string) bool {
	a, err := netip.ParseAddr(address)
	return err == nil && a.IsUnspecified()
}

// boundListeners returns the listeners of x that its Sidecar asks for, with their tables.
func boundListeners(tables []boundTable, x *Instance, claims map[string]*Instance) (listeners []model.Listener, used []model.Table) {
	for _, b := range tables {
		at := b.egress.address(x, claims)
		if at == "" {
			continue
		}
		o := b.egress.origin
		listeners = append(listeners, model.Listener{
			Name: b.table.Name, Direction: model.Outbound, Address: at, Port: b.egress.port, Protocol: b.egress.protocol, Table: b.table.Name,
			Explicit: b.egress.proxy, Origin: &o,
		})
		used = append(used, b.table)
	}
	return listeners, used
}
