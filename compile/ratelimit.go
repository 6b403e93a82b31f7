package compile

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/outrider-mesh/outrider/config"
	"github.com/outrider-mesh/outrider/mesh/model"
)

// rateLimit is one RateLimit.
type rateLimit struct {
	object  *config.Object
	spec    *config.RateLimit
	host    string        // of those for clients
	gateway string        // namespace/name, of those for gateways
	server  *policyServer // of Linkerd's
	model   model.RateLimit
}

// readRateLimits lists RateLimits in order. Those that hold for one request must all be met, so none excludes another.
func (m *Mesh) readRateLimits(objects []*config.Object) {
	for _, o := range objects {
		spec, ok := o.Spec.(*config.RateLimit)
		if !ok {
			continue
		}
		l := &rateLimit{object: o, spec: spec, gateway: spec.Gateway}
		if spec.Host != "" {
			l.host = fullName(spec.Host, o.Namespace, m.domain)
		}
		if l.gateway != "" && !strings.Contains(l.gateway, "/") {
			l.gateway = key(o.Namespace, l.gateway)
		}
		l.model = l.translated()
		m.rates = append(m.rates, l)
	}
}

// translated is the model of what the object says.
func (l *rateLimit) translated() model.RateLimit {
	from := origin(l.object, "spec", "")
	out := model.RateLimit{Name: key(l.object.Namespace, l.object.Name), DryRun: l.spec.DryRun, GRPC: 14, Keys: l.spec.Keys, Origin: &from}
	if l.spec.GRPCStatus == "RESOURCE_EXHAUSTED" {
		out.GRPC = 8
	}
	switch l.spec.Headers {
	case "ALWAYS":
		out.Headers = "always"
	case "NEVER":
		out.Headers = "never"
	}
	if r := l.spec.Route; r != nil {
		out.Paths, out.Methods = r.Paths, r.Methods
	}
	for _, t := range l.spec.Limits {
		to := model.TokenLimit{Requests: t.Requests, Per: model.Duration(t.Per.Duration), Burst: t.Burst}
		for _, by := range t.By {
			to.By = append(to.By, model.RateKey{Identity: by.Word == "clientIdentity", SourceIP: by.Word == "sourceIP", Header: strings.ToLower(by.Header)})
		}
		out.Limits = append(out.Limits, to)
	}
	out.Shared = l.shared()
	return out
}

// chooses says whether l's selector holds for a workload: of its own namespace, or of any where l is of the root's.
func (l *rateLimit) chooses(m *Mesh, namespace string, labels map[string]string) bool {
	return (l.object.Namespace == namespace || l.object.Namespace == m.root) && selects(l.selector(), labels)
}

func (l *rateLimit) selector() map[string]string {
	if l.spec.Selector == nil {
		return nil
	}
	return l.spec.Selector.MatchLabels
}

func (l *rateLimit) at(port int) bool { return l.spec.Port == 0 || l.spec.Port == port }

// inboundLimits names the limits of what comes to a workload's port.
func (m *Mesh) inboundLimits(w *workload, port int) []string {
	var names []string
	for _, l := range m.rates {
		if l.server != nil {
			if l.server.takes(w, port) {
				names = append(names, l.model.Name)
			}
			continue
		}
		if l.host == "" && l.gateway == "" && l.at(port) && l.chooses(m, w.Namespace, w.Labels) && !m.counts(l, w, port) {
			names = append(names, l.model.Name)
		}
	}
	return names
}

// hostLimits names the limits of what the client sends to a host's port. As with other policies of a service, those of the
// client's namespace hold for its own clients, those of the service's and the root's for all; owner is "" where nobody is.
func (s *scope) hostLimits(host, owner string, port int) []string {
	var names []string
	for _, l := range s.mesh.rates {
		near := l.object.Namespace == s.namespace || l.object.Namespace == owner || l.object.Namespace == s.mesh.root
		if l.host == host && l.at(port) && near && s.gateway == "" && selects(l.selector(), s.labels) {
			names = append(names, l.model.Name)
		}
	}
	return names
}

// gatewayLimits adds to a table of servers the limits of their Gateways, host by host.
func (m *Mesh) gatewayLimits(t *model.Table, servers []*server) {
	for _, l := range m.rates {
		if l.gateway == "" || !l.mayLimit(m) {
			continue
		}
		for i := range t.Hosts {
			h := &t.Hosts[i]
			if slices.ContainsFunc(servers, func(s *server) bool {
				return s.gateway == l.gateway && l.at(s.port) && s.inside == model.HTTP && s.has(h.Domains[0])
			}) {
				h.RateLimits = append(h.RateLimits, l.model.Name)
			}
		}
	}
}

