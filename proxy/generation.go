package proxy

import (
	"crypto/tls"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/outrider-mesh/outrider/mesh/certificate"
	"github.com/outrider-mesh/outrider/mesh/model"
	"github.com/outrider-mesh/outrider/mesh/telemetry"
	"github.com/outrider-mesh/outrider/proxy/route"
	"github.com/outrider-mesh/outrider/proxy/upstream"
	"github.com/outrider-mesh/outrider/wire/message"
)

// features are what a snapshot may require of this proxy.
var features = map[string]bool{}

// generation is what a proxy builds from one snapshot and swaps in as a whole.
type generation struct {
	snapshot *model.Snapshot
	bindings map[string]*binding // by listener name
	change   *upstream.Change
	gates    *gates
	answers  map[model.Service]*telemetry.HTTP // what requests count for that the proxy answers itself
	access   *accessLog
	fresh    bool // access's file was opened for this generation
}

// binding is what one listener runs in one generation. An exchange loads it once and keeps it to its end.
type binding struct {
	spec   *model.Listener
	table  *route.Table[*rule]
	opaque *route.Table[*rule] // for connections that are passed on unread, where it differs
	paths  message.PathMode
	// peer is this proxy as it introduces itself to the next one; nil where it does not.
	peer []byte
	// inbound finds the edge of an inbound listener's exchanges by who calls; unrouted counts, on the others, those that
	// reach no cluster.
	inbound     *telemetry.Inbound
	unrouted    *telemetry.HTTP
	answers     map[model.Service]*telemetry.HTTP // the generation's
	unroutedTCP *telemetry.TCP
	reasons     bool // answers of our own carry x-outrider-reason
	port        int  // the port of a request whose authority has none
	// server takes the listener's TLS connections, nil where there are none; tables are those of its chains, by name.
	server  *certificate.Server
	tls     *tls.Config
	tables  map[string]*route.Table[*rule]
	expires func() // ends the telling of when server's certificates expire
}

// routes returns the table of a connection: the listener's, or the one that its TLS chain names; nil where that is gone.
func (b *binding) routes(chain string) *route.Table[*rule] {
	if chain == "" {
		return b.table
	}
	return b.tables[chain]
}

// bytes is routes for a connection that is passed on unread.
func (b *binding) bytes(chain string) *route.Table[*rule] {
	if chain == "" && b.opaque != nil {
		return b.opaque
	}
	return b.routes(chain)
}

// live is a listener's place in the generation in force.
type live = atomic.Pointer[binding]

