package compile

import (
	"strconv"
	"strings"

	"github.com/outrider-mesh/outrider/mesh/model"
)

// inboundParts are a sidecar's inbound side.
type inboundParts struct {
	listeners []model.Listener
	tables    []model.Table
	clusters  []model.Cluster
}

// inbound takes what comes for each of x's ports to the application, whatever its host: routing was the client's. A Sidecar's
// ingress listener stands in for the port of its number, or is one more.
func (m *Mesh) inbound(w *workload, x *Instance) inboundParts {
	var in inboundParts
	var written []*ingress
	if s := m.sidecarOf(w.Namespace, w.Labels); s != nil {
		written = s.ingress
	}
	done := map[int]bool{}
	for _, l := range written {
		if listen, app := l.place(w, x); listen != "" && app != "" && !done[l.port] {
			done[l.port] = true
			in.add(m, w, x, l.port, l.protocol, listen, app, l)
		}
	}
	for _, tp := range w.Ports {
		for i := range x.Ports {
			if p := &x.Ports[i]; p.Port == tp.Port && p.Listen != "" && p.App != "" && !done[p.Port] {
				done[p.Port] = true
				in.add(m, w, x, p.Port, tp.Protocol, p.Listen, p.App, nil)
			}
		}
	}
	return in
}

// add adds one port: where it listens, and where the application has it.
func (in *inboundParts) add(m *Mesh, w *workload, x *Instance, number int, protocol model.Protocol, listen, app string, written *ingress) {
	name := "inbound|" + strconv.Itoa(number)
	o := w.Origin
	c := model.Cluster{
		Name: name + "||", Kind: model.Application, Port: number, Protocol: spoken(protocol),
		Endpoints: []model.Endpoint{{Address: app, Weight: 1, Instance: x.Name, Peer: w.Peer, Locality: w.Locality}},
	}
	sp := w.serves(number)
	if sp != nil {
		c.Service, c.Port = sp.service.Service, sp.number
	}
	m.inboundPool(&c, w, number, sp)
	l := model.Listener{Name: name, Direction: model.Inbound, Address: listen, Port: number, Protocol: protocol, Table: name, Origin: &o}
	if protocol == model.Auto {
		l.Detect = m.detection()
	}
	if written != nil {
		o = written.origin
		if written.tls != nil {
			t := *written.tls
			t.Table, l.Table = name, ""
			l.TLS = []model.ServerTLS{t}
			c.Protocol = t.Protocol
		}
	}
	kind, limits := "http", m.inboundLimits(w, number)
	if opaque(c.Protocol) {
		kind, limits = "tcp", nil
	}
	route := &model.Route{Destinations: []model.Destination{{Cluster: c.Name, Weight: 1}}}
	if kind == "http" && protocol != model.GRPC {
		route.Retries = m.retry.inbound
	}
	in.clusters = append(in.clusters, c)
	in.listeners = append(in.listeners, l)
	in.tables = append(in.tables, model.Table{Name: name, Hosts: []model.VirtualHost{{
		Name: "inbound|" + kind + "|" + strconv.Itoa(number), Domains: []string{"*"}, RateLimits: limits,
		Rules: []model.Rule{{Origin: o, Route: route}},
	}}})
}

// inboundPool gives c what is said of connections to an application: by the workload's Sidecar, for the port or for all, else by
// the DestinationRule of the service, which is for servers too (Istio). Rules for selected clients are not the server's.
func (m *Mesh) inboundPool(c *model.Cluster, w *workload, number int, p *port) {
	var own policy
	if p != nil {
		own = m.rule(w.Namespace, nil, p.service).settings(p.number, nil)
	}
	pool := own.pool
	if s := m.sidecarOf(w.Namespace, w.Labels); s != nil {
		if chosen := s.inboundPool(number); chosen != nil {
			pool = chosen
		}
	}
	c.ConnectTimeout = m.connectTimeout(pool)
	if c.Limits = m.limits(pool, nil, opaque(c.Protocol)); c.Limits != nil && opaque(c.Protocol) && c.Limits.Idle != nil {
		c.Limits.Idle = nil // of a server's opaque connections, no DestinationRule says it
		if *c.Limits == (model.Limits{}) {
			c.Limits = nil
		}
	}
	if opaque(c.Protocol) || pool.GetHttp() == nil {
		return
	}
	c.MaxStreams = uint32(max(pool.GetHttp().MaxConcurrentStreams, 0))
	if pool.GetHttp().UseClientProtocol {
		c.Protocol = model.Auto
	}
	c.KeepAlive2 = keepAlive2(c.Protocol, pool.GetHttp())
}

// place returns where an ingress listener of x is, and where the application behind it. The listener is where others dial x;
// the application is where the placement has the port that defaultEndpoint names, or this one. What runs at an address of its
// own (WorkloadEntry) is at defaultEndpoint as written.
func (l *ingress) place(w *workload, x *Instance) (listen, app string) {
	listen = authority(x.Address, l.port)
	if !loopback(x.Address) && l.bind != "" && !unspecified(l.bind) {
		listen = authority(l.bind, l.port)
	}
	find := func(number int) *InstancePort {
		for i := range x.Ports {
			if x.Ports[i].Port == number {
				return &x.Ports[i]
			}
		}
		return nil
	}
	if p := find(l.port); p != nil {
		if p.Listen != "" {
			listen = p.Listen
		}
		app = p.App
	}
	colon := strings.LastIndexByte(l.app, ':')
	if colon < 0 {
		return listen, app
	}
	host := strings.Trim(l.app[:colon], "[]")
	n, err := strconv.Atoi(l.app[colon+1:])
	if err != nil {
		return listen, app
	}
	if w.Address == "" && loopback(x.Address) { // the pod is elsewhere: whoever plays it has a port of his own
		if p := find(n); p != nil && p.App != "" {
			app = p.App
		}
		return listen, app
	}
	if unspecified(host) {
		host = x.Address
		if w.entry != nil {
			host = w.Address
		}
	}
	return listen, authority(host, n)
}