// mayLimit says whether the object may say something of its Gateway: others' are not to be brought down.
func (l *rateLimit) mayLimit(m *Mesh) bool {
	namespace, _, _ := strings.Cut(l.gateway, "/")
	return l.object.Namespace == namespace || l.object.Namespace == m.root
}

// has says whether a domain of the table is among the server's hosts.
func (s *server) has(domain string) bool {
	return slices.ContainsFunc(s.hosts, func(h serverHost) bool {
		n, ok := narrower(h.host, domain)
		return ok && n == domain
	})
}

// limitsOf returns the limits that tables name, by name.
func (m *Mesh) limitsOf(tables ...model.Table) []model.RateLimit {
	if len(m.rates) == 0 {
		return nil
	}
	used := map[string]bool{}
	for i := range tables {
		for j := range tables[i].Hosts {
			for _, name := range tables[i].Hosts[j].RateLimits {
				used[name] = true
			}
		}
	}
	out := make([]model.RateLimit, 0, len(used))
	for _, l := range m.rates {
		if used[l.model.Name] {
			out = append(out, l.model)
			used[l.model.Name] = false
		}
	}
	slices.SortFunc(out, func(a, b model.RateLimit) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// checkRateLimits reports limits that limit nothing.
func (m *Mesh) checkRateLimits(r *report) {
	for _, l := range m.rates {
		m.checkShared(l, r)
		switch {
		case l.server != nil:
			m.checkPolicyLimit(l, r)
		case l.gateway != "":
			m.checkGatewayLimit(l, r)
		case l.host != "":
			m.checkHostLimit(l, r)
		default:
			m.checkInboundLimit(l, r)
		}
	}
}

func (m *Mesh) checkGatewayLimit(l *rateLimit, r *report) {
	switch {
	case m.istioGateways[l.gateway] == nil && m.apiGateways[l.gateway] == nil:
		r.error(l.object, limitTarget, "spec.gateway", "check the name and namespace, or add the Gateway", "there is no Gateway %s; nothing is limited", l.gateway)
		return
	case !l.mayLimit(m):
		r.error(l.object, limitTarget, "spec.gateway", "write it in the Gateway's namespace, or in "+m.root, "a Gateway of another namespace cannot be limited; nothing is")
		return
	}
	served := slices.ContainsFunc(m.gateways, func(g *gateway) bool {
		return slices.ContainsFunc(g.servers, func(s *server) bool {
			return s.gateway == l.gateway && l.at(s.port) && s.inside == model.HTTP
		})
	})
	if !served {
		field := "spec.gateway"
		if l.spec.Port != 0 {
			field = "spec.port"
		}
		r.warn(l.object, limitTarget, field, "name a Gateway and port that is served HTTP", "no server of Gateway %s carries requests there; nothing is limited", l.gateway)
	}
}

func (m *Mesh) checkHostLimit(l *rateLimit, r *report) {
	svc := m.services.find(l.host, l.object.Namespace)
	switch {
	case svc == nil && m.unknownHosts[l.host]:
	case svc == nil:
		r.warn(l.object, limitTarget, "spec.host", m.scope(l.object.Namespace, nil).hint(l.host), "host %s is no service that namespace %s sees; nothing is limited", l.host, l.object.Namespace)
	case l.spec.Port != 0 && svc.port(l.spec.Port) == nil:
		r.warn(l.object, limitTarget, "spec.port", "name one of the service's ports", "%s has no port %d (it has %s); nothing is limited", l.host, l.spec.Port, portList(svc))
	case !slices.ContainsFunc(svc.ports, func(p *port) bool { return l.at(p.number) && !opaque(p.protocol) }):
		r.warn(l.object, limitTarget, "spec.host", "name a port after its protocol, http, http2 or grpc, if it carries requests", "%s carries bytes there, not requests; nothing is limited", l.host)
	}
}

func (m *Mesh) checkInboundLimit(l *rateLimit, r *report) {
	chosen := slices.DeleteFunc(slices.Collect(maps.Values(m.workloads)), func(w *workload) bool { return !l.chooses(m, w.Namespace, w.Labels) })
	if len(chosen) == 0 {
		r.warn(l.object, limitTarget, "spec.selector", "compare it with the labels of the pods", "the selector chooses no workload; nothing is limited")
		return
	}
	if l.spec.Port != 0 && !slices.ContainsFunc(chosen, func(w *workload) bool {
		return slices.ContainsFunc(w.Ports, func(p TemplatePort) bool { return p.Port == l.spec.Port && !opaque(p.Protocol) })
	}) {
		r.warn(l.object, limitTarget, "spec.port", "name a port of the pods that a Service leads to", "no workload that is chosen takes requests at port %d; nothing is limited", l.spec.Port)
	}
}