// build makes a generation of s. It may fail, and touches nothing that is in force.
func (p *Proxy) build(s *model.Snapshot) (*generation, error) {
	for _, f := range s.Requires {
		if !features[f] {
			return nil, fmt.Errorf("the snapshot requires %q, which this proxy does not have", f)
		}
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	paths, ok := message.ParsePathMode(s.Settings.PathNormalization)
	if !ok {
		return nil, fmt.Errorf("there is no path normalization %q", s.Settings.PathNormalization)
	}
	change, err := p.upstream.Prepare(s.Clusters, s.Breakers)
	if err != nil {
		return nil, err
	}
	g := &generation{snapshot: s, bindings: map[string]*binding{}, answers: map[model.Service]*telemetry.HTTP{}, change: change, gates: newGates(p.generation.Load())}
	if err := g.bind(p, paths); err != nil {
		g.discard(p)
		return nil, err
	}
	g.gates.before = nil
	if g.access, g.fresh, err = p.opened(s.Settings.AccessLog, s.Workload.Instance); err != nil {
		g.discard(p)
		return nil, err
	}
	return g, nil
}

// bind compiles each table once and makes the bindings of all listeners.
func (g *generation) bind(p *Proxy, paths message.PathMode) error {
	s := g.snapshot
	if err := g.gates.limit(s.RateLimits, g.change.Clusters); err != nil {
		return err
	}
	tables, opaques := map[string]*route.Table[*rule]{}, map[string]*route.Table[*rule]{}
	for i := range s.Tables {
		t := &s.Tables[i]
		compiled, err := g.table(p, t)
		if err != nil {
			return fmt.Errorf("table %q: %w", t.Name, err)
		}
		tables[t.Name] = compiled
		if other := opaqueTable(t); other != nil {
			if opaques[t.Name], err = g.table(p, other); err != nil {
				return fmt.Errorf("table %q: %w", t.Name, err)
			}
		}
	}
	peer := telemetry.AppendPeer(nil, s.Workload.Peer)
	for i := range s.Listeners {
		l := &s.Listeners[i]
		b := &binding{spec: l, answers: g.answers, table: tables[l.Table], opaque: opaques[l.Table], paths: paths, reasons: l.Reason == "on" || l.Reason == "" && l.Direction != model.Gateway, port: 80}
		switch l.Direction {
		case model.Inbound:
			b.inbound = p.metrics.Inbound(telemetry.Edge{Reporter: telemetry.Destination, Service: g.service(l), Security: "none"})
		default:
			b.peer = peer
			b.unrouted = p.metrics.HTTP(telemetry.Edge{Reporter: telemetry.Source, Security: "unknown"})
			b.unroutedTCP = p.metrics.TCP(telemetry.Edge{Reporter: telemetry.Source, Security: "unknown"})
		}
		g.bindings[l.Name] = b
		if err := b.secure(p, tables); err != nil {
			return fmt.Errorf("listener %q: %w", l.Name, err)
		}
	}
	return nil
}

// table compiles one route table.
func (g *generation) table(p *Proxy, t *model.Table) (*route.Table[*rule], error) {
	for i := range t.Hosts {
		g.account(p.metrics, t.Hosts[i].Service, &rule{})
	}
	return route.Compile(t, func(h *model.VirtualHost, r *model.Rule) (*rule, error) {
		made, err := newRule(r, g.change.Clusters)
		if err == nil && made.retries != nil && made.retries.spec.Allowance != nil {
			made.retries.allowance, err = g.change.Allowance(t.Name+" "+r.Origin.Kind+" "+r.Origin.Namespace+"/"+r.Origin.Name+" "+r.Origin.Rule, made.retries.spec.Allowance)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %s %s/%s: %s: %w", r.Origin.File, r.Origin.Line, r.Origin.Kind, r.Origin.Namespace, r.Origin.Name, r.Origin.Rule, err)
		}
		service := t.Service
		if h != nil {
			service = h.Service
		}
		made.answers = g.account(p.metrics, service, made)
		g.gates.guard(h, r, made, g.change.Clusters)
		return made, nil
	})
}

// account returns what requests of a rule count for that reach no cluster: service, or else the first destination's.
func (g *generation) account(m *telemetry.Metrics, service model.Service, r *rule) *telemetry.HTTP {
	if service == (model.Service{}) {
		for i := range r.targets {
			if c := r.targets[i].cluster; c != nil {
				return c.Unserved
			}
		}
		return nil
	}
	h := g.answers[service]
	if h == nil {
		h = m.HTTP(telemetry.Edge{Reporter: telemetry.Source, Service: service, Security: "unknown"})
		g.answers[service] = h
	}
	return h
}

// opaqueTable is t as it holds for connections that are passed on unread, nil where it is the same.
func opaqueTable(t *model.Table) *model.Table {
	var other *model.Table
	for i := range t.Hosts {
		if t.Hosts[i].Opaque == nil {
			continue
		}
		if other == nil {
			other = &model.Table{Name: t.Name, Hosts: slices.Clone(t.Hosts), Unmatched: t.Unmatched}
		}
		other.Hosts[i].Rules = t.Hosts[i].Opaque
	}
	return other
}

// secure makes what a listener with TLS chains needs.
func (b *binding) secure(p *Proxy, tables map[string]*route.Table[*rule]) (err error) {
	if len(b.spec.TLS) == 0 {
		return nil
	}
	var old *certificate.Server
	if l := p.listeners[b.spec.Name]; l != nil {
		old = l.live.Load().server
	}
	if b.server, err = certificate.NewServer(b.spec.TLS, old, p.log); err != nil {
		return err
	}
	b.tables, b.port, b.tls = tables, 443, b.server.Config()
	b.expires = p.metrics.Certificates(b.server.Expiries)
	return nil
}

// service returns the service that an inbound listener's requests are for: that of its application's cluster.
func (g *generation) service(l *model.Listener) model.Service {
	for i := range g.snapshot.Clusters {
		if c := &g.snapshot.Clusters[i]; c.Kind == model.Application && c.Name == inboundCluster(l.Port) {
			return c.Service
		}
	}
	return model.Service{}
}

func inboundCluster(port int) string { return fmt.Sprintf("inbound|%d||", port) }

// discard gives back what a generation holds that was not put in force.
func (g *generation) discard(p *Proxy) {
	g.change.Discard()
	g.unbind(p)
	if g.fresh {
		g.access.file.Close()
	}
}

// unbind releases the metric handles of the bindings.
func (g *generation) unbind(p *Proxy) {
	for _, h := range g.answers {
		p.metrics.Release(h)
	}
	for _, b := range g.bindings {
		if b.inbound != nil {
			b.inbound.Close()
		}
		if b.expires != nil {
			b.expires()
		}
		if b.unrouted != nil {
			p.metrics.Release(b.unrouted)
			p.metrics.ReleaseTCP(b.unroutedTCP)
		}
	}
}
